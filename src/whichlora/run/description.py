"""Describes runs for their pages in MLflow: scores, what was trained on what, and the commands that use it."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from mlflow.entities import Run

from whichlora.config.plan import Plan, TestSet
from whichlora.data.general_text import UDHR, GeneralText
from whichlora.data.language_names import join_names, language_name
from whichlora.data.logged_scores import best_floor, controls_of, interval_of, scores_by_language
from whichlora.data.metric_names import metric_name, scale_of
from whichlora.data.targets import target_languages
from whichlora.data.tasks import PairTask
from whichlora.data.tasks.base import RetrievalTask
from whichlora.models.packaged import CATALOGUE, DEFAULT
from whichlora.text_tables import POINTS, SHARES
from whichlora.tracking.markdown import code, escaped, paragraphs, run_address, table

SYNTHETIC = (
    "**Synthetic task:** its scores show that the platform works and how much seeds matter, not which method is better "
    "for real text."
)

SCALE = "F1 and other scores of tasks are in points here (0 to 100); the same metrics in MLflow are between 0 and 1."

_SITES = ("pooled", "output")
"""Where the states of word pairs are compared."""


def finished(
    kind: str, plan: Plan, metrics: Mapping[str, float], run_id: str, experiment: str, *, model: str | None
) -> str:
    """Return the description of a finished run, or of a finished trial, which is scored on validation items only.

    Args:
        model: URI of the MLflow model that the run has logged, if any.
    """
    if kind == "trial":
        return paragraphs(_validation_scores(plan, metrics), about(plan, kind))
    return paragraphs(
        scores(plan, metrics), forgetting(metrics), about(plan), _commands(plan, run_id, experiment, model)
    )


def _validation_scores(plan: Plan, metrics: Mapping[str, float]) -> str:
    key = plan.task.headline
    rows = [
        [_role(plan, role), scale_of(key).text(metrics[f"validation/{role}/{key}"])]
        for role in plan.mixture.validation
        if f"validation/{role}/{key}" in metrics
    ]
    return paragraphs(table(["validation items", _measure(key)], rows), SCALE) if rows else ""


def summarised(plan: Plan, metrics: Mapping[str, float], runs: Sequence[Run]) -> str:
    """Return the description of a summary of runs that differ from the plan in their seeds alone."""
    rows = []
    for test in plan.tests.values():
        for name, title in _headlines(test).items():
            if not {f"test/{name}", f"base/{name}"} <= metrics.keys():  # not in all of the runs
                continue
            mean, sd, low, high = (metrics[f"test/{name}{end}"] for end in ("", "_sd", "_low", "_high"))
            base = metrics[f"base/{name}"]
            scale = scale_of(name)
            cells = [f"**{scale.text(mean)}**", scale.text(sd), scale.interval(low, high), scale.text(base)]
            rows.append([escaped(title), *cells, scale.gain(mean - base)])
    head = ["test items", f"mean of {len(runs)} seeds", "standard deviation", "95 % interval", "base model", "gain"]
    numbers = [escaped(run.data.params["seed"]) for run in runs]
    pages = [run_address(run.info.experiment_id, run.info.run_id) for run in runs]
    links = ", ".join(f"[seed {number}]({page})" for number, page in zip(numbers, pages, strict=True))
    text = (
        "The interval is that of the mean, by Student's t over seeds; it leaves out the choice of items, and "
        f"with few seeds it can extend beyond the range of the score. {SCALE}"
    )
    return paragraphs(table(head, rows), f"{text} Runs: {links}.", about(plan, seeds=f"seeds {', '.join(numbers)}"))


def _headlines(test: TestSet) -> dict[str, str]:
    """Return the headline metrics of a test set, without `test/`, with the titles of their rows."""
    if isinstance(test.task, PairTask):
        return {f"{test.name}/{site}/p1/to/centred": f"P@1 of {_title(test)}, {site} state" for site in _SITES}
    return {f"{test.name}/{test.task.headline}": test.title}


def _title(test: TestSet) -> str:
    return f"{test.name} pairs" if isinstance(test.task, PairTask) else test.title


def about(plan: Plan, kind: str = "run", *, seeds: str | None = None) -> str:
    """Return what a run or a trial trains on what, as known before it starts; `seeds` stands for those of several."""
    facts = _facts(plan, seeds or f"seed {plan.spec.seed}")
    if kind != "trial":  # whose test items are not scored
        sizes = [f"{len(test.items):,} items {escaped(_title(test))}" for test in plan.tests.values()]
        facts.append(f"**Scored on:** {', '.join(sizes)}")
    return paragraphs(SYNTHETIC if plan.task.synthetic else "", "\n".join(f"- {line}" for line in facts))


def base(test: TestSet, model: str, metrics: Mapping[str, float]) -> str:
    """Return the description of the base model's scores on a test set; `metrics` have no prefix."""
    rows = [[escaped(metric_name(key)), _measured(test, key, value)] for key, value in metrics.items()]
    facts = (
        f"Scores of the base model {escaped(model)} without an adapter, with which runs on these items are compared."
    )
    items = f"- **Scored on:** {escaped(test.task.name)}, {len(test.items):,} items {escaped(test.title)}"
    note = SYNTHETIC if test.task.synthetic else ""
    return paragraphs(table(["measure", "score"], rows[:20]), SCALE, facts, items, note)


