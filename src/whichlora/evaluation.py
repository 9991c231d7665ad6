"""Scores a model on a task's items: by the likelihood of the labels, by what it writes, or by the states of words."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from whichlora import packing
from whichlora.encoding import (
    Encoded,
    Encoder,
    by_length,
    collate,
    common_beginning,
    in_order,
    line_ends,
    sorted_by_ids,
    to_device,
)
from whichlora.injection import measured
from whichlora.memory import Divide, in_batches
from whichlora.models import blocks_of
from whichlora.objectives import answer_logits
from whichlora.pooling import PLACES, Pooling, at_places
from whichlora.states import plain
from whichlora.tasks.base import Item, Task

BATCH_TOKENS = 4096
"""Of a batch, with its padding; of a packed one, those that are not shared, and an eighth of all."""
BATCH_ITEMS, PACKED_ITEMS = 32, 128
_PLAIN = {"use_cache": True, "cache_implementation": None, "num_beams": 1, "stop_strings": None}  # over a model's own


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Predictions for items in their order, and their metrics.

    Attributes:
        predicted: a label, the text written, or the translation found; None for an answer that is none of the labels.
        probabilities: (items, labels) for likelihood scoring, over the labels; None otherwise.
        metrics: `f1` and others from 0 to 1; `invalid_rate` when labels were generated; the means of `measures`.
        measures: for word pairs, the value of each of `injection.MEASURES` for each item, by name.
    """

    items: Sequence[Item]
    gold: list[tuple[str, ...]]
    predicted: list[str | None]
    probabilities: np.ndarray[Any, Any] | None
    labels: tuple[str, ...]
    metrics: dict[str, float]
    measures: Mapping[str, np.ndarray[Any, Any]] = field(default_factory=dict)

    def frame(self) -> pd.DataFrame:
        """Return a row an item: id, gold (the first accepted answer), predicted, `p_<label>` or measures if any."""
        columns: dict[str, Any] = {
            "id": [item.id for item in self.items],
            "gold": [answers[0] for answers in self.gold],
            "predicted": self.predicted,
        }
        if self.probabilities is not None:
            columns |= {f"p_{label}": self.probabilities[:, i] for i, label in enumerate(self.labels)}
        return pd.DataFrame({**columns, **self.measures})


@torch.inference_mode()
def score(model: Any, encoder: Encoder, items: Sequence[Item], *, scoring: str, name: str) -> Scores:
    """Score `items` with `scoring` "likelihood", "generate" or a `Pooling`; `name` is shown on the progress bar."""
    was_training = model.training
    model.eval()
    try:
        task = encoder.task
        predicted: list[str | None]
        probabilities, measures = None, dict[str, np.ndarray[Any, Any]]()
        if task.kind == "pair":
            states = word_states(model, encoder, items, Pooling.read(scoring), name=name)
            predicted, measures = measured(states, items)
        elif scoring == "likelihood":
            probabilities = label_probabilities(model, encoder, items, name=name)
            predicted = [task.labels[i] for i in probabilities.argmax(axis=1)]
        else:
            written = generate(model, encoder, items, name=name)
            if task.kind == "choice":
                predicted = [_label_in(text, task, item) for text, item in zip(written, items, strict=True)]
            else:
                predicted = list(written)
        gold = [task.gold(item) for item in items]
        metrics = task.metrics(predicted, gold) | {key: float(values.mean()) for key, values in measures.items()}
        if scoring == "generate" and task.kind == "choice":
            metrics["invalid_rate"] = predicted.count(None) / len(predicted)
        return Scores(
            items=items,
            gold=gold,
            predicted=predicted,
            probabilities=probabilities,
            labels=task.labels,
            metrics=metrics,
            measures=measures,
        )
    finally:
        model.train(was_training)


def label_probabilities(model: Any, encoder: Encoder, items: Sequence[Item], *, name: str) -> np.ndarray[Any, Any]:
    """Return (items, labels): the probability of each label, among the labels, as the answer.

    Where the first tokens of the labels' words differ, one forward pass of the prompt decides, as greedy decoding
    would; where they collide, each word is scored as a whole. Which of the two is decided for each wording, so that an
    item's score does not hang on the languages beside it.
    """
    by_wording: dict[tuple[str, ...], list[int]] = {}
    for position, item in enumerate(items):
        by_wording.setdefault(encoder.task.label_words(item), []).append(position)
    result = np.empty((len(items), len(encoder.task.labels)))
    for words, positions in by_wording.items():
        result[positions] = _word_probabilities(model, encoder, [items[i] for i in positions], words, name=name)
    return result


