"""Parses the options of the command `probe` into a typed request, and checks what can be checked without a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

from whichlora.caller import given_path
from whichlora.command_line import parse_boolean
from whichlora.config.options import (
    AUTO,
    FIRST_TOKEN,
    PRECISIONS,
    QUANTIZATIONS,
    RUN_OPTIONS,
    check_chat_template,
    check_data_dir,
    check_task,
)
from whichlora.data.detectors import canonical
from whichlora.data.tasks import get_task, task_class
from whichlora.data.tasks.pairs import LANGUAGES
from whichlora.data.tasks.pairs.tatoeba import short_code
from whichlora.errors import OptionError, check_choice, is_file, parse_integer, parse_unless
from whichlora.models.packaged import DEFAULT
from whichlora.option_lists import parse_list
from whichlora.probing.choices import (
    FIELDS_OF_KIND,
    PRESETS,
    AlignmentChoices,
    Choices,
    LanguageChoices,
    RetrievalChoices,
    WeightChoices,
)
from whichlora.probing.options import CHOICES, OPTIONS, TATOEBA


@dataclass(frozen=True, kw_only=True)
class Request:
    """The parsed options of a probe; None selects the value of the run or the task."""

    run_id: str | None
    model: str | None
    kind: str
    task: str | None
    language: str | None
    items: int | None
    data_dir: str | None
    chat_template: str | None
    precision: str | None
    quantization: str | None
    seed: int
    choices: Choices

    @property
    def reads_items(self) -> bool:
        """Whether the probe reads items of the task."""
        return self.kind == "language" or (isinstance(self.choices, AlignmentChoices) and self.choices.pairs == "task")


def parse(texts: Mapping[str, str]) -> Request:
    """Parse option texts into a request, and check what can be checked without run, model or data.

    Raises:
        OptionError: a value is not allowed; the first one is reported.
    """
    values: dict[str, Any] = {name: None if text == AUTO else text for name, text in texts.items()}
    kind = check_choice("kind", texts["kind"], FIELDS_OF_KIND)
    for owner, names in FIELDS_OF_KIND.items():
        for name in names:
            if name not in FIELDS_OF_KIND[kind] and texts[name] != OPTIONS[name][0]:
                raise OptionError(name, texts[name], f"applies only to kind={owner}; remove the option")
    for name in _ignored(kind, texts["pairs"]):
        if values[name] is not None:
            raise OptionError(
                name, texts[name], f"has no effect with kind={kind}, which reads no items; remove the option"
            )
    if kind != "language" and texts["preset"] != OPTIONS["preset"][0]:
        raise OptionError("preset", texts["preset"], "applies only to kind=language; remove the option")
    _check_source(values, kind)
    for name, allowed in (("precision", PRECISIONS), ("quantization", QUANTIZATIONS)):
        parse_unless(AUTO, check_choice, name, texts[name], allowed)
    parse_unless(AUTO, check_chat_template, "chat_template", texts["chat_template"])
    parse_unless(AUTO, lambda option, text: task_class(text, option=option, prompted=True), "task", texts["task"])
    check_data_dir(values["data_dir"])
    _check_language(values, kind, texts["pairs"])
    if kind == "language":
        choices: Choices = _language_choices(texts)
    elif kind == "alignment":
        choices = _alignment_choices(values)
    elif kind == "retrieval":
        choices = RetrievalChoices(first_token=_first_token(values))
    else:
        choices = WeightChoices(against=values["against"])
    return Request(
        run_id=values["run_id"],
        model=values["model"] or (None if values["run_id"] else DEFAULT),
        kind=kind,
        task=values["task"],
        language=values["language"],
        items=parse_unless(AUTO, parse_integer, "items", texts["items"], 2, 10**9),
        data_dir=values["data_dir"],
        chat_template=values["chat_template"],
        precision=values["precision"],
        quantization=values["quantization"],
        seed=parse_integer("seed", texts["seed"], 0, 2**32 - 1),
        choices=choices,
    )


def by_language(request: Request) -> list[Request]:
    """Return a request for each language that a request names; one for pairs in languages that it does not choose."""
    chosen = isinstance(request.choices, AlignmentChoices) and request.choices.pairs in ("words", TATOEBA)
    if request.language is None or not chosen:
        return [request]
    return [replace(request, language=code) for code in _codes(request.language)]


def as_params(choices: Choices) -> dict[str, Any]:
    """Return the choices as a dict for params and fingerprints."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(choices).items()}


