"""Writes invented items of the catalogue's tasks in the layouts in which the datasets are distributed."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from whichlora.data.tasks import task_class

Row = dict[str, Any]
SPLITS = ("train", "validation", "test")
SIZES = {"train": 100, "validation": 12, "test": 12, "all": 48}


def invented(task: str, code: str, split: str) -> list[Row]:
    """Return items by the names of the task's fields; item i has the same id and label in every language."""
    declaration = task_class(task).declaration
    labels = list(dict.fromkeys(declaration.label_names.values()))
    shift = 0 if declaration.parallel else declaration.codes.index(code)
    rows = []
    for i in range(SIZES[split]):
        said = f"{code} {split} {i}"
        row: Row = {"id": f"{split}{i}" if declaration.parallel else f"{code}-{split}{i}", "answer": ""}
        if labels:
            row["answer"] = labels[(i + shift) % min(3, len(labels))]
        if declaration.kind == "span":
            context = f"»{code}«: ñ the {split} answer {i // 2}. Then {i}."
            row |= {"context": context, "question": f"Which {said}?", "answer": f"the {split} answer {i // 2}"}
            row["start"] = context.index(row["answer"])
        elif declaration.kind == "text":
            row |= {
                "instruction": f"Write {said}.",
                "input": "" if i % 2 else f'"{i}",\tq',
                "answer": f"Line {i}\n\nend.",
            }
        else:
            texts = [name for name in declaration.fields if name not in ("id", "answer", "question")]
            row |= {name: f'{name} of "{said}", ﺏ\u200fक\u200d{"." * (n % 2)}' for n, name in enumerate(texts)}
            row["question"] = ("cause", "effect")[i % 2] if task == "xcopa" else f"Question {said}?"
        rows.append(row)
    return rows


def by_number(task: str, row: Row) -> int:
    """Return the number of a row's label in the order of the names of its class, which is alphabetical in `massive`."""
    labels = list(dict.fromkeys(task_class(task).declaration.label_names.values()))
    return (sorted(labels) if task in ("massive", "masakhanews") else labels).index(row["answer"])


