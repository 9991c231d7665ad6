"""The values of the options of the command `run`: what is allowed, and how each is parsed from a text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from whichlora.caller import given_path
from whichlora.command_line import BOOLEANS, parse_boolean
from whichlora.config.alpha import parse_alpha
from whichlora.config.layers import parse_layers
from whichlora.data import general_text
from whichlora.data.chat import NONE, read_template
from whichlora.data.mixture import COMPOSITIONS
from whichlora.data.targets import canonical_language
from whichlora.data.tasks import NAMES, PROMPTED, Task, task_class
from whichlora.data.tasks.prompts import PROMPT_LANGUAGES
from whichlora.errors import OptionError, check_choice, check_text, is_folder, parse_integer, parse_number
from whichlora.variants import CATALOGUE, choose_variant

AUTO = "auto"
ARMS = ("recommended", "matched", "tuned")
SCORINGS = ("likelihood", "generate")
SELECT_ON = ("en", "tl", "mean")
ALIGNMENTS = ("none", "tatoeba")
FIRST_TOKEN = ("drop", "keep")
PRECISIONS = ("fp32", "bf16")
QUANTIZATIONS = ("none", "nf4")
SCHEDULERS = ("linear", "cosine", "constant")
MAX_EPOCHS = 10_000
MAX_DROPOUT = 0.9
MAX_WEIGHT_DECAY = 10

CHOICES: dict[str, Sequence[str]] = {
    "variant": tuple(CATALOGUE),
    "arm": ARMS,
    "task": NAMES,
    "composition": COMPOSITIONS,
    "prompt_language": PROMPT_LANGUAGES,
    "chat_template": (NONE,),
    "first_token": FIRST_TOKEN,
    "scheduler": SCHEDULERS,
    "retention": ("none", *PROMPTED),
    "alignment": ALIGNMENTS,
    "scoring": SCORINGS,
    "select_on": SELECT_ON,
    "precision": PRECISIONS,
    "quantization": QUANTIZATIONS,
    "latency": BOOLEANS,
}
"""Allowed values by option, for options with a fixed set; that of `variant` is extended by installed packages."""


def check_task(task: Task, *, language: str, difficulty: str | None) -> None:
    """Check that a task supports the target languages and a difficulty.

    Raises:
        OptionError: it does not; the message lists the supported values.
    """
    canonical_language(task, language)
    check_choice("difficulty", difficulty or task.difficulties[0], task.difficulties, or_else=AUTO)


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
        raise OptionError("data_dir", text, "is not a folder; must be one, or auto")


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


PARSERS: dict[str, Callable[[str, str], Any]] = {
    **{name: _one_of(choices) for name, choices in CHOICES.items()},
    "latency": parse_boolean,
    "variant": lambda option, text: choose_variant(text),
    "task": _task,
    "retention": _retention,
    "forgetting": general_text.check_option,
    "device_price": _number(low=0, high=10**6),
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
    "alpha": parse_alpha,
    "learning_rate": _number(above=0, high=1),
    "epochs": _integer(1, MAX_EPOCHS),
    "batch_size": _integer(1),
    "warmup": _number(low=0, high=1),
    "weight_decay": _number(low=0, high=MAX_WEIGHT_DECAY),
    "dropout": _number(low=0, high=MAX_DROPOUT),
    "target_modules": _modules,
    "layers": _layers,
    "pool_layer": _integer(0),
    "retention_size": _integer(1),
    "alignment_size": _integer(2),
    "alignment_dir": check_text,
    "data_dir": check_text,
}
