"""Probes are joined to their runs, unlike ones are never mixed, and the report says what became of each."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import matplotlib.image
import mlflow
import numpy as np
import pandas as pd
import pytest
from synthetic import log_run, spec
from synthetic_probes import CEILING, LAYERS, log_probe, shape, shares_of, weight_table
from test_report import report_of, text_of

from analysis import analyze
from analysis.measures import layer_shares
from analysis.runs import language_probes
from analysis.runs.language_probes import share_column
from analysis.runs.probe_runs import BASE, reads
from analysis.runs.pull import pull
from whichlora.tracking.client import connect
from whichlora.tracking.lookup import find_experiments

MINE = """
claims:
  - {name: target, says: The end speaks the target language., outcome: tl, test: layer_correlation,
     arguments: {share: tl, depth: [0.99, 1]}}
  - {name: english, says: Layers 7 and 8 speak English., outcome: tl, test: layer_correlation,
     arguments: {share: en, layers: 7-8}}
  - {name: deeper, says: Layer 30 does., outcome: tl, test: layer_correlation, arguments: {share: tl, layers: 30}}
"""


def read(experiment: str) -> tuple[language_probes.LanguageProbes, pd.DataFrame]:
    client = connect()
    found = pull(client, find_experiments(client, experiment))
    probed = language_probes.fetch(found)
    return probed, language_probes.join_shares(found.table, probed.shares)


@pytest.fixture(scope="module")
def design(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> tuple[str, dict[str, str]]:
    """A database whose experiment `probed` has 16 runs with a probe each, and some that do not count; ids by name.

    F1 rises with the target share after the last block.
    """
    folder = tmp_path_factory.mktemp("probed")
    shutil.copy(empty_database, folder / "mlflow.db")
    before = mlflow.get_tracking_uri()
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    mlflow.set_tracking_uri(uri)
    rng = np.random.default_rng(0)
    ids: dict[str, str] = {}
    for language in ("sw", "ur"):
        for variant in ("lora", "vera"):
            for ratio in (0.0, 0.5):
                for seed in (1, 2):
                    own = spec(variant, language=language, tl_ratio=ratio, seed=seed, layers=tuple(range(LAYERS)))
                    f1 = 0.7 + 0.04 * rng.standard_normal()
                    run_id = log_run(own, "probed", f1={"en": 0.8, "tl": f1}, items=0)
                    shares = shares_of(own, f1, slopes={("target", LAYERS - 1): 0.5})
                    ids[f"probe of {run_id}"] = log_probe(own, "probed", source=run_id, shares=shares)
        base = {name: 0.8 * value for name, value in shape().items()}
        ids[f"base {language}"] = log_probe(
            spec(language=language, variant="none"), "probed", source=None, shares={**base, **_ceilings()}
        )
    ids["run"], ids["first"] = run_id, ids[f"probe of {run_id}"]
    gone = spec("pissa", language="ur", seed=9)
    ids |= {
        "unlike": log_probe(own, "probed", source=run_id, final_norm=False, top_k=10),
        "items": log_probe(own, "probed", source=run_id, digest="other", items=7),
        "hindi": log_probe(own, "probed", source=run_id, language="hi"),
        "orphan": log_probe(gone, "probed", source="0" * 32),
        "other base": log_probe(spec(model_digest="b0b0"), "probed", source=None),
        "unread": log_probe(own, "probed", source=run_id, file=False, seed=3),
        "failed": log_probe(own, "probed", source=run_id, status="FAILED", seed=4),
        "running": log_probe(own, "probed", source=run_id, status="RUNNING", seed=5),
        "weights": log_probe(own, "probed", source=run_id, kind="weights", table=weight_table()),
        "other": log_probe(own, "probed", source=run_id, kind="attention"),
    }
    own = spec("lora", language="sw", tl_ratio=0.5, seed=1, layers=tuple(range(LAYERS)))
    ids["again"] = log_probe(
        own, "probed", source=None, level="sequence", language="sw", shares={**base, **_ceilings()}
    )
    mlflow.set_tracking_uri(before)
    return uri, ids


def _ceilings() -> dict[tuple[str, str, int], float]:
    return {key: value for key, value in shape().items() if key[2] == -1}


@pytest.fixture
def ids(design: tuple[str, dict[str, str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, str]:
    """Use that database, read only by agreement."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", design[0])
    monkeypatch.chdir(tmp_path)
    mlflow.set_tracking_uri(design[0])
    return design[1]


