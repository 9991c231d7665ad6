"""The page of an experiment in the MLflow UI: its description and its views of results.

`python -m whichlora.tracking.experiment_page PORT` prints the addresses of the results of all experiments.
"""

from __future__ import annotations

import contextlib
import hashlib
import sys
from collections.abc import Iterable, Sequence

import mlflow
from mlflow.entities import Experiment, LifecycleStage
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from mlflow.utils.mlflow_tags import MLFLOW_RUN_NOTE

from whichlora.errors import OptionError, printable
from whichlora.masking import masked
from whichlora.tracking import views
from whichlora.tracking.client import connect, find_experiment, search_all
from whichlora.tracking.markdown import escaped, link, paragraphs, run_address
from whichlora.tracking.views import View

RESULTS, MEANS, TRIALS = "whichlora", "whichlora-means", "whichlora-trials"
"""Keys of the views of runs, of summaries over seeds, and of trials of studies."""
ABOUT = "whichlora.about"
"""Tag of an experiment with what its file says it is for."""
REPORT = "whichlora.report"
"""Tag of an experiment with the run of its newest report."""
_LONGEST = 4000
_ATTEMPTS = 5
_MARK = "\n\n<!-- by whichlora: {} -->"
"""End of a description, not shown, with its digest; a description that differs from it is a user's own."""
_MARK_START = _MARK.partition("{}")[0]
_PARAMS = ("variant", "arm", "language", "tl_ratio")
_TRIAL_PARAMS = ("variant", "learning_rate", "rank", "alpha", "epochs", "target_modules", "seed")


def publish(
    client: MlflowClient,
    experiment: Experiment,
    *,
    guide: str,
    metrics: Sequence[str],
    charts: Sequence[str],
    trials: Sequence[str] = (),
) -> None:
    """Describe an experiment and save its views, unless users have changed them.

    Launches, base models' scores, studies, probes and reports are not between the results in these views: a filter
    hides them rather than experiments of their own, in which runs of other versions and machines would not be found.

    Args:
        guide: the end of the description, in Markdown.
        metrics: columns of the views.
        charts: metrics with a chart; the runs are sorted by the last one.
        trials: the same of the trials of a study; empty if there is none.
    """
    experiment_id = experiment.experiment_id
    deviations = [f"{metric}_sd" for metric in charts]
    wanted = [
        (RESULTS, "Results", "run", (*_PARAMS, "seed"), metrics, charts),
        (MEANS, "Means over seeds", "summary", _PARAMS, [*metrics, *deviations, "seeds"], charts),
        (TRIALS, "Trials", "trial", _TRIAL_PARAMS, [*trials, "train/seconds"], trials),
    ]
    for key, name, kind, params, columns, shown in wanted[: 3 if trials else 2]:
        search = f"tags.`whichlora.kind` = '{kind}'"
        view = View(key=key, name=name, search=search, order=shown[-1], params=params, metrics=columns, charts=shown)
        views.save(client, experiment, view)
    _describe(client, experiment_id, guide)


def store_about(client: MlflowClient, experiment_id: str, about: str) -> None:
    """Store what an experiment is for, for its description."""
    with contextlib.suppress(MlflowException):  # such as no permission to change the experiment
        if about and client.get_experiment(experiment_id).tags.get(ABOUT) != about[:_LONGEST]:
            client.set_experiment_tag(experiment_id, ABOUT, about[:_LONGEST])


def link_report(client: MlflowClient, experiment_ids: Iterable[str], run_id: str) -> None:
    """Link the newest report in the descriptions of experiments, and in those that `publish` writes later."""
    for experiment_id in experiment_ids:
        with contextlib.suppress(MlflowException):  # such as no permission to change the experiment
            client.set_experiment_tag(experiment_id, REPORT, run_id)
            _describe(client, experiment_id)


def results_line(client: MlflowClient, name: str, key: str = RESULTS) -> str:
    """Return a line with the address of an experiment's view in the MLflow UI; "" if there is no such experiment."""
    experiment = None
    with contextlib.suppress(MlflowException, OptionError):  # results are there even if the server is not
        experiment = find_experiment(client, name)
    if experiment is None:
        return ""
    page, command = views.address(experiment.experiment_id, key), views.ui_command()
    if command is None:
        return f"Results: {masked(mlflow.get_tracking_uri().rstrip('/'))}/{page}"
    return f"Results, after `{command}`: http://127.0.0.1:5000/{page}"


def _print_addresses(port: str) -> None:
    """Print the address of the results of each experiment that has a view of them."""
    for experiment in search_all(connect().search_experiments):
        if views.PREFIX + RESULTS in experiment.tags:
            page = views.address(experiment.experiment_id, RESULTS)
            print(printable(f"{experiment.name}: http://127.0.0.1:{port}/{page}"))


def _describe(client: MlflowClient, experiment_id: str, guide: str | None = None) -> None:
    """Set the description of an experiment from its tags unless a user has written one.

    It is read again after writing, because another process may have changed a tag or the description in between.

    Args:
        guide: the end of the description; None to keep what stands there.
    """
    for _ in range(_ATTEMPTS):
        experiment = client.get_experiment(experiment_id)
        note = experiment.tags.get(MLFLOW_RUN_NOTE, "")
        ours = note.partition(_MARK_START)[0]
        if note and note != _marked(ours):
            return
        if guide is None and not note:
            return  # `publish` has not described it yet
        rest = (
            ours.partition("\n\n")[2] if guide is None else paragraphs(escaped(experiment.tags.get(ABOUT, "")), guide)
        )
        text = _marked(masked(paragraphs(" · ".join(_links(client, experiment)), rest)))
        if text == note:
            return
        client.set_experiment_tag(experiment_id, MLFLOW_RUN_NOTE, text)


def _links(client: MlflowClient, experiment: Experiment) -> list[str]:
    """Return links to the views of an experiment and to its newest report."""
    experiment_id = experiment.experiment_id
    links = [
        f"**Results:** {link('table', views.address(experiment_id, RESULTS))}",
        link("charts", views.address(experiment_id, RESULTS, charts=True)),
        link("means over seeds", views.address(experiment_id, MEANS)),
        link("charts of means", views.address(experiment_id, MEANS, charts=True)),
    ]
    if views.PREFIX + TRIALS in experiment.tags:
        links.append(link("trials", views.address(experiment_id, TRIALS)))
    if REPORT in experiment.tags:
        with contextlib.suppress(MlflowException):  # it has been deleted for good
            report = client.get_run(experiment.tags[REPORT]).info
            if report.lifecycle_stage == LifecycleStage.ACTIVE:
                links.append(link("report", run_address(report.experiment_id, report.run_id)))
    return links


def _marked(text: str) -> str:
    return text + _MARK.format(hashlib.sha256(text.encode()).hexdigest()[:16])


if __name__ == "__main__":
    _print_addresses(sys.argv[1])