def _word_probabilities(
    model: Any, encoder: Encoder, items: list[Item], words: tuple[str, ...], *, name: str
) -> np.ndarray[Any, Any]:
    # Every prompt of a wording ends alike, so the words' tokens after the first one hold for all.
    labels = [encoder.continuation(items[0], f" {word}") for word in words]
    first = [ids[0] for ids in labels]
    if len(set(first)) == len(first):
        return _softmax(_next_token_logits(model, encoder, [encoder.prompt(i) for i in items], first, name=name))
    examples = [Encoded(encoder.prompt(item), ids) for item in items for ids in labels]
    return _softmax(_answer_log_likelihood(model, encoder, examples, name=name).reshape(len(items), -1))


def generate(model: Any, encoder: Encoder, items: Sequence[Item], *, name: str) -> list[str]:
    """Return what the model writes greedily for each item, up to the end of the text or of the line.

    Where an item is read in windows, the answer of the window is taken whose tokens have the highest mean
    log-likelihood; an empty answer only where every window has one.
    """
    windows = [(k, window) for k, item in enumerate(items) for window in encoder.windows(item)]
    several = Counter(k for k, _ in windows)
    texts = _written(model, encoder, [window for _, window in windows], name=name)
    likelihood = np.full(len(windows), -np.inf)
    rivals = [i for i, (k, _) in enumerate(windows) if several[k] > 1 and texts[i]]
    if rivals:
        answers = [
            Encoded(encoder.prompt(windows[i][1]), encoder.continuation(windows[i][1], f" {texts[i]}")) for i in rivals
        ]
        total = _answer_log_likelihood(model, encoder, answers, name=f"{name} windows")
        likelihood[rivals] = total / [len(answer.answer) for answer in answers]
    best: dict[int, int] = {}
    for i, (k, _) in enumerate(windows):
        if k not in best or likelihood[i] > likelihood[best[k]]:
            best[k] = i
    return [texts[best[k]] for k in range(len(items))]


def _written(model: Any, encoder: Encoder, items: Sequence[Item], *, name: str) -> list[str]:
    """Return what the model writes greedily after each prompt, up to the end of the text or of the line."""
    tokenizer = encoder.tokenizer
    prompts = [encoder.prompt(item) for item in items]
    texts = [""] * len(items)
    own = model.generation_config.eos_token_id
    ends = sorted({*line_ends(tokenizer), *([own] if isinstance(own, int) else own or [])})
    packs = packing.can_pack(model) and all(len(prompt) > 1 for prompt in prompts)

    def write(batch: list[int]) -> None:
        longest = max(len(prompts[i]) for i in batch)
        ids = torch.full((len(batch), longest), tokenizer.pad_token_id)
        mask = torch.zeros_like(ids)
        for row, i in enumerate(batch):
            ids[row, longest - len(prompts[i]) :] = torch.tensor(prompts[i])
            mask[row, longest - len(prompts[i]) :] = 1
        output = model.generate(
            input_ids=ids.to(model.device),
            attention_mask=mask.to(model.device),
            past_key_values=packing.read_ahead(model, [prompts[i] for i in batch]) if packs else None,
            max_new_tokens=encoder.task.answer_tokens,
            do_sample=False,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=ends,
            **_PLAIN,
        )
        for i, text in zip(batch, tokenizer.batch_decode(output[:, longest:], skip_special_tokens=True), strict=True):
            texts[i] = text.partition("\n")[0].strip()

    _over([len(p) for p in prompts], write, name=name, unit="item")
    return texts


def _next_token_logits(
    model: Any, encoder: Encoder, prompts: list[list[int]], tokens: list[int], *, name: str
) -> np.ndarray[Any, Any]:
    """Return (prompts, tokens): the logits of these tokens after each prompt.

    What several prompts begin with, the instruction and often the premise, is read once a batch. Where the model cannot
    read packed prompts, what all of them begin with is read once.
    """
    result = np.empty((len(prompts), len(tokens)))
    if packing.can_pack(model):

        def read(batch: list[int], tensors: dict[str, Any]) -> None:
            last = torch.tensor([path[-1] for path in tensors["layout"].paths], device=model.device)
            inputs = {key: value for key, value in tensors.items() if key != "labels"}
            logits = model(**inputs, logits_to_keep=last, use_cache=False).logits[0]
            result[batch] = logits[:, tokens].float().cpu().numpy()

        examples = [Encoded(prompt, []) for prompt in prompts]
        _read(model, encoder, examples, read, name=name, unit="item", packed_items=PACKED_ITEMS)
        return result

    prefix = prompts[0][: common_beginning(prompts)]
    cache = None
    if prefix:
        cache = model(input_ids=torch.tensor([prefix], device=model.device), use_cache=True).past_key_values
    rest = [p[len(prefix) :] for p in prompts]

    def go_on(batch: list[int]) -> None:
        chosen = [Encoded(rest[i], []) for i in batch]
        ids = collate(chosen, encoder.tokenizer.pad_token_id)["input_ids"].to(model.device)
        last = torch.tensor([[len(e) - 1] for e in chosen], device=model.device)
        own = copy.deepcopy(cache)
        if own is not None:
            own.batch_repeat_interleave(len(batch))
        logits = model(input_ids=ids, past_key_values=own, logits_to_keep=last).logits[:, 0]
        result[batch] = logits[:, tokens].float().cpu().numpy()

    _over([len(r) for r in rest], go_on, name=name, unit="item")
    return result