def test_every_probe_is_used_or_listed(ids):
    found, _ = read("probed")
    assert [(i.run_id, i.text) for i in found.failed] == [
        (ids["failed"], "ProofError: the last layer does not decode to the prediction")
    ]
    assert [(i.run_id, i.text) for i in found.unfinished] == [(ids["running"], "running")]
    assert found.others == {"attention": 1}
    left = {i.run_id: i.text for i in found.left_out}
    assert left == {
        ids["unlike"]: "was made with final_norm False, not True, top_k 10, not 1 as those used",
        ids["items"]: "reads other items (7) than most probes of atlas-nli, smollm2-135m, ur",
        ids["hindi"]: "reads hi, and the target language of its run is ur",
        ids["orphan"]: f"its source run {'0' * 32} is not among the runs used here",
        ids["other base"]: "no run here has its base model, precision, quantization and language",
        ids["unread"]: "has no layers.parquet that can be read",
    }


def test_of_two_alike_the_later_one_is_used(ids):
    """The level only says what a probe's metrics tell: both are measured."""
    found, _ = read("probed")
    assert [(i.run_id, i.text) for i in found.duplicates] == [
        (
            ids["base sw"],
            f"is of the same model and made in the same way as {ids['again']}, which ended later and is used",
        )
    ]
    assert len(found.used) == 18
    assert set(found.used) == {v for k, v in ids.items() if k.startswith("probe of")} | {ids["base ur"], ids["again"]}
    bases = found.shares[found.shares["method"] == BASE]
    assert set(bases["probe_id"]) == {ids["base ur"], ids["again"]}
    assert set(bases["run_id"]) == {""}


def test_a_probe_stands_in_the_row_of_its_run(ids):
    _, table = read("probed")
    for run_id in (name.removeprefix("probe of ") for name in ids if name.startswith("probe of ")):
        path = mlflow.artifacts.download_artifacts(run_id=ids[f"probe of {run_id}"], artifact_path="layers.parquet")
        logged = pd.read_parquet(path).set_index(["measure", "layer"])["value"]
        row = table[(table["outcome"] == "tl") & (table["run_id"] == run_id)].iloc[0]
        assert row[share_column("token", "tl", LAYERS - 1)] == logged["token/target", LAYERS - 1]
        assert row[share_column("sequence", "en", 3)] == logged["sequence/english", 3]
    assert share_column("token", "tl", -1) not in table
    shared = table[(table["outcome"] == "en") & (table["language"] == "")]
    assert len(shared)
    assert shared[share_column("token", "tl", 3)].isna().all()


def test_the_choices_that_most_runs_share_are_used(store):
    ids = []
    for seed in (1, 2, 3):
        own = spec(seed=seed)
        ids.append((own, log_run(own, "e", items=0)))
    kept = [log_probe(own, "e", source=run_id, positions="item") for own, run_id in ids[:2]]
    left = [log_probe(own, "e", source=run_id) for own, run_id in ids[2:]]
    for digest in ("1", "2", "3"):  # however many probes of a base model there are
        log_probe(spec(variant="none"), "e", source=None, digest=digest)
    found, table = read("e")
    assert found.choices["positions"] == "item"
    assert set(found.used) == set(kept)
    assert left[0] in {issue.run_id for issue in found.left_out}
    assert table[share_column("token", "en", 0)].notna().sum() == 2 * 2


