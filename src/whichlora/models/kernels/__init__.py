"""Faster implementations of layers and products, with the same results up to rounding.

`fast_paths` selects those that apply to a model. `onednn` multiplies fp32 matrices on the CPU, `lora` fuses LoRA with
its base layer, `dora` computes DoRA's norms in closed form, `bf16` avoids dtype conversions, `attention` is that of
short texts in bf16, and `patching` replaces `forward` methods.
"""
