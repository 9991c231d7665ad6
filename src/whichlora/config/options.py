"""Options of the entry point `main`: the table of names, defaults and help texts, and the parsed values."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from whichlora.config.layers import parse_layers
from whichlora.data.mixture import COMPOSITIONS
from whichlora.data.tasks import PROMPTED, TASKS
from whichlora.data.tasks.prompts import PROMPT_LANGUAGES, PromptLanguage
from whichlora.errors import OptionError, choose, parse_whole
from whichlora.variants import CATALOGUE

AUTO = "auto"
ARMS = ("recommended", "matched", "tuned")
SCORINGS = ("likelihood", "generate")
SELECTORS = ("en", "tl", "mean")
FIRST_TOKEN = ("drop", "keep")
PRECISIONS = ("fp32", "bf16")
QUANTIZATIONS = ("none", "nf4")

MAIN = {
    "variant": ("lora", f"adapter method: {', '.join(CATALOGUE)}"),
    "arm": ("matched", "how hyperparameters are set: recommended (the method's own source), matched, or tuned (given)"),
    "task": ("atlas-nli", f"what is learnt: {', '.join(TASKS)}"),
    "difficulty": (AUTO, "normal or hard, where the task has both"),
    "language": ("sw", "target language (ISO 639-1), or pooled: the task's study languages at once"),
    "model": ("smollm2-135m", "smollm2-135m (packaged), a folder, or a hub id"),
    "tl_ratio": (AUTO, "target items as a share of train_size, 0 to 1"),
    "composition": ("substitution", "substitution: they replace English items; addition: they come on top"),
    "train_size": (AUTO, "training items in all; with addition, the English ones"),
    "validation_size": (AUTO, "validation items in each language"),
    "test_size": (AUTO, "test items in each language"),
    "seed": ("42", "seed of the item sets, the adapter's start and the order of items"),
    "rank": (AUTO, "rank of the update; AdaLoRA's final budget"),
    "alpha": (AUTO, "scale of the update before it is divided by the rank"),
    "learning_rate": (AUTO, "peak learning rate"),
    "epochs": (AUTO, "passes over the training items"),
    "batch_size": (AUTO, "items an optimiser step, whatever the memory"),
    "target_modules": (AUTO, "all-linear, or module names joined by commas"),
    "layers": ("all", "decoder blocks to adapt, from 0: all, first:N, last:N, A-B or A, joined by commas"),
    "prompt_language": ("en", "language of instruction and labels: en, or item (that of each item)"),
    "pool_layer": (AUTO, "align-words: decoder block, from 0, whose output is trained; auto is the last adapted one"),
    "first_token": (AUTO, "align-words: drop, or keep it in the mean over a word's tokens"),
    "retention": (
        "none",
        f"a task that is scored and not trained, to see what is forgotten: none, {', '.join(PROMPTED)}",
    ),
    "retention_size": (AUTO, "its test items in each language"),
    "scoring": (AUTO, "likelihood (of the labels) or generate"),
    "select_on": (AUTO, "validation that chooses the checkpoint: en, tl or mean"),
    "precision": (AUTO, "fp32 or bf16; auto is bf16 on a GPU and fp32 on a CPU"),
    "quantization": ("none", "none or nf4"),
    "data_dir": (AUTO, "folder with the task's data, for tasks that are not packaged"),
}


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Parsed options of `main`, documented in `MAIN`; None stands for `auto`."""

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
    target_modules: str | None
    layers: str
    prompt_language: PromptLanguage
    pool_layer: int | None
    first_token: str | None
    retention: str
    retention_size: int | None
    scoring: str | None
    select_on: str | None
    precision: str | None
    quantization: str
    data_dir: str | None


def parse_options(texts: Mapping[str, str]) -> RunOptions:
    """Parse option texts, filling in defaults, with all checks that need neither model nor data.

    Raises:
        OptionError: An option does not exist or its value is not allowed; only the first problem is reported.
    """
    for name in texts:
        if name not in MAIN:
            choose("option", name, MAIN)
    values: dict[str, Any] = {}
    for name in dict.fromkeys([*texts, *MAIN]):
        default = MAIN[name][0]
        text = texts.get(name, default)
        values[name] = None if text == default == AUTO else _PARSERS[name](name, text)
    return RunOptions(**values)


def _name_of(choices: Sequence[str]) -> Callable[[str, str], str]:
    return lambda option, text: choose(option, text, choices)


def _text(option: str, text: str) -> str:
    return text


def _integer(low: int, high: int = 10**9) -> Callable[[str, str], int]:
    return partial(parse_whole, low=low, high=high)


def _number(*, above: float | None = None, low: float | None = None, high: float | None = None) -> Callable[..., float]:
    allowed = " and ".join(
        text
        for text, bound in ((f"above {above}", above), (f"at least {low}", low), (f"at most {high}", high))
        if bound is not None
    )

    def parse(option: str, text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        in_range = (
            (above is None or value > above) and (low is None or value >= low) and (high is None or value <= high)
        )
        if not (math.isfinite(value) and in_range):
            raise OptionError(option, text, f"must be a number {allowed}")
        return value

    return parse


def _layers(option: str, text: str) -> str:
    parse_layers(text)
    return text


_PARSERS: dict[str, Callable[[str, str], Any]] = {
    "variant": _name_of(list(CATALOGUE)),
    "arm": _name_of(ARMS),
    "task": _name_of(list(TASKS)),
    "difficulty": _text,
    "language": _text,
    "model": _text,
    "tl_ratio": _number(low=0, high=1),
    "composition": _name_of(COMPOSITIONS),
    "train_size": _integer(1),
    "validation_size": _integer(1),
    "test_size": _integer(1),
    "seed": _integer(0, 2**32 - 1),
    "rank": _integer(1),
    "alpha": _number(above=0),
    "learning_rate": _number(above=0, high=1),
    "epochs": _integer(1),
    "batch_size": _integer(1),
    "target_modules": _text,
    "layers": _layers,
    "prompt_language": _name_of(PROMPT_LANGUAGES),
    "pool_layer": _integer(0),
    "first_token": _name_of(FIRST_TOKEN),
    "retention": _name_of(("none", *PROMPTED)),
    "retention_size": _integer(1),
    "scoring": _name_of(SCORINGS),
    "select_on": _name_of(SELECTORS),
    "precision": _name_of(PRECISIONS),
    "quantization": _name_of(QUANTIZATIONS),
    "data_dir": _text,
}