def _answer_log_likelihood(model: Any, encoder: Encoder, examples: list[Encoded], *, name: str) -> np.ndarray[Any, Any]:
    """Return (examples,): the log-likelihood of each answer after its prompt."""
    result = np.empty(len(examples))

    def read(batch: list[int], tensors: dict[str, Any]) -> None:
        logits, targets = answer_logits(model, tensors)
        tokens = torch.log_softmax(logits, -1).gather(1, targets[:, None])[:, 0]
        each = torch.split(tokens, [len(examples[i].answer) for i in batch])
        result[batch] = torch.stack([part.sum() for part in each]).cpu().numpy()

    _read(model, encoder, examples, read, name=name, unit="answer", packed_items=BATCH_ITEMS)
    return result


def _read(
    model: Any,
    encoder: Encoder,
    examples: list[Encoded],
    work: Callable[[list[int], dict[str, Any]], None],
    *,
    name: str,
    unit: str,
    packed_items: int,
) -> None:
    """Do `work` on the positions and the tensors of batches of examples, which are packed where the model allows it.

    Packed examples are sorted, so that those share a batch that begin alike.
    """
    if not packing.can_pack(model):

        def padded(batch: list[int]) -> None:
            work(batch, to_device(collate([examples[i] for i in batch], encoder.tokenizer.pad_token_id), model.device))

        _over([len(e) for e in examples], padded, name=name, unit=unit)
        return
    order, lengths = sorted_by_ids(examples)
    packed_items = min(packed_items, max(1, 8 * BATCH_TOKENS // max(map(len, examples), default=1)))

    def packed(places: list[int]) -> None:
        batch = [order[k] for k in places]
        work(batch, to_device(packing.pack([examples[i] for i in batch]), model.device))

    with packing.attention(model):
        _over(lengths, packed, name=name, unit=unit, divide=in_order, max_items=packed_items)


def _over(
    lengths: list[int],
    work: Callable[[list[int]], None],
    *,
    name: str,
    unit: str,
    divide: Divide = by_length,
    max_items: int = BATCH_ITEMS,
) -> None:
    """Do `work` on batches of positions, under a progress bar."""
    with tqdm(total=len(lengths), desc=name, unit=unit, leave=False) as bar:

        def counted(batch: list[int]) -> None:
            work(batch)
            bar.update(len(batch))

        in_batches(lengths, counted, divide=divide, max_tokens=BATCH_TOKENS, max_items=max_items)


def word_states(
    model: Any, encoder: Encoder, items: Sequence[Item], pooling: Pooling, *, name: str
) -> np.ndarray[Any, Any]:
    """Return (`PLACES`, items, 2, width): the states of each word and of its translation."""
    pairs = [encoder.pair(item) for item in items]
    sequences = [ids for pair in pairs for ids in (pair.word, pair.translation)]
    blocks = blocks_of(plain(model))
    found: dict[int, np.ndarray[Any, Any]] = {}

    def read(batch: list[int]) -> None:
        states = at_places(model, blocks, [sequences[i] for i in batch], pooling).cpu().numpy()
        found.update({i: states[:, row] for row, i in enumerate(batch)})

    _over([len(s) for s in sequences], read, name=name, unit="word")
    return np.stack([found[i] for i in range(len(sequences))], axis=1).reshape(len(PLACES), len(items), 2, -1)


def _label_in(text: str, task: Task, item: Item) -> str | None:
    """Return the label whose word for this item the text begins with, or None."""
    start = text.strip().lower()
    words = zip(task.label_words(item), task.labels, strict=True)
    return next((label for word, label in words if start.startswith(word.lower())), None)


def _softmax(scores: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    shifted = np.exp(scores - scores.max(axis=1, keepdims=True))
    result: np.ndarray[Any, Any] = shifted / shifted.sum(axis=1, keepdims=True)
    return result
