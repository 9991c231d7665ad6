"""Looks at a tracking server in a browser, and takes the screenshots of the docs.

    python tests/browsing.py http://127.0.0.1:5000 NAME-OF-EXPERIMENT docs

takes them of an experiment with several methods on a server that is running (`make ui`).
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from mlflow.tracking import MlflowClient

from whichlora.tracking import views
from whichlora.tracking.experiment_page import MEANS, RESULTS
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
    """Write `results.png`, `compare.png` and `run.png`."""
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


def _take(page: Any, path: Path) -> None:
    for close in page.locator("[role=alert] button[aria-label=Close], [aria-label='Close alert']").all():
        close.click()
    page.wait_for_timeout(2000)  # charts are drawn and redrawn
    page.screenshot(path=path)


if __name__ == "__main__":
    take_screenshots(sys.argv[1].rstrip("/"), sys.argv[2], Path(sys.argv[3]))