def _measured(test: TestSet, key: str, value: float) -> str:
    """Return one of the base model's metrics on a test set: a count, a measure of pairs or a score in points."""
    if key.endswith("_answers"):
        return f"{value:,.0f}"
    return (SHARES if isinstance(test.task, RetrievalTask) else POINTS).text(value)


def base_text(text: GeneralText, model: str, nats: float, tokens: int) -> str:
    """Return the description of the base model's cross-entropy on a general text."""
    rows = [["cross-entropy, nats per token", f"{nats:.4f}"], ["tokens", f"{tokens:,}"]]
    facts = f"The base model {escaped(model)} without an adapter, with which forgetting is compared."
    where = "Universal Declaration of Human Rights" if text.origin == UDHR else escaped(Path(text.origin).name)
    return paragraphs(table(["measure", "value"], rows), facts, f"- **General text:** {where}, {escaped(text.name)}")


def forgetting(metrics: Mapping[str, float]) -> str:
    """Return a table of the cross-entropy of general text before and after training; "" without any."""
    names = [name.split("/")[1] for name in metrics if name.startswith("forgetting/") and name.endswith("/ce_rise")]
    rows = [
        [
            escaped(language_name(name)),
            *(f"{metrics[f'forgetting/{name}/{key}']:.3f}" for key in ("base_ce", "ce")),
            f"{metrics[f'forgetting/{name}/ce_rise']:+.3f}",
            f"{metrics[f'forgetting/{name}/tokens']:,.0f}",
        ]
        for name in names
    ]
    head = ["general text", "base model, nats per token", "trained", "rise (forgetting)", "tokens"]
    return table(head, rows) if rows else ""


def scores(plan: Plan, metrics: Mapping[str, float]) -> str:
    """Return a table of the scores on each test set, with the base model's and those of the best shallow baseline."""
    if isinstance(plan.task, PairTask):
        return _pair_scores(plan, metrics)
    keys = {test.task.headline for test in plan.tests.values()}
    name = _measure(keys.pop()) if len(keys) == 1 else "score"
    head = ["test items", name, "95 % interval", "base model", "gain", "best shallow baseline"]
    rows = [row for test in plan.tests.values() for row in _rows(test, metrics)]
    return paragraphs(table(head, rows), SCALE)


def _measure(key: str) -> str:
    """Return the name of a metric with its unit."""
    return f"{metric_name(key)}, points" if scale_of(key) is POINTS else metric_name(key)


def _rows(test: TestSet, metrics: Mapping[str, float]) -> list[list[str]]:
    """Return the row of a test set, followed by those of its controls, and of its languages if there are several."""
    key, floor = test.task.headline, best_floor(metrics, test.name)
    whole = [
        escaped(test.title),
        *_cells(test, metrics, key),
        "" if floor is None else f"{scale_of(key).text(floor[1])} ({escaped(floor[0].replace('_', ' '))})",
    ]
    whole[1] = f"**{whole[1]}**"
    controls = [[metric_name(name), *_cells(test, metrics, name), ""] for name in controls_of(metrics, test.name)]
    each = scores_by_language(metrics, f"test/{test.name}", key, test.task.languages)
    languages = [[escaped(language_name(code)), scale_of(key).text(score), *[""] * 4] for code, score in each.items()]
    return [whole, *controls, *languages]


def _cells(test: TestSet, metrics: Mapping[str, float], key: str) -> list[str]:
    """Return a metric of a test set, its interval, that of the base model, and the difference."""
    score, base = (metrics[f"{when}/{test.name}/{key}"] for when in ("test", "base"))
    ends = interval_of(metrics, f"test/{test.name}/{key}")
    scale = scale_of(key)
    interval = "" if ends is None else scale.interval(*ends)
    return [scale.text(score), interval, scale.text(base), scale.gain(score - base)]


