"""What a comparison says, stores and registers, from invented results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mlflow
import pytest
from invented import CLEAR, log_run, log_scores, read, write
from mlflow.entities import Run
from mlflow.utils.mlflow_tags import MLFLOW_RUN_NOTE

from analysis import analyze
from analysis.stats.sequential.verdict import judge
from comparing import record
from comparing.compare import main
from comparing.costs import costs
from comparing.results import Results
from whichlora.tracking.client import connect
from whichlora.tracking.runs import Tracker


def stored(comparison: Any) -> tuple[Run, dict[str, Any]]:
    """Return the run of a comparison and its answer."""
    run = record.find(connect(), "invented", comparison.digest)
    assert run is not None
    return run, json.loads(mlflow.artifacts.load_text(f"{run.info.artifact_uri}/answer.json"))


def judged(comparison: Any, *, beyond: bool = False) -> Results:
    results = Results(comparison, "invented")
    results.update(connect(), beyond=beyond)
    return results


@pytest.mark.slow
def test_the_cheaper_of_two_level_methods_is_taken_and_registered(
    store: Path, tiny_model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(store, tiny_model)
    comparison = read(file, margin=1.5)
    log_scores(comparison, model=True)
    assert main(["--file", file, "--margin", "1.5", "--max_seeds", "10"]) == 0
    printed = capsys.readouterr().out
    lead = "Take PiSSA: PiSSA and LoRA are level within 1.5 points, and it has the fewest trainable parameters (1,000, "
    assert lead in printed
    answer_lines = printed[printed.index("Take PiSSA") :].splitlines()
    answer_text = [line for line in answer_lines if not line.startswith(("Results", "Report"))]
    assert len(answer_text) <= 20
    page = (Path(__file__).parents[2] / "docs" / "compare.md").read_text(encoding="utf-8")
    assert "\n".join(answer_text) in page
    assert not any("done: " in line for line in printed.splitlines())  # nothing was trained

    run, answer = stored(comparison)
    assert (run.info.status, run.data.tags["whichlora.kind"]) == ("FINISHED", "comparison")
    assert answer["take"] == "PiSSA"
    assert answer["alternatives"] == ["LoRA"]
    assert answer["ended"] == "decided"
    states = {standing["method"]: standing["state"] for standing in answer["standings"]}
    assert states["VeRA"] == "dropped"
    assert "Take PiSSA" in run.data.tags[MLFLOW_RUN_NOTE]
    assert answer["cost"]["spent"] == 0  # the runs were there already
    assert answer["cost"]["reused"] == len(judged(comparison).runs)

    version = connect().get_model_version_by_alias("atlas-nli-tiny-sw", "champion")
    seeds = judged(comparison).scores["PiSSA"]
    champion = connect().get_run(version.run_id).data.params
    assert champion["variant"] == "pissa"
    ordered = sorted(zip(seeds, seeds.index, strict=True))
    assert int(champion["seed"]) == ordered[(len(ordered) - 1) // 2][1]

    assert main(["--file", file, "--margin", "1.5", "--max_seeds", "10"]) == 0
    assert [v.version for v in connect().search_model_versions("name = 'atlas-nli-tiny-sw'")] == [version.version]
    assert len([r for r in connect().search_runs([run.info.experiment_id]) if "comparison" in str(r.data.tags)]) == 1


@pytest.mark.slow
def test_the_report_shows_the_same_answer_first(
    store: Path, tiny_model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(store, tiny_model)
    log_scores(read(file, margin=1.5))
    assert main(["--file", file, "--margin", "1.5", "--max_seeds", "10", "--register", "none"]) == 0
    capsys.readouterr()
    assert analyze.main(["--experiment", "invented", "--output", str(store / "report")]) == 0
    lead = "Take PiSSA: PiSSA and LoRA are level within 1.5 points"
    assert lead in capsys.readouterr().out
    page = (store / "report" / "report.html").read_text()
    first = page[page.index('<section id="answer">') :]
    assert first.index(lead) < first.index("by a rule that was fixed before") < first.index("Scores and costs")


def test_nothing_is_recommended_below_the_shallow_baselines(store: Path, tiny_model: str) -> None:
    file = write(store, tiny_model)
    comparison = read(file, margin=1.5)
    log_scores(comparison, floor=95, model=True)
    assert main(["--file", file, "--margin", "1.5", "--max_seeds", "10"]) == 0
    _, answer = stored(comparison)
    assert answer["take"] is None
    assert answer["lead"].startswith("Take none: no method is shown to exceed the best shallow baseline")
    assert not connect().search_registered_models()


def test_a_dry_run_prints_the_plan_and_writes_nothing(
    empty_folder: Path, tiny_model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(empty_folder, tiny_model)
    assert main(["--file", file, "--dry_run", "true", "--budget", "2", "--max_seeds", "7"]) == 0
    printed = capsys.readouterr().out
    for text in ("LoRA, PiSSA and VeRA", "seeds 1, 2, 3, 4, ..., at most 7", "3 runs in the first round", "2 h 0 min"):
        assert text in printed
    assert "What it can decide is known after two seeds" in printed
    assert [path.name for path in empty_folder.iterdir()] == ["invented.yaml"]


def test_a_verdict_depends_on_the_runs_alone(store: Path, tiny_model: str) -> None:
    """Seed by seed, all at once, and with the runs of a round half done."""
    comparison = read(write(store, tiny_model), margin=1.5)
    watching = Results(comparison, "invented")
    for index in range(6):
        for plans in comparison.plans(index + 1).values():
            before = len(watching.scores)
            log_run(plans[0], CLEAR[plans[0].spec.variant][index])
            watching.update(connect())
            assert len(watching.scores) - before in (0, 1)
    at_once = judged(comparison)
    assert at_once.verdict == watching.verdict
    assert at_once.scores.equals(watching.scores)
    assert at_once.verdict.finished


def test_a_run_that_diverged_counts_as_collapsed_and_is_not_repeated(store: Path, tiny_model: str) -> None:
    comparison = read(write(store, tiny_model))
    for seed in (1, 2, 3, 4):
        for method, plans in comparison.plans(seed).items():
            diverges = method == "VeRA"
            error = "NonFiniteError: the loss is nan" if diverges else None
            log_run(plans[0], CLEAR[plans[0].spec.variant][seed], error=error)
    results = judged(comparison)
    vera = results.verdict["VeRA"]
    assert vera.collapses == vera.runs > 0
    assert (vera.state, vera.unreliable) == ("dropped", True)
    assert len(results.diverged) == 4
    assert list(results.scores["VeRA"].dropna().unique()) == [0.0]


def test_where_no_method_learns_anything_none_has_collapsed(store: Path, tiny_model: str) -> None:
    comparison = read(write(store, tiny_model))
    log_scores(comparison, {"lora": (41, 42, 40), "pissa": (40, 41, 42), "vera": (39, 40, 41)}, floor=40)
    assert not judged(comparison).flags.to_numpy().any()
    other = read(write(store, tiny_model, tl_ratio=0.1))
    log_scores(other, {"lora": (81, 82, 80), "pissa": (80, 81, 82), "vera": (39, 40, 41)}, floor=40)
    assert judged(other).flags["VeRA"].tolist() == [True, True, False]  # after two it is dropped as unreliable
    assert not judged(other).flags[["LoRA", "PiSSA"]].to_numpy().any()


def test_the_budget_counts_the_runs_of_the_comparison_alone(store: Path, tiny_model: str) -> None:
    file = write(store, tiny_model)
    comparison = read(file)
    log = record.open_record(comparison, Tracker.for_command("invented"))
    level = {name: (90 + i, 91 - i, 92, 90) for i, name in enumerate(("lora", "pissa", "vera"))}
    log_scores(comparison, {name: scores[:1] for name, scores in level.items()}, seconds=100)
    results = judged(comparison)
    found = costs(results, connect(), log.run_id, 3600, comparison.methods)
    assert (found.spent, found.runs, found.reused) == (0, 3, 3)
    for seed in (2, 3, 4):
        for plans in comparison.plans(seed).values():
            log_run(plans[0], level[plans[0].spec.variant][seed - 1], seconds=100, parent=log.run_id)
    results = judged(comparison)
    found = costs(results, connect(), log.run_id, 1200, comparison.methods)
    assert (found.spent, found.runs, found.reused) == (900, 12, 3)
    assert found.round == pytest.approx(300)
    assert found.grid == pytest.approx(3000)
    assert (found.affordable, found.exhausted) == (1, False)
    assert costs(results, connect(), log.run_id, 1100, comparison.methods).exhausted


@pytest.mark.slow
def test_a_spent_budget_ends_a_comparison_and_a_higher_one_resumes_it(
    store: Path, tiny_model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(store, tiny_model)
    comparison = read(file)
    log = record.open_record(comparison, Tracker.for_command("invented"))
    log_scores(comparison, {"lora": (90, 91), "pissa": (91, 90), "vera": (89, 90)}, seconds=600, parent=log.run_id)
    for money in (("--budget", "1"), ("--budget", "5EUR", "--device_price", "5EUR")):
        assert main(["--file", file, "--max_seeds", "10", *money]) == 0
        assert "The budget is spent after 2 of at most 10 seeds." in capsys.readouterr().out
    run, answer = stored(comparison)
    assert (run.info.run_id, answer["ended"], answer["take"]) == (log.run_id, "budget", None)
    assert answer["lead"].startswith("No answer yet: ")
    assert run.data.metrics["comparison/device_hours"] == pytest.approx(1)
    log_scores(read(file, seeds=(3,)), {name: points[2:] for name, points in CLEAR.items()})
    assert main(["--file", file, "--max_seeds", "10", "--budget", "100", "--dry_run", "true"]) == 0
    assert len(judged(comparison).scores) > 2


@pytest.mark.slow
def test_with_stop_budget_seeds_are_added_and_narrow_the_differences(store: Path, tiny_model: str) -> None:
    file = write(store, tiny_model)
    comparison = read(file, margin=1.5)
    more = {name: (*points, *points[:4]) for name, points in CLEAR.items()}
    log_scores(comparison, more)
    few, many = judged(comparison), judged(comparison, beyond=True)
    assert len(few.scores) == few.verdict.seeds < len(many.scores) == 10
    assert few.verdict == many.verdict
    options = ["--margin", "1.5", "--max_seeds", "10", "--stop", "budget", "--budget", "1", "--register", "none"]
    assert main(["--file", file, *options]) == 0
    _, answer = stored(comparison)
    assert any(sentence.startswith("Over all 10 seeds, against") for sentence in answer["sentences"])


@pytest.mark.slow
def test_languages_are_judged_together_and_each_alone(store: Path, tiny_model: str) -> None:
    comparison = read(write(store, tiny_model, language=["sw", "ur"]), margin=1.5)
    log_scores(comparison)
    results = judged(comparison)
    assert results.verdict.finished
    assert len(results.rows) == 2 * sum(standing.runs for standing in results.verdict.standings)
    from comparing.support import support

    sentences = support(results, costs(results, connect(), None, None, comparison.methods), "PiSSA")
    assert [s for s in sentences if s.startswith(("Swahili alone: ", "Urdu alone: "))]


@pytest.mark.parametrize(
    ("primary", "ratio", "all_languages"),
    [("tl", 0.5, 2), ("tl", 0.0, 2), ("en", 0.5, 2), ("en", 0.0, 1), ("mean", 0.0, 1)],
)
def test_steps_are_those_of_the_mean_over_results_of_which_one_adapter_has_one_in_english(
    store: Path, tiny_model: str, primary: str, ratio: float, all_languages: int
) -> None:
    """Without target-language items one adapter serves both languages, and its English answers are the same."""
    comparison = read(write(store, tiny_model, language=["sw", "ur"], tl_ratio=ratio), primary=primary)
    assert comparison.resolution() == pytest.approx(100 / 60 / all_languages**0.5)
    assert comparison.resolution("sw") == pytest.approx(100 / 60)


def test_a_language_alone_is_judged_by_its_own_steps(store: Path, tiny_model: str) -> None:
    comparison = read(write(store, tiny_model, language=["sw", "ur"]))
    level = (90.0, 90.0, 90.0)  # in both languages, so that their mean is the score of each
    log_scores(comparison, {"lora": level, "pissa": level, "vera": level})
    results = judged(comparison)
    alone, mean = (
        judge(results.scores, margin=1.0, max_seeds=10, families=families, resolution=step)
        for families, step in ((2, 100 / 60), (1, 100 / 60 / 2**0.5))
    )
    assert results.judge(language="sw") == alone
    assert results.verdict == mean
