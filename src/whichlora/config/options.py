"""Options of the command `run`: their names, defaults and help texts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from whichlora.config.option_values import (
    ARMS,
    AUTO,
    CHOICES,
    FIRST_TOKEN,
    MAX_EPOCHS,
    PARSERS,
    PRECISIONS,
    QUANTIZATIONS,
    check_chat_template,
    check_data_dir,
    check_task,
)
from whichlora.data.general_text import UDHR
from whichlora.data.tasks import PROMPTED_VALUES, VALUES
from whichlora.data.tasks.prompts import PromptLanguage
from whichlora.errors import check_choice, parse_unless
from whichlora.models.packaged import DEFAULT, packaged_names
from whichlora.variants import CATALOGUE

__all__ = [
    "ARMS",
    "AUTO",
    "CHOICES",
    "COSTS",
    "FIRST_TOKEN",
    "GROUPS",
    "MAX_EPOCHS",
    "PRECISIONS",
    "QUANTIZATIONS",
    "RUN_OPTIONS",
    "SCORED_BESIDE",
    "RunOptions",
    "check_chat_template",
    "check_data_dir",
    "check_task",
    "parse_option",
    "parse_options",
]

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
    "alpha": (
        AUTO,
        "Scaling: the update is multiplied by alpha / rank. A number, or a rule: rank, sqrt (of the rank), or a "
        "multiple of one of them, such as 2*rank.",
    ),
    "dropout": (AUTO, "Dropout of the adapter in training, 0 to 0.9, for variants that have it."),
    "learning_rate": (AUTO, "Peak learning rate."),
    "epochs": (AUTO, "Number of epochs."),
    "batch_size": (AUTO, "Items per optimiser step; if memory runs out, the step is split into several passes."),
    "warmup": (AUTO, "Share of the optimiser steps, 0 to 1, over which the learning rate rises to its peak."),
    "scheduler": (AUTO, "Learning rate after the warm-up: linear or cosine (it falls to 0), or constant."),
    "weight_decay": (AUTO, "Weight decay of AdamW, 0 to 10: each step takes learning rate x decay off every weight."),
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
    "forgetting": (
        "none",
        "General text on which cross-entropy is measured before and after training: none, "
        f"{UDHR} (the Universal Declaration of Human Rights in the run's languages), {UDHR}:en,hi (in these), or your "
        "own text file or folder of text files, LANGUAGE.txt.",
    ),
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
    "latency": (
        AUTO,
        "Whether to measure time and memory of inference, one or two seconds for a small model: true, false, or auto: "
        "true unless runs are packed. Trials are never measured.",
    ),
    "device_price": (
        AUTO,
        "Price of an hour on the device, for the price of the training; in any currency, the same for all runs.",
    ),
    "precision": (AUTO, "fp32 or bf16; auto is bf16 on a GPU and fp32 on a CPU."),
    "quantization": ("none", "none, or nf4 for 4-bit weights of the base model."),
    "data_dir": (
        AUTO,
        "Folder with the data of a task that is not packaged, or with your own word pairs; auto reads the hub.",
    ),
}
SCORED_BESIDE = ("retention", "retention_size", "forgetting", "alignment", "alignment_size", "alignment_dir")
"""Options of what is measured beside the task, before and after training."""
COSTS = ("latency", "device_price")
"""Options of what a run costs, which change no other number."""
GROUPS = {
    "Comparison": ("variant", "arm", "seed"),
    "Data": (
        *("task", "language", "tl_ratio", "composition", "difficulty", "train_size", "validation_size", "test_size"),
        *("prompt_language", "chat_template", "data_dir"),
    ),
    "Adapter": ("rank", "alpha", "dropout", "target_modules", "layers"),
    "Training": (
        *("learning_rate", "epochs", "batch_size", "warmup", "scheduler", "weight_decay", "select_on"),
        *("pool_layer", "first_token"),
    ),
    "Scoring": ("scoring", *SCORED_BESIDE, *COSTS),
    "Model": ("model", "precision", "quantization"),
}
"""The options by section of `--help`."""


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Parsed options of the command `run`, documented in `RUN_OPTIONS`; None stands for `auto`.

    `alpha` may be a rule, which `resolve_alpha` turns into a number.
    """

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
    alpha: float | str | None
    dropout: float | None
    learning_rate: float | None
    epochs: int | None
    batch_size: int | None
    warmup: float | None
    scheduler: str | None
    weight_decay: float | None
    target_modules: str | None
    layers: str
    prompt_language: PromptLanguage | None
    chat_template: str | None
    pool_layer: int | None
    first_token: str | None
    retention: str
    retention_size: int | None
    forgetting: str
    alignment: str
    alignment_size: int | None
    alignment_dir: str | None
    scoring: str | None
    select_on: str | None
    latency: bool | None
    device_price: float | None
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
    if RUN_OPTIONS[name][0] == AUTO:
        return parse_unless(AUTO, PARSERS[name], name, text)
    return PARSERS[name](name, text)
