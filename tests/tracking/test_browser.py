"""What a newcomer sees of an experiment in a browser, on a tracking server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlflow
import pytest
from browsing import (
    NoBrowserError,
    await_curves,
    browser_page,
    register,
    registered_address,
    show,
    system_metrics_address,
)
from runs import plan_of, run_of

from whichlora.tracking import views
from whichlora.tracking.experiment_page import MEANS, RESULTS
from whichlora.tracking.markdown import run_address

METHODS = ("lora", "dora", "vera", "adalora", "pissa", "rslora")
EXPERIMENT = "six methods"
_FROM_LEFT = """cells => cells
    .sort((a, b) => a.getBoundingClientRect().x - b.getBoundingClientRect().x).map(cell => cell.innerText.trim())"""


@pytest.mark.slow
def test_a_newcomer_finds_the_results(
    server: str, tmp_path: Path, tiny_model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    monkeypatch.setenv("WHICHLORA_WORK", str(tmp_path / "work"))
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(server)
    try:
        with browser_page() as page:
            last = [run_of(plan_of(tiny_model, variant=v, seed=s), EXPERIMENT) for s in (1, 2) for v in METHODS][-1]
            _run_page(_list_to_table(page, server), last.metrics)
            _charts(page, server)
            _system_metrics_and_model(page, server, last.run_id)
    except NoBrowserError as error:
        pytest.skip(str(error))
    finally:
        mlflow.set_tracking_uri(before)


def _list_to_table(page: Any, server: str) -> Any:
    """Go from the list of experiments over the link in the description to the table of results.

    The UI opens an experiment in its pages for agents unless a user has chosen those for the training of models.
    """
    show(page, server, "#/experiments")
    page.get_by_role("link", name=EXPERIMENT).first.click()
    page.get_by_role("button", name="Got it").click()  # an introduction to these pages, at the first visit
    with page.context.expect_page() as opened:  # links in descriptions open a tab
        page.get_by_role("link", name="table", exact=True).click()
    page = opened.value
    page.locator(".ag-row").first.wait_for()
    _await_text(page, "12 matching runs")  # neither base models' scores nor summaries
    heads = page.locator(".ag-header-cell").evaluate_all(_FROM_LEFT)
    wanted = ["variant", "arm", "language", "tl_ratio", "seed", "test/en/f1"]
    assert [head for head in heads if head in wanted] == wanted
    names = page.get_by_role("link").filter(has_text=" sw 0.5 seed ").all_inner_texts()
    assert {name.split()[0] for name in names} == set(METHODS)
    assert (
        page.get_by_role("link", name="Judges", exact=True).count() == 0
    )  # the pages are those for the training of models
    return page


def _run_page(page: Any, metrics: dict[str, float]) -> None:
    """Open the run at the top of the table and read its page."""
    page.get_by_role("link").filter(has_text=f"{METHODS[-1]} sw 0.5 seed 2").first.click()
    page.locator("th", has_text="best shallow baseline").wait_for()
    description = page.locator("table").first.inner_text()
    assert f"{100 * metrics['test/tl/f1']:.1f}" in description
    assert "Swahili" in description
    assert f"{100 * metrics['test/tl/f1_low']:.1f}-{100 * metrics['test/tl/f1_high']:.1f}" in description
    shown = page.locator("a[href*='/metrics'], a[href*='metric']").all_inner_texts()
    model_metrics = [name for name in shown if not name.startswith("system/")]  # of which the UI makes a section
    assert [name for name in model_metrics if name != "train/loss"][:2] == ["test/en/f1", "test/en/f1_low"]
    page.get_by_text("mlflow.artifacts.download_artifacts").wait_for(state="attached")


def _charts(page: Any, server: str) -> None:
    """See each method named in the chart that compares them, over runs and over their means."""
    number = mlflow.get_experiment_by_name(EXPERIMENT).experiment_id  # type: ignore[union-attr]
    for key, count in ((RESULTS, 12), (MEANS, 6)):
        show(page, server, views.address(number, key, charts=True))
        _await_text(page, f"{count} matching runs")
        for method in METHODS:
            page.locator("svg").get_by_text(method, exact=True).first.wait_for()
        for metric in ("test/en/f1", "test/tl/f1"):
            page.get_by_text(metric, exact=True).first.wait_for()


def _system_metrics_and_model(page: Any, server: str, run_id: str) -> None:
    """See the curves of a run, its logged model, and the model among the registered ones."""
    client = mlflow.MlflowClient()
    number = client.get_run(run_id).info.experiment_id
    show(page, server, system_metrics_address(number, run_id))
    await_curves(page)
    model_id = register(client, EXPERIMENT, run_id)
    show(page, server, run_address(number, run_id))
    page.locator(f"a[href*='{model_id}']").first.wait_for()
    page.get_by_text("Registered models", exact=True).first.wait_for()
    show(page, server, registered_address(EXPERIMENT))
    for text in ("champion", "Inputs (2)", "Outputs (4)"):
        page.get_by_text(text).first.wait_for()


def _await_text(page: Any, text: str) -> None:
    """Wait for a text that may be in several elements."""
    page.wait_for_function("text => document.body.innerText.includes(text)", arg=text)
