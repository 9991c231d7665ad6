"""A chat template is a condition of a setting, and follows from the model where models are compared."""

from __future__ import annotations

from pathlib import Path

import designs
import pandas as pd
import pytest
from synthetic import log_run, spec

from analysis.runs.pull import pull
from analysis.stats.contrasts import units
from whichlora.config.spec import RunSpec
from whichlora.tracking.client import connect
from whichlora.tracking.lookup import find_experiments


def test_runs_with_a_template_are_a_setting_and_older_ones_are_of_plain_text(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log_run(spec("lora", seed=1), "e")
    log_run(spec("lora", seed=1, chat_template="0123456789ab"), "e")
    whole = RunSpec.to_dict
    with monkeypatch.context() as patch:  # as before there was such a param
        patch.setattr(RunSpec, "to_dict", lambda spec: {k: v for k, v in whole(spec).items() if k != "chat_template"})
        log_run(spec("lora", seed=2), "e")
    client = connect()
    table = pull(client, find_experiments(client, "e")).table
    seeds = {setting: set(rows["seed"]) for setting, rows in table.groupby("setting")}
    name = "atlas-nli, smollm2-135m, chat_template"
    assert seeds == {f"{name} 0123456789ab": {1}, f"{name} none": {1, 2}}


def test_models_with_different_templates_are_compared() -> None:
    one = designs.table({"A": 0.0, "B": 0.01}, outcomes=("tl",)).assign(model="base", chat_template="none")
    other = one.assign(model="instruct", chat_template="0123", f1=one["f1"] + 0.1)
    upper, lower = units(pd.concat([one, other]), outcome="tl", factor="model", upper="instruct", lower="base")
    assert (upper - lower).to_numpy() == pytest.approx(10)
