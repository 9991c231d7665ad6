"""Writes small XNLI and TyDi QA folders in every format that `data_dir` accepts, with texts of the packaged tasks."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from whichlora.data.tasks import get_task
from whichlora.data.tasks.base import Split
from whichlora.data.tasks.items import LABELS

GENRES = ("letters", "travel")
Row = dict[str, Any]


@functools.cache
def _packaged(task: str, language: str, split: Split) -> tuple[Any, ...]:
    return tuple(get_task(task).load(language, split)[:300])


def xnli_rows(language: str, split: Split, n: int, *, genre: bool = True) -> list[Row]:
    """Return parallel rows: row i is the same item in every language."""
    own = language if language in get_task("atlas-nli").languages else "en"
    mark = "" if own == language else f"({language}) "
    return [
        {"premise": mark + item.premise, "hypothesis": mark + item.hypothesis, "label": item.label}
        | ({"genre": GENRES[item.index // 3 % 2]} if genre else {})
        for item in _packaged("atlas-nli", own, split)[:n]
    ]


def tydiqa_rows(language: str, split: Split, n: int, *, sentences: int = 7) -> list[Row]:
    """Return rows in the hub's layout, with two accepted answers if the split is validation.

    Contexts of more than 7 sentences are extended with contexts of other items; the answer is in the middle.
    """
    own = language if language in get_task("atlas-qa").languages else "en"
    name = {"en": "english", "sw": "swahili", "bn": "bengali", "te": "telugu"}.get(language, language)
    items = _packaged("atlas-qa", own, split)
    rows = []
    for item in items[:n]:
        around = [items[(item.index + k) % len(items)].context for k in range(1, sentences // 7)]
        half = len(around) // 2
        before = " ".join([*around[:half], ""])
        context = " ".join([*around[:half], item.context, *around[half:]])
        texts, starts = [item.answers[0]], [len(before) + item.answer_start]
        if split == "validation":
            begin = max(0, starts[0] - 4)
            longer = context[begin : starts[0] + len(texts[0])]
            texts, starts = [*texts, texts[0], longer], [*starts, *starts, begin]
        answers = {"text": texts, "answer_start": starts}
        rows.append(
            {"id": f"{name}-{item.index}", "title": "t", "context": context, "question": item.question}
            | {"answers": answers}
        )
    return rows


def write(path: Path, rows: list[Row]) -> None:
    """Write rows in the format given by the file's suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pd.DataFrame(rows).to_parquet(path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    elif path.suffix == ".json":
        path.write_text(json.dumps({"data": [_article(row) for row in rows]}), encoding="utf-8")
    else:
        cells = [
            [text for v in row.values() for text in (v["text"] if isinstance(v, dict) else [v])]
            for row in ({k: v for k, v in row.items() if k != "title"} for row in rows)
        ]
        path.write_text("".join("\t".join(line) + "\n" for line in cells), encoding="utf-8")


def _article(row: Row) -> Row:
    answers = [
        dict(zip(("text", "answer_start"), pair, strict=True)) for pair in zip(*row["answers"].values(), strict=True)
    ]
    question = {"id": row["id"], "question": row["question"], "answers": answers}
    return {"title": row["title"], "paragraphs": [{"context": row["context"], "qas": [question]}]}


def xnli_folder(folder: Path, *, dev: int = 120) -> str:
    """Write dev and test files of all languages as TSV; return the folder."""
    for language in get_task("xnli").languages:
        write(folder / f"dev-{language}.tsv", xnli_rows(language, "validation", dev))
        write(folder / f"test-{language}.tsv", xnli_rows(language, "test", 30))
    return str(folder)


def tydiqa_folder(folder: Path, *, sentences: int = 7) -> str:
    """Write SQuAD JSON: dev in all languages, train in all except Bengali and Telugu; return the folder."""
    for number, language in enumerate(get_task("tydiqa").languages):
        write(folder / f"{language}.dev.json", tydiqa_rows(language, "validation", 4 + number, sentences=sentences))
        if language not in ("bn", "te"):
            write(folder / f"{language}.train.json", tydiqa_rows(language, "train", 90, sentences=sentences))
    return str(folder)


def by_number(rows: list[Row]) -> list[Row]:
    """Return rows with label numbers, as on the hub."""
    return [row | {"label": LABELS.index(row["label"])} for row in rows]


REVIEWS = {
    "de": ("Das Gerät ist", "und der Versand war", ("schrecklich", "schlecht", "okay", "gut", "großartig")),
    "tr": ("Ürün", "ve kargo", ("berbat", "kötü", "idare eder", "iyi", "harika")),
    "az": ("Məhsul", "və çatdırılma", ("dəhşətli", "pis", "orta", "yaxşı", "əla")),
}


def reviews_task(folder: Path, *languages: str, name: str = "reviews", **keys: Any) -> str:
    """Write invented reviews of products as CSV, with the declaration `NAME.yaml` beside them; return its path.

    Args:
        languages: of `REVIEWS`; items of the same number differ.
        keys: further keys of the declaration, such as `source`.
    """
    for code in languages:
        first, second, words = REVIEWS[code]
        for split, n in (("train", 120), ("test", 30)):
            rows = []
            for i in range(n):
                stars = (7 * i + i // 5) % 5
                text = f"{first} {words[stars]} {second} {words[(stars + i) % 5]} ({i})."
                rows.append({"id": f"{split}{i}", "review": text, "stars": stars + 1, "product": f"p{i % 11}"})
            folder.mkdir(parents=True, exist_ok=True)
            pd.DataFrame(rows).to_csv(folder / f"{split}-{code}.csv", index=False)
    declaration = {
        "task": name,
        "kind": "choice",
        "languages": list(languages),
        **keys,
        "data": {"train": "train-{lang}.csv", "test": "test-{lang}.csv"},
        "fields": {"id": "id", "text": "review", "answer": "stars", "product": "product"},
        "labels": {"1": "sehr schlecht", "2": "schlecht", "3": "mittel", "4": "gut", "5": "sehr gut"},
        "prompt": "Rate the review from 1 to 5.\n{{ text }}\nStars:",
        "group": "product",
    }
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(declaration, allow_unicode=True, sort_keys=False), encoding="utf-8")
    return str(path)


_CONTEXTS = {
    "en": ["It is red. It is big.", "He came late. She left."],
    "tr": ["Kırmızıdır. Büyüktür.", "Geç geldi. Kadın gitti."],
    "hi": ["यह लाल है। यह बड़ा है।", "वह देर से आया। वह चली गई।"],
}
_ANSWERS = {"color": (0, 0), "size": (0, 1), "who": (1, 1)}
"""By id: the paragraph and the sentence of the answer."""


def _xquad_r(language: str) -> dict[str, Any]:
    paragraphs = []
    for number, context in enumerate(_CONTEXTS[language]):
        middle = context.index("।" if language == "hi" else ".") + 1
        breaks = [[0, middle], [middle + 1, len(context)]]
        qas = [
            {"id": name, "question": f"{name} {language}?", "answers": [{"answer_start": breaks[sentence][0] + 1}]}
            for name, (paragraph, sentence) in _ANSWERS.items()
            if paragraph == number
        ]
        paragraphs.append({"context": context, "sentence_breaks": breaks, "qas": qas})
    return {"data": [{"paragraphs": paragraphs}]}


def xquad_r_folder(folder: Path) -> Path:
    """Write three questions of XQuAD-R in three languages; return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for language in _CONTEXTS:
        (folder / f"{language}.json").write_text(json.dumps(_xquad_r(language)), encoding="utf-8")
    return folder
