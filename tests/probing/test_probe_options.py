"""Invalid options of `probe` exit with status 2 and name the allowed values, before a model is loaded."""

from __future__ import annotations

from pathlib import Path

import pytest
from runs import plan_of, run_of

from whichlora.probing import main
from whichlora.probing.choices import PRESETS
from whichlora.probing.options import OPTIONS
from whichlora.probing.request import parse

DEFAULTS = {name: default for name, (default, _) in OPTIONS.items()}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"kind": "langauge"},
            "kind=langauge: allowed are language, alignment, retrieval, weights (did you mean 'language'?)",
        ),
        ({"top_k": "0"}, "top_k=0: must be a whole number from 1 to 50"),
        ({"items": "1"}, "items=1: must be a whole number from 2"),
        ({"final_norm": "perhaps"}, "final_norm=perhaps: allowed are true, false"),
        ({"detector": "fasttext"}, "detector=fasttext: allowed are cld3, lingua"),
        ({"preset": "zhao"}, "preset=zhao: allowed are default, paper, zhao2024"),
        ({"pairs": "words"}, "pairs=words: applies only to kind=alignment; remove the option"),
        ({"kind": "alignment", "top_k": "2"}, "top_k=2: applies only to kind=language; remove the option"),
        ({"kind": "alignment", "preset": "paper"}, "preset=paper: applies only to kind=language; remove the option"),
        (
            {"kind": "alignment", "language": "tt"},
            "language=tt: allowed are az, bn, hi, kk, ky, sw, te, tk, tr, ur, uz",
        ),
        (
            {"kind": "alignment", "pairs": "nowhere.tsv"},
            "pairs=nowhere.tsv: must be words (packaged), task, tatoeba, a UTF-8 file of pairs, or auto",
        ),
        ({"kind": "weights", "language": "sw"}, "language=sw: has no effect with kind=weights, which reads no items"),
        ({"kind": "alignment", "task": "atlas-nli"}, "task=atlas-nli: has no effect with kind=alignment"),
        ({"kind": "weights"}, "run_id=auto: kind=weights requires the id of a finished run"),
        ({"run_id": "abc", "model": "tiny"}, "model=tiny: cannot be combined with run_id"),
        ({"run_id": "abc", "precision": "bf16"}, "precision=bf16: a run is probed as it was scored; remove the option"),
        ({"run_id": "abc"}, "run_id=abc: must be the id of a run or its first four or more hexadecimal digits"),
        ({"task": "atlas"}, "task=atlas: allowed are atlas-nli, atlas-qa"),
        ({"items": "1000000"}, "items=1000000: atlas-nli has"),
        ({"detector": "lingua", "candidates": "en,xx"}, "candidates=en,xx: has xx; must be two or more of"),
        (
            {"candidates": "en,xx"},
            "candidates=en,xx: has xx; must be two or more of",
        ),  # because agreement with Lingua is measured
    ],
)
def test_a_bad_option_names_itself_and_what_is_allowed(
    store: Path, tiny_model: str, options: dict[str, str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = (
        options
        if {"run_id", "model"} & set(options) or options.get("kind") == "weights"
        else {"model": tiny_model, **options}
    )
    assert main([text for name, value in arguments.items() for text in (f"--{name}", value)]) == 2
    # On a busy machine the time that the preparation took is printed before.
    assert any(line.startswith(f"error: {message}") for line in capsys.readouterr().err.splitlines())


def test_a_missing_database_is_not_created(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = store / "mlflow.db"
    file.unlink()
    assert main(["--run_id", "abc"]) == 2
    assert f"error: run_id=abc: there is no tracking database {file}" in capsys.readouterr().err
    assert list(store.iterdir()) == []


def test_only_a_finished_run_can_be_probed(store: Path, tiny_model: str, capsys: pytest.CaptureFixture[str]) -> None:
    from mlflow.tracking import MlflowClient

    result = run_of(plan_of(tiny_model, variant="none"))
    assert main(["--kind", "weights", "--run_id", result.run_id]) == 2
    assert "must be a run that trained something" in capsys.readouterr().err
    MlflowClient().set_terminated(result.run_id, "FAILED")
    assert main(["--run_id", result.run_id]) == 2
    assert f"run_id={result.run_id}: has failed" in capsys.readouterr().err
    MlflowClient().delete_run(result.run_id)
    assert main(["--run_id", result.run_id]) == 2
    assert capsys.readouterr().err == f"error: run_id={result.run_id}: was deleted; `whichlora runs` lists the runs\n"


def test_a_run_that_lost_its_adapter_says_so(store: Path, tiny_model: str, capsys: pytest.CaptureFixture[str]) -> None:
    import shutil

    from mlflow.tracking import MlflowClient

    result = run_of(plan_of(tiny_model))
    artifacts = MlflowClient().get_run(result.run_id).info.artifact_uri.removeprefix("file://")
    shutil.rmtree(Path(artifacts) / "adapter")
    assert main(["--run_id", result.run_id, "--agreement", "0"]) == 2
    assert "has no adapter among its artifacts; it was deleted" in capsys.readouterr().err


def test_auto_stands_for_the_value_of_the_preset() -> None:
    assert parse(DEFAULTS).choices == PRESETS["default"]
    assert parse({**DEFAULTS, "preset": "zhao2024"}).choices == PRESETS["zhao2024"]
    mixed = parse({**DEFAULTS, "preset": "zhao2024", "top_k": "3", "candidates": "all"}).choices
    assert (mixed.top_k, mixed.candidates, mixed.unreliable) == (3, None, "drop")
    assert parse({**DEFAULTS, "preset": "paper"}).choices == PRESETS["default"]
