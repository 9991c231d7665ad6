"""What the libraries say without need."""

from __future__ import annotations

import logging
import warnings


def quiet() -> None:
    """Silence what the libraries say on every run and nobody can act on; other warnings are shown."""
    import transformers

    transformers.utils.logging.disable_progress_bar()  # of loading weights, which takes a second
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # a kernel for 4-bit models on the CPU is missing
    for said in (
        "`is_gradient_checkpointing` is deprecated",  # PEFT asks for it
        "The following rank_pattern keys did not match",  # AdaLoRA's name LoRA's
        "OLoRA changes the base weights",  # it is saved as LoRA
        "lora with eva initialization used with low_cpu_mem_usage=False",
        r"Adapter 'default': \d+ LoRA tensor",  # AdaLoRA may leave a layer without any rank
        "Sparse invariant checks are implicitly disabled",  # of SHiRA's entries
    ):
        warnings.filterwarnings("ignore", message=said)
