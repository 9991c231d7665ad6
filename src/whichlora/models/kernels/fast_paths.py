"""Selects the kernels of this package that apply to a model with an adapter, for training and for scoring.

The kernels compute the same results up to the rounding that each module states. Only this module decides which of them
are combined.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from whichlora.models.adapter_layers import adapter_modules
from whichlora.models.kernels import onednn
from whichlora.models.kernels.bf16 import adapter_to_weight_dtype, layers_with_needless_cast, skip_input_cast
from whichlora.models.kernels.dora import use_closed_form_norms
from whichlora.models.kernels.low_rank import fusable_layers, fused
from whichlora.models.kernels.norms import norms_with_short_backward
from whichlora.models.kernels.patching import patched_forward


@dataclass(frozen=True)
class TrainingPaths:
    """The adapter layers of a model in training, by the kernel that applies to them.

    Attributes:
        uncast: layers whose inputs are not cast to fp32 (`bf16.skip_input_cast`).
        fusable: layers that are computed as one autograd function together with the base layer (`low_rank.fused`), and
            their replacements of `forward`.
        others: layers whose matrix products outside linear layers are computed by oneDNN (`onednn.onednn_matmuls`).
        norms: modules of the base model and their replacements of `forward` (`norms`).
    """

    uncast: Sequence[Any]
    fusable: Mapping[Any, Callable[..., Any]]
    others: Sequence[Any]
    norms: Sequence[tuple[Any, Callable[..., Any]]] = ()

    @contextmanager
    def enabled(self) -> Iterator[None]:
        """Use the kernels within this context, which must include forward and backward passes."""
        with self.enabled_in_joint_pass(), fused(self.fusable), onednn.onednn_matmuls(self.others):
            yield

    @contextmanager
    def enabled_in_joint_pass(self) -> Iterator[None]:
        """Take the fast paths that also work when several runs share the products of the base layers."""
        with skip_input_cast(self.uncast), patched_forward(self.norms):
            yield


def prepare_training(model: Any, *, bf16: bool) -> TrainingPaths:
    """Use closed-form norms in a model's DoRA layers, permanently, and return the kernels for its other layers.

    Args:
        model: a PEFT model.
        bf16: whether the model is trained under autocast to bf16.
    """
    import torch

    use_closed_form_norms(model)
    fusable = fusable_layers(model)
    others = [layer for _, layer in adapter_modules(model) if layer not in fusable]
    on_cpu = not torch.cuda.is_available()
    return TrainingPaths(
        uncast=layers_with_needless_cast(model) if bf16 else [],
        fusable=fusable,
        others=others if onednn.PREFERRED and on_cpu and not bf16 else [],
        norms=norms_with_short_backward(model) if bf16 and on_cpu else [],
    )


@contextmanager
def scoring(model: Any, *, narrow: bool) -> Iterator[None]:
    """Use the kernels for scoring a PEFT model with an unmerged adapter within this context.

    DoRA's closed-form norms and rounded LoRA factors remain after the context.

    Args:
        narrow: whether LoRA's factors may be rounded to the dtype of the base weights; must be False for adapters
            stored as a difference of two (see `bf16.adapter_to_weight_dtype`).
    """
    use_closed_form_norms(model)
    if narrow:
        adapter_to_weight_dtype(model)
    with fused(fusable_layers(model, only_plain_lora=True) if narrow else {}):
        yield
