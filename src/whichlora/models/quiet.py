"""Silences library warnings that users cannot act on."""

from __future__ import annotations

import logging
import warnings


def quiet() -> None:
    """Silence warnings that appear in every run and need no action; other warnings are still shown.

    Call it before importing the libraries, because some warn on import.
    """
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # a missing CPU kernel for 4-bit models
    for message in (
        "`is_gradient_checkpointing` is deprecated",  # PEFT reads it
        "The following rank_pattern keys did not match",  # AdaLoRA's keys have LoRA's names
        "OLoRA changes the base weights",  # saved adapters are converted to LoRA
        "lora with eva initialization used with low_cpu_mem_usage=False",
        r"Adapter 'default': \d+ LoRA tensor",  # AdaLoRA may prune all ranks of a layer
        "Sparse invariant checks are implicitly disabled",  # SHiRA's sparse entries
    ):
        warnings.filterwarnings("ignore", message=message)
