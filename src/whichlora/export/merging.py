"""Merges an adapter into its base model, and checks that the merged model predicts what the adapter predicts."""

from __future__ import annotations

import shutil
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PEFT_TYPE_TO_TUNER_MAPPING, PeftConfig
from torch import Tensor
from transformers import AutoModelForCausalLM
from transformers.utils import cached_file

from whichlora.errors import OptionError, ProofError, first_line
from whichlora.models.checks import load_adapter
from whichlora.models.loading import ModelSource, current_device, load_model
from whichlora.models.quiet import without_log_of_transformers
from whichlora.training.adapter import share

_TEXTS, _LENGTH = 4, 48
"""Number and tokens of the random texts on which the logits are compared."""
_BOUNDS = {"fp32": 1e-3, "bf16": 0.1}
"""Largest difference that is allowed, as a share of the largest logit: rounding gives about 1e-6 and 1e-2."""
_GENERATION = "generation_config.json"


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How a merged and saved model compares with the adapter on the unmerged base, on random tokens.

    Attributes:
        difference: largest absolute difference of a logit.
        largest: largest absolute logit.
        same: share of the positions at which both have the same most probable token.
    """

    difference: float
    largest: float
    same: float

    def __str__(self) -> str:
        return (
            f"logits differ from the adapter's by at most {self.difference:.1e} (logits reach {self.largest:.3g}), and "
            f"the most probable token is the same at {100 * self.same:.1f} % of the positions"
        )


def check_mergeable(adapter: Path) -> None:
    """Check, without a model, that the method of a saved adapter can be merged.

    Raises:
        OptionError: it cannot; the message says why.
    """
    config = PeftConfig.from_pretrained(str(adapter))
    method = getattr(config.peft_type, "value", config.peft_type)
    if config.is_prompt_learning:
        raise OptionError("form", "merged", f"{method} adds prompts, which no weight can hold; use form=adapter")
    if not hasattr(PEFT_TYPE_TO_TUNER_MAPPING.get(config.peft_type), "merge_and_unload"):
        raise OptionError("form", "merged", f"PEFT cannot merge adapters of {method}; use form=adapter")
    if getattr(config, "alora_invocation_tokens", None):
        raise OptionError("form", "merged", f"{method} acts on some tokens only (aLoRA); use form=adapter")


def merge(source: ModelSource, adapter: Path, folder: Path, *, precision: str) -> Agreement:
    """Write the base model with the adapter merged to `folder`, and compare what is written with the adapter.

    The weights are merged in fp32, and rounded once if `precision` is "bf16".

    Raises:
        OptionError: the base cannot be loaded, or PEFT cannot merge the adapter.
        ProofError: the adapter cannot be loaded, or the written model does not predict what it predicts.
    """
    model = load_adapter(load_model(source, precision="fp32", quantization="none"), adapter).eval()
    ids = _random_tokens(model)
    expected = _logits(model, ids)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Input and output embeddings are no longer tied")
            merged = model.merge_and_unload(safe_merge=True)
    except (NotImplementedError, ValueError, TypeError) as error:  # methods differ in what they raise
        raise OptionError("form", "merged", f"PEFT cannot merge the adapter ({first_line(error)})") from error
    if precision == "bf16":
        merged = merged.to(torch.bfloat16)
        merged.config.dtype = torch.bfloat16
    with without_log_of_transformers(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        merged.save_pretrained(folder)
    share(folder)
    del model, merged
    _copy_generation_config(source, folder)
    with without_log_of_transformers():
        written = AutoModelForCausalLM.from_pretrained(folder, dtype="auto", trust_remote_code=False)
    agreement = _compare(expected, _logits(written.to(current_device()).eval(), ids))
    if not agreement.difference <= _BOUNDS[precision] * agreement.largest:  # also if it is NaN
        raise ProofError(f"the merged model does not predict what the adapter predicts: {agreement}")
    return agreement


def _random_tokens(model: Any) -> Tensor:
    vocabulary = model.get_input_embeddings().weight.shape[0]
    context = getattr(model.config.get_text_config(), "max_position_embeddings", None) or _LENGTH
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(vocabulary, (_TEXTS, min(_LENGTH, context)), generator=generator)
    return ids.to(current_device())


def _logits(model: Any, ids: Tensor) -> Tensor:
    with torch.no_grad():
        return torch.as_tensor(model(input_ids=ids, use_cache=False).logits).float().cpu()


def _compare(expected: Tensor, found: Tensor) -> Agreement:
    return Agreement(
        difference=float((expected - found).abs().max()),
        largest=float(expected.abs().max()),
        same=float((expected.argmax(-1) == found.argmax(-1)).float().mean()),
    )


def _copy_generation_config(source: ModelSource, folder: Path) -> None:
    """Replace the settings of decoding, which were not loaded, by the base model's, if it has any."""
    try:
        path = cached_file(source.name_or_path, _GENERATION, revision=source.revision)
    except OSError:  # it has none
        return
    if path is not None:
        shutil.copyfile(path, folder / _GENERATION)
