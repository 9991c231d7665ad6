"""The task `tydiqa`: the gold passage task of TyDi QA (Clark et al. 2020)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from whichlora.data.tasks import files
from whichlora.data.tasks.base import SPLITS, Sizes, Split
from whichlora.data.tasks.items import QaItem
from whichlora.data.tasks.qa import QaTask
from whichlora.data.tasks.stratification import hold_out
from whichlora.errors import choose

HUB, HUB_CONFIG = "google-research-datasets/tydiqa", "secondary_task"
HELD_OUT = 696
"""Items of the train file held out for validation, a third where that is fewer: English has 3,000 and 696."""

# On the hub all languages are together, and an id begins with the name of its own.
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
    """Extractive QA over Wikipedia in 9 languages, each with items of its own, from a folder or from the hub.

    The test set is the whole dev file, whose size differs between languages. Validation is held out of the train file,
    the same for every seed. A language without a train file can be evaluated but not trained: its splits train and
    validation are empty.
    """

    name = "tydiqa"
    languages = tuple(_NAMES)
    pooled = ("sw", "bn", "te")
    parallel = False
    answer_tokens = 128  # in a byte-level vocabulary one Telugu answer in twelve has more than 64
    sizes = Sizes(train=3000, validation=HELD_OUT, test=None)

    def load(
        self, language: str, split: Split, *, data_dir: str | None = None, difficulty: str = "normal"
    ) -> tuple[QaItem, ...]:
        """Return every item of a split in one language, in the order of the file.

        Raises:
            OptionError: the data are not there or cannot be read; the message names file and line or item.
        """
        choose("language", language, self.languages)
        choose("split", split, SPLITS)
        choose("difficulty", difficulty, self.difficulties)
        if split == "test":
            return _items(language, "validation", data_dir)
        if data_dir is not None and files.find(data_dir, language, "train") is None:
            return ()
        rest, validation = hold_out(_items(language, "train", data_dir), HELD_OUT)
        return rest if split == "train" else validation


def _items(language: str, split: Split, data_dir: str | None) -> tuple[QaItem, ...]:
    if data_dir is None:
        rows = files.read_hub(HUB, HUB_CONFIG, split, id_prefix=f"{_NAMES[language]}-")
    else:
        rows = files.read(data_dir, language, split, _COLUMNS)
    items = tuple(_item(language, index, row) for index, row in enumerate(rows))
    if items:
        name, times = Counter(item.id for item in items).most_common(1)[0]
        if times > 1:
            rows[0].wrong(f"id {name} is that of {times} items")
    return items


def _item(language: str, index: int, row: files.Row) -> QaItem:
    context = row.text("context")
    starts: dict[str, int] = {}
    for answer, start in _answers(row):
        if answer not in starts:
            starts[answer] = _start(row, context, answer, start)
    if not starts:
        row.wrong("has no answer")
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


def _answers(row: files.Row) -> Iterator[tuple[str, int | None]]:
    """Yield each accepted answer and where it begins, None where the row does not say.

    SQuAD has a list of objects, the hub an object of two lists, and a line of a TSV the texts alone.
    """
    answers = row.values.get("answers") or []
    try:
        if isinstance(answers, dict):
            pairs = list(
                zip(answers["text"], answers.get("answer_start") or [None] * len(answers["text"]), strict=True)
            )
        else:
            pairs = [(a, None) if isinstance(a, str) else (a["text"], a.get("answer_start")) for a in answers]
    except (KeyError, TypeError, ValueError, AttributeError):
        row.wrong("its answers are no texts with their starts")
    for text, start in pairs:
        if isinstance(text, str) and text.strip():
            yield text, start


def _start(row: files.Row, context: str, answer: str, start: int | None) -> int:
    """Return where the answer stands in the context, in characters: at `start`, or else where it is nearest to it."""
    wanted = start if isinstance(start, int) and start >= 0 else 0
    if context.startswith(answer, wanted):
        return wanted
    before, after = context.rfind(answer, 0, wanted + len(answer)), context.find(answer, wanted)
    found = [place for place in (before, after) if place >= 0]
    if not found:
        row.wrong(f"its answer {answer!r} is not in the context")
    return min(found, key=lambda place: abs(place - wanted))
