"""Reads XQuAD-R (LAReQA, Roy et al. 2020, arXiv 2004.05484): questions and the sentences that may answer them.

Questions and paragraphs are parallel in eleven languages; each paragraph is divided into sentences. As in the authors'
code, a sentence answers a question in any language if its translation contains the answer.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from whichlora.caller import given_path
from whichlora.data.tasks.folder_contents import contents
from whichlora.errors import OptionError, is_file, is_folder

LANGUAGES = ("ar", "de", "el", "en", "es", "hi", "ru", "th", "tr", "vi", "zh")
CLONE = "xquad-r"
"""Where the files are in a clone of the authors' repository."""


class Text(NamedTuple):
    """A question or a candidate sentence."""

    language: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Questions:
    """Questions, the sentences of all paragraphs, and for each question the positions of those that answer it."""

    questions: Sequence[Text]
    candidates: Sequence[Text]
    relevant: Sequence[frozenset[int]]


def read(languages: Sequence[str], data_dir: str | None, limit: int | None = None) -> Questions:
    """Return the questions and all candidate sentences of the languages.

    Args:
        languages: codes out of `LANGUAGES`.
        data_dir: the folder with files such as `en.json`, or a clone of the authors' repository.
        limit: number of questions in each language; None for all.

    Raises:
        OptionError: the file of a language is missing, is not XQuAD-R, or has fewer questions.
    """
    questions: list[tuple[str, Text]] = []
    candidates: list[Text] = []
    answers: dict[str, set[int]] = {}
    for language in languages:
        path = _path(language, data_dir)
        assert data_dir is not None
        try:
            own = _add(json.loads(path.read_text(encoding="utf-8-sig")), language, candidates, answers)
        except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
            problem = f"{path.name} is not a file of XQuAD-R ({type(error).__name__}: {error})"
            raise OptionError("data_dir", data_dir, problem) from error
        if not own:
            raise OptionError("data_dir", data_dir, f"{path.name} has no questions")
        if limit is not None and len(own) < limit:
            raise OptionError("items", limit, f"{path.name} has {len(own)} questions")
        questions += own[:limit]
    return Questions(
        questions=[question for _, question in questions],
        candidates=candidates,
        relevant=[frozenset(answers[name]) for name, _ in questions],
    )


def _path(language: str, data_dir: str | None) -> Path:
    if data_dir is None:
        raise OptionError("data_dir", "auto", "must be a folder with the files of XQuAD-R, such as en.json")
    folder = given_path(data_dir)
    if not is_folder(folder):
        raise OptionError("data_dir", data_dir, "is not a folder")
    paths = [place / f"{language}.json" for place in (folder, folder / CLONE)]
    found = next((path for path in paths if is_file(path)), None)
    if found is None:
        raise OptionError("data_dir", data_dir, f"has no {language}.json; {contents(folder)}")
    return found


def _add(document: Any, language: str, candidates: list[Text], answers: dict[str, set[int]]) -> list[tuple[str, Text]]:
    """Add the sentences of a file to the candidates and answers; return the questions that have one, with their ids."""
    questions = []
    for article in document["data"]:
        for paragraph in article["paragraphs"]:
            context, spans = paragraph["context"], paragraph["sentence_breaks"]
            first = len(candidates)
            candidates += [Text(language, context[start:end]) for start, end in spans]
            for question in paragraph["qas"]:
                at = question["answers"][0]["answer_start"]
                found = next((k for k, (start, end) in enumerate(spans) if start <= at < end), None)
                if found is not None:
                    answers.setdefault(question["id"], set()).add(first + found)
                    questions.append((question["id"], Text(language, question["question"])))
    return questions
