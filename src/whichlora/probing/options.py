"""Options of the command `probe` with defaults and help texts, and the typed request parsed from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from whichlora.command_line import BOOLEANS
from whichlora.config.options import (
    AUTO,
    FIRST_TOKEN,
    PRECISIONS,
    QUANTIZATIONS,
    RUN_OPTIONS,
    check_chat_template,
    check_task,
)
from whichlora.data.chat import NONE
from whichlora.data.tasks import PROMPTED, PROMPTED_VALUES, get_task, task_class
from whichlora.data.tasks.pairs import LANGUAGES
from whichlora.errors import OptionError, check_choice, parse_integer
from whichlora.probing.choices import FIELDS_OF_KIND, PRESETS, AlignmentChoices, LanguageChoices, WeightChoices
from whichlora.probing.detectors import DETECTORS, canonical

TATOEBA = "tatoeba"
"""Value of `pairs` for the sentences of LASER's Tatoeba test sets, which are in `data_dir`."""
LEVELS = ("token", "sequence")
POSITIONS = ("all", "item", "last", "generated")
ARITHMETICS = ("fp32", "bf16")
KEEP_OR_DROP = ("keep", "drop")
OPTIONS = {
    "run_id": (
        AUTO,
        "MLflow id, or its first digits, of a finished run whose model is probed; auto probes a base model.",
    ),
    "model": (
        AUTO,
        "Base model to probe: smollm2-135m (packaged; auto without run_id), a local folder, or a hub id.",
    ),
    "kind": (
        "language",
        "language (that each layer decodes to), alignment (of translations) or weights (of an adapter's update).",
    ),
    "task": (AUTO, f"Task whose test items are read: {PROMPTED_VALUES}; auto is the run's, else atlas-nli."),
    "language": (
        AUTO,
        "Target language (ISO 639-1); auto is the run's, else sw. With pairs=words or tatoeba, also several, as in "
        "tr,az,kk: each is probed, and a table compares them.",
    ),
    "items": (
        AUTO,
        "Maximum number of test items, or of pairs; auto is the run's number of items, else the task's, or 2000 pairs.",
    ),
    "data_dir": (AUTO, "Folder with the data of a task that is not packaged, or with LASER's files of Tatoeba."),
    "chat_template": (
        AUTO,
        "Form of the prompts: none, a file with a Jinja chat template, or auto: that of the run, else as in run.",
    ),
    "precision": (
        AUTO,
        "Precision of a base model: fp32 or bf16; auto is bf16 on a GPU and fp32 on a CPU. A run keeps its precision.",
    ),
    "quantization": (AUTO, "Quantization of a base model: none or nf4. A run keeps its quantization."),
    "seed": ("42", "Random seed of bootstrap intervals and samples."),
    "preset": (
        "default",
        "Values of auto in the options below: default, paper (the same values) or zhao2024 (its authors' code).",
    ),
    "detector": (AUTO, f"Language detector: {', '.join(DETECTORS)}."),
    "level": (AUTO, "Unit from which metrics are computed: token or sequence; figures show both."),
    "final_norm": (
        AUTO,
        "true: apply the model's final norm before the LM head in every layer; false: in the last layer only.",
    ),
    "positions": (
        AUTO,
        "Decoded positions: all, item (without the instruction), last, or generated (all, and generated tokens).",
    ),
    "top_k": (AUTO, "Number of most likely tokens per position, 1 to 50."),
    "unreliable": (AUTO, "keep or drop results that the detector itself calls unreliable."),
    "special_tokens": (AUTO, "keep or drop special tokens, as positions and among the decoded tokens."),
    "candidates": (
        AUTO,
        "Allowed detected languages, separated by commas; all; or task for the languages of the task.",
    ),
    "arithmetic": (AUTO, "Arithmetic of the LM head: fp32 (exact) or bf16 (faster; its disagreement is measured)."),
    "agreement": (AUTO, "Number of tokens, and of texts, on which the two detectors are compared; 0 for none."),
    "pairs": (
        AUTO,
        f"words (packaged for {', '.join(LANGUAGES)}), task (its hypotheses or questions), tatoeba (sentences, from "
        "data_dir), or a TSV file.",
    ),
    "first_token": (
        AUTO,
        "drop or keep the first token of a text, which makes the averages of all texts similar.",
    ),
    "against": (
        AUTO,
        "MLflow id, or its first digits, of another run to compare with: "
        "its hidden states (alignment; also base) or update (weights).",
    ),
}
GROUPS = {
    "What is probed": ("run_id", "model", "kind", "precision", "quantization"),
    "Texts": ("task", "language", "items", "data_dir", "chat_template", "seed"),
    "Language probe (kind=language)": (
        *("preset", "detector", "level", "final_norm", "positions", "top_k", "unreliable", "special_tokens"),
        *("candidates", "arithmetic", "agreement"),
    ),
    "Alignment probe (kind=alignment)": ("pairs", "first_token"),
    "Comparison (kind=alignment or weights)": ("against",),
}
"""The groups of options in `--help`."""
CHOICES: dict[str, Sequence[str]] = {
    "kind": ("language", "alignment", "weights"),
    "task": PROMPTED,
    "chat_template": (NONE,),
    "precision": PRECISIONS,
    "quantization": QUANTIZATIONS,
    "preset": ("default", "paper", "zhao2024"),
    "detector": DETECTORS,
    "level": LEVELS,
    "final_norm": BOOLEANS,
    "positions": POSITIONS,
    "unreliable": KEEP_OR_DROP,
    "special_tokens": KEEP_OR_DROP,
    "arithmetic": ARITHMETICS,
    "pairs": ("words", "task", TATOEBA),
    "first_token": FIRST_TOKEN,
}
"""The values that shell completion offers."""


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
    choices: LanguageChoices | AlignmentChoices | WeightChoices

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
        if values[name] is not None:
            check_choice(name, values[name], allowed)
    if values["chat_template"] is not None:
        check_chat_template("chat_template", values["chat_template"])
    if values["task"]:
        task_class(values["task"], prompted=True)
    _check_language(values, kind, texts["pairs"])
    if kind == "language":
        choices: LanguageChoices | AlignmentChoices | WeightChoices = _language_choices(values)
    elif kind == "alignment":
        choices = _alignment_choices(values)
    else:
        choices = WeightChoices(against=values["against"])
    return Request(
        run_id=values["run_id"],
        model=values["model"] or (None if values["run_id"] else "smollm2-135m"),
        kind=kind,
        task=values["task"],
        language=values["language"],
        items=None if values["items"] is None else parse_integer("items", values["items"], 2, 10**9),
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


def as_params(choices: LanguageChoices | AlignmentChoices | WeightChoices) -> dict[str, Any]:
    """Return the choices as a dict for params and fingerprints."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(choices).items()}


def _ignored(kind: str, pairs: str) -> tuple[str, ...]:
    """Return the options that have no effect on a probe of this kind and these pairs."""
    if kind == "weights":
        return ("task", "language", "items", "data_dir", "chat_template")
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
        check_task(task, language=values["language"], difficulty=None)


def _language_choices(values: Mapping[str, Any]) -> LanguageChoices:
    preset = PRESETS[check_choice("preset", values["preset"], PRESETS)]
    overrides: dict[str, Any] = {}
    for name in ("detector", "level", "final_norm", "positions", "unreliable", "special_tokens", "arithmetic"):
        if values[name] is not None:
            overrides[name] = check_choice(name, values[name].lower(), CHOICES[name])
    if "final_norm" in overrides:
        overrides["final_norm"] = overrides["final_norm"] == "true"
    if values["top_k"] is not None:
        overrides["top_k"] = parse_integer("top_k", values["top_k"], 1, 50)
    if values["agreement"] is not None:
        overrides["agreement"] = parse_integer("agreement", values["agreement"], 0, 10**6)
    if values["candidates"] is not None:
        codes = tuple(canonical(code.strip()) for code in values["candidates"].split(","))
        overrides["candidates"] = None if codes == ("all",) else codes
    return replace(preset, **overrides)


def _alignment_choices(values: Mapping[str, Any]) -> AlignmentChoices:
    choices = AlignmentChoices(
        pairs=values["pairs"] or "words",
        first_token=check_choice("first_token", values["first_token"] or "drop", FIRST_TOKEN),
        against=values["against"],
    )
    codes = [] if values["language"] is None else _codes(values["language"])
    if choices.pairs in ("words", TATOEBA) and (len(set(codes)) < len(codes) or "" in codes):
        raise OptionError("language", values["language"], "must be different codes, separated by commas")
    if choices.pairs == "words":
        for code in codes:
            check_choice("language", code, LANGUAGES)
    return choices


def _codes(language: str) -> list[str]:
    return [code.strip() for code in language.split(",")]
