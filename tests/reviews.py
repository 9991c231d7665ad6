"""Writes an invented task: German and Turkish reviews of products, with the label in the words."""

from __future__ import annotations

import csv
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

WORDS = {
    "de": ("schrecklich", "schlecht", "mittel", "gut", "großartig"),
    "tr": ("berbat", "kötü", "idare eder", "iyi", "harika"),
}
TEXTS = {"de": "Das Gerät ist {} und der Versand {}, Bestellung {}.", "tr": "Ürün {} ve kargo {}, sipariş {}."}
Row = dict[str, str]


def review_rows(language: str, split: str, n: int) -> list[Row]:
    """Return reviews with different texts; products are shared by the languages."""
    rng = random.Random(f"{language} {split}")
    rows = []
    for number in range(n):
        stars = rng.randrange(5)
        text = TEXTS[language].format(WORDS[language][stars], rng.choice(WORDS[language]), f"{split}{number}")
        product = f"p{rng.randrange(20)}"
        rows.append({"id": f"{split}{number}", "review": text, "stars": str(stars + 1), "product": product})
    return rows


def write_reviews(path: Path, rows: Sequence[Row]) -> None:
    """Write reviews as a CSV file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["id", "review", "stars", "product"])
        writer.writeheader()
        writer.writerows(rows)


def declare_reviews(folder: Path, **changes: Any) -> str:
    """Write the task's file and return its path; `changes` replace keys, and None removes them."""
    declaration = {
        "task": "reviews",
        "kind": "choice",
        "languages": ["de", "tr"],
        "source": "de",
        "data": {"train": "train-{lang}.csv", "test": "test-{lang}.csv"},
        "fields": {"id": "id", "text": "review", "answer": "stars", "product": "product"},
        "labels": {"1": "sehr schlecht", "2": "schlecht", "3": "mittel", "4": "gut", "5": "sehr gut"},
        "prompt": "Rate the review from 1 to 5.\n{{ text }}\nStars:",
        "group": "product",
        **changes,
    }
    path = folder / "reviews.yaml"
    path.write_text(yaml.safe_dump({k: v for k, v in declaration.items() if v is not None}, allow_unicode=True))
    return str(path)


def reviews_folder(folder: Path, *, train: int = 100, test: int = 50, **changes: Any) -> str:
    """Write the task's file and its data, and return the path of the file."""
    for language in WORDS:
        write_reviews(folder / f"train-{language}.csv", review_rows(language, "train", train))
        write_reviews(folder / f"test-{language}.csv", review_rows(language, "test", test))
    return declare_reviews(folder, **changes)
