"""Finds the results of a model on English and on target languages among what lm-evaluation-harness has written."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from analysis.runs.harness_files import HarnessError, HarnessFiles, Items, few, model_folder
from analysis.runs.predictions import Answers

_LANGUAGE = re.compile(r"(?P<task>.+)_(?P<language>[a-z]{2,3}(_[A-Z][a-z]{3})?)")
_ENGLISH = ("en", "eng", "eng_Latn")
_METRICS = ("acc", "f1", "exact_match")
"""Metrics that stand for F1 unless the user names another, the first that both tasks have: accuracy is micro-F1."""
_MODELS = ("pretrained", "model", "path", "engine")
"""Names in `model_args` of the model without its adapter."""


class Choice(NamedTuple):
    """What to read from a folder; empty for whatever can be derived from the names of the tasks.

    Attributes:
        task, language: what precedes and follows the last underscore in the harness's names, as in `xnli_sw`.
        english, target: names of tasks of the harness, where they do not have that form.
        metric: such as `acc_norm`, or `exact_match,strict-match` with the filter.
    """

    task: str = ""
    language: str = ""
    english: str = ""
    target: str = ""
    metric: str = ""


class Evaluation(NamedTuple):
    """A model's results on English and on a target language.

    Attributes:
        model: the model without its adapter; empty if the folder does not say.
        scoring: metric, number of examples in the prompt, and what else the scores depend on.
        english_digest: identifies the English items and prompts.
        scores, answers: by outcome, "en" and "tl".
    """

    task: str
    language: str
    model: str
    scoring: str
    english_digest: str
    scores: Mapping[str, float]
    answers: Mapping[str, Answers]


class Harness:
    """Reads folders of results, with what they have in common: `files`, and the texts that ids of items stand for."""

    def __init__(self) -> None:
        self.files = HarnessFiles()
        self._documents: dict[str, dict[str, str]] = {}

    def evaluations(self, folder: Path, choice: Choice) -> list[Evaluation]:
        """Return the results in a folder (of one model, or with the folder of one model in it), one per language.

        Raises:
            HarnessError: the folder has no such results, or they contradict each other.
        """
        files = self.files.newest(model_folder(folder))
        return [self._evaluation(files, *names, choice.metric) for names in _choose(files, choice)]

    def _evaluation(
        self, files: Mapping[str, Path], task: str, language: str, english: str, target: str, metric: str
    ) -> Evaluation:
        names = {"en": english, "tl": target}
        items = {outcome: self.files.items(files[name]) for outcome, name in names.items()}
        summaries = {outcome: self.files.summary(files[name]) for outcome, name in names.items()}
        key = _metric(items["en"], items["tl"], metric)
        scores, answers = {}, {}
        for outcome, name in names.items():
            found = items[outcome][key]
            scores[outcome] = sum(found.values) / len(found.values)
            _check(summaries[outcome], name, key, scores[outcome], len(found.values), files[name])
            answers[outcome] = self._answers(found, task, name)
        model_args = {**_model_args(summaries["en"]), **_model_args(summaries["tl"])}
        return Evaluation(
            task=task,
            language=language,
            model=next((model_args[name] for name in _MODELS if name in model_args), ""),
            scoring=_scoring(key, [(summaries[outcome], names[outcome]) for outcome in names]),
            english_digest=_entry(summaries["en"], "task_hashes", english) or self.files.digests[str(files[english])],
            scores=scores,
            answers=answers,
        )

    def _answers(self, items: Items, task: str, name: str) -> Answers:
        """Return the answers to the items of a task of the harness; an id stands for one text in all folders."""
        documents = self._documents.setdefault(name, {})
        ids = [
            f"{task}-{number}" if documents.setdefault(number, digest) == digest else f"{task}-{number}-{digest[:8]}"
            for number, digest in zip(items.ids, items.hashes, strict=True)
        ]
        unknown = np.full(len(ids), np.nan, np.float32)
        return Answers(
            ids=pa.chunked_array([pa.array(ids, pa.string())]),
            gold=pa.chunked_array([pa.array(items.gold, pa.string())]),
            predicted=pa.chunked_array([pa.array(items.predicted, pa.string())]),
            scores=(np.array(items.values, np.float32), unknown, unknown),
        )


def _choose(files: Mapping[str, Path], choice: Choice) -> list[tuple[str, str, str, str]]:
    """Return the chosen pairs of tasks: task, language, and the harness's names of the English and the target one."""
    if missing := [name for name in (choice.english, choice.target) if name and name not in files]:
        raise HarnessError(f"has no samples of {missing[0]}, but of {few(files)}")
    pairs = []
    for name in [choice.target] if choice.target else files:
        match = _LANGUAGE.fullmatch(name)
        task, language = (match["task"], match["language"]) if match else (name, "")
        if choice.target:
            task, language = choice.task or task, choice.language or language
        english = choice.english or next((f"{task}_{code}" for code in _ENGLISH if f"{task}_{code}" in files), "")
        asked = (choice.task or task, choice.language or language) == (task, language)
        if language and language not in _ENGLISH and english and asked:
            pairs.append((task, language, english, name))
    if not pairs:
        wanted = f"{choice.task or 'TASK'}_en and {choice.task or 'TASK'}_{choice.language or 'LANGUAGE'}"
        raise HarnessError(
            f"has no pair of tasks named {wanted}, but {few(files)}; name the tasks in samples_en and samples_tl, "
            "and the language"
        )
    return sorted(pairs)


