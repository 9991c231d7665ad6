"""The task `tydiqa`: the gold passage task of TyDi QA (Clark et al. 2020)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from whichlora.data.tasks import distributed, files
from whichlora.data.tasks.base import SOURCE_LANGUAGE, SPLITS, Sizes, Split
from whichlora.data.tasks.duplicates import normalized
from whichlora.data.tasks.items import QaItem
from whichlora.data.tasks.qa import QaTask
from whichlora.data.tasks.spans import accepted_answers, answer_offset
from whichlora.data.tasks.stratification import hold_out
from whichlora.errors import check_choice

HUB, HUB_CONFIG = "google-research-datasets/tydiqa", "secondary_task"
HELD_OUT = 696
"""Number of train items held out for validation, at most a third; 3,000 remain for training in English."""

# Names of the languages with which the ids begin: on the hub all languages are in one table.
_NAMES = {
    "ar": "arabic",
    "bn": "bengali",
    "en": "english",
    "fi": "finnish",
    "id": "indonesian",
    "ko": "korean",
    "ru": "russian",
    "sw": "swahili",
    "te": "telugu",
}
_COLUMNS = ("id", "context", "question", "answers")


class TydiQa(QaTask):
    """Extractive QA over Wikipedia in 9 languages, which have different items, from a folder or from the hub.

    The test set is the whole dev file, whose size differs between languages. Validation is held out from the train
    file, the same for every seed; questions about one passage stay together. A language without a train file can be
    evaluated but not trained on: its train and validation splits are empty. A folder may also have the data as it is
    distributed (`distributed/tydiqa.yaml`).
    """

    name = "tydiqa"
    languages = tuple(_NAMES)
    pooled = ("sw", "bn", "te")
    parallel = False
    answer_tokens = 128  # with one token per byte, one in twelve Telugu answers exceeds 64
    sizes = Sizes(train=3000, validation=HELD_OUT, test=None)

    def load(
        self, language: str, split: Split, *, data_dir: str | None = None, difficulty: str = "normal"
    ) -> tuple[QaItem, ...]:
        """Return all items of a split in one language, in the order of the file.

        Raises:
            OptionError: the data is missing or cannot be read; the message names file and line or item.
        """
        check_choice("language", language, self.languages)
        check_choice("split", split, SPLITS)
        check_choice("difficulty", difficulty, self.difficulties)
        if split == "test":
            return _items(language, "validation", data_dir)
        if data_dir is not None and not _has_train(language, data_dir):
            return ()
        items = _items(language, "train", data_dir)
        rest, validation = hold_out(items, HELD_OUT, [normalized(item.context) for item in items])
        return rest if split == "train" else validation

    def origin(self, language: str, split: Split, *, data_dir: str | None = None) -> dict[str, str]:
        if data_dir is not None and _is_distributed(language, data_dir):
            return distributed.origin("tydiqa", language, "test" if split == "test" else "train", data_dir)
        return files.origin(data_dir, language, "validation" if split == "test" else "train", HUB)


def _items(language: str, split: Split, data_dir: str | None) -> tuple[QaItem, ...]:
    if data_dir is None:
        rows = files.read_hub(HUB, HUB_CONFIG, split, id_prefix=f"{_NAMES[language]}-")
    elif _is_distributed(language, data_dir):
        rows = distributed.rows("tydiqa", language, "train" if split == "train" else "test", data_dir)
    else:
        rows = files.read(data_dir, language, split, _COLUMNS)
        rows = _in_language(rows, language)
    if len(rows) > 1 and not any(map(_has_answer, rows)):
        rows[0].fail(f"has no answer, as all {len(rows)} items; XTREME's test files have none")
    items = tuple(_item(language, index, row) for index, row in enumerate(rows))
    if items:
        item_id, count = Counter(item.id for item in items).most_common(1)[0]
        if count > 1:
            rows[0].fail(f"id {item_id} occurs {count} times")
    return items


def _has_answer(row: files.Row) -> bool:
    try:
        return any(accepted_answers(row.values.get("answers")))
    except ValueError:
        return True  # of another form, which `_item` refuses


def _in_language(rows: Sequence[files.Row], language: str) -> list[files.Row]:
    """Return the rows whose ids say that they are in a language; all if no id says a language.

    Raises:
        OptionError: ids say other languages only.
    """
    said = {
        row.location: name for row in rows if (name := str(row.values.get("id")).partition("-")[0]) in _NAMES.values()
    }
    selected = [row for row in rows if said.get(row.location, _NAMES[language]) == _NAMES[language]]
    if rows and not selected:
        others = ", ".join(dict.fromkeys(said.values()))
        rows[0].fail(f"no id begins with {_NAMES[language]}-, but with {others}; the file has other languages")
    return selected


def _is_distributed(language: str, data_dir: str) -> bool:
    """Return whether a folder has no file of its own for the language, but the data as it is distributed."""
    return not files.has_any(data_dir, language, SOURCE_LANGUAGE) and distributed.is_found("tydiqa", data_dir)


def _has_train(language: str, data_dir: str) -> bool:
    if _is_distributed(language, data_dir):
        return bool(distributed.rows("tydiqa", language, "train", data_dir))
    return files.find(data_dir, language, "train") is not None


def _item(language: str, index: int, row: files.Row) -> QaItem:
    context = row.text("context")
    starts: dict[str, int] = {}
    try:
        for answer, start in accepted_answers(row.values.get("answers")):
            if answer not in starts:
                starts[answer] = answer_offset(context, answer, start)
    except ValueError as error:
        row.fail(str(error))
    if not starts:
        row.fail("has no answer")
    return QaItem(
        index=index,
        id=row.text("id"),
        language=language,
        stratum=language,
        context=context,
        question=row.text("question"),
        answers=tuple(starts),
        answer_start=next(iter(starts.values())),
    )
