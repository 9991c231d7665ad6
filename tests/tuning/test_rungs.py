"""Successive halving without training: sizes of rungs, which points rise, and which are proposed next."""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Callable, Sequence
from typing import Any

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState
from small_studies import study

from tuning.dimensions import Choice, Range
from tuning.divergence import mark_diverged
from tuning.halving.brackets import Brackets, in_rung, place_of
from tuning.halving.promotion import LEARNED, LOSS
from tuning.halving.rungs import Rungs
from tuning.progress import forecast
from tuning.space import Space
from tuning.tune import OPTIONS, study_configs
from whichlora.errors import OptionError

SPACE = Space(dimensions={"learning_rate": Range(low=1e-5, high=1e-1), "rank": Choice(values=(4, 8, 16))})
KNOWN = {"recommended": {"learning_rate": 1e-5, "rank": 4}, "matched": {"learning_rate": 1e-1, "rank": 16}}


def simulated(
    score: Callable[[dict[str, Any], int], float],
    *,
    brackets: int = 1,
    rungs: int = 3,
    space: Space = SPACE,
    known: dict[str, dict[str, Any]] = KNOWN,
    order: random.Random | None = None,
    interrupted: bool = False,
    loss: Callable[[dict[str, Any]], float] = lambda point: 0.0,
    chance: float = -1.0,
) -> list[FrozenTrial]:
    """Return the trials of brackets whose points score `score(point, rung)`; a score of NaN diverges.

    Args:
        order: shuffles the order in which the trials of a rung finish; None for the order of the slots.
        interrupted: whether half of the trials of a rung are lost when they are enqueued, as if a worker had died.
        chance: scores up to which nothing was learned.
    """
    found, halves = optuna.create_study(direction="maximize"), 0
    while True:
        plan = Brackets(Rungs(rungs), space, known, "tests", 9000)
        entries = plan.missing(found.trials, may_begin=lambda costs: len(costs) <= brackets)
        if not entries:
            return found.trials
        halves += 1
        if interrupted and halves % 2:
            entries = entries[::2]
        for entry in order.sample(entries, len(entries)) if order else entries:
            found.enqueue_trial(entry.point, user_attrs=entry.attributes)
            trial = found.ask()
            value = score(space.suggest(trial), entry.place.rung)
            trial.set_user_attr(LOSS, loss(entry.point))
            trial.set_user_attr(LEARNED, value > chance)
            if value != value:
                mark_diverged(trial)
            found.tell(trial, 0.0 if value != value else value)


def by_place(trials: Sequence[FrozenTrial]) -> dict[Any, Any]:
    return {place_of(t): (t.params, t.user_attrs["seed"], t.user_attrs.get("known"), t.values) for t in trials}


def rate(point: dict[str, Any], rung: int) -> float:
    return -abs(point["learning_rate"] - 1e-3)


def test_sizes_and_costs() -> None:
    rungs = Rungs(3)
    assert [rungs.points(rung) for rung in range(3)] == [16, 4, 1]
    assert [rungs.items(600, rung) for rung in range(3)] == [37, 150, 600]
    assert sum(rungs.points(rung) * rungs.share(rung) for rung in range(3)) == rungs.bracket_cost == 3
    assert rungs.known_cost == 2 * (1 / 4 + 1)
    assert rungs.least == 6  # the smallest number of trials that a bracket fits into
    assert rungs.fits([3], 6, None, 0)
    assert not rungs.fits([3], 5, None, 0)
    assert [n for n in range(1, 9) if rungs.fits([3] * n, 20, None, 0)] == [1, 2, 3, 4, 5]
    assert rungs.fits([3], 100, 10, 0)  # nothing is known of the first
    assert rungs.fits([3, 3], 100, 10, 5)
    assert not rungs.fits([3, 3], 100, 10, 5.1)
    assert Rungs().items(600, 0) == 600


def test_the_best_quarter_rises_and_known_points_always_do() -> None:
    trials = simulated(rate)
    assert [len(in_rung(trials, rung)) for rung in range(3)] == [16, 4 + 2, 1 + 2]
    for rung in (0, 1):
        ranked = sorted(in_rung(trials, rung), key=lambda trial: -trial.values[0])
        best = {place_of(trial).slot for trial in ranked[: Rungs(3).points(rung + 1)]}  # type: ignore[union-attr]
        above = {place_of(trial).slot for trial in in_rung(trials, rung + 1)}  # type: ignore[union-attr]
        assert above == best | {0, 1}
    for arm, point in KNOWN.items():
        assert [t.params for t in trials if t.user_attrs.get("known") == arm] == [point] * 3
    assert {trial.user_attrs["seed"] for trial in trials} == {9000}


