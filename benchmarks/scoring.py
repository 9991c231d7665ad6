"""Compares scoring with `generate()`: three-way labels in batches, and answers to questions one by one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from benchmarks import items
from benchmarks.harness import Bench, Block, Result, Row, Seconds, agreement, alternate, timed
from benchmarks.ours import plan_of
from benchmarks.peers.usual import generated_texts, with_pad_token
from whichlora.data.encoding import Encoder
from whichlora.data.tasks.items import Item
from whichlora.evaluation.scores import score
from whichlora.models.loading import load_model
from whichlora.models.memory import freeze_gc
from whichlora.training import adapter, base_cache

if TYPE_CHECKING:
    from whichlora.config.plan import Plan

BATCH, WARM_UP_ITEMS = 16, 8
"""Batch size of `generate()` for labels, and number of warm-up items."""
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
MIN_AGREEMENT = {"fp32": 1.0, "bf16": 0.7}
"""Lowest share of equal predictions. In bf16 a model that has hardly learnt the task has many near ties."""
TRAIN_ITEMS = {"atlas-nli": 96, "atlas-qa": 64}
"""Number of training items by task, so that the model answers with a label or a short span and then stops."""
BATCHED_GENERATE = "`generate()` in batches, its text matched with the labels"
LABELS = Row(name="scoring", work="three-way scoring, fp32", against=BATCHED_GENERATE, goal=5)
LABELS_BF16 = replace(
    LABELS, name="scoring-bf16", work="three-way scoring, bf16", against=f"{BATCHED_GENERATE}, bf16", precision="bf16"
)
SINGLE_GENERATE = "`generate()`, one question after the other"
ANSWERS = Row(name="answers", work="QA scoring, fp32", against=SINGLE_GENERATE, goal=3.5)
ANSWERS_BF16 = replace(
    ANSWERS, name="answers-bf16", work="QA scoring, bf16", against=f"{SINGLE_GENERATE}, bf16", precision="bf16"
)


def measure_labels(bench: Bench, wanted: Sequence[str]) -> list[Result]:
    """Score labelled items on both sides, starting from a base model in memory and an adapter on disk."""

    def match_labels(texts: list[str], labels: Sequence[str]) -> list[str | None]:
        return [next((label for label in labels if text.strip().startswith(label)), None) for text in texts]

    rows = [row for row in (LABELS, LABELS_BF16) if row.name in wanted]
    return [
        _measure(bench, row, "atlas-nli", bench.items, items.nli_items, batch_size=BATCH, parse=match_labels)
        for row in rows
    ]


def measure_answers(bench: Bench, wanted: Sequence[str]) -> list[Result]:
    """Answer questions on both sides, starting from a base model in memory and an adapter on disk."""

    def make_questions(encoder: Encoder, split: Any, count: int) -> Sequence[Item]:
        return items.qa_items(split, count)

    def first_line(texts: list[str], labels: Sequence[str]) -> list[str]:
        return [text.partition("\n")[0].strip() for text in texts]

    rows = [row for row in (ANSWERS, ANSWERS_BF16) if row.name in wanted]
    return [
        _measure(bench, row, "atlas-qa", bench.answers, make_questions, batch_size=1, parse=first_line) for row in rows
    ]


def _measure(
    bench: Bench,
    row: Row,
    task: str,
    count: int,
    make_items: Callable[[Encoder, Any, int], Sequence[Item]],
    *,
    batch_size: int,
    parse: Callable[[list[str], Sequence[str]], Sequence[str | None]],
) -> Result:
    from transformers import AutoModelForCausalLM

    precision = row.precision
    plan = plan_of(bench.model, task=task, precision=precision)
    encoder = Encoder(plan.task, plan.tokenizer)
    adapter_folder = trained_adapter(bench, task, make_items(encoder, "train", TRAIN_ITEMS[task]))
    test_items = make_items(encoder, "test", count)
    options = {"revision": plan.source.revision, "dtype": DTYPES[precision]}
    plain = AutoModelForCausalLM.from_pretrained(plan.source.name_or_path, **options)
    found: dict[str, Any] = {}
    sides = both_sides(plan, plain, adapter_folder, test_items, batch_size=batch_size, found=found)
    measured = alternate(row.name, sides, bench.pairs)
    base_cache.checkout(plan)  # frees the model
    predicted = {"ours": found["ours"].predicted, "theirs": parse(found["theirs"], plan.task.labels)}
    answers = predicted["theirs"]
    notes = [f"{len(set(answers))} different answers, {list(answers).count(None)} without one."]
    equal = agreement(predicted["ours"], answers, "predictions", limit=MIN_AGREEMENT[precision])
    return Result(
        row=row,
        ours=measured["ours"],
        theirs=measured["theirs"],
        scale=count,
        per="item",
        equal=equal,
        notes=notes,
    )


def both_sides(
    plan: Plan, plain: Any, adapter_folder: Path, test_items: Sequence[Item], *, batch_size: int, found: dict[str, Any]
) -> dict[str, Callable[[], Seconds]]:
    """Load and warm up both sides, and return functions that answer all items and return their seconds.

    Args:
        plain: the base model, as the peer loads it.
        batch_size: that of `generate()`.
        found: where the sides put the scores and the texts of their latest call.
    """
    from peft import PeftModel
    from transformers import AutoTokenizer

    encoder = Encoder(plan.task, plan.tokenizer)
    prompts = [encoder.prompt(item) for item in test_items]
    precision, quantization = plan.spec.precision, plan.spec.quantization
    base_cache.give_back(load_model(plan.source, precision=precision, quantization=quantization), plan)
    tokenizer = with_pad_token(AutoTokenizer.from_pretrained(plan.source.name_or_path))

    def ours(count: int = len(test_items)) -> None:
        with base_cache.saved_model(plan, adapter_folder) as model:
            found["ours"] = score(model, encoder, test_items[:count], scoring=plan.scoring, name=plan.task.name)

    def theirs(count: int = len(test_items)) -> None:
        model = PeftModel.from_pretrained(plain, str(adapter_folder))
        found["theirs"] = generated_texts(
            model, tokenizer, prompts[:count], batch_size=batch_size, max_new_tokens=plan.task.answer_tokens
        )
        model.unload()

    freeze_gc()
    ours(WARM_UP_ITEMS)
    theirs(WARM_UP_ITEMS)
    return {"ours": timed(ours), "theirs": timed(theirs)}


def trained_adapter(bench: Bench, task: str, train_items: Sequence[Item]) -> Path:
    """Return the folder of an adapter trained in fp32; rows of both precisions share it, so it is trained once."""
    from whichlora.training.trainer import train

    work = bench.scratch / task
    folder = work / "adapter"
    if not folder.is_dir():
        plan = plan_of(bench.model, task=task, precision="fp32", epochs=1, batch_size=4, train_size=len(train_items))
        encoder = Encoder(plan.task, plan.tokenizer)
        result = train(plan, [encoder.example(item) for item in train_items], work, validate=lambda model, step: 0.0)
        assert result is not None
        adapter.save(result.model, plan, folder, initial=work)
        base_cache.give_back_trained(result.model, plan)
    return folder


BLOCKS = [
    Block(rows=[LABELS, LABELS_BF16], minutes=3.5, measure=measure_labels),
    Block(rows=[ANSWERS, ANSWERS_BF16], minutes=7, measure=measure_answers),
]
