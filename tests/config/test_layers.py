"""The option `layers`: every form, and errors that say what is allowed."""

from __future__ import annotations

import resource
import subprocess
import sys

import pytest

from whichlora.config.layers import parse_layers
from whichlora.errors import OptionError

N = 32


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("all", [*range(32)]),
        ("first:1", [0]),
        ("first:10", [*range(10)]),
        ("last:2", [30, 31]),
        ("first:32", [*range(32)]),
        ("first:10,last:2", [*range(10), 30, 31]),
        ("22-27,30-31", [22, 23, 24, 25, 26, 27, 30, 31]),
        ("0", [0]),
        ("31", [31]),
        ("5-5", [5]),
        ("7, 3", [3, 7]),
        ("4-8,6-10,first:2", [0, 1, 4, 5, 6, 7, 8, 9, 10]),
        ("all,3", [*range(32)]),
    ],
)
def test_forms_name_their_layers_sorted_and_once(text, expected):
    assert parse_layers(text, N) == tuple(expected)
    assert parse_layers(text) is None


BAD_FORM = ["", " ", ",", "1,", "first:0", "last:0", "first", "first:", "first:-1", "-1", "3-", "-3", "9-4", "a", "ALL"]
BAD_FORM += ["middle:3", "1.5", "1;2", "1-2-3", "first:2-3", "0x1", "all-linear"]


@pytest.mark.parametrize("text", BAD_FORM)
@pytest.mark.parametrize("n_layers", [None, N])
def test_a_wrong_form_is_found_with_and_without_a_model(text, n_layers):
    with pytest.raises(OptionError) as caught:
        parse_layers(text, n_layers)
    assert str(caught.value).startswith(f"layers={text}: ")
    assert "allowed are" in str(caught.value) or "from 1" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "allowed"),
    [("32", "0-31"), ("30-32", "0-31"), ("0,99", "0-31"), ("first:33", "1 to the model's 32"), ("last:33", "32")],
)
def test_a_layer_that_the_model_lacks_is_named_with_those_it_has(text, allowed):
    assert parse_layers(text) is None
    with pytest.raises(OptionError) as caught:
        parse_layers(text, N)
    assert str(caught.value).startswith(f"layers={text}: ")
    assert allowed in str(caught.value)


def test_a_range_without_end_takes_no_memory():
    """The number of layers is not known yet when the form is checked."""
    subprocess.run(
        [sys.executable, "-c", "from whichlora.config.layers import parse_layers; parse_layers('0-99999999999')"],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (2**29, 2**29)),
        timeout=30,
        check=True,
    )