@dataclass(frozen=True)
class Layout:
    """How a dataset is distributed.

    Attributes:
        paths: file of each split, or of `all` items; the same path for several splits or languages is one file.
        columns: the columns of an item in the file; the arguments are the item, its language's name and the split.
        style: `tsv`, `quoted` TSV, `bare` TSV without a header, or the format of the suffix.
        classes: the column whose numbers have these names in Parquet.
    """

    task: str
    title: str
    paths: dict[str, str]
    columns: Callable[[Row, str, str], Row]
    style: str = ""
    classes: dict[str, Sequence[str]] = field(default_factory=dict)

    def write(self, folder: Path, codes: Sequence[str]) -> str:
        """Write the items of all splits in these languages; return the folder."""
        found: dict[str, list[Row]] = {}
        declaration = task_class(self.task).declaration
        for split, path in self.paths.items():
            for code in codes:
                name = declaration.name_in_data(code)
                place = path.format(lang=code, name=name, train="train" if code == "en" else "translated_train")
                rows = [self.columns(row, name, split) for row in invented(self.task, code, split)]
                found.setdefault(place, []).extend(rows)
        for place, rows in found.items():
            self._write(folder / place, rows)
        return str(folder)

    def _write(self, path: Path, rows: list[Row]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".parquet":
            write_parquet(path, rows, self.classes)
        elif path.suffix == ".jsonl":
            path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
        elif path.suffix == ".json":
            document = [_article(row) for row in rows] if "qas" in rows[0] else rows
            content = {"version": "1.1", "data": document} if "qas" in rows[0] else rows
            path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
        else:
            lines = [list(rows[0])] * (self.style != "bare") + [[str(v) for v in row.values()] for row in rows]
            if self.style == "quoted":
                lines = [['"' + c.replace('"', '""') + '"' if '"' in c else c for c in line] for line in lines]
            path.write_text("".join("\t".join(line) + "\n" for line in lines), encoding="utf-8")


def write_parquet(path: Path, rows: list[Row], classes: dict[str, Sequence[str]]) -> None:
    """Write a table as the hub does, with the names of classes in its metadata."""
    import datasets

    path.parent.mkdir(parents=True, exist_ok=True)
    table = datasets.Dataset.from_list(rows)
    for column, names in classes.items():
        table = table.cast_column(column, datasets.ClassLabel(names=list(names)))
    table.to_parquet(path)


def _article(row: Row) -> Row:
    return {"title": "t", "paragraphs": [{"context": row["context"], "qas": row["qas"]}]}


def squad(row: Row, name: str, split: str) -> Row:
    """Return a question as in SQuAD's JSON."""
    answers = [{"text": row["answer"], "answer_start": row["start"]}]
    return {"context": row["context"], "qas": [{"id": row["id"], "question": row["question"], "answers": answers}]}


def squad_row(row: Row, name: str, split: str) -> Row:
    """Return a question as in SQuAD on the hub."""
    answers = {"text": [row["answer"]], "answer_start": [row["start"]]}
    return {key: row[key] for key in ("id", "context", "question")} | {"answers": answers}


def three(pattern: str, validation: str = "dev") -> dict[str, str]:
    """Return the paths of three splits, of which validation has this name."""
    names = {"train": "train", "validation": validation, "test": "test"}
    return {split: pattern.replace("*", name) for split, name in names.items()}


def two(pattern: str, train: str = "validation") -> dict[str, str]:
    """Return the paths of test and of the split, of this name, that is trained on."""
    return {"train": pattern.replace("*", train), "test": pattern.replace("*", "test")}


def _sib200(row: Row, name: str, split: str) -> Row:
    return {"index_id": row["id"], "category": row["answer"], "text": row["text"]}


def _xcopa(row: Row, name: str, split: str) -> Row:
    texts = {key: row[key] for key in ("premise", "choice1", "choice2", "question")}
    return {**texts, "label": int(row["answer"]), "idx": row["id"], "changed": False}


def _pawsx(row: Row, name: str, split: str) -> Row:
    return {key: row[key] for key in ("id", "sentence1", "sentence2")} | {"label": int(row["answer"])}


def _bare_pawsx(row: Row, name: str, split: str) -> Row:
    return {"sentence1": row["sentence1"], "sentence2": row["sentence2"], "label": row["answer"]}


def _massive(row: Row, name: str, split: str) -> Row:
    partition = {"validation": "dev"}.get(split, split)
    return {"id": row["id"], "locale": name, "partition": partition, "intent": row["answer"], "utt": row["text"]}


def _massive_row(row: Row, name: str, split: str) -> Row:
    return {"id": row["id"], "locale": name, "intent": by_number("massive", row), "utt": row["text"]}


def _news(row: Row, name: str, split: str) -> Row:
    return {"category": row["answer"], "headline": row["headline"], "text": row["text"], "url": ""}


def _news_row(row: Row, name: str, split: str) -> Row:
    return {"label": by_number("masakhanews", row), "headline": row["headline"], "text": row["text"], "url": "u"}


def _belebele(row: Row, name: str, split: str) -> Row:
    number = int(row["id"].removeprefix("all"))
    answers = {f"mc_answer{n}": row[letter] for n, letter in enumerate("abcd", 1)}
    passage = {"link": f"w/{number // 2}", "question_number": number % 2 + 1, "flores_passage": row["passage"]}
    return {**passage, "question": row["question"], **answers, "correct_answer_num": row["answer"], "dialect": name}


def _nli(row: Row, name: str, split: str) -> Row:
    return {"id": row["id"], "language": name, **{k: row[k] for k in ("premise", "hypothesis")}, "label": row["answer"]}


def _nli_row(row: Row, name: str, split: str) -> Row:
    texts = {key: row[key] for key in ("premise", "hypothesis")}
    return {"language": name, **texts, "label": ("entailment", "neutral", "contradiction").index(row["answer"])}


def _alpaca(row: Row, name: str, split: str) -> Row:
    return {"instruction": row["instruction"], "input": row["input"], "output": row["answer"]}


_INTENTS = {"intent": sorted(task_class("massive").declaration.words)}
_TOPICS = {"label": sorted(task_class("masakhanews").declaration.words)}
_LABELS = {"label": ("entailment", "neutral", "contradiction")}
_PAWSX = {"train": "{lang}/{train}.tsv", "validation": "{lang}/dev_2k.tsv", "test": "{lang}/test_2k.tsv"}
_SHARD = "*-00000-of-00001.parquet"
LAYOUTS = [
    Layout("sib200", "folders", three("{name}/*.tsv"), _sib200, "quoted"),
    Layout("sib200", "github", three("data/annotated/{name}/*.tsv"), _sib200, "quoted"),
    Layout("sib200", "clone", three("data/{name}/*.tsv"), _sib200, "quoted"),
    Layout("sib200", "parquet", three("{name}/*/0000.parquet", "validation"), _sib200),
    Layout("xcopa", "flat", two("*.{lang}.jsonl", "val"), _xcopa),
    Layout("xcopa", "folders", two("{lang}/*.{lang}.jsonl", "val"), _xcopa),
    Layout("xcopa", "github", two("data/{lang}/*.{lang}.jsonl", "val"), _xcopa),
    Layout("xcopa", "parquet", two(f"{{lang}}/{_SHARD}"), _xcopa),
    Layout("xquad", "github", {"all": "xquad.{lang}.json"}, squad),
    Layout("xquad", "xquad-r", {"all": "{lang}.json"}, squad),
    Layout("xquad", "parquet", {"all": "xquad.{lang}/validation-00000-of-00001.parquet"}, squad_row),
    Layout("xquad", "xtreme", {"all": "XQuAD.{lang}/validation-00000-of-00001.parquet"}, squad_row),
    Layout("xquad", "xquad-r parquet", {"all": "{lang}/validation-00000-of-00001.parquet"}, squad_row),
    Layout("mlqa", "zip", two("*/*-context-{lang}-question-{lang}.json", "dev"), squad),
    Layout("mlqa", "with its folder", two("MLQA_V1/*/*-context-{lang}-question-{lang}.json", "dev"), squad),
    Layout("mlqa", "flat", two("*-context-{lang}-question-{lang}.json", "dev"), squad),
    Layout("mlqa", "parquet", two(f"mlqa.{{lang}}.{{lang}}/{_SHARD}"), squad_row),
    Layout("paws-x", "final", _PAWSX, _pawsx, "tsv"),
    Layout("paws-x", "with its folder", {s: f"x-final/{path}" for s, path in _PAWSX.items()}, _pawsx, "tsv"),
    Layout("paws-x", "xtreme", three("*-{lang}.tsv"), _bare_pawsx, "bare"),
    Layout("paws-x", "parquet", three(f"{{lang}}/{_SHARD}", "validation"), _pawsx, classes={"label": "01"}),
    Layout("massive", "files", dict.fromkeys(SPLITS, "{name}.jsonl"), _massive),
    Layout("massive", "data", dict.fromkeys(SPLITS, "data/{name}.jsonl"), _massive),
    Layout("massive", "1.0", dict.fromkeys(SPLITS, "1.0/data/{name}.jsonl"), _massive),
    Layout("massive", "1.1", dict.fromkeys(SPLITS, "1.1/data/{name}.jsonl"), _massive),
    Layout("massive", "parquet", three(f"{{name}}/{_SHARD}", "validation"), _massive_row, classes=_INTENTS),
    Layout("massive", "converted", three("{name}/*/0000.parquet", "validation"), _massive_row, classes=_INTENTS),
    Layout("masakhanews", "folders", three("{name}/*.tsv"), _news, "quoted"),
    Layout("masakhanews", "github", three("data/{name}/*.tsv"), _news, "quoted"),
    Layout("masakhanews", "parquet", three("{name}/*/0000.parquet", "validation"), _news_row, classes=_TOPICS),
    Layout("belebele", "zip", {"all": "{name}.jsonl"}, _belebele),
    Layout("belebele", "with its folder", {"all": "Belebele/{name}.jsonl"}, _belebele),
    Layout("belebele", "clone", {"all": "data/{name}.jsonl"}, _belebele),
    Layout("belebele", "parquet", {"all": "{name}/test/0000.parquet"}, _belebele),
    Layout("americasnli", "folders", two("*/{name}.tsv", "dev"), _nli, "tsv"),
    Layout("americasnli", "final", two("anli_final/*/{name}.tsv", "dev"), _nli, "tsv"),
    Layout("americasnli", "github", two("data/anli_final/*/{name}.tsv", "dev"), _nli, "tsv"),
    Layout("americasnli", "one file", two("anli.*.tsv", "dev"), _nli, "tsv"),
    Layout("americasnli", "parquet", two(f"{{name}}/{_SHARD}"), _nli_row, classes=_LABELS),
    Layout("americasnli", "one table", two(f"all_languages/{_SHARD}"), _nli_row, classes=_LABELS),
    Layout("indicxnli", "folders", three("*/xnli_{lang}.json"), _nli_row),
    Layout("indicxnli", "clone", three("forward/*/xnli_{lang}.json"), _nli_row),
    Layout("indicxnli", "parquet", three("{lang}/*/0000.parquet", "validation"), _nli_row, classes=_LABELS),
    Layout("indicxnli", "parquet files", three("{lang}/indicxnli-*.parquet", "validation"), _nli_row, classes=_LABELS),
    Layout("alpaca", "github", {"all": "alpaca_data.json"}, _alpaca),
    Layout("alpaca", "cleaned", {"all": "alpaca_data_cleaned.json"}, _alpaca),
    Layout("alpaca", "parquet", {"all": "data/train-00000-of-00001-a09b74b3ef9c3b56.parquet"}, _alpaca),
]
