"""Serves TRL's SFTTrainer with its defaults; runs in a separate environment (`benchmarks/requirements.txt`)."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from typing import Any

from datasets import Dataset
from trl import SFTConfig, SFTTrainer

from benchmarks.peers.usual import Example, TrainerPeer
from benchmarks.workers import serve


class SftPeer(TrainerPeer):
    """SFTTrainer as one side of a comparison."""

    def load(self, *, checkpointing: bool, **inputs: Any) -> None:
        """Load the inputs for the requests that follow."""
        self.checkpointing = checkpointing
        super().load(**inputs)

    def trainer(self, model: Any, examples: Sequence[Example], *, batch_size: int, optimizer: Any) -> SFTTrainer:
        """Return a trainer of one epoch; gradient checkpointing and bf16 are SFTConfig's defaults."""
        columns = ("input_ids", "labels")
        return SFTTrainer(
            model=model,
            args=SFTConfig(
                output_dir=tempfile.gettempdir(),
                per_device_train_batch_size=batch_size,
                num_train_epochs=1,
                learning_rate=2e-3,
                bf16=self.precision == "bf16",
                gradient_checkpointing=self.checkpointing,
                use_cpu=True,
                save_strategy="no",
                report_to="none",
                disable_tqdm=True,
            ),
            train_dataset=Dataset.from_list([{name: e[name] for name in columns} for e in examples]),
            processing_class=self.tokenizer,
            optimizers=(optimizer, None),
        )


if __name__ == "__main__":
    serve(SftPeer())
