"""Reads models in GGUF files: `conversion` those of the catalogue, `files` and `transformers_reader` any other."""
