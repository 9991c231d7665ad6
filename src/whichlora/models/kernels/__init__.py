"""Faster implementations of layers and products, with the same results up to rounding.

`fast_paths` selects those that apply to a model. `onednn` multiplies fp32 matrices on the CPU, `lora` fuses LoRA with
its base layer, `dora` computes DoRA's norms in closed form, `bf16` avoids dtype conversions, and `patching` replaces
`forward` methods. For bf16 on a CPU, `attention` is that of short texts, `norms` shortens the backward pass of RMS
norms, `cross_entropy` copies no logits, and `last_block` leaves out tokens whose states nothing reads.
"""
