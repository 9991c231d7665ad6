"""Prints what an A100 and an H100 need at least, on paper, for the rows of the benchmark and for the paper's Table 2.

python -m benchmarks.gpu.roofline

A phase takes as long as its products at the peak of the tensor cores, or as its memory traffic at the full bandwidth,
whichever is longer. `docs/device-hours.md` states the assumptions and has the tables.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.gpu.shapes import LLAMA_8B
from whichlora.config.outline import Outline
from whichlora.experiment.device_hours import MODELS, OVERHEAD, PEAK, TOKENS, UTILISATION, item_lengths, items
from whichlora.experiment.folder_plan import outline_folder

LLAMA = MODELS["meta-llama/Llama-3.1-8B"]
WIDTH, VOCABULARY = LLAMA_8B["hidden_size"], LLAMA_8B["vocab_size"]
HEAD = WIDTH * VOCABULARY
"""Weights of the LM head, and of the embeddings, which are looked up and not multiplied."""
BODY = LLAMA.parameters - 2 * HEAD
BATCH = 16
LENGTH, QA_LENGTH = TOKENS["xnli"]["en"], TOKENS["tydiqa"]["en"]
ANSWER, DECODED, QA_DECODED = 2.3, 3, 7
"""Tokens of a label, steps in which `generate()` writes it and its end, and tokens of an answer to a question."""
INSTRUCTION = 19
"""Tokens at the beginning of every prompt, in the packaged tokenizer."""
OWN_SHARE = 23 / (63.3 - INSTRUCTION)
"""Share of a test item's other tokens that is not in a premise shared with other items (benchmarks/README.md)."""
PADDING = 86 / 63.3
"""Tokens of the longest of 16 items over the mean, to which the usual tools pad (benchmarks/items.py)."""
ACTIVATION_BYTES = 2 * 34 * WIDTH * LLAMA.blocks
"""Bytes of a token that training writes and reads again: 34 a hidden unit and block (arXiv 2205.05198)."""
LOGIT_BYTES = 24
"""Bytes of one logit in training: written in bf16, read as fp32, softmax, loss, and the gradient of each."""
PROBED_LOGIT_BYTES = 12
"""Bytes of one logit in a probe that keeps it: written in bf16, read, and written and read as a probability."""
BF16, NF4 = 2.0, 0.5


@dataclass(frozen=True)
class Device:
    """A GPU, with FLOP/s in bf16 without sparsity and bytes/s of its memory, from NVIDIA's data sheets (SXM)."""

    name: str
    flops: float
    bandwidth: float


A100 = Device("A100 80 GB", PEAK, 2.039e12)
H100 = Device("H100 80 GB", 989e12, 3.35e12)
DEVICES = (A100, H100)


@dataclass(frozen=True)
class Phase:
    """FLOPs and bytes that a device does at the same time."""

    flops: float
    bytes: float

    def seconds(self, device: Device) -> float:
        """Return the least time."""
        return max(self.flops / device.flops, self.bytes / device.bandwidth)


Work = Sequence[Phase]


def train(tokens: float, positions: float) -> Work:
    """Return a step of LoRA: a forward pass, and a backward pass for the gradients of activations.

    Args:
        tokens: tokens that the decoder reads.
        positions: those of which the LM head computes logits.
    """
    traffic = ACTIVATION_BYTES * tokens + LOGIT_BYTES * VOCABULARY * positions + 2 * BF16 * (BODY + HEAD)
    return [Phase(4.0 * (BODY * tokens + HEAD * positions), traffic)]


def expand_nf4() -> Phase:
    """Return the expansion of 4-bit weights to bf16 before the forward and before the backward pass."""
    return Phase(0.0, 2 * (NF4 + BF16) * BODY)


def read(tokens: float, positions: float) -> Work:
    """Return a forward pass without gradients."""
    return [Phase(2.0 * (BODY * tokens + HEAD * positions), BF16 * (BODY + HEAD))]


def decode(rows: int, steps: int) -> Work:
    """Return `steps` passes of one token a row, each of which reads all weights."""
    return [*read(rows, rows)] * steps


def probe(tokens: float, *, kept: bool) -> Work:
    """Return a forward pass with the LM head on every layer; `kept` logits travel through memory."""
    logits = PROBED_LOGIT_BYTES * VOCABULARY * tokens * LLAMA.blocks if kept else 0.0
    head = Phase(2.0 * HEAD * tokens * LLAMA.blocks, BF16 * HEAD * LLAMA.blocks + logits)
    return [*read(tokens, 0), head]


def trained_tokens(length: float) -> float:
    """Return the tokens that an item of `length` adds to a packed batch of training, in which the instruction is once.

    Each training item is assumed to have its own premise.
    """
    return length - INSTRUCTION + INSTRUCTION / BATCH


def scored_tokens(length: float) -> float:
    """Return the tokens that a test item adds to a packed batch, in which the instruction and premises are once."""
    return OWN_SHARE * (length - INSTRUCTION)


def seconds(work: Work, device: Device) -> float:
    """Return the least time of phases that follow one another."""
    return sum(phase.seconds(device) for phase in work)


@dataclass(frozen=True)
class Side:
    """One way to train and to score 16 items of a mean length.

    Attributes:
        shares_adapters: whether an adapter that several runs have in common is trained, and scored in English, once.
    """

    train: Callable[[float], Work]
    score: Callable[[float], Work]
    shares_adapters: bool


