"""Silences library warnings that users cannot act on."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


def quiet() -> None:
    """Silence warnings that appear in every run and need no action; other warnings are still shown.

    Call it before the libraries are imported: some warn on import.
    """
    quiet_about_kernels()
    logging.getLogger("mlflow.pyfunc").setLevel(logging.WARNING)  # it reports every model that is saved
    for message in (
        "`is_gradient_checkpointing` is deprecated",  # PEFT reads it
        "The following rank_pattern keys did not match",  # AdaLoRA's keys have LoRA's names
        "OLoRA changes the base weights",  # it is saved converted to LoRA
        "lora with eva initialization used with low_cpu_mem_usage=False",
        r"Adapter 'default': \d+ LoRA tensor",  # AdaLoRA may prune all ranks of a layer
        "Sparse invariant checks are implicitly disabled",  # SHiRA's sparse entries
    ):
        warnings.filterwarnings("ignore", message=message)


def quiet_about_kernels() -> None:
    """Silence bitsandbytes' advice on an optional kernel for 4-bit models on a CPU, which comes when it is imported."""
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)


@contextmanager
def without_log_of_transformers() -> Iterator[None]:
    """Silence transformers' log within this context, such as advice on a model that is refused in a line of its own."""
    log = logging.getLogger("transformers")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(before)
