"""Settings of bitsandbytes' 4-bit layers."""

from __future__ import annotations

from torch import nn


def disable_cpu_packing(model: nn.Module) -> None:
    """Prevent bitsandbytes from packing 4-bit weights for CPU inference.

    On a CPU with AVX512-BF16 it packs them permanently in the first forward pass in eval mode. Packed weights do not
    propagate gradients: after the first validation most modules would silently stop training.
    """
    from bitsandbytes.nn import Linear4bit

    for module in model.modules():
        if isinstance(module, Linear4bit):
            module.support_avx512bf16_for_cpu = False


def misshapen(model: nn.Module) -> set[tuple[str, tuple[int, ...], tuple[int, ...]]]:
    """Return name, saved shape and right shape of quantized weights whose shape transformers did not check."""
    from bitsandbytes.nn import Linear4bit

    shapes = {
        (f"{name}.weight", tuple(module.weight.quant_state.shape), (module.out_features, module.in_features))
        for name, module in model.named_modules()
        if isinstance(module, Linear4bit) and getattr(module.weight, "quant_state", None) is not None
    }
    return {(name, saved, wanted) for name, saved, wanted in shapes if saved != wanted}
