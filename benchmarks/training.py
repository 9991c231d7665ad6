"""Compares training with Trainer + PEFT and with TRL at equal precision: seconds, gradients and memory.

Two rows train a model with windowed layers and a large vocabulary, by default random weights of Gemma 3 270M's shape.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from benchmarks import items
from benchmarks.harness import Bench, Block, Equality, Result, Row, alternate
from benchmarks.workers import Worker, running_worker
from whichlora import cores
from whichlora.config.options import RUN_OPTIONS
from whichlora.data.encoding import Encoder
from whichlora.data.tasks import get_task
from whichlora.models.loading import ModelSource, load_tokenizer, locate, read_config, read_shape

BATCH = 16
OURS = "benchmarks.ours"
LIMIT = 1e-5
"""Highest relative difference of gradients: the norm of a tensor's difference over its norm, of the worst tensor."""
TRAINER = "transformers Trainer + PEFT"
TRAINER_ROWS = (
    Row(name="training-fp32", work="training, fp32", against=TRAINER, goal=2.5),
    Row(name="training-bf16", work="training, bf16", against=f"{TRAINER}, `bf16=True`", goal=2.5, precision="bf16"),
)
MEMORY = Row(name="memory", work="peak memory of training, fp32", against=TRAINER, goal=0.7, less=True, unit="MiB")
DEFAULT_MODEL = RUN_OPTIONS["model"][0]
WINDOWED_SHAPE: dict[str, Any] = {
    **{"hidden_size": 640, "intermediate_size": 2048, "num_hidden_layers": 18, "vocab_size": 262_144},
    **{"num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 256, "query_pre_attn_scalar": 256},
    **{"sliding_window": 512, "layer_types": (["sliding_attention"] * 5 + ["full_attention"]) * 3},
}
"""The shape of Gemma 3 270M, from its config.json."""
WINDOWED_ROWS = tuple(
    replace(
        row,
        name=f"training-windowed-{row.precision}",
        work=f"{row.work}, windowed layers and a vocabulary of 262,144",
        goal=3,
    )
    for row in TRAINER_ROWS
)
TRL_ROWS: Mapping[str, bool] = {"training-trl": True, "training-trl-kept": False}
"""Rows with TRL, and whether they use gradient checkpointing."""


def measure(bench: Bench, wanted: Sequence[str], rows: Sequence[Row]) -> list[Result]:
    """Train alternately with this project and its peers, on the same items from the same adapter.

    All `rows` have the same precision, so that they share this project's side.
    """
    rows = [row for row in rows if row.name in wanted]
    precision = rows[0].precision
    inputs = prepare(bench, bench.steps * BATCH) | {"precision": precision}
    with contextlib.ExitStack() as stack:
        start = partial(_start_worker, bench, stack)
        ours = start(OURS, **inputs)
        theirs = {row.name: _start_peer(row.name, bench, start, inputs) for row in rows}
        equal = {name: check_gradients(ours, peer, bench.scratch, precision) for name, peer in theirs.items()}
        request: Mapping[str, Any] = {"count": bench.steps * BATCH, "batch_size": BATCH}
        sides = {"ours": partial(ours.ask, "train", **request)}
        sides |= {name: partial(peer.ask, "train", **request) for name, peer in theirs.items()}
        measured = alternate(f"training {precision}", sides, bench.pairs)
    return [
        Result(
            row=row,
            ours=measured["ours"],
            theirs=measured[row.name],
            scale=bench.steps * BATCH,
            per="item",
            equal=equal[row.name],
            flops=useful_flops(bench, Path(inputs["items"])),
        )
        for row in rows
    ]


def measure_memory(bench: Bench, wanted: Sequence[str]) -> list[Result]:
    """Measure the peak memory of one step on the longest items, in a fresh process for each measurement.

    Both processes start together, which saves time, and then train one after the other.
    """
    inputs = prepare(bench, BATCH, longest_of=20 * BATCH) | {"precision": "fp32"}
    measured: dict[str, list[float]] = {OURS: [], "benchmarks.peers.usual": []}
    log = bench.scratch / "memory.log"
    for _ in range(bench.pairs):
        with contextlib.ExitStack() as stack:
            sides = [stack.enter_context(running_worker(module, threads=bench.threads, log=log)) for module in measured]
            for worker, peaks in zip(sides, measured.values(), strict=True):
                worker.ask("load", **inputs)
                peaks.append(worker.ask("train", count=BATCH, batch_size=BATCH)["peak_mib"])
    ours, theirs = ({"wall": peaks, "cpu": peaks} for peaks in measured.values())
    notes = ["The most that a whole process held: interpreter, libraries, weights and one step of the longest items."]
    return [Result(row=MEMORY, ours=ours, theirs=theirs, notes=notes)]


def measure_windowed(bench: Bench, wanted: Sequence[str], row: Row) -> list[Result]:
    """Measure the row with the model of the option `model`, or with random weights if that is the packaged one."""
    name = save_random_model(bench) if bench.model == DEFAULT_MODEL else bench.model
    config = read_config(locate(name)).get_text_config()
    weights = bench.model if name == bench.model else "Random weights"
    window = getattr(config, "sliding_window", None)
    windows = f"windows of {window} tokens" if window else "no windows"
    note = f"{weights}: {windows}, a vocabulary of {config.vocab_size:,}."
    results = measure(replace(bench, model=name), wanted, [row])
    return [replace(result, notes=[note]) for result in results]


def save_random_model(bench: Bench) -> str:
    """Save a random model of `WINDOWED_SHAPE` with the packaged model's tokenizer, and return its folder."""
    from transformers import AutoModelForCausalLM, Gemma3TextConfig

    folder = bench.scratch / "windowed"
    torch.manual_seed(0)
    tokenizer = load_tokenizer(locate(DEFAULT_MODEL))
    special = {f"{role}_token_id": getattr(tokenizer, f"{role}_token_id") for role in ("bos", "eos", "pad")}
    AutoModelForCausalLM.from_config(Gemma3TextConfig(**WINDOWED_SHAPE, **special)).save_pretrained(folder)
    tokenizer.save_pretrained(str(folder))
    return str(folder)


def prepare(bench: Bench, count: int, *, longest_of: int | None = None) -> dict[str, str]:
    """Write the items and a start adapter, and return the paths of both and of the model.

    With `longest_of`, the items are the `count` longest of that many.
    """
    source = locate(bench.model)
    task = get_task("atlas-nli")
    encoder = Encoder(task, load_tokenizer(source))
    chosen = items.nli_items(encoder, "train", longest_of or count)
    if longest_of:
        chosen = sorted(chosen, key=lambda item: -len(encoder.example(item)))[:count]
    path = items.save(encoder, chosen, bench.scratch / f"train-{count}.json")
    return {
        "model": source.name_or_path,
        "items": str(path),
        "adapter": str(save_start_adapter(source, bench.scratch / "start")),
    }


def save_start_adapter(source: ModelSource, folder: Path) -> Path:
    """Save a LoRA of rank 8 on all linear layers with both factors random, so that both have nonzero gradients.

    The model is built without its weights, which may be those of a large model.
    """
    if not folder.is_dir():
        from peft import LoraConfig, get_peft_model
        from transformers import AutoModelForCausalLM

        names = list(read_shape(source).linears)
        config = LoraConfig(r=8, lora_alpha=16, target_modules=names, task_type="CAUSAL_LM")
        with torch.device("meta"):
            model = get_peft_model(AutoModelForCausalLM.from_config(read_config(source)), config)
        torch.manual_seed(0)
        factors = {
            name.replace(".default", ""): torch.randn(p.shape) * (0.01 if "lora_B" in name else p.shape[1] ** -0.5)
            for name, p in model.named_parameters()
            if p.requires_grad
        }
        config.base_model_name_or_path = source.name_or_path
        config.inference_mode = True
        config.save_pretrained(str(folder))
        save_file(factors, folder / "adapter_model.safetensors")
    return folder


def check_gradients(ours: Worker, theirs: Worker, scratch: Path, precision: str) -> Equality:
    """Compare the gradients of one batch on both sides; computing them also warms up the sides."""
    files = {side: scratch / f"gradients-{side}.safetensors" for side in ("ours", "theirs")}
    for side, worker in (("ours", ours), ("theirs", theirs)):
        worker.ask("gradients", count=BATCH, to=str(files[side]))
    return compare_gradients(
        *(load_file(path) for path in files.values()), limit=LIMIT if precision == "fp32" else None
    )


def compare_gradients(ours: Mapping[str, Any], theirs: Mapping[str, Any], *, limit: float | None) -> Equality:
    """Return the largest difference between two sets of gradients, relative to each tensor's norm."""
    if ours.keys() != theirs.keys():
        return Equality(what="gradients of the same tensors", value=float("inf"), limit=limit)
    difference = max(float((ours[n] - theirs[n]).norm() / theirs[n].norm()) for n in ours)
    return Equality(what="gradients, relative difference", value=difference, limit=limit)


def useful_flops(bench: Bench, path: Path) -> float:
    """Return the floating-point operations of one forward and backward pass over the items' tokens.

    Padding, attention's products and the LM head are not counted; a prefix shared by several items counts for each.
    Frozen weights need no gradient: two products per token and weight instead of three.
    """
    shape = read_shape(locate(bench.model))
    examples = json.loads(path.read_text())
    tokens = sum(len(e["prompt"]) + len(e["answer"]) for e in examples)
    frozen = sum(n_in * n_out for n_in, n_out in shape.linears.values())
    trained = sum(8 * (n_in + n_out) for n_in, n_out in shape.linears.values())
    return tokens * (4.0 * frozen + 6.0 * trained)


def _start_worker(
    bench: Bench, stack: contextlib.ExitStack, module: str, python: str | None = None, **inputs: Any
) -> Worker:
    options: dict[str, Any] = {"python": python} if python else {}
    if module == OURS:
        options["variables"] = cores.waiting_variables()
    log = bench.scratch / f"{module}.log"
    worker = stack.enter_context(running_worker(module, threads=bench.threads, log=log, **options))
    worker.ask("load", **inputs)
    return worker


def _start_peer(name: str, bench: Bench, start: Callable[..., Worker], inputs: Mapping[str, str]) -> Worker:
    if name in TRL_ROWS:
        return start("benchmarks.peers.sft", bench.peer_python, checkpointing=TRL_ROWS[name], **inputs)
    return start("benchmarks.peers.usual", **inputs)


def blocks(fast_precision: str) -> list[Block]:
    """Return the blocks of training; TRL trains in `fast_precision`."""
    checkpointed = f"TRL SFTTrainer with its defaults ({'bf16, ' if fast_precision == 'bf16' else ''}checkpointing)"
    uncheckpointed = "TRL SFTTrainer without gradient checkpointing"
    if fast_precision == "fp32":
        checkpointed, uncheckpointed = (f"{against}, but `bf16=False`" for against in (checkpointed, uncheckpointed))
    by_trl = [
        Row(name=name, work=f"training, {fast_precision}", against=against, goal=4, precision=fast_precision)
        for name, against in zip(TRL_ROWS, (checkpointed, uncheckpointed), strict=True)
    ]
    training = []
    for row in TRAINER_ROWS:
        rows = [row, *(by_trl if row.precision == fast_precision else [])]
        training.append(Block(rows=rows, minutes=2 + 1.25 * (len(rows) - 1), measure=partial(measure, rows=rows)))
    windowed = [Block(rows=[row], minutes=4, measure=partial(measure_windowed, row=row)) for row in WINDOWED_ROWS]
    return [*training, *windowed, Block(rows=[MEMORY], minutes=2, measure=measure_memory)]
