"""The run of kind `comparison` in MLflow, under which the runs of its rounds are, and which holds the answer."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path

from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from comparing.comparison import Comparison
from whichlora.parallel.locks import exclusive
from whichlora.tracking.client import find_experiment, search_all
from whichlora.tracking.markdown import escaped, paragraphs
from whichlora.tracking.run_log import RunLog
from whichlora.tracking.runs import Tracker, work_of

KIND = "comparison"
DEFINITION, PLAN = "comparison.json", "plan.txt"


def find(client: MlflowClient, experiment: str, digest: str) -> Run | None:
    """Return the run of a comparison, or None; of several the oldest."""
    found = find_experiment(client, experiment)
    if found is None:
        return None
    condition = f"tags.`whichlora.kind` = '{KIND}' and tags.`whichlora.fingerprint` = '{digest}'"
    runs = search_all(client.search_runs, [found.experiment_id], condition)
    return min(runs, key=lambda run: (run.info.start_time, run.info.run_id), default=None)


def open_record(comparison: Comparison, tracker: Tracker) -> RunLog:
    """Return the log of a comparison's run, created unless there is one.

    Processes of one machine take a lock. If another machine creates one at the same time the older one is used, and
    the other one deleted.
    """
    client, digest = tracker.client, comparison.digest
    with exclusive(work_of(KIND, digest)):
        found = find(client, tracker.experiment, digest)
        if found is None:
            name = f"comparison of {', '.join(comparison.methods)} {digest[:6]}"
            own = tracker.open(KIND, name, {"fingerprint": digest})
            own.params(_params(comparison))
            fixed = {"methods": list(comparison.methods), **comparison.identity, "settings": comparison.settings}
            text = json.dumps(fixed, indent=1)
            _upload(own, {DEFINITION: text + "\n"})
            found = find(client, tracker.experiment, digest)
            assert found is not None
            if found.info.run_id != own.run_id:
                client.delete_run(own.run_id)
    if found.info.status != "RUNNING":
        client.update_run(found.info.run_id, status="RUNNING")
    tracker.link_launch(found.info.run_id)
    return RunLog(client, found.info.run_id)


def store_plan(log: RunLog, plan: str) -> None:
    """Store the plan of a call, and describe the run by it until there is an answer."""
    _upload(log, {PLAN: plan + "\n"})
    log.describe(paragraphs("**In progress.**", *map(escaped, plan.splitlines())))


def store(log: RunLog, *, texts: Mapping[str, str], note: str, metrics: Mapping[str, float], ended: bool) -> None:
    """Store what is known: files by name, the description and the metrics; `ended` marks the run as finished."""
    _upload(log, texts)
    log.metrics(metrics)
    log.describe(note)
    if ended:
        log.client.set_terminated(log.run_id, "FINISHED")


def _upload(log: RunLog, texts: Mapping[str, str]) -> None:
    """Store texts as artifacts, by name."""
    with tempfile.TemporaryDirectory() as scratch:
        for name, text in texts.items():
            (Path(scratch) / name).write_text(text, encoding="utf-8")
        log.artifacts(Path(scratch))


def _params(comparison: Comparison) -> dict[str, object]:
    rule = comparison.rule
    cells = comparison.cells
    return {
        "methods": "; ".join(comparison.methods),
        "margin": f"{rule.margin:g}",
        "confidence": f"{rule.confidence:g}",
        "primary": rule.primary,
        "max_seeds": rule.max_seeds,
        "seeds": list(rule.rounds),
        "task": list(dict.fromkeys(cell.options.task for cell in cells)),
        "model": list(dict.fromkeys(cell.options.model for cell in cells)),
        "language": list(dict.fromkeys(cell.options.language for cell in cells)),
        **({"studies": [tuned.study for tuned in comparison.tuned]} if comparison.tuned else {}),
    }
