"""The end of a run: a table that fits the terminal, and what to type next."""

from __future__ import annotations

import pytest
import wcwidth

from whichlora.__main__ import COMMANDS
from whichlora.config.cli import next_commands
from whichlora.run.summary import Result, summary
from whichlora.testing.runs import small_plan

METRICS = {
    **{"test/en/f1": 0.8, "test/en/f1_low": 0.7, "test/en/f1_high": 0.9, "base/en/f1": 0.35},
    **{"test/tl/f1": 0.5, "base/tl/f1": 0.5, "floor/tl/majority": 0.33, "floor/tl/overlap": 0.625},
}


def test_each_test_set_is_a_row(tiny_model: str) -> None:
    plan = small_plan(tiny_model, variant="none")
    title, _, english, swahili, last = summary(plan, Result(run_id="r", metrics=METRICS)).splitlines()
    assert title == f"{plan.name} (synthetic task)"
    assert english.split() == ["English:", "F1", "80.0", "70.0-90.0", "35.0", "+45.0", "-", "9"]
    interval = swahili.split()[3]  # Wilson's, where a run has logged none
    assert swahili.split() == ["Swahili:", "F1", "50.0", interval, "50.0", "0.0", "62.5", "overlap", "9"]
    assert last.startswith("  MLflow run r at ")


@pytest.mark.parametrize("width", [30, 50, 80])
def test_the_table_fits_the_terminal(tiny_model: str, width: int) -> None:
    text = summary(small_plan(tiny_model, variant="none"), Result(run_id="r", metrics=METRICS), width=width)
    _, *lines, _ = text.splitlines()
    assert max(map(wcwidth.width, lines)) <= width
    assert all("0." in line for line in lines[1:])  # the score is there at any width


def test_the_next_commands_exist_and_quote_names() -> None:
    lines = next_commands("my experiment", run_id="abc").splitlines()
    assert {line.split()[1] for line in lines[1:]} <= COMMANDS.keys()
    assert "  whichlora runs --experiment 'my experiment' " in lines[1]
    assert "whichlora probe --run_id abc " in "\n".join(lines)
    assert "whichlora predict --run_id abc --input " in "\n".join(lines)
    after_an_experiment = next_commands("e", register=True)
    assert "whichlora predict --run_id RUN " in after_an_experiment
    assert "whichlora analyze --experiment e --register NAME " in after_an_experiment