def test_a_known_point_that_rises_by_its_result_counts_once() -> None:
    trials = simulated(lambda point, rung: point["learning_rate"])  # the matched rate is the highest
    assert [len(in_rung(trials, rung)) for rung in range(3)] == [16, 4 + 1, 1 + 1]


def test_scores_of_other_rungs_are_not_compared() -> None:
    """Lower rungs score higher here, and in the opposite order."""
    trials = simulated(lambda point, rung: [10, 0, 5][rung] + [1, -1, 1][rung] * point["learning_rate"])
    low, middle, high = (in_rung(trials, rung) for rung in range(3))
    assert max(t.params["learning_rate"] for t in low) in {t.params["learning_rate"] for t in middle}
    worst = min((t for t in middle if "known" not in t.user_attrs), key=lambda t: t.params["learning_rate"])
    best = min(middle, key=lambda t: t.params["learning_rate"])
    assert best.params in [t.params for t in high]
    assert len(high) == 2 or worst.params in [t.params for t in high]


def test_at_chance_the_training_loss_decides_and_divergence_is_last() -> None:
    points = simulated(lambda point, rung: 0.3, chance=0.4, loss=lambda point: point["learning_rate"])
    lowest = sorted(t.params["learning_rate"] for t in in_rung(points, 0))
    assert set(lowest[:4]) <= {t.params["learning_rate"] for t in in_rung(points, 1)}

    diverging = simulated(lambda point, rung: float("nan") if point["learning_rate"] > 3e-5 else 0.3)
    survivors = {t.params["learning_rate"] for t in in_rung(diverging, 0) if t.params["learning_rate"] <= 3e-5}
    assert survivors < {t.params["learning_rate"] for t in in_rung(diverging, 1)}


def test_learning_is_worth_more_than_a_score_at_chance() -> None:
    score = {4: 0.35, 8: 0.45, 16: 0.34}  # by rank; only 8 is above chance, and it has the highest loss
    trials = simulated(
        lambda point, rung: score[point["rank"]], chance=0.4, loss=lambda p: float(p["rank"] == 8), known={}
    )
    n_learned = sum(t.params["rank"] == 8 for t in in_rung(trials, 0))
    assert sum(t.params["rank"] == 8 for t in in_rung(trials, 1)) == min(4, n_learned)


def test_brackets_begin_above_rungs_in_which_nothing_is_learned() -> None:
    trials = simulated(lambda point, rung: [0.3, 0.3, 0.9][rung], chance=0.4, brackets=3)
    begun = [[place.rung for t in trials if (place := place_of(t)) and place.bracket == b] for b in range(3)]
    assert [min(rungs) for rungs in begun] == [0, 2, 2]
    assert [len(rungs) for rungs in begun] == [16 + 4 + 2, 1, 1]  # ties go to the first, which are the known ones
    trials = simulated(lambda point, rung: [0.3, 0.5, 0.9][rung], chance=0.4, brackets=2)
    assert [place_of(t).rung for t in trials if place_of(t).bracket == 1] == [1] * 4 + [2]  # type: ignore[union-attr]


@pytest.mark.parametrize("interrupted", [False, True])
def test_the_points_depend_neither_on_the_order_of_the_workers_nor_on_deaths(interrupted: bool) -> None:
    whole = simulated(rate, brackets=3)
    assert len({tuple(t.params.items()) for t in in_rung(whole, 0)}) == 48  # no point is tried twice
    shuffled = simulated(rate, brackets=3, order=random.Random(1), interrupted=interrupted)
    assert by_place(shuffled) == by_place(whole)


def test_later_brackets_propose_near_good_points() -> None:
    def near(trials: Sequence[FrozenTrial], bracket: int) -> int:
        """Return how many points that a bracket begins with have a rate within a factor of three of the best."""
        begun = [t for t in in_rung(trials, 0) if place_of(t).bracket == bracket]  # type: ignore[union-attr]
        return sum(1e-3 / 3 < t.params["learning_rate"] < 3e-3 for t in begun)

    trials = simulated(rate, brackets=4)
    assert near(trials, 3) > near(trials, 0)


def test_in_a_small_space_a_repeated_point_has_another_seed() -> None:
    space = Space(dimensions={"learning_rate": Choice(values=(1e-3,)), "rank": Choice(values=(4, 8, 16))})
    trials = in_rung(simulated(rate, space=space, known={}, rungs=2, brackets=2), 0)
    seeds = [[t.user_attrs["seed"] for t in trials if t.params["rank"] == rank] for rank in (4, 8, 16)]
    assert sum(map(len, seeds)) == 8
    assert all(sorted(found) == list(range(9000, 9000 + len(found))) for found in seeds)


