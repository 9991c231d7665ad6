"""Checks the data of a task and prints what it finds, section by section."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Mapping, Sequence

from whichlora.announcements import announced
from whichlora.config.base_model import read_base_model
from whichlora.config.compatibility import check_compatibility, difficulty_of
from whichlora.config.options import AUTO, RunOptions, parse_options
from whichlora.config.plan import Plan
from whichlora.data.encoding import Encoder
from whichlora.data.metric_names import metric_name
from whichlora.data.targets import target_languages
from whichlora.data.tasks import NAMES, Item, PairTask, Split, Task, get_task
from whichlora.data.tasks.declared import DeclaredTask
from whichlora.data.tasks.qa import QaTask
from whichlora.data_check import inventory, reading, running
from whichlora.data_check.estimate import estimate
from whichlora.data_check.inventory import Data
from whichlora.errors import MemoryExhausted, OptionError, ProofError, parse_unless
from whichlora.evaluation.scoring_methods import prompt_scoring
from whichlora.text_tables import POINTS, shown
from whichlora.variants import get_variant

MAX_TARGETS = 6
"""Number of target languages that are shown if the caller names none."""


def check(options: RunOptions, texts: Mapping[str, str], *, measured: bool) -> None:
    """Print what a task's data holds and what runs will do with it.

    Args:
        options: options of `run`, whose language may be `auto`: the languages that the task pools.
        texts: the texts of these options.
        measured: whether to measure how long a run takes.

    Raises:
        OptionError: an option is not allowed, or the data is missing or cannot be used.
    """
    with warnings.catch_warnings(record=True) as caught:
        task = get_task(options.task, options.prompt_language)
        targets = list(task.pooled) if texts["language"] == AUTO else [texts["language"]]
        for target in targets:
            parse_unless(AUTO, lambda _, code: _check_language(code, texts, task), "language", target)
        with announced(f"Reading the data of {task.name}."):
            data, read, problems = _load(task, targets, options)
        _section(_title(task, options), _about(task))
        if files := inventory.files_table(task, list(data), options.data_dir):
            _section("Files", files)
        left_out = [
            *_not_read(targets, read, problems),
            *_held_out(task),
            *(f"  {shown(str(warning.message))}" for warning in caught),
        ]
        _section("Items", "\n".join([inventory.items_table(data), *left_out]))
        caught.clear()
        if task.labels:
            _section("Labels", inventory.labels_table(task, data))
        with announced("Looking for repeated texts."):
            repeated = inventory.repeated(task, data)
        found = [*repeated.items(), *inventory.shared(task, data).items()]
        lines = [f"  {code}: {text}" for code, texts_ in found for text in texts_] or ["  none"]
        _section("Repeated texts, without regard to case, white space and Unicode form", "\n".join(lines))

        with announced("Loading the tokenizer and planning runs."):
            plans, others = _plans(task, read, texts, data)
            problems |= others
            encoder = _encoder(task, plans, options)
        _show_reading(encoder, data, options)
        if plans:
            _section("Items of a run", running.training_table(task, plans, data))
            title = f"Shallow baselines: {metric_name(task.headline)} in points, without a language model"
            with announced("Computing shallow baselines."):
                floors = _baselines(plans)
            _section(title, floors)
        if problems:
            _section("Runs that are not possible", _listed(problems))
        if plans and measured:
            plan = next(iter(plans.values()))
            _section(f"Time of a run on this machine: {plan.name}", _time(plan))
    known = {f"{task.name} in {code}: {'; '.join(phrases)}" for code, phrases in repeated.items()}
    messages = [text for text in dict.fromkeys(str(warning.message) for warning in caught) if text not in known]
    if messages:
        _section("Warnings", "\n".join(f"  {shown(text)}" for text in messages))


def _load(task: Task, targets: Sequence[str], options: RunOptions) -> tuple[Data, list[str], dict[str, str]]:
    """Return the items of the languages of runs with these targets, the targets, and why those of others are missing.

    At most `MAX_TARGETS` targets are read.

    Raises:
        OptionError: the data cannot be read. A folder may lack some of several targets of a task of the package.
    """

    def load(targets: Sequence[str]) -> Data:
        roles = [languages for target in targets for languages in task.roles(target_languages(task, target)).values()]
        codes = [code for code in dict.fromkeys(itertools.chain(*roles)) if code not in data]
        return inventory.load(task, codes, difficulty=difficulty_of(options, task), data_dir=options.data_dir)

    read: list[str] = []
    data: dict[str, Mapping[Split, Sequence[Item]]] = {}
    problems: dict[str, str] = {}
    if len(targets) == 1 or task.name not in NAMES:
        return load(targets[:MAX_TARGETS]), list(targets[:MAX_TARGETS]), problems
    for target in targets:
        if len(read) == MAX_TARGETS:
            break
        try:
            data |= load([target])
        except OptionError as error:
            if len(problems) == len(targets) - 1:
                raise
            problems[target] = str(error)
        else:
            read.append(target)
    return data, read, problems


def _plans(
    task: Task, targets: Sequence[str], texts: Mapping[str, str], data: Data
) -> tuple[dict[str, Plan], dict[str, str]]:
    """Return the plan of a run for each target, and why there is none for the others.

    Raises:
        OptionError: an option that the user gave is not allowed.
    """
    plans, problems = {}, {}
    for target in targets:
        try:
            plans[target] = running.plan_of(task, target, texts, data)
        except OptionError as error:
            if error.option != "model" and str(texts.get(error.option)) == str(error.value):
                raise  # a model that cannot be used is refused by `_encoder`; otherwise an item is too long for it
            problems[target] = str(error)
    return plans, problems


def _encoder(task: Task, plans: Mapping[str, Plan], options: RunOptions) -> Encoder:
    if plans:
        return next(iter(plans.values())).encoder()
    return read_base_model(options.model, options.chat_template).encoder(task)


def _show_reading(encoder: Encoder, data: Data, options: RunOptions) -> None:
    task = encoder.task
    generates = not isinstance(task, PairTask) and str(prompt_scoring(task, options.scoring)) == "generate"
    limit = f", whose context is {encoder.max_length:,} tokens" if encoder.max_length else ""
    lengths = reading.lengths_table(encoder, data, generates=generates)
    if reading.sampled(data):
        lengths += f"\n  Median and 95 % are those of {reading.MEASURED:,} random items of a split."
    if generates:
        lengths = "\n".join([lengths, *reading.cut_answers(encoder, data)])
    _section(f"Tokens of prompt and answer in {options.model}{limit}", lengths)
    for code, splits in data.items():
        split: Split = "train" if splits["train"] else "test"
        if splits[split]:
            title = f"{split.capitalize()} items in {code}, prompt (|) and answer (>)"
            _section(title, reading.examples(encoder, splits[split]))


def _title(task: Task, options: RunOptions) -> str:
    if isinstance(task, PairTask):
        kind = "pairs of words"
    elif task.own_choices:
        kind = f"one of the {len(task.labels)} choices of each item, scored by {prompt_scoring(task, options.scoring)}"
    elif task.labels:
        kind = f"one of {len(task.labels)} labels, scored by {prompt_scoring(task, options.scoring)}"
    elif isinstance(task, QaTask) or (isinstance(task, DeclaredTask) and task.declaration.kind == "span"):
        kind = "words of a passage, generated"
    else:
        kind = "generated text"
    source = f"source {task.source}" if task.source else "no source"
    languages = ", ".join(task.languages) if len(task.languages) <= 20 else str(len(task.languages))
    return f"{task.name}: {kind}; {source}; languages {languages}; {'parallel' if task.parallel else 'not parallel'}"


def _about(task: Task) -> str:
    about = task.declaration.about.model_dump() if isinstance(task, DeclaredTask) else {}
    lines = [f"  {name}: {'; '.join(v) if isinstance(v, list) else v}" for name, v in about.items() if v]
    return "\n".join(["  synthetic"] * task.synthetic + [shown(line) for line in lines])


def _not_read(targets: Sequence[str], read: Sequence[str], problems: Mapping[str, str]) -> list[str]:
    """Return a line on the target languages that were not read, unless they have a problem that is listed later."""
    more = [target for target in targets if target not in read and target not in problems]
    named = f"{', '.join(more[:MAX_TARGETS])}{', ...' if len(more) > MAX_TARGETS else ''}"
    return [f"  {len(more)} more target languages, each shown with --language: {named}"] if more else []


def _held_out(task: Task) -> list[str]:
    """Return a line on the origin of the validation items of a declared task without such a split."""
    if not isinstance(task, DeclaredTask) or any(data.validation for data in task.declaration.layouts):
        return []
    group = task.declaration.group
    together = f"; items with the same {group} are not divided" if group else ""
    return [f"  Validation items are held out of the training items{together}."]


def _check_language(code: str, texts: Mapping[str, str], task: Task) -> None:
    options = parse_options({**texts, "language": code})
    check_compatibility(options, get_variant(options.variant), task)


def _baselines(plans: Mapping[str, Plan]) -> str:
    lines: dict[str, str] = {}
    for plan in plans.values():
        for test in plan.tests.values():
            if test.language not in lines:
                floors = plan.task.shallow_baselines(plan.mixture.train, test.items)
                lines[test.language] = (
                    ", ".join(f"{name} {POINTS.text(value)}" for name, value in floors.items()) or "none"
                )
    return "\n".join(f"  {language}: {text}" for language, text in lines.items())


def _listed(problems: Mapping[str, str]) -> str:
    lines = [f"  {code}: {text}" for code, text in problems.items()]
    more = list(problems)[MAX_TARGETS:]
    return "\n".join(
        [*lines[:MAX_TARGETS], *([f"  and {len(more)} more languages: {', '.join(more)}"] if more else [])]
    )


def _time(plan: Plan) -> str:
    try:
        return str(estimate(plan))
    except (OptionError, ProofError, MemoryExhausted) as error:
        return f"  not measured, because a run would fail: {error}"


def _section(title: str, text: str) -> None:
    print(f"{title}\n{text}\n" if text else f"{title}\n", flush=True)
