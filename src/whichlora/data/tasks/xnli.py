"""The task `xnli` (Conneau et al. 2018, "XNLI: Evaluating Cross-lingual Sentence Representations")."""

from __future__ import annotations

from whichlora.data.tasks import files
from whichlora.data.tasks.base import SOURCE_LANGUAGE, SPLITS, Sizes, Split
from whichlora.data.tasks.items import LABELS, NliItem
from whichlora.data.tasks.nli import NliTask
from whichlora.data.tasks.stratification import hold_out
from whichlora.errors import check_choice

HUB = "facebook/xnli"
HELD_OUT = 500
"""Number of dev items held out for validation if dev is used for training; at most a third of dev."""

_COLUMNS = ("premise", "hypothesis", "label", "genre")
# Label numbers as on the hub; `contradictory` occurs in the machine-translated training files.
_LABELS = {label: label for label in LABELS} | dict(zip("012", LABELS, strict=True)) | {"contradictory": LABELS[2]}


class Xnli(NliTask):
    """Cross-lingual NLI in 15 languages with parallel items, from a folder or from the hub.

    If English has no train file, dev is split: `HELD_OUT` items, the same in every language and for every seed, are
    used for validation and the rest for training. If English has a train file, dev is used for validation, and a
    language without a train file can be evaluated but not trained on.

    Strata are labels, combined with genres if the source has them.
    """

    name = "xnli"
    languages = ("ar", "bg", "de", "el", "en", "es", "fr", "hi", "ru", "sw", "th", "tr", "ur", "vi", "zh")
    pooled = ("ur", "sw", "hi")
    parallel = True
    sizes = Sizes(train=5000, validation=500, test=5010)

    def load(
        self, language: str, split: Split, *, data_dir: str | None = None, difficulty: str = "normal"
    ) -> tuple[NliItem, ...]:
        """Return all items of a split in one language, in the order of the file.

        Raises:
            OptionError: the data is missing or cannot be read; the message names file and line.
        """
        check_choice("language", language, self.languages)
        check_choice("split", split, SPLITS)
        check_choice("difficulty", difficulty, self.difficulties)
        if split == "test" or data_dir is None:
            return _items(language, split, data_dir)
        if _is_divided(data_dir):
            rest, validation = hold_out(_items(language, "validation", data_dir), HELD_OUT)
            return rest if split == "train" else validation
        if split == "train" and files.find(data_dir, language, "train") is None:
            return ()
        return _items(language, split, data_dir)

    def origin(self, language: str, split: Split, *, data_dir: str | None = None) -> dict[str, str]:
        divided = data_dir is not None and split != "test" and _is_divided(data_dir)
        return files.origin(data_dir, language, "validation" if divided else split, HUB)


def _is_divided(data_dir: str) -> bool:
    """Return whether training items are taken from the validation file, since there is no other."""
    return files.find(data_dir, SOURCE_LANGUAGE, "train") is None


def _items(language: str, split: Split, data_dir: str | None) -> tuple[NliItem, ...]:
    from_hub = data_dir is None
    rows = files.read_hub(HUB, language, split) if from_hub else files.read(data_dir, language, split, _COLUMNS)
    return tuple(_item(language, f"{split}-{index}", index, row) for index, row in enumerate(rows))


def _item(language: str, item_id: str, index: int, row: files.Row) -> NliItem:
    label = str(row.values.get("label", "")).strip()
    if label not in _LABELS:
        row.fail(f"label {label!r}; allowed are {', '.join(LABELS)} (or 0, 1, 2)")
    genre = row.values.get("genre") or ""
    if isinstance(genre, list):  # the remaining cells of a TSV line
        if len(genre) > 1:
            row.fail(f"more columns than {', '.join(_COLUMNS)}")
        genre = genre[0]
    return NliItem(
        index=index,
        id=item_id,
        language=language,
        stratum=f"{_LABELS[label]} {genre}".strip(),
        premise=row.text("premise"),
        hypothesis=row.text("hypothesis"),
        label=_LABELS[label],
    )
