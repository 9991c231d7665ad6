"""Tables for a terminal: alignment in any script, and lines that fit."""

from __future__ import annotations

import json

import pytest
import wcwidth

from whichlora.text_tables import POINTS, SHARES, shown, table

ROWS = [
    ("run", "name", "task", "F1", "seconds"),
    ("0a1b2c3d4e", "lora-matched", "atlas-nli", ".917", "163"),
    ("1a1b2c3d4e", "日本語の評価データ", "مراجعات", ".5", "9"),
    ("2a1b2c3d4e", "समीक्षाएँ", "తెలుగు", "-", "1,024"),
]


def test_columns_align_in_wide_and_combining_scripts() -> None:
    rows = [("a", "number", "text"), ("äöü", 1234, "x"), ("日本", "5+6", "-")]
    assert table(rows).split("\n") == ["  a     number  text", "  äöü    1,234  x", "  日本     5+6  -"]


def test_scores_have_one_scale_with_one_decimal() -> None:
    assert [POINTS.text(score) for score in (0.8866, 0.0, 1.0)] == ["88.7", "0.0", "100.0"]
    assert [POINTS.gain(difference) for difference in (0.0142, -0.0142, 0.0004, -0.0004)] == [
        "+1.4",
        "-1.4",
        "0.0",
        "0.0",
    ]
    assert (POINTS.interval(0.412, 0.508), POINTS.interval(-0.01, 0.5)) == ("41.2-50.8", "-1.0 to 50.0")
    assert (SHARES.text(0.41234), SHARES.interval(0.4, 0.5)) == ("0.412", "0.400-0.500")


def test_control_characters_are_escaped() -> None:
    assert shown("a\tb\u2028c\u200dd\ne") == "a\\tb\\u2028c\u200dd\ne"
    assert json.loads(f'"{shown(chr(0x202E))}"') == chr(0x202E)


def test_numbers_are_flush_right_at_the_same_cell() -> None:
    lines = table(ROWS).split("\n")
    assert len({wcwidth.width(line) for line in lines}) == 1


def test_a_right_to_left_text_ends_its_own_direction() -> None:
    """Else a terminal draws the numbers behind it on its left."""
    assert "مراجعات\u200e" in table(ROWS)


@pytest.mark.parametrize("width", [*range(1, 60), 80, 200])
def test_lines_fit_any_width(width: int) -> None:
    lines = table(ROWS, width=width, whole=("run",), optional=("seconds", "task")).split("\n")
    assert len(lines) == len(ROWS)
    assert max(map(wcwidth.width, lines)) <= width


def test_ids_and_numbers_stay_whole_while_texts_are_shortened() -> None:
    narrow = table(ROWS, width=50, whole=("run",), optional=("seconds", "task"))
    assert "0a1b2c3d4e  lora-matched" not in narrow
    assert "0a1b2c3d4e" in narrow
    assert "1,024" in narrow
    assert "…" in narrow


def test_optional_columns_are_left_out_in_the_given_order() -> None:
    heads = [
        table(ROWS, width=w, whole=("run",), optional=("seconds", "task")).split("\n")[0].split() for w in (42, 32)
    ]
    assert heads == [["run", "name", "task", "F1"], ["run", "name", "F1"]]
