"""Scores one item at a time: the reference implementation for batched scoring."""

from __future__ import annotations

import numpy as np
import torch

from whichlora.data.tasks import get_task

NLI = get_task("atlas-nli")
ITEMS = [*NLI.load("en", "test")[:7], *NLI.load("sw", "test")[:4]]


@torch.inference_mode()
def naive(model, encoder, items) -> np.ndarray:
    """Return the softmax over the labels' log-likelihoods, with one forward pass per label; shape (items, labels).

    Only the first token of each label counts if the first tokens differ.
    """
    tokenizer, task = encoder.tokenizer, encoder.task
    rows = []
    for item in items:
        prompt = tokenizer(task.prompt(item)).input_ids
        words = task.label_words(item)
        ids = [tokenizer(f"{task.prompt(item)} {word}").input_ids[len(prompt) :] for word in words]
        if len({i[0] for i in ids}) == len(ids):
            ids = [i[:1] for i in ids]
        logs = []
        for label in ids:
            text = torch.tensor([prompt + label])
            predicted = model(input_ids=text, attention_mask=torch.ones_like(text)).logits[0].log_softmax(-1)
            logs.append(sum(predicted[len(prompt) + k - 1, token].item() for k, token in enumerate(label)))
        rows.append(torch.tensor(logs, dtype=torch.float64).softmax(0).numpy())
    return np.array(rows)
