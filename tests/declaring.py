"""Writes the YAML file of a declared task beside its data, and loads it."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from whichlora.data.tasks.declared import DeclaredTask, from_file

REVIEWS: dict[str, Any] = {
    "task": "reviews",
    "kind": "choice",
    "languages": ["de", "tr"],
    "source": "de",
    "data": {"train": "train-{lang}.csv", "test": "test-{lang}.csv"},
    "fields": {"id": "id", "text": "review", "answer": "stars"},
    "labels": {"1": "bad", "2": "good"},
    "prompt": "Rate the review.\n{{ text }}\nStars:",
}
QUESTIONS: dict[str, Any] = {
    "task": "questions",
    "kind": "span",
    "languages": ["de"],
    "data": {"test": "test.json"},
    "fields": {"id": "id", "context": "context", "question": "question", "answers": "answers"},
}
TEXTS: dict[str, Any] = {
    "task": "instructions",
    "kind": "text",
    "languages": ["de"],
    "data": {"test": "test.json"},
    "fields": {"instruction": "instruction", "input": "input", "output": "output"},
    "prompt": "{{ instruction }}{% if input %}\n{{ input }}{% endif %}\nAnswer:",
}


def declared(folder: Path, base: dict[str, Any] = REVIEWS, **changes: Any) -> type[DeclaredTask]:
    """Return the task of a YAML file in a folder; a change to None takes a key away."""
    values = {key: value for key, value in (base | changes).items() if value is not None}
    path = folder / "task.yaml"
    path.write_text(yaml.safe_dump(values, allow_unicode=True, sort_keys=False), encoding="utf-8")
    return from_file(str(path))


def reviews(language: str, split: str, n: int = 6) -> list[dict[str, Any]]:
    """Return rows of reviews, the labels alternating; row i has the same id and label in every language."""
    return [
        {"id": f"{split}-{i}", "review": f"{language} {split} »{i}«, ﷺ‍\u200fé", "stars": i % 2 + 1} for i in range(n)
    ]


def write(path: Path, rows: list[dict[str, Any]], *, header: bool = True, quoted: bool = True, sep: str = "") -> Path:
    """Write rows in the format of the suffix, compressed if it ends in `.gz`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    name = path.name.removesuffix(".gz")
    if name.endswith(".parquet"):
        raw = pd.DataFrame(rows).to_parquet()
        path.write_bytes(gzip.compress(raw) if path.suffix == ".gz" else raw)
        return path
    if name.endswith(".jsonl"):
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    elif name.endswith(".json"):
        text = json.dumps(rows, ensure_ascii=False)
    elif quoted:
        separator = sep or ("\t" if name.endswith(".tsv") else ",")
        text = pd.DataFrame(rows).to_csv(index=False, header=header, sep=separator, lineterminator="\n")
    else:
        lines = [list(rows[0])] * header + [list(map(str, row.values())) for row in rows]
        text = "".join((sep or "\t").join(line) + "\n" for line in lines)
    raw = text.encode()
    path.write_bytes(gzip.compress(raw) if path.suffix == ".gz" else raw)
    return path


def write_all(folder: Path, pattern: str = "{split}-{lang}.csv", **options: Any) -> None:
    """Write train and test reviews in German and Turkish."""
    for language in ("de", "tr"):
        for split in ("train", "test"):
            write(folder / pattern.format(split=split, lang=language), reviews(language, split), **options)


def squad(*questions: dict[str, Any], context: str) -> dict[str, Any]:
    """Return a document of SQuAD JSON with one paragraph."""
    return {"version": "1.1", "data": [{"title": "t", "paragraphs": [{"context": context, "qas": list(questions)}]}]}
