"""Base models, and how texts are run through them, with or without an adapter.

`loading` finds and loads a model and its tokenizer; `packaged` provides the default model, which `gguf_conversion`
converts. `packing` runs several texts as one row, `answer_logits` computes the loss of answers, `hidden_states` and
`pooling` read the states of layers, and `adapter_layers` finds the layers that PEFT wrapped. `memory` retries after
running out of memory, `quiet` silences library warnings, and the package `kernels` contains faster implementations.
"""
