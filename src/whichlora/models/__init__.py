"""Base models, and how texts are run through them, with or without an adapter.

`sources` finds a model, and `loading` loads it with its tokenizer; `packaged` provides those of the catalogue, `gguf`
reads those in GGUF files, and `folders` keeps the converted ones. `packing` runs several texts as one row,
`answer_logits` computes the loss of answers, `hidden_states` and `pooling` read the states of layers, and
`adapter_layers` finds the layers that PEFT wrapped. `memory` retries after running out of memory, `quiet` silences
library warnings, and the package `kernels` contains faster implementations.
"""