def test_of_a_run_done_twice_the_probe_of_either_counts(store):
    first = log_run(spec(), "e", items=0)
    kept = log_probe(spec(), "e", source=first)
    second = log_run(spec(), "e", items=0)
    found, table = read("e")
    assert found.used == (kept,)
    assert set(table.loc[table[share_column("token", "en", 0)].notna(), "run_id"]) == {second}


@pytest.fixture(scope="module")
def reported(design: tuple[str, dict[str, str]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the report."""
    folder = tmp_path_factory.mktemp("layers")
    (folder / "mine.yaml").write_text(MINE)
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(design[0])
    options = {"experiment": "probed", "output": str(folder / "out"), "claims": str(folder / "mine.yaml")}
    assert analyze.main([part for name, value in options.items() for part in (f"--{name}", value)]) == 0
    mlflow.set_tracking_uri(before)
    return folder / "out"


@pytest.mark.parametrize(
    ("languages", "of_run", "same"),
    [
        ("sw", "sw", True),
        ("az+tr", "tr,az", True),
        ("az+tr", "tr:2,az:1", True),
        ("hi+sw+ur", "pooled", True),
        ("sw", "pooled", False),
        ("az+tr", "tr", False),
        ("tr", "tr,az", False),
    ],
)
def test_a_probe_reads_the_target_languages_of_its_run(languages: str, of_run: str, same: bool) -> None:
    assert reads(languages, of_run) == same


def test_the_report_shows_the_layers_after_the_claims(reported):
    page = text_of(reported)
    html = (reported / "report.html").read_text()
    assert html.index('<h2 id="claims"') < html.index('<h2 id="layers"') < html.index('<h2 id="views"')
    assert "from 18 language probes" in page
    assert "detector cld3, final norm True, positions all, top k 1" in page
    for text in ("1 probe failed", "1 probe is not finished", "6 probes are left out", "1 probe of kind attention"):
        assert text in page
    for language in ("sw", "ur"):
        assert f"{language}, by token: F1 rises with the target share after block {LAYERS - 1} (r = ." in page
    assert "runs of kind probe" not in page
    found = json.loads((reported / "sources.json").read_text())
    assert len(found["probes"]) == 19
    names = {path.stem for path in (reported / "figures").glob("layer*.png")}
    levels = ("token", "sequence")
    assert names == {f"layers-{x}-{level}" for x in ("sw", "ur") for level in levels} | {
        f"layer-correlation-{level}" for level in levels
    }


def test_claims_about_layers_are_judged(reported):
    page = text_of(reported)
    assert "✓ supported here The end speaks the target language." in page
    assert "? undecided Layers 7 and 8 speak English." in page
    assert f"? not judged Layer 30 does. Layers 30: the model has layers 0-{LAYERS - 1}" in page
    assert "There are no runs with model *Llama-3.1-8B. Source: Figure 4" in page


def test_what_the_section_says_is_in_the_statistics(reported):
    records = json.loads((reported / "statistics.json").read_text())
    known = {f"{abs(r[key]):.2f}".removeprefix("0") for r in records for key in ("effect",) if r[key] is not None}
    known |= {str(r["n"]) for r in records}
    page = (reported / "report.html").read_text()
    section = page[page.index('id="layers"') : page.index('id="views"')]
    sentences = re.findall(r"<li>(\w+(?: \w+)?, by .*?)</li>", section)
    assert len(sentences) == 2 * 4  # two languages, both, and ratios apart; by token and by sequence
    for sentence in sentences:
        for number in re.findall(r"(?:r = -?|to -?|n = |\|r\| )(\.?\d+)", sentence):
            assert number in known, sentence
    counts = {r["test"]: r["n"] for r in records if r["analysis"] == "probes"}
    assert counts == {"used": 18, "failed": 1, "unfinished": 1, "done twice": 1, "left out": 6, "of kind attention": 1}
    ceilings = {tuple(r["groups"]): r["effect"] for r in records if r["test"] == "ceiling"}
    assert ceilings["sw", "token", "tl"] == pytest.approx(CEILING["token"][1])
    curves = pd.read_csv(reported / "tables" / "layer-shares.csv")
    assert set(curves["method"]) == {"LoRA", "VeRA", BASE}
    assert set(curves["layer"]) == set(range(-1, LAYERS))


def test_nothing_of_a_figure_is_cut_off(reported):
    for path in (reported / "figures").glob("layer*.png"):
        image = matplotlib.image.imread(path)[..., :3]
        edges = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])
        assert (edges == 1).all(), path.name


def test_without_probes_one_line_says_so(written):
    page = text_of(written)
    assert "These experiments have no language probe of the analysed runs" in page
    assert not list((written / "figures").glob("layer*"))
    assert not list((written / "tables").glob("layer*"))


def test_few_runs_have_curves_but_no_correlation(store):
    own = spec()
    log_probe(own, "e", source=log_run(own, "e", items=12))
    page = text_of(report_of("e"))
    assert "there is 1 run, and at least 8 are needed (sw, by token)" in page
    assert {path.stem for path in Path("out/figures").glob("layer*.png")} == {"layers-sw-token", "layers-sw-sequence"}


def test_probes_of_the_base_model_alone_are_shown(store):
    log_run(spec(), "e", items=12)
    log_probe(spec(variant="none"), "e", source=None)
    found, table = read("e")
    assert len(found.used) == 1
    assert not [name for name in table if name.startswith("probe/")]
    assert "from 1 language probe." in text_of(report_of("e"))


def test_settings_with_and_without_probes(store):
    """What stands in one setting must not lend its name to another."""
    log_run(spec(), "e", items=0)
    for seed in range(8):
        own = spec(task="xnli", seed=seed)
        shares = shares_of(own, 0.0)
        log_probe(own, "e", source=log_run(own, "e", items=0), shares=shares)
    found, table = read("e")
    settings = sorted(set(table["setting"]))
    records = [*layer_shares.share_records(found.shares, settings), *layer_shares.correlation_records(table)]
    assert {r.analysis.partition(" in ")[2] for r in records} == {"xnli, smollm2-135m"}


@pytest.mark.slow
def test_a_real_probe_of_a_real_run_is_read(store, tiny_model, monkeypatch):
    """Nothing invented: two methods are trained, their models and the base are probed, and the report has them."""
    from probes import probed
    from probes import table as logged
    from runs import plan_of, run_of

    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "real")
    made = {}
    for variant in ("lora", "dora"):
        run_id = run_of(plan_of(tiny_model, variant=variant), "real").run_id
        made[run_id] = probed("--run_id", run_id, "--agreement", "0")
    base = probed("--model", tiny_model, "--items", "9", "--agreement", "0")
    probed("--model", tiny_model, "--items", "9", "--agreement", "0", "--final_norm", "false")
    probed("--run_id", run_id, "--kind", "weights")
    found, table = read("real")
    assert set(found.used) == {run.info.run_id for run in made.values()} | {base.info.run_id}
    assert [issue.text for issue in found.left_out] == ["was made with final_norm False, not True as those used"]
    assert found.others == {}
    assert not found.notes
    for run_id, probe in made.items():
        values = logged(probe).set_index(["measure", "layer"])["value"]
        row = table[(table["outcome"] == "tl") & (table["run_id"] == run_id)].iloc[0]
        for layer in range(3):
            assert row[share_column("token", "en", layer)] == values["token/english", layer]
            assert row[share_column("sequence", "tl", layer)] == values["sequence/target", layer]
    page = text_of(report_of("real"))
    assert "from 3 language probes" in page
    assert "there are 2 runs, and at least 8 are needed (sw, by token)" in page
    assert Path("out/figures/layers-sw-token.svg").is_file()
