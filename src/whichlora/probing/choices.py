"""The choices of each kind of probe, and presets of those of the language probe."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

from whichlora.data.tasks import Task


@dataclass(frozen=True, kw_only=True)
class LanguageChoices:
    """The choices of the language probe, named as in `options.OPTIONS`; docs/explanation/probing.md explains them.

    `candidates` are language codes, or None for all languages; `for_task` resolves the placeholder ("task",).
    """

    detector: str = "cld3"
    level: str = "token"
    final_norm: bool = True
    positions: str = "all"
    top_k: int = 1
    unreliable: str = "keep"
    special_tokens: str = "drop"
    candidates: tuple[str, ...] | None = None
    arithmetic: str = "fp32"
    agreement: int = 200

    def for_task(self, task: Task) -> LanguageChoices:
        """Return the choices with the placeholder "task" replaced by the languages of a task."""
        return replace(self, candidates=task.languages) if self.candidates == ("task",) else self


@dataclass(frozen=True, kw_only=True)
class AlignmentChoices:
    """The choices of the alignment probe, named as in `options.OPTIONS`; `against` is a run id, "base" or None."""

    pairs: str = "words"
    first_token: str = "drop"
    against: str | None = None


@dataclass(frozen=True, kw_only=True)
class RetrievalChoices:
    """The choices of the retrieval probe, named as in `options.OPTIONS`."""

    first_token: str = "drop"


@dataclass(frozen=True, kw_only=True)
class WeightChoices:
    """The choices of the weight probe, named as in `options.OPTIONS`; `against` is a run id or None."""

    against: str | None = None


FIELDS_OF_KIND = {
    kind: tuple(f.name for f in fields(choices))
    for kind, choices in (
        ("language", LanguageChoices),
        ("alignment", AlignmentChoices),
        ("retrieval", RetrievalChoices),
        ("weights", WeightChoices),
    )
}

Choices = LanguageChoices | AlignmentChoices | RetrievalChoices | WeightChoices
"""The choices of a probe of any kind."""

PRESETS = {
    "default": LanguageChoices(),
    # The paper specifies CLD3, tokens and the whole test set and leaves the rest open, so the values are the defaults.
    "paper": LanguageChoices(detector="cld3", level="token"),
    # As in the authors' layers/test_layer.py, which keeps only reliable detections of English and their languages.
    "zhao2024": LanguageChoices(
        final_norm=False,
        positions="generated",
        top_k=10,
        unreliable="drop",
        special_tokens="keep",
        candidates=("task",),
    ),
}
