"""Saved views of an experiment in the MLflow UI: its filter, columns and charts, in a tag of the experiment.

The names in a state are those of MLflow 3.17's UI, which ignores those that it does not know.
"""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import mlflow
from mlflow.entities import Experiment
from mlflow.tracking import MlflowClient

from whichlora.caller import caller_folder
from whichlora.masking import masked
from whichlora.tracking.sqlite import database_file

PREFIX = "mlflow.sharedViewState."
"""Tags of an experiment with the views that its menu "Views" offers."""
_SECTION = {
    "uuid": "whichlora-scores",
    "name": "Scores",
    "display": True,
    "isReordered": True,
    "deleted": False,
    "isGenerated": False,
    "columns": 3,
    "cardHeight": 480,  # pixels
}
_PARAM_WIDTH, _METRIC_WIDTH = 75, 96
"""Pixels; with the UI's own widths the scores in the second language are beyond the edge of usual windows."""
_CHARTS_RUNS = 100
"""Runs in a chart; the UI would show ten."""


def ui_command() -> str | None:
    """Return the command that opens the UI of the tracking database in use; None if a server shows it already.

    In a clone of the repository that is `make ui`, which finds the program in the virtual environment.
    """
    uri = mlflow.get_tracking_uri()
    file = database_file(uri)
    if file is None:
        return None
    if file.parent != caller_folder():
        return f"mlflow ui --backend-store-uri {shlex.quote(masked(uri))}"
    return "make ui" if (file.parent / "Makefile").is_file() else "mlflow ui"


@dataclass(frozen=True, kw_only=True)
class View:
    """A view of an experiment.

    Attributes:
        key: names it in addresses.
        name: names it in the UI's menu.
        search: filter of the runs.
        order: metric by which runs are sorted, the highest first; by time, the UI would nest them under their parents.
        params, metrics: columns, in this order.
        charts: metrics that have a bar chart in the first section, in this order, after one of parallel coordinates of
            all of them, on whose first axis are the values of the first of `params`.
    """

    key: str
    name: str
    search: str
    order: str
    params: Sequence[str]
    metrics: Sequence[str]
    charts: Sequence[str]

    def state(self) -> dict[str, Any]:
        """Return the state of the UI that shows this view."""
        widths = {_column("params", name): _PARAM_WIDTH for name in self.params}
        widths |= {_column("metrics", name): _METRIC_WIDTH for name in self.metrics}
        columns = list(widths)
        return {
            "searchFilter": self.search,
            "orderByKey": _column("metrics", self.order),
            "orderByAsc": False,
            "startTime": "ALL",
            "lifecycleFilter": "Active",
            "modelVersionFilter": "All Runs",
            "datasetsFilter": [],
            "selectedColumns": columns,
            "columnOrder": columns,
            "columnWidths": widths,
            "runsHiddenMode": "SHOW_ALL",
            "compareRunCharts": [_lines(self.params[:1], self.charts), *map(_bars, self.charts)],
            "compareRunSections": [_SECTION],
            "isAccordionReordered": True,
            "hideEmptyCharts": True,
        }


def address(experiment_id: str, key: str, *, charts: bool = False) -> str:
    """Return the address of a view relative to any page of the MLflow UI, in its pages for the training of models."""
    mode = "&compareRunsMode=CHART" if charts else ""
    return f"#/experiments/{experiment_id}/runs?viewStateShareKey={key}&workflowType=machine_learning{mode}"


def save(client: MlflowClient, experiment: Experiment, view: View) -> None:
    """Save a view, with the columns and charts that an earlier one of its key has besides.

    A view that a user has changed in the UI stays as it is.
    """
    tag = f"{PREFIX}{view.key}"
    saved = _read(experiment.tags.get(tag))
    if saved.get("updatedAt") != saved.get("createdAt"):
        return
    state, before = view.state(), json.loads(saved.get("state", "{}"))
    for name in ("selectedColumns", "columnOrder"):
        state[name] = list(dict.fromkeys([*before.get(name, []), *state[name]]))
    state["columnWidths"] = {**before.get("columnWidths", {}), **state["columnWidths"]}
    charts = {chart["uuid"]: chart for chart in [*before.get("compareRunCharts", []), *state["compareRunCharts"]]}
    state["compareRunCharts"] = list(charts.values())
    if state != before:
        now = int(time.time() * 1000)
        envelope = {"name": view.name, "createdAt": now, "updatedAt": now, "state": json.dumps(state)}
        client.set_experiment_tag(experiment.experiment_id, tag, json.dumps(envelope))


def _read(tag: str | None) -> Mapping[str, Any]:
    """Return the content of a view's tag; empty if there is none, or one that this version does not understand."""
    try:
        content = json.loads(tag or "{}")
        json.loads(content.get("state", "{}"))
    except (ValueError, TypeError, AttributeError):
        return {"createdAt": 0, "updatedAt": 1}
    return dict(content)


def _column(kind: str, name: str) -> str:
    return f"{kind}.`{name}`"


def _bars(metric: str) -> dict[str, Any]:
    return _card(f"chart-{metric}", type="BAR", metricKey=metric)


def _lines(params: Sequence[str], metrics: Sequence[str]) -> dict[str, Any]:
    """Return a chart of parallel coordinates, whose first axes have the values of params as their labels."""
    return _card(
        "whichlora-lines",
        type="PARALLEL",
        selectedParams=list(params),
        selectedMetrics=list(metrics),
        showAllRuns=True,
    )


def _card(uuid: str, **content: Any) -> dict[str, Any]:
    common = {"metricSectionId": _SECTION["uuid"], "runsCountToCompare": _CHARTS_RUNS, "deleted": False}
    return {"uuid": uuid, **content, **common, "isGenerated": False}
