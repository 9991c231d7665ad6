"""Serves Trainer + PEFT on a GPU as commonly written: weights in bf16 or NF4, loaded once."""

from __future__ import annotations

from typing import Any

import torch
from peft import PeftModel, prepare_model_for_kbit_training
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from benchmarks.peers.usual import TrainerPeer
from benchmarks.workers import serve


class GpuTrainerPeer(TrainerPeer):
    """Trainer + PEFT with the base model kept on the device."""

    def load(self, *, quantization: str, **inputs: str) -> None:
        """Load the inputs and the base model."""
        super().load(**inputs)
        self.model = load_base(self.model_path, quantization=quantization)

    def start_model(self) -> Any:
        """Return the base model with the start adapter in place of the one that was trained before."""
        base = self.model.unload() if isinstance(self.model, PeftModel) else self.model
        self.model = PeftModel.from_pretrained(base, self.adapter, is_trainable=True)
        return self.model


def load_base(path: str, *, quantization: str) -> Any:
    """Load a base model in bf16, or in NF4 as QLoRA does, but without gradient checkpointing, which costs time."""
    options: dict[str, Any] = {"dtype": torch.bfloat16, "device_map": {"": 0 if torch.cuda.is_available() else "cpu"}}
    if quantization == "none":
        return AutoModelForCausalLM.from_pretrained(path, **options)
    options["quantization_config"] = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
    base = AutoModelForCausalLM.from_pretrained(path, **options)
    return prepare_model_for_kbit_training(base, use_gradient_checkpointing=False)


if __name__ == "__main__":
    serve(GpuTrainerPeer())