HERE = Side(
    train=lambda length: train(BATCH * trained_tokens(length), BATCH * ANSWER),
    score=lambda length: read(BATCH * scored_tokens(length), BATCH),
    shares_adapters=True,
)
USUAL = Side(
    train=lambda length: train(BATCH * length * PADDING, BATCH * length * PADDING),
    score=lambda length: [*read(BATCH * length * PADDING, BATCH), *decode(BATCH, DECODED)],
    shares_adapters=False,
)
ROWS: dict[str, tuple[Work, Work]] = {
    "LoRA training, bf16; Trainer + PEFT": (HERE.train(LENGTH), USUAL.train(LENGTH)),
    "LoRA training, NF4; Trainer + PEFT": (
        [*HERE.train(LENGTH), expand_nf4()],
        [*USUAL.train(LENGTH), expand_nf4()],
    ),
    "three-way scoring; `generate()` in batches": (HERE.score(LENGTH), USUAL.score(LENGTH)),
    "QA; `generate()` in batches": (
        [*read(BATCH * QA_LENGTH, BATCH), *decode(BATCH, QA_DECODED)],
        [*read(BATCH * QA_LENGTH * PADDING, BATCH), *decode(BATCH, QA_DECODED)],
    ),
    "QA; `generate()` one by one": (
        [*read(BATCH * QA_LENGTH, BATCH), *decode(BATCH, QA_DECODED)],
        [*read(QA_LENGTH, 1), *decode(1, QA_DECODED)] * BATCH,
    ),
    "language probe; item after item": (
        probe(BATCH * LENGTH, kept=False),
        [*probe(LENGTH, kept=True)] * BATCH,
    ),
}
"""Work of this project and of the usual tools on 16 items, by row."""


def rows_table() -> str:
    """Return the least milliseconds of 16 items by row, device and side, as a Markdown table."""
    lines = ["| 16 items, ms | " + " | ".join(f"{d.name}: here | usual | ratio" for d in DEVICES) + " |"]
    lines.append("|---" * (1 + 3 * len(DEVICES)) + "|")
    for name, sides in ROWS.items():
        cells = []
        for device in DEVICES:
            ours, theirs = (1000 * seconds(work, device) for work in sides)
            cells += [f"{ours:.0f}", f"{theirs:.0f}", f"{theirs / ours:.1f}"]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def packing_table(counts: Iterable[int] = (2, 4, 8), batches: Iterable[int] = (1, 4, 16)) -> str:
    """Return how many times as fast `pack` trains as one run after the other, at most, as a Markdown table."""
    counts = list(counts)
    lines = ["| items a step | " + " | ".join(f"{d.name}: pack={n}" for d in DEVICES for n in counts) + " |"]
    lines.append("|---" * (1 + len(DEVICES) * len(counts)) + "|")
    for batch in batches:
        alone, together = ([train(n * batch * LENGTH, n * batch * ANSWER) for n in (1, *counts)][i:] for i in (0, 1))
        gains = [
            n * seconds(alone[0], device) / seconds(work, device)
            for device in DEVICES
            for n, work in zip(counts, together, strict=True)
        ]
        lines.append(f"| {batch} | {' | '.join(f'{gain:.1f}' for gain in gains)} |")
    return "\n".join(lines)


def hours(runs: Iterable[Outline], device: Device, side: Side) -> float:
    """Return the hours of runs at the assumed utilisation, with the overhead of each training.

    Raises:
        ValueError: the tokens of a run's task and languages are not known.
    """
    total, known = 0.0, set[str]()
    for run in runs:
        lengths, parts = item_lengths(run), items(run)
        if lengths is None:
            raise ValueError(f"unknown lengths: {run.run}")
        first = not side.shares_adapters or run.adapter not in known
        known.add(run.adapter)
        total += OVERHEAD * first
        for role, length in lengths.items():
            scored = parts["test"][role] if first or role == "tl" else 0.0
            scored += parts["validation"][role] * first
            trained = parts["training"][role] * first
            least = trained * seconds(side.train(length), device) + scored * seconds(side.score(length), device)
            total += least / BATCH / UTILISATION
    return total / 3600


def hours_table(file: Path) -> str:
    """Return the hours of the runs of an experiment's file by device and side, as a Markdown table."""
    (outlined,) = (found for found in outline_folder(file.parent) if found.file == file.name)
    runs = list(outlined.runs.values())
    lines = [f"| {len(runs)} runs, hours | here | usual | ratio |", "|---|---|---|---|"]
    for device in DEVICES:
        ours, theirs = (hours(runs, device, side) for side in (HERE, USUAL))
        lines.append(f"| {device.name} | {ours:.1f} | {theirs:.1f} | {theirs / ours:.1f} |")
    return "\n".join(lines)


def report() -> str:
    """Return all tables."""
    table_2 = Path(__file__).parents[2] / "experiments" / "paper" / "table-02-main.yaml"
    return "\n\n".join([rows_table(), packing_table(), hours_table(table_2)])


def main(arguments: Sequence[str] | None = None) -> None:
    """Print all tables."""
    argparse.ArgumentParser(description=__doc__).parse_args(arguments)
    print(report())


if __name__ == "__main__":
    main()
