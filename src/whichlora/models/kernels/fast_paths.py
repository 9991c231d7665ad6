"""Which fast paths a model with an adapter takes, in training and in scoring.

The paths replace products and layers by quicker ones that give the same numbers, within the rounding that each module
of this package states. This is the only place that knows which of them go together.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from whichlora.models.adapter_layers import adapter_modules
from whichlora.models.kernels import onednn
from whichlora.models.kernels.bf16 import adapter_to_weight_dtype, layers_with_needless_cast, skip_input_cast
from whichlora.models.kernels.dora import use_closed_form_norms
from whichlora.models.kernels.lora import fusable_layers, fused


@dataclass(frozen=True)
class TrainingPaths:
    """The adapter layers of a model that is trained, by the fast path that they take.

    Attributes:
        uncast: their inputs need no conversion to fp32.
        fusable: LoRA and base layer are one operation of autograd.
        others: their own matrix products go to oneDNN.
    """

    uncast: Sequence[Any]
    fusable: Sequence[Any]
    others: Sequence[Any]

    @contextmanager
    def enabled(self) -> Iterator[None]:
        """Take the fast paths in forward and backward passes within the block."""
        with skip_input_cast(self.uncast), fused(self.fusable), onednn.onednn_matmuls(self.others):
            yield


def prepare_training(model: Any, *, bf16: bool) -> TrainingPaths:
    """Replace DoRA's norms in a model with an adapter, for good, and find the fast paths of its layers.

    Args:
        bf16: whether it is trained under autocast to bf16.
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
    )


@contextmanager
def scoring(model: Any, *, narrow: bool) -> Iterator[None]:
    """Take the fast paths of a model whose adapter is loaded and not merged, within the block.

    Args:
        narrow: whether LoRA's factors may be rounded to the dtype of the weights beside them; not where an adapter is
            the difference of two (see `bf16.adapter_to_weight_dtype`).
    """
    use_closed_form_norms(model)
    layers = []
    if narrow:
        adapter_to_weight_dtype(model)
        layers = fusable_layers(model)
    with fused(layers):
        yield
