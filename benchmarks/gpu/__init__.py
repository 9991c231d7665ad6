"""What `benchmarks/gpu.sh` measures on a GPU.

`shapes` saves the models, `peer` serves the usual tools, `__main__` measures a part, and `roofline` says what an A100
and an H100 need at least, on paper.
"""