def test_a_training_that_is_given_up_does_not_hold_up_the_rung() -> None:
    found = optuna.create_study(direction="maximize")
    plan = Brackets(Rungs(2), SPACE, {}, "tests", 9000)
    entries = plan.missing(found.trials, may_begin=lambda costs: len(costs) == 1)
    assert plan.missing(found.trials, may_begin=lambda costs: False) == []
    for entry in entries:
        found.enqueue_trial(entry.point, user_attrs=entry.attributes)
    assert plan.missing(found.trials, may_begin=lambda costs: True) == []  # they are waiting
    trials = [found.ask() for _ in entries]
    for trial in trials[:3]:
        found.tell(trial, SPACE.suggest(trial)["learning_rate"])
    assert plan.missing(found.trials, may_begin=lambda costs: True) == []  # one is running
    trials[3].set_user_attr("raised", 2)
    trials[3].set_user_attr("error", "RuntimeError: the disk is full")
    found.tell(trials[3], state=TrialState.FAIL)
    (risen,) = plan.missing(found.trials, may_begin=lambda costs: True)
    assert risen.point == max((t.params for t in found.trials[:3]), key=lambda point: point["learning_rate"])
    assert risen.place == (0, 1, place_of(max(found.trials[:3], key=lambda t: t.values[0])).slot)  # type: ignore[union-attr]
    reopened = Brackets(Rungs(2), SPACE, {}, "tests", 9000, since=4)
    (again,) = reopened.missing(found.trials, may_begin=lambda costs: True)
    assert again.place == (0, 0, 3)  # a new call tries again what an earlier one gave up


def test_all_variants_have_the_same_rungs_and_points(options: dict[str, str]) -> None:
    texts = {name: default for name, (default, _) in OPTIONS.items()} | options
    configs = study_configs(texts | {"variant": "lora,vera,dora", "train_size": "512", "rungs": "3", "trials": "12"})
    found = [forecast(config, None, trials=12) for config in configs]
    assert [[items for items, _ in each.trainings] for each in found] == [[32, 128, 512]] * 3
    for config, each in zip(configs, found, strict=True):
        known = len(config.tried_first)
        assert [count for _, count in each.trainings] == [48, 12 + known, 3 + known]
    assert found[0].text == "lora: trials: 48 on 32 items, 13 on 128 items, 4 on 512 items"


def test_the_items_of_a_rung_are_the_first_of_the_next(options: dict[str, str]) -> None:
    config = study(options, train_size="512", rungs="3", trials="12").config
    plans = [config.plan(config.example, 9000, rung=rung) for rung in range(3)]
    assert [plan.spec.train_size for plan in plans] == [32, 128, 512]
    indices = [[item.id for item in plan.mixture.train] for plan in plans]
    assert all(set(few) < set(many) for few, many in itertools.pairwise(indices))
    targets = [[item.id for item in plan.mixture.train if item.language == "sw"] for plan in plans]
    assert all(many[: len(few)] == few for few, many in itertools.pairwise(targets))
    assert {plan.spec.epochs for plan in plans} == {1}
    assert {plan.spec.warmup for plan in plans} == {plans[2].spec.warmup}
    assert len({tuple(item.id for item in plan.mixture.validation["tl"]) for plan in plans}) == 1
    assert plans[2].spec == config.plan(config.example, 9000).spec


def test_only_a_study_with_rungs_has_them_in_its_name(options: dict[str, str]) -> None:
    plain = study(options, train_size="128", pruner="none", reports="1").config
    halving = study(options, train_size="128", rungs="2", trials="4").config
    assert study(options, train_size="128", pruner="none", rungs="1", reports="4").config.name() == plain.name()
    assert halving.name() != plain.name()


BAD = [
    ({"rungs": "0"}, "rungs=0: must be a whole number from 1 to 6"),
    ({"rungs": "auto"}, "rungs=auto: must be a whole number from 1 to 6"),
    ({"rungs": "2", "objective": "mean,parameters"}, "rungs=2: must be 1 with objective=mean,parameters"),
    ({"rungs": "2", "pruner": "median"}, "pruner=median: must be auto or none with rungs=2"),
    ({"rungs": "3", "trials": "5"}, "trials=5: must be at least 6 with rungs=3"),
    ({"rungs": "3", "train_size": "200", "trials": "auto"}, "rungs=3: must be at most 2 with 200 training items"),
    ({"rungs": "2", "train_size": "128", "tl_ratio": "0.01"}, "rungs=2: must be at most 1 with 128 training items"),
]


@pytest.mark.parametrize(("given", "message"), BAD, ids=[message for _, message in BAD])
def test_bad_options(options: dict[str, str], given: dict[str, str], message: str) -> None:
    texts = {name: default for name, (default, _) in OPTIONS.items()} | options | {"trials": "6"} | given
    with pytest.raises(OptionError, match=f"^{re.escape(message)}"):
        study_configs(texts)[0].check()
