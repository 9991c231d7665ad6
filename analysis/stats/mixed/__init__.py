"""The linear mixed model: its fit by REML, inference on its fixed effects, and the comparison of methods by it."""