def _ignored(kind: str, pairs: str) -> tuple[str, ...]:
    """Return the options that have no effect on a probe of this kind and these pairs."""
    if kind == "weights":
        return ("task", "language", "items", "data_dir", "chat_template")
    if kind == "retrieval":
        return ("task", "chat_template")
    if kind != "alignment" or pairs == "task":
        return ()
    return ("task", "chat_template") if pairs == TATOEBA else ("task", "data_dir", "chat_template")


def _check_source(values: Mapping[str, Any], kind: str) -> None:
    if values["run_id"] and values["model"]:
        raise OptionError("model", values["model"], "cannot be combined with run_id")
    if kind == "weights" and not values["run_id"]:
        raise OptionError("run_id", AUTO, "kind=weights requires the id of a finished run with an adapter")
    for name in ("precision", "quantization"):
        if values["run_id"] and values[name]:
            raise OptionError(name, values[name], "a run is probed as it was scored; remove the option")


def _check_language(values: Mapping[str, Any], kind: str, pairs: str) -> None:
    """Check that the task has the language, if items are read and the task is not taken from a run."""
    reads_items = kind == "language" or (kind == "alignment" and pairs == "task")
    if values["language"] and reads_items and (values["task"] or not values["run_id"]):
        task = get_task(values["task"] or RUN_OPTIONS["task"][0])
        parse_unless(
            AUTO, lambda _, code: check_task(task, language=code, difficulty=None), "language", values["language"]
        )


def _language_choices(texts: Mapping[str, str]) -> LanguageChoices:
    preset = PRESETS[check_choice("preset", texts["preset"], PRESETS)]
    given: dict[str, Any] = {
        name: parse_unless(AUTO, check_choice, name, texts[name].lower(), CHOICES[name])
        for name in ("detector", "level", "positions", "unreliable", "special_tokens", "arithmetic")
    }
    given["final_norm"] = parse_unless(AUTO, parse_boolean, "final_norm", texts["final_norm"])
    given["top_k"] = parse_unless(AUTO, parse_integer, "top_k", texts["top_k"], 1, 50)
    given["agreement"] = parse_unless(AUTO, parse_integer, "agreement", texts["agreement"], 0, 10**6)
    overrides = {name: value for name, value in given.items() if value is not None}
    if texts["candidates"] != AUTO:
        codes = tuple(canonical(code.strip()) for code in texts["candidates"].split(","))
        overrides["candidates"] = None if codes == ("all",) else codes
    return replace(preset, **overrides)


def _alignment_choices(values: Mapping[str, Any]) -> AlignmentChoices:
    choices = AlignmentChoices(
        pairs=values["pairs"] or "words",
        first_token=_first_token(values),
        against=values["against"],
    )
    if choices.pairs not in ("words", "task", TATOEBA) and not is_file(given_path(choices.pairs)):
        must = f"must be words (packaged), task, {TATOEBA}, a UTF-8 file of pairs, or {AUTO}"
        raise OptionError("pairs", choices.pairs, f"{must}; there is no such file")
    codes = [] if values["language"] is None else _codes(values["language"])
    if choices.pairs in ("words", TATOEBA) and (len(set(map(short_code, codes))) < len(codes) or "" in codes):
        raise OptionError("language", values["language"], "must be different codes, separated by commas")
    if choices.pairs == "words" and codes:
        parse_list(
            "language", values["language"], partial(parse_unless, AUTO, partial(check_choice, choices=LANGUAGES))
        )
    return choices


def _first_token(values: Mapping[str, Any]) -> str:
    return parse_unless(AUTO, check_choice, "first_token", values["first_token"] or AUTO, FIRST_TOKEN) or "drop"


def _codes(language: str) -> list[str]:
    return [code.strip() for code in language.split(",")]