def _pair_scores(plan: Plan, metrics: Mapping[str, float]) -> str:
    rows = []
    for test in plan.tests.values():
        if not isinstance(test.task, PairTask):
            rows += [[escaped(row[0]), "", row[3], row[1].strip("*")] for row in _rows(test, metrics)]
            continue
        for site in _SITES:
            for name, measure in (("P@1", "p1/to/centred"), ("cosine of translations", "cosine/translation/raw")):
                before, after = (metrics[f"{when}/{test.name}/{site}/{measure}"] for when in ("base", "test"))
                rows.append([f"{escaped(_title(test))}, {site} state", name, SHARES.text(before), SHARES.text(after)])
    return paragraphs(table(["test items", "measure", "base model", "trained"], rows), SCALE)


def _facts(plan: Plan, seeds: str) -> list[str]:
    spec, task = plan.spec, plan.task
    counts = Counter(item.language for item in plan.mixture.train)
    items = ", ".join(f"{number:,} {escaped(language_name(language))}" for language, number in counts.items())
    revision = plan.source.revision or spec.model_digest
    facts = [f"**Model:** {escaped(plan.model_name)}, revision {escaped(revision[:12])}, {spec.precision}{_nf4(plan)}"]
    if plan.variant.trains:
        facts.insert(0, f"**Method:** {escaped(plan.variant.title)}, {_settings(plan)}")
        facts.append(f"**Trained on:** {escaped(task.name)}, {len(plan.mixture.train):,} items: {items}; {seeds}")
    else:
        facts.insert(0, "**Method:** none, the base model as it is")
        facts.append(f"**Task:** {escaped(task.name)}; {seeds}")
    return facts


def _nf4(plan: Plan) -> str:
    return "" if plan.spec.quantization == "none" else f", {plan.spec.quantization}"


def _settings(plan: Plan) -> str:
    spec = plan.spec
    values = {
        "arm": spec.arm,
        "rank": spec.rank,
        "alpha": spec.alpha and f"{spec.alpha:g}",
        "learning rate": spec.learning_rate and f"{spec.learning_rate:g}",
        "epochs": spec.epochs,
        "batch size": spec.batch_size,
    }
    return ", ".join(f"{name} {escaped(value)}" for name, value in values.items() if value is not None)


def _role(plan: Plan, role: str) -> str:
    """Return the languages of a role of validation items."""
    languages = [plan.task.source] if role == "en" else target_languages(plan.task, plan.spec.language)
    return escaped(join_names(code for code in languages if code))


def _commands(plan: Plan, run_id: str, experiment: str, model: str | None) -> str:
    commands = []
    if model is not None:
        commands += ["# predicts the rows of a table", f"whichlora predict --run_id {run_id} --input TABLE.csv"]
    if plan.variant.trains:
        form = " --form merged" if plan.variant.trains_whole_model else ""
        commands += ["# writes the trained model to a folder", f"whichlora export --run_id {run_id}{form}"]
    commands += [
        "# looks into the model, layer by layer",
        f"whichlora probe --run_id {run_id}",
        "# compares the runs of the experiment in a report",
        f"whichlora analyze --experiment {shlex.quote(experiment)}",
    ]
    return paragraphs(_reload(plan, run_id, model), code(commands, "sh"))


def _reload(plan: Plan, run_id: str, model: str | None) -> str:
    predictor = [] if model is None else [f'predictor = mlflow.pyfunc.load_model("{model}")  # predicts tables']
    if not plan.variant.trains:
        return code(["import mlflow", *predictor], "python") if predictor else ""
    name, revision = plan.source.name_or_path, plan.source.revision
    imports = ["import mlflow", *_base_import(plan), "from transformers import AutoModelForCausalLM"]
    folder = f'folder = mlflow.artifacts.download_artifacts("runs:/{run_id}/adapter")'
    if plan.variant.trains_whole_model:
        return code([*imports, folder, "model = AutoModelForCausalLM.from_pretrained(folder)", *predictor], "python")
    at = f", revision={revision!r}" if revision else ""
    base, note = repr(name), ""
    if plan.spec.model in CATALOGUE:
        base = f"packaged_model_path({'' if plan.spec.model == DEFAULT else repr(plan.spec.model)})"
    elif plan.source.gguf is not None:
        base, note = repr("PATH/TO"), "  # the folder of the GGUF file"
        at = f", gguf_file={Path(plan.source.gguf).name!r}"
    elif not revision:
        base, note = repr(f"PATH/TO/{Path(name).name}"), "  # the folder of the base model"
    lines = [
        imports[0],
        "from peft import PeftModel",
        *imports[1:],
        folder,
        f"base = AutoModelForCausalLM.from_pretrained({base}{at}){note}",
        "model = PeftModel.from_pretrained(base, folder)",
        *predictor,
    ]
    return code(lines, "python")


def _base_import(plan: Plan) -> Sequence[str]:
    packaged = plan.spec.model in CATALOGUE and not plan.variant.trains_whole_model
    return ["from whichlora.models.packaged import packaged_model_path"] if packaged else []
