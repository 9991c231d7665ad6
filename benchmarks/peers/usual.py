"""Serves transformers' Trainer with PEFT as commonly written, and generates texts by `generate()`."""

from __future__ import annotations

import itertools
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from safetensors.torch import save_file
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    DataCollatorForSeq2Seq,
    Trainer,
    TrainingArguments,
    set_seed,
)

Example = dict[str, list[int]]


def read_examples(path: str | Path) -> list[Example]:
    """Return the examples of a file: whole texts as `input_ids`, with labels on the answer only."""
    return [
        {
            "input_ids": e["prompt"] + e["answer"],
            "attention_mask": [1] * len(e["prompt"] + e["answer"]),
            "labels": [-100] * len(e["prompt"]) + e["answer"],
        }
        for e in json.loads(Path(path).read_text())
    ]


def with_pad_token(tokenizer: Any) -> Any:
    """Return the tokenizer with a padding token."""
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def make_trainer(
    model: Any, tokenizer: Any, examples: Sequence[Example], *, batch_size: int, optimizer: Any = None, **options: Any
) -> Trainer:
    """Return a Trainer: batches padded to their longest item, loss on the answers, logits at every position."""
    arguments = TrainingArguments(
        output_dir=tempfile.gettempdir(),
        per_device_train_batch_size=batch_size,
        use_cpu=not torch.cuda.is_available(),
        save_strategy="no",
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
        **options,
    )
    return Trainer(
        model=model,
        args=arguments,
        train_dataset=list(examples),
        data_collator=DataCollatorForSeq2Seq(tokenizer),
        optimizers=(optimizer, None),
    )


@torch.inference_mode()
def generated_texts(
    model: Any, tokenizer: Any, prompts: Sequence[list[int]], *, batch_size: int, max_new_tokens: int
) -> list[str]:
    """Return the greedy `generate()` output for each prompt, up to `max_new_tokens` tokens, batch by batch."""
    model.eval()
    tokenizer.padding_side = "left"
    texts: list[str] = []
    for start in range(0, len(prompts), batch_size):
        rows = {"input_ids": list(prompts[start : start + batch_size])}
        batch = tokenizer.pad(rows, return_tensors="pt").to(model.device)
        output = model.generate(
            **batch, max_new_tokens=max_new_tokens, do_sample=False, pad_token_id=tokenizer.pad_token_id
        )
        texts += tokenizer.batch_decode(output[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
    return texts


class GradientRecorder(torch.optim.AdamW):
    """AdamW that stores the gradients of its first step, for comparing gradients; never used in timings."""

    def __init__(self, named_parameters: Sequence[tuple[str, torch.Tensor]], **options: Any) -> None:
        super().__init__([p for _, p in named_parameters], **options)
        self._named_parameters = named_parameters
        self.first: dict[str, torch.Tensor] = {}

    def step(self, closure: Any = None) -> Any:
        """Store the gradients at the first step, and step."""
        if not self.first:
            self.first = {
                n.replace(".default", ""): p.grad.clone() for n, p in self._named_parameters if p.grad is not None
            }
        return super().step(closure)


class TrainerPeer:
    """Trainer + PEFT as one side of a comparison."""

    def load(self, *, model: str, items: str, adapter: str, precision: str) -> None:
        """Load the inputs for the requests that follow; training starts from the saved `adapter`."""
        self.model_path, self.adapter, self.precision = model, adapter, precision
        self.tokenizer = with_pad_token(AutoTokenizer.from_pretrained(model))
        self.examples = read_examples(items)

    def start_model(self) -> Any:
        """Return the base model with the start adapter."""
        base = AutoModelForCausalLM.from_pretrained(self.model_path)
        return PeftModel.from_pretrained(base, self.adapter, is_trainable=True)

    def trainer(self, model: Any, examples: Sequence[Example], *, batch_size: int, optimizer: Any) -> Trainer:
        """Return a trainer of one epoch."""
        bf16 = self.precision == "bf16"
        options = {"num_train_epochs": 1, "learning_rate": 2e-3, "bf16": bf16, "max_grad_norm": 1.0}
        return make_trainer(model, self.tokenizer, examples, batch_size=batch_size, optimizer=optimizer, **options)

    def train(self, *, count: int, batch_size: int) -> dict[str, float]:
        """Train on the first `count` items and return the seconds of training alone."""
        return self._fit(count, batch_size)[0]

    def gradients(self, *, count: int, to: str) -> None:
        """Write the gradients of the first `count` items, taken as one batch, to a file."""
        save_file(self._fit(count, count, record=True)[1], to)

    def _fit(self, count: int, batch_size: int, *, record: bool = False) -> tuple[dict[str, float], Any]:
        from benchmarks.workers import Stopwatch

        set_seed(0)
        model = self.start_model()
        optimizer = (
            GradientRecorder([(n, p) for n, p in model.named_parameters() if p.requires_grad]) if record else None
        )
        examples = list(itertools.islice(self.examples, count))
        trainer = self.trainer(model, examples, batch_size=batch_size, optimizer=optimizer)
        with Stopwatch() as watch:
            trainer.train()
        return watch.seconds(), optimizer.first if optimizer else None


if __name__ == "__main__":
    from benchmarks.workers import serve

    serve(TrainerPeer())
