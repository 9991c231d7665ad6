"""Options of the command `run`: their names, defaults and help texts, and the parser of their values."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from whichlora.caller import given_path
from whichlora.config.layers import parse_layers
from whichlora.data.chat import NONE, read_template
from whichlora.data.mixture import COMPOSITIONS
from whichlora.data.targets import canonical_language
from whichlora.data.tasks import NAMES, PROMPTED, PROMPTED_VALUES, VALUES, Task, task_class
from whichlora.data.tasks.prompts import PROMPT_LANGUAGES, PromptLanguage
from whichlora.errors import OptionError, check_choice, check_text, is_folder, parse_integer, parse_number
from whichlora.models.packaged import DEFAULT, packaged_names
from whichlora.variants import CATALOGUE, choose_variant

AUTO = "auto"
ARMS = ("recommended", "matched", "tuned")
SCORINGS = ("likelihood", "generate")
SELECT_ON = ("en", "tl", "mean")
ALIGNMENTS = ("none", "tatoeba")
FIRST_TOKEN = ("drop", "keep")
PRECISIONS = ("fp32", "bf16")
QUANTIZATIONS = ("none", "nf4")
MAX_EPOCHS = 10_000
MAX_ALPHA = 10**6

RUN_OPTIONS = {
    "variant": (
        "lora",
        f"Adapter method: {', '.join(CATALOGUE)}, or one of an installed package (listed by whichlora variants).",
    ),
    "arm": (
        "matched",
        "Where hyperparameters come from: recommended (the method's own source), matched (equal for all methods), or "
        "tuned (found by a study, set as options).",
    ),
    "task": ("atlas-nli", f"Task to train and score: {VALUES}."),
    "difficulty": (AUTO, "normal or hard, for tasks that have both."),
    "language": (
        "sw",
        "Target language (ISO 639-1), or several that are trained together: tr,az in equal shares, tr:2,az:1 in given "
        "ones, or pooled for a fixed set of languages per task.",
    ),
    "model": (DEFAULT, f"Base model: {packaged_names()} (packaged), a folder, a GGUF file, or a hub id."),
    "tl_ratio": (AUTO, "Target-language items as a share of train_size, from 0 to 1; 1 for a task without a source."),
    "composition": (
        "substitution",
        "substitution: target items replace source items; addition: they are added to the source items.",
    ),
    "train_size": (AUTO, "Number of training items; with composition=addition, of source items."),
    "validation_size": (AUTO, "Number of validation items per language."),
    "test_size": (AUTO, "Number of test items per language."),
    "seed": ("42", "Random seed of the data sample, the initialisation of the adapter and the order of items."),
    "rank": (AUTO, "Rank of the update; for AdaLoRA, the final average rank."),
    "alpha": (AUTO, "Scaling: the update is multiplied by alpha / rank."),
    "learning_rate": (AUTO, "Peak learning rate."),
    "epochs": (AUTO, "Number of epochs."),
    "batch_size": (AUTO, "Items per optimiser step; if memory runs out, the step is split into several passes."),
    "warmup": (AUTO, "Share of the optimiser steps, 0 to 1, over which the learning rate rises to its peak."),
    "target_modules": (AUTO, "all-linear, or names of linear modules, separated by commas."),
    "layers": ("all", "Decoder blocks to adapt, counted from 0: all, first:N, last:N, A-B or A, separated by commas."),
    "prompt_language": (
        AUTO,
        "Language of instruction and labels: en (or the task's source), or item for that of each item.",
    ),
    "chat_template": (
        AUTO,
        "Form of prompts and answers: none (plain text), a file with a Jinja chat template, or auto: what the task's "
        "declaration says, else the tokenizer's own if the model is an instruct model.",
    ),
    "pool_layer": (
        AUTO,
        "For align-words: decoder block, counted from 0, whose output the loss uses; auto is the last adapted block.",
    ),
    "first_token": (
        AUTO,
        "For align-words: drop or keep the first token when the hidden states of a word are averaged.",
    ),
    "retention": (
        "none",
        f"Second task that is scored but not trained, to measure forgetting: none, {PROMPTED_VALUES}.",
    ),
    "retention_size": (AUTO, "Number of test items per language of the retention task."),
    "alignment": (
        "none",
        "Sentences in English and each target language whose alignment is measured before and after training: none, or "
        "tatoeba.",
    ),
    "alignment_size": (AUTO, "Number of sentence pairs per language of alignment; auto is all."),
    "alignment_dir": (AUTO, "Folder with LASER's files of Tatoeba; auto is data_dir."),
    "scoring": (AUTO, "How answers are scored: likelihood (of the labels) or generate."),
    "select_on": (
        AUTO,
        "Validation score that selects the checkpoint: en (source language), tl (target language) or mean (of both).",
    ),
    "precision": (AUTO, "fp32 or bf16; auto is bf16 on a GPU and fp32 on a CPU."),
    "quantization": ("none", "none, or nf4 for 4-bit weights of the base model."),
    "data_dir": (
        AUTO,
        "Folder with the data of a task that is not packaged, or with your own word pairs; auto reads the hub.",
    ),
}
GROUPS = {
    "Comparison": ("variant", "arm", "seed"),
    "Data": (
        *("task", "language", "tl_ratio", "composition", "difficulty", "train_size", "validation_size", "test_size"),
        *("prompt_language", "chat_template", "data_dir"),
    ),
    "Adapter": ("rank", "alpha", "target_modules", "layers"),
    "Training": ("learning_rate", "epochs", "batch_size", "warmup", "select_on", "pool_layer", "first_token"),
    "Scoring": ("scoring", "retention", "retention_size", "alignment", "alignment_size", "alignment_dir"),
    "Model": ("model", "precision", "quantization"),
}
"""The options by section of `--help`."""
CHOICES: dict[str, Sequence[str]] = {
    "variant": tuple(CATALOGUE),
    "arm": ARMS,
    "task": NAMES,
    "composition": COMPOSITIONS,
    "prompt_language": PROMPT_LANGUAGES,
    "chat_template": (NONE,),
    "first_token": FIRST_TOKEN,
    "retention": ("none", *PROMPTED),
    "alignment": ALIGNMENTS,
    "scoring": SCORINGS,
    "select_on": SELECT_ON,
    "precision": PRECISIONS,
    "quantization": QUANTIZATIONS,
}
"""Allowed values by option, for options with a fixed set; that of `variant` is extended by installed packages."""


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Parsed options of the command `run`, documented in `RUN_OPTIONS`; None stands for `auto`."""

    variant: str
    arm: str
    task: str
    difficulty: str | None
    language: str
    model: str
    tl_ratio: float | None
    composition: str
    train_size: int | None
    validation_size: int | None
    test_size: int | None
    seed: int
    rank: int | None
    alpha: float | None
    learning_rate: float | None
    epochs: int | None
    batch_size: int | None
    warmup: float | None
    target_modules: str | None
    layers: str
    prompt_language: PromptLanguage | None
    chat_template: str | None
    pool_layer: int | None
    first_token: str | None
    retention: str
    retention_size: int | None
    alignment: str
    alignment_size: int | None
    alignment_dir: str | None
    scoring: str | None
    select_on: str | None
    precision: str | None
    quantization: str
    data_dir: str | None


