"""The alignment of sentences before and after training, as a metric of a run."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from mlflow.artifacts import download_artifacts
from mlflow.tracking import MlflowClient
from probes import probed, table
from runs import PAIRS, plan_of, run_of

from whichlora.data.tasks.pairs import packaged
from whichlora.data.tasks.pairs.tatoeba import ISO_639_3
from whichlora.run.command import main
from whichlora.run_table.scores import scores_of

COUNTS = {"sw": 30, "tr": 20, "ur": 12}


@pytest.fixture
def laser(tmp_path: Path) -> str:
    """A folder in LASER's format: words in the place of sentences."""
    folder = tmp_path / "laser"
    folder.mkdir()
    for code, count in COUNTS.items():
        for side, name in enumerate(("eng", ISO_639_3[code])):
            lines = (pair[side] for pair in packaged(code)[:count])
            (folder / f"tatoeba.{ISO_639_3[code]}-eng.{name}").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(folder)


@pytest.mark.slow
def test_a_run_has_the_numbers_of_the_probe_before_and_after_training(store: Path, tiny_model: str, laser: str) -> None:
    options = {"language": "sw", "alignment": "tatoeba", "alignment_dir": laser, "alignment_size": 25}
    base, trained = (run_of(plan_of(tiny_model, variant=name, **options)) for name in ("none", "full"))
    test, before = "test/alignment/tatoeba", "base/alignment/tatoeba"
    changed = 0
    for result, source in ((base, ("--model", tiny_model)), (trained, ("--run_id", trained.run_id))):
        own = ("--kind", "alignment", "--pairs", "tatoeba", "--data_dir", laser, "--items", "25", "--language", "sw")
        probe = probed(*source, *own)
        rows = table(probe).set_index(["layer", "measure"])["value"]
        layer = int(probe.data.metrics["headline/layer"])
        for measure in ("p1/to/raw", "p1/from/centred", "mrr/from/csls", "cosine/gap/centred"):
            assert result.metrics[f"{test}/{measure}"] == pytest.approx(rows[layer, measure], abs=1e-5)
            assert result.metrics[f"{before}/{measure}"] == base.metrics[f"{test}/{measure}"]
            changed += result.metrics[f"{test}/{measure}"] != result.metrics[f"{before}/{measure}"]
        assert result.metrics[f"{test}/p1"] == result.metrics[f"{test}/p1/to/raw"]
        assert result.metrics[f"{test}/p1_low"] <= result.metrics[f"{test}/p1"] <= result.metrics[f"{test}/p1_high"]
        assert result.metrics["floor/alignment/tatoeba/chance"] == 1 / 25
    assert changed
    assert trained.metrics["gain/alignment/tatoeba"] == trained.metrics[f"{test}/p1"] - base.metrics[f"{test}/p1"]
    run = MlflowClient().get_run(trained.run_id)
    assert "| tatoeba, not trained, Swahili |" in run.data.tags["mlflow.note.content"]
    path = download_artifacts(run_id=trained.run_id, artifact_path="predictions/alignment/tatoeba.parquet")
    pairs = pd.read_parquet(path)
    assert (pairs["predicted"] == pairs["gold"]).mean() == trained.metrics[f"{test}/p1"]
    listed = scores_of(run)["alignment/tatoeba"]
    assert (listed.metric, listed.value) == ("P@1", trained.metrics[f"{test}/p1"])
    card = Path(download_artifacts(run_id=trained.run_id, artifact_path="adapter/README.md")).read_text()
    assert "--alignment tatoeba --alignment_size 25 --alignment_dir ./laser" in card
    (source,) = [d.dataset.source for d in run.inputs.dataset_inputs if d.tags[0].value == "test/alignment/tatoeba"]
    assert "tatoeba.swh-eng.swh" in source


@pytest.mark.slow
def test_languages_are_measured_apart_and_the_base_model_once(store: Path, tiny_model: str, laser: str) -> None:
    options = {"variant": "none", "alignment": "tatoeba", "alignment_dir": laser}
    alone = run_of(plan_of(tiny_model, language="ur", **options))
    both = run_of(plan_of(tiny_model, language="sw,ur", **options))
    for code in ("sw", "ur"):
        assert both.metrics[f"floor/alignment/tatoeba/{code}/chance"] == 1 / COUNTS[code]
    for name in ("p1", "mrr/to/csls"):
        assert both.metrics[f"test/alignment/tatoeba/ur/{name}"] == alone.metrics[f"test/alignment/tatoeba/{name}"]
    client = MlflowClient()
    condition = "tags.`whichlora.kind` = 'base' and params.task = 'tatoeba'"
    found = client.search_runs([e.experiment_id for e in client.search_experiments()], condition)
    assert sorted(run.data.params["language"] for run in found) == ["sw", "ur"]


def test_the_option_changes_neither_training_nor_runs_without_it(store: Path, tiny_model: str, laser: str) -> None:
    plain = plan_of(tiny_model)
    aligned = plan_of(tiny_model, alignment="tatoeba", alignment_dir=laser)
    assert set(plain.spec.test_digests) == {"en", "tl"}
    assert set(aligned.spec.test_digests) == {"en", "tl", "alignment/tatoeba"}
    assert aligned.spec.training_fingerprint == plain.spec.training_fingerprint
    assert aligned.spec.fingerprint != plain.spec.fingerprint
    assert {"alignment", "alignment_dir"}.isdisjoint(plain.spec.to_dict())


def test_word_pairs_can_be_trained_and_sentences_scored(store: Path, tiny_model: str, laser: str) -> None:
    result = run_of(plan_of(tiny_model, **PAIRS, alignment="tatoeba", alignment_dir=laser))
    assert "base/alignment/tatoeba/p1" in result.metrics
    assert not any(name.startswith("paired/alignment") for name in result.metrics)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alignment": "tatoeba"}, "alignment_dir=auto: must be a folder with LASER's files"),
        ({"alignment": "tatoeba", "alignment_dir": "laser", "language": "hi"}, "has no tatoeba.hin-eng.eng; it has "),
        (
            {"alignment": "tatoeba", "alignment_dir": "laser", "alignment_size": "31"},
            "alignment_size=31: tatoeba has 30 sentences in sw",
        ),
        ({"alignment": "words"}, "alignment=words: allowed are none, tatoeba"),
        ({"alignment_size": "5"}, "alignment_size=5: needs alignment=tatoeba"),
        ({"alignment_dir": "laser"}, "alignment_dir=laser: needs alignment=tatoeba"),
    ],
)
def test_what_cannot_be_measured_is_refused_in_one_line(
    store: Path, laser: str, capsys: pytest.CaptureFixture[str], options: dict[str, str], message: str
) -> None:
    words = [word for name, text in {"language": "sw", **options}.items() for word in (f"--{name}", text)]
    assert main(words) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert message in line
