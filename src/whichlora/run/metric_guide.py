"""Explains the metrics of runs, once for each experiment, and says which of them are shown first."""

from __future__ import annotations

import contextlib

from mlflow.exceptions import MlflowException

from whichlora.config.plan import Plan
from whichlora.data.metric_names import WORDS_RETRIEVED
from whichlora.data.tasks import PairTask
from whichlora.tracking import experiment_page
from whichlora.tracking.client import find_experiment
from whichlora.tracking.runs import Tracker

GUIDE = """
**Metrics.** Scores are shares from 0 to 1, and in the descriptions of runs points from 0 to 100. \
`en` is the source language (English, unless the task says another), `tl` \
the target languages.

- `test/en/f1`, `test/tl/f1`: F1 on the test items (micro-F1 for labels, token F1 for QA); `_low` and `_high` are its \
95 % interval over items
- `test/tl/sw/f1`: the score in one of several target languages
- `test/tl/control_f1`, `test/tl/adjusted_f1`: for choices, what their likelihood without the premise predicts, and \
the likelihood minus that
- `base/...`: the same scores of the base model without an adapter; `gain/en`, `gain/tl`: test minus base
- `floor/...`: scores of shallow baselines on the same items; a model that has learnt the task is above them
- `validation/...`: scores on the items that select the checkpoint
- `test/retention/...`: a task that was not trained, to see what was forgotten
- `forgetting/en/ce_rise`: how much the cross-entropy of general text rises from the plain base model to the trained \
one, nats per token; `base_ce` and `ce` are before and after
- `test/tl/language_consistency`: share of generated answers in the language of their item, of those with 30 \
letters or more (`..._answers`)
- `test/alignment/tatoeba/p1`: share of English sentences whose translation is the nearest of all, by the cosine of \
states in the middle of the model; `floor/...` has chance
- `adapter/...`: the number of trainable parameters, bytes of the files; `train/...`: loss, seconds, speed, price
- `inference/...`: time of one prompt to the first and to each further token, tokens per second of a batch, with the \
adapter unmerged; `inference/merged/...`: merged. Comparable only if nothing else used the device
- `gpu/...`, `host/...`: memory, load, energy during training; `system/...`: the curves behind them

**Kinds of runs** are in the tag `whichlora.kind`: `run` (one method with one seed), `summary` (one method over its \
seeds), `base` (scores of the base model), `study` and `trial` (tuning), `probe`, `report` and `launch`. Each view \
shows one of the kinds. The scores of a `summary` are means; `_sd` is the standard deviation over seeds, `_low` and \
`_high` are the 95 % interval of the mean by Student's t, and `seeds` is their number.

The UI's pages for the training of models, which have no traces or judges, are under *Model training* at the top left.
""".strip()


def publish_page(plan: Plan, tracker: Tracker, kind: str = "run") -> None:
    """Describe the experiment of a run or trial and save its views; the run does not depend on it."""
    metrics, charts = [], []
    for name, test in plan.tests.items():
        pairs = isinstance(test.task, PairTask)
        key = f"test/{name}/" + (WORDS_RETRIEVED if pairs else test.task.headline)
        metrics += [key] if pairs else [key, f"{key}_low", f"{key}_high"]
        charts.append(key)
    with contextlib.suppress(MlflowException):  # such as no permission to change the experiment
        experiment = find_experiment(tracker.client, tracker.experiment)
        if experiment is not None:
            columns = [*metrics, "train/seconds"]
            # Runs are sorted by the target language, also if another task is scored.
            charts = sorted(charts, key=lambda name: name.startswith("test/tl/"))
            roles = [f"validation/{role}/{plan.task.headline}" for role in plan.mixture.validation]
            experiment_page.publish(
                tracker.client,
                experiment,
                guide=GUIDE,
                metrics=columns,
                charts=charts,
                trials=roles if kind == "trial" else (),
            )