def parse_options(texts: Mapping[str, str]) -> RunOptions:
    """Parse option values from strings by name, with defaults and all checks that need neither model nor data.

    Raises:
        OptionError: An option does not exist or its value is not allowed; only the first problem is reported.
    """
    for name in texts:
        if name not in RUN_OPTIONS:
            check_choice("option", name, RUN_OPTIONS)
    values: dict[str, Any] = {}
    for name in dict.fromkeys([*texts, *RUN_OPTIONS]):
        values[name] = parse_option(name, texts.get(name, RUN_OPTIONS[name][0]))
    return RunOptions(**values)


def parse_option(name: str, text: str) -> Any:
    """Parse the value of one option of `run`, with all checks that need neither other options nor model and data.

    Raises:
        OptionError: The value is not allowed.
    """
    return None if text == RUN_OPTIONS[name][0] == AUTO else _PARSERS[name](name, text)


def check_task(task: Task, *, language: str, difficulty: str | None) -> None:
    """Check that a task supports the target languages and a difficulty.

    Raises:
        OptionError: it does not; the message lists the supported values.
    """
    canonical_language(task, language)
    check_choice("difficulty", difficulty or task.difficulties[0], task.difficulties)


def _task(option: str, text: str) -> str:
    task_class(text, option=option)
    return text


def _retention(option: str, text: str) -> str:
    if text != "none":
        task_class(text, option=option, prompted=True, others=("none",))
    return text


def check_data_dir(text: str | None) -> None:
    """Check that a data folder, if one is given, exists, before packages and models are loaded.

    Raises:
        OptionError: it does not.
    """
    if text is not None and not is_folder(given_path(text)):
        raise OptionError("data_dir", text, "is not a folder")


def check_chat_template(option: str, text: str) -> str:
    """Check that a value of `chat_template` other than auto is none, or a file that can be read.

    Raises:
        OptionError: it is not.
    """
    if text != NONE:
        try:
            read_template(given_path(text))
        except ValueError as error:
            raise OptionError(option, text, f"{error}; allowed are auto, {NONE}, or a file with a template") from error
    return text


def _one_of(choices: Sequence[str]) -> Callable[[str, str], str]:
    return lambda option, text: check_choice(option, text, choices)


def _modules(option: str, text: str) -> str:
    if not all(part.strip() for part in check_text(option, text).split(",")):
        raise OptionError(option, text, "must be all-linear, or names of linear modules, separated by commas")
    return text


def _integer(low: int, high: int = 10**9) -> Callable[[str, str], int]:
    return partial(parse_integer, low=low, high=high)


def _number(**bounds: float) -> Callable[[str, str], float]:
    return partial(parse_number, **bounds)  # type: ignore[arg-type]


def _layers(option: str, text: str) -> str:
    parse_layers(text)
    return text


_PARSERS: dict[str, Callable[[str, str], Any]] = {
    **{name: _one_of(choices) for name, choices in CHOICES.items()},
    "variant": lambda option, text: choose_variant(text),
    "task": _task,
    "retention": _retention,
    "chat_template": check_chat_template,
    "difficulty": check_text,
    "language": check_text,
    "model": check_text,
    "tl_ratio": _number(low=0, high=1),
    "train_size": _integer(1),
    "validation_size": _integer(1),
    "test_size": _integer(1),
    "seed": _integer(0, 2**32 - 1),
    "rank": _integer(1),
    "alpha": _number(above=0, high=MAX_ALPHA),
    "learning_rate": _number(above=0, high=1),
    "epochs": _integer(1, MAX_EPOCHS),
    "batch_size": _integer(1),
    "warmup": _number(low=0, high=1),
    "target_modules": _modules,
    "layers": _layers,
    "pool_layer": _integer(0),
    "retention_size": _integer(1),
    "alignment_size": _integer(2),
    "alignment_dir": check_text,
    "data_dir": check_text,
}
