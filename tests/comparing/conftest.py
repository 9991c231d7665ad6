"""A task of which real runs take a second."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import yaml

TASK = {
    "task": "moods",
    "kind": "choice",
    "languages": ["de", "tr"],
    "source": "de",
    "data": {"train": "train-{lang}.csv", "test": "test-{lang}.csv"},
    "fields": {"id": "id", "text": "text", "answer": "answer"},
    "labels": ["gut", "mies"],
    "prompt": "{{ text }}\n",
}
WORDS = {"de": (("fein", "toll"), ("lahm", "öde")), "tr": (("iyi", "hoş"), ("kötü", "yavaş"))}


@pytest.fixture
def moods_task(store: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the task, where runs store a checkpoint at every opportunity."""
    monkeypatch.setenv("WHICHLORA_CHECKPOINT_SECONDS", "0")
    rng = random.Random(0)
    for language, words in WORDS.items():
        for split, count in (("train", 200), ("test", 40)):
            lines = ["id,text,answer"]
            for i in range(count):
                text = " ".join(rng.choice(words[i % 2]) for _ in range(4))
                lines.append(f"{split}{i},{text} {split} {i},{TASK['labels'][i % 2]}")
            (store / f"{split}-{language}.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (store / "task.yaml").write_text(yaml.safe_dump(TASK, allow_unicode=True), encoding="utf-8")
    return store
