"""Faster forms of layers that give the same numbers: matrix products, LoRA, DoRA, bf16."""
