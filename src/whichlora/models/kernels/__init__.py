"""Faster implementations that compute the same results: oneDNN matrix products, fused LoRA, DoRA norms, bf16 casts."""
