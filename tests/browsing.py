"""Looks at a tracking server in a browser, and takes the screenshots of the docs.

    python tests/browsing.py http://127.0.0.1:5000 NAME-OF-EXPERIMENT docs
    python tests/browsing.py docs/pocket-study/report.html

takes them of an experiment with several methods on a server that is running (`make ui`), and of the first screen of a
report, into `report.png` beside it.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import quote

from mlflow.tracking import MlflowClient

from whichlora.tracking import views
from whichlora.tracking.experiment_page import MEANS, RESULTS
from whichlora.tracking.logged_models import model_of_run
from whichlora.tracking.markdown import run_address

WAIT = 60_000
"""Milliseconds; the first page of the UI loads megabytes of scripts on a busy machine."""
SIZE = {"width": 1500, "height": 1000}
PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
_HIDE_ASSISTANT = """
localStorage.setItem("mlflow.assistant.fab.autoOpenedOnFirstLoad_v1", "true");
localStorage.setItem("mlflow.assistant.panelOpen_v1", "false");
"""


class NoBrowserError(Exception):
    """There is no browser that playwright can drive."""


@contextmanager
def browser_page() -> Iterator[Any]:
    """Yield a page of a headless Chromium, Debian's or playwright's own.

    Raises:
        NoBrowserError: playwright or a browser is not installed.
    """
    try:
        playwright = import_module("playwright.sync_api")
    except ImportError as error:
        raise NoBrowserError("playwright is not installed") from error
    with playwright.sync_playwright() as driver:
        own = Path(driver.chromium.executable_path)
        program = next(filter(None, map(shutil.which, PROGRAMS)), str(own) if own.exists() else None)
        if program is None:
            raise NoBrowserError(f"no browser: none of {', '.join(PROGRAMS)}, and no `playwright install chromium`")
        browser = driver.chromium.launch(executable_path=program, args=["--no-sandbox"])
        try:
            page = browser.new_page(viewport=SIZE)
            page.set_default_timeout(WAIT)
            page.add_init_script(_HIDE_ASSISTANT)
            yield page
        finally:
            browser.close()


def show(page: Any, server: str, address: str) -> None:
    """Open a page of the UI by its address relative to the server."""
    page.goto("about:blank")  # otherwise the UI keeps what it has loaded for another address
    page.goto(f"{server}/{address}")


def take_screenshots(server: str, experiment: str, folder: Path) -> None:
    """Write `results.png`, `compare.png`, `run.png`, `system-metrics.png` and, of the run's model, `registered.png`.

    The model is registered under the name of the experiment if it is not registered.
    """
    client = MlflowClient(server)
    number = client.get_experiment_by_name(experiment).experiment_id
    run = client.search_runs([number], "tags.`whichlora.kind` = 'run'", max_results=1)[0].info.run_id
    summarised = client.search_runs([number], "tags.`whichlora.kind` = 'summary'", max_results=1)
    with browser_page() as page:
        show(page, server, views.address(number, RESULTS))
        page.locator(".ag-row").first.wait_for()
        _take(page, folder / "results.png")
        show(page, server, views.address(number, MEANS if summarised else RESULTS, charts=True))
        page.locator(".parcoords text, svg .legendtext").first.wait_for(state="attached")
        _take(page, folder / "compare.png")
        show(page, server, run_address(number, run))
        page.get_by_text("Show more").first.click()
        _take(page, folder / "run.png")
        show(page, server, system_metrics_address(number, run))
        await_curves(page)
        _take(page, folder / "system-metrics.png")
        register(client, experiment, run)
        show(page, server, registered_address(experiment))
        page.get_by_text("champion").first.wait_for()
        _take(page, folder / "registered.png")


def take_first_screen(report: Path) -> None:
    """Write `report.png` beside a report: what it shows before the reader scrolls."""
    with browser_page() as page:
        page.set_viewport_size({"width": 1400, "height": 1050})
        page.goto(report.resolve().as_uri())
        page.screenshot(path=report.with_suffix(".png"))


def system_metrics_address(experiment_id: str, run_id: str) -> str:
    """Return the address of the curves of a run's use of resources."""
    path, mark, workflow = run_address(experiment_id, run_id).partition("?")
    return f"{path}/system-metrics{mark}{workflow}"


def registered_address(name: str) -> str:
    """Return the address of the first version of a registered model."""
    return f"#/models/{quote(name)}/versions/1?workflowType=machine_learning"


def await_curves(page: Any) -> None:
    """Wait until the page of system metrics has drawn some; those further down are drawn when they come into view."""
    page.get_by_text("cpu_utilization_percentage", exact=True).first.wait_for()
    page.locator("svg path.js-line").first.wait_for(state="attached")


def register(client: MlflowClient, name: str, run_id: str) -> str:
    """Register the model of a run as champion under `name`, if this is a new name, and return the model's id."""
    model = model_of_run(client, run_id)
    assert model is not None
    if not client.search_registered_models(f"name = '{name}'"):
        client.create_registered_model(name)
        client.create_model_version(name, model.model_uri, run_id=run_id, model_id=model.model_id)
        client.set_registered_model_alias(name, "champion", "1")
    return str(model.model_id)


def _take(page: Any, path: Path) -> None:
    for close in page.locator("[role=alert] button[aria-label=Close], [aria-label='Close alert']").all():
        close.click()
    page.wait_for_timeout(2000)  # charts are drawn and redrawn
    page.screenshot(path=path)


if __name__ == "__main__":
    if sys.argv[1].endswith(".html"):
        take_first_screen(Path(sys.argv[1]))
    else:
        take_screenshots(sys.argv[1].rstrip("/"), sys.argv[2], Path(sys.argv[3]))
