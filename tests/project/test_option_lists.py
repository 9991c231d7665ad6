"""Options with several values: the error names the option, the whole text, the wrong value and what is allowed."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from whichlora.__main__ import main
from whichlora.data.detectors import get_detector
from whichlora.errors import OptionError, parse_integer
from whichlora.option_lists import parse_list

PAIR = "compare --variant lora,dora"


@pytest.mark.parametrize(
    ("command", "option", "text", "wrong", "allowed"),
    [
        ("compare", "variant", "lora,foo", "has foo; ", "allowed are lora, "),
        ("compare", "variant", "lora,", "has an empty value; ", "allowed are lora, "),
        ("compare --tune 2", "variant", "lora,foo", "has foo; ", "allowed are lora, "),
        (PAIR, "seed", "1,x", "has x; ", "must be a whole number from 0 to 8999"),
        (PAIR, "language", "sw xx", "has xx; ", "allowed are "),
        (PAIR, "tl_ratio", "0 2", "has 2; ", "must be a number at least 0 and at most 1, or auto"),
        (f"{PAIR} --tune 2", "language", "sw xx", "has xx; ", "allowed are "),
        (f"{PAIR} --tune 2", "tl_ratio", "0 2", "has 2; ", "must be a number at least 0 and at most 1, or auto"),
        ("tune", "variant", "lora,foo", "has foo; ", "allowed are lora, "),
        ("tune", "seed", "1,x", "has x; ", "must be a whole number"),
        ("tune", "seed", "1,9000", "has 9000; ", "9000 to 9501 are used for tuning"),
        ("tune", "objective", "mean,dollars", "has dollars; ", "allowed are parameters, seconds"),
        ("tune", "objective", "both,seconds", "has both; ", "allowed are en, tl, mean"),
        ("tune", "search", "dropout,foo", "foo cannot be searched; ", "allowed are auto, none, all, "),
        ("run", "language", "sw,xx", "has xx; ", "allowed are "),
        ("probe --kind alignment", "language", "sw,xx", "has xx; ", "allowed are "),
        ("analyze --experiment x", "results", "a.csv,b.csv", "has a.csv; ", "must be a CSV file"),
        ("variants", "needs", "nf4,foo", "foo is not a capability; ", "allowed are none, nf4"),
        ("cache --yes true", "remove", "x,y", "nothing has the name x; ", "`whichlora cache` lists "),
    ],
)
def test_the_whole_text_and_the_wrong_value_are_named(
    empty_folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    command: str,
    option: str,
    text: str,
    wrong: str,
    allowed: str,
) -> None:
    monkeypatch.setenv("TQDM_DISABLE", "1")
    assert main([*shlex.split(command), f"--{option}", text]) == 2
    error = capsys.readouterr().err.replace("\x1b[0m", "").strip().splitlines()[-1]
    assert error.startswith(f"error: {option}={text}: {wrong}{allowed}")


def test_an_error_of_a_single_value_or_of_another_option_stays_as_it_is() -> None:
    assert parse_list("x", "3, 1,3", lambda option, part: parse_integer(option, part, 1)) == [3, 1, 3]
    with pytest.raises(OptionError, match=r"^x=a: must be a whole number"):
        parse_list("x", "a", lambda option, part: parse_integer(option, part, 1))
    with pytest.raises(OptionError, match=r"^y=a: must be a whole number"):
        parse_list("x", "1,a", lambda option, part: parse_integer("y", part, 1))


def test_a_language_that_a_detector_lacks_is_named() -> None:
    with pytest.raises(OptionError, match=r"^candidates=en,xx: has xx; must be two or more of af, "):
        get_detector("lingua", ("en", "xx"))
    with pytest.raises(OptionError, match=r"^candidates=en: must be two or more of af, "):
        get_detector("lingua", ("en",))
