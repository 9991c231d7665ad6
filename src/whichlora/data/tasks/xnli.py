"""The task `xnli` (Conneau et al. 2018, "XNLI: Evaluating Cross-lingual Sentence Representations")."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from whichlora.data.tasks import distributed, files
from whichlora.data.tasks.base import SOURCE_LANGUAGE, SPLITS, Sizes, Split
from whichlora.data.tasks.duplicates import normalized
from whichlora.data.tasks.items import LABELS, FieldsItem, Item, NliItem
from whichlora.data.tasks.nli import NliTask
from whichlora.data.tasks.stratification import hold_out
from whichlora.errors import check_choice

HUB = "facebook/xnli"
HELD_OUT = 500
"""Number of dev items held out for validation if dev is used for training, or up to two more, since the hypotheses of a
premise stay together; at most a third of dev."""

_COLUMNS = ("premise", "hypothesis", "label", "genre")
# Label numbers as on the hub; `contradictory` occurs in the machine-translated training files.
_LABELS = {label: label for label in LABELS} | dict(zip("012", LABELS, strict=True)) | {"contradictory": LABELS[2]}


class Xnli(NliTask):
    """Cross-lingual NLI in 15 languages with parallel items, from a folder or from the hub.

    If English has no train file, dev is split: some `HELD_OUT` items, the same in every language and for every seed,
    are used for validation and the rest for training. Items with the same English premise stay together. If English
    has a train file, dev is used for validation, and a language without a train file can be evaluated but not trained
    on. A folder may also have the data as it is distributed (`distributed/xnli.yaml`), with the training set of XNLI-MT
    (`distributed/xnli-mt.yaml`).

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
        if data_dir is not None and _is_distributed(language, data_dir):
            return _distributed(language, split, data_dir)
        if split == "test" or data_dir is None:
            return _items(language, split, data_dir)
        if _is_divided(data_dir):
            items = _items(language, "validation", data_dir)
            has_english = files.find(data_dir, SOURCE_LANGUAGE, "validation") is not None
            english = _items(SOURCE_LANGUAGE, "validation", data_dir) if has_english else items
            return _divided(items, english, split)
        if split == "train" and files.find(data_dir, language, "train") is None:
            return ()
        return _items(language, split, data_dir)

    def origin(self, language: str, split: Split, *, data_dir: str | None = None) -> dict[str, str]:
        if data_dir is not None and _is_distributed(language, data_dir):
            translated = split == "train" and distributed.is_found("xnli-mt", data_dir)
            name = "xnli-mt" if translated else "xnli"
            divided = split == "train" and not distributed.has(name, SOURCE_LANGUAGE, "train", data_dir)
            return distributed.origin(name, language, "validation" if divided and not translated else split, data_dir)
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
        blanked = "" if label else "; XTREME's test files have no labels"
        row.fail(f"label {label!r}; allowed are {', '.join(LABELS)} (or 0, 1, 2){blanked}")
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


def _is_distributed(language: str, data_dir: str) -> bool:
    """Return whether a folder has no file of its own for the language, but the data as it is distributed."""
    return not files.has_any(data_dir, language, SOURCE_LANGUAGE) and distributed.is_found("xnli", data_dir)


def _distributed(language: str, split: Split, data_dir: str) -> tuple[NliItem, ...]:
    translated = distributed.is_found("xnli-mt", data_dir)
    has_train = translated or distributed.has("xnli", SOURCE_LANGUAGE, "train", data_dir)
    if split == "train" and translated:
        rows = distributed.rows("xnli-mt", language, "all", data_dir)
        labelled = [replace(row, values={**row.values, "label": row.values.get("answer")}) for row in rows]
        return tuple(_item(language, f"{split}-{index}", index, row) for index, row in enumerate(labelled))
    if split == "train" and has_train and not distributed.has("xnli", language, "train", data_dir):
        return ()
    if split == "test" or has_train:
        return _named(distributed.items("xnli", language, split, data_dir), split)
    pools = (distributed.items("xnli", code, "validation", data_dir) for code in (language, SOURCE_LANGUAGE))
    items, english = (_named(pool, "validation") for pool in pools)
    return _divided(items, english, split)


def _divided(items: Sequence[NliItem], english: Sequence[NliItem], split: Split) -> tuple[NliItem, ...]:
    """Return the training or validation part of dev items, of which those with one English premise stay together."""
    rest, validation = hold_out(items, HELD_OUT, [normalized(item.premise) for item in english])
    return rest if split == "train" else validation


def _named(items: Sequence[Item], split: Split) -> tuple[NliItem, ...]:
    """Return items with the ids and strata that they have in files of one language and split."""
    named = []
    for index, item in enumerate(items):
        assert isinstance(item, FieldsItem)
        texts, label = dict(item.fields), item.answers[0]
        named.append(
            NliItem(
                index=index,
                id=f"{split}-{index}",
                language=item.language,
                stratum=f"{label} {texts['genre']}".strip(),
                premise=texts["premise"],
                hypothesis=texts["hypothesis"],
                label=label,
            )
        )
    return tuple(named)