def _metric(english: Mapping[str, Items], target: Mapping[str, Items], asked: str) -> str:
    """Return the metric, with its filter, that both tasks have and that was asked for."""
    common = [key for key in english if key in target]
    for name in [asked] if asked else _METRICS:
        found = [key for key in common if name in (key, key.rpartition(",")[0])]
        if len(found) > 1:
            raise HarnessError(f"has several filters: give one of {' and '.join(found)} as metric")
        if found:
            return found[0]
    has = f"both tasks have {few(common)}" if common else "the two tasks have none in common"
    raise HarnessError(f"has no metric {asked or ', '.join(_METRICS)} from 0 to 1 in each item: {has}")


def _check(summary: Mapping[str, Any], task: str, key: str, score: float, n: int, path: Path) -> None:
    """Check that the samples are complete: that they give the results which were written with them.

    Raises:
        HarnessError: they do not.
    """
    counts = _entry(summary, "n-samples", task)
    total = counts.get("effective") if isinstance(counts, dict) else None
    if isinstance(total, int) and total != n:
        raise HarnessError(f"{path.name} has {n} items, but {total} were scored")
    results = _entry(summary, "results", task)
    value = results.get(key) if isinstance(results, dict) else None
    if isinstance(value, int | float) and abs(value - score) > 1e-6:
        raise HarnessError(f"{path.name} has a mean {key} of {score:.4f}, but the results say {value:.4f}")


def _scoring(key: str, parts: Sequence[tuple[Mapping[str, Any], str]]) -> str:
    """Return what scores depend on beside the items, so that only models that were scored alike are compared."""
    metric, _, kind = key.rpartition(",")
    texts = [f"lm-evaluation-harness {metric}"]
    texts += [kind] if kind != "none" else []
    shots = {str(_entry(summary, "n-shot", task)) for summary, task in parts} - {"None"}
    texts += [f"{' and '.join(sorted(shots))}-shot"] if shots else []
    texts += ["chat template"] if any(summary.get("chat_template_sha") for summary, _ in parts) else []
    limits = {str(_entry(summary, "config", "limit")) for summary, _ in parts} - {"None"}
    texts += [f"limit {' and '.join(sorted(limits))}"] if limits else []
    return ", ".join(texts)


def _model_args(summary: Mapping[str, Any]) -> dict[str, str]:
    """Return the arguments of the model; older versions write them as one text."""
    given = _entry(summary, "config", "model_args")
    if isinstance(given, dict):
        return {str(name): str(value) for name, value in given.items()}
    return dict(part.split("=", 1) for part in str(given or "").split(",") if "=" in part)


def _entry(summary: Mapping[str, Any], part: str, name: str) -> Any:
    content = summary.get(part)
    return content.get(name) if isinstance(content, dict) else None
