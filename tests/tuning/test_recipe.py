"""Studies that search the recipe of a training: what is searched, which studies they are, and that runs repeat them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml
from small_studies import call, runs, study

from tuning import report
from tuning.dimensions.recipe import NAMES
from tuning.finalists import Finalist
from tuning.pipeline import open_studies
from tuning.space import Choice, Range
from tuning.study_config import TUNING_SEED
from tuning.tune import OPTIONS, study_configs
from whichlora.errors import OptionError
from whichlora.experiment.grid import read_grid
from whichlora.run.durations import trained_examples
from whichlora.tracking.client import connect
from whichlora.tracking.runs import Tracker
from whichlora.training.multi_adapter import why_not_packable


def configs(model: str, **options: Any) -> Any:
    texts = {name: default for name, (default, _) in OPTIONS.items()}
    texts |= {"model": model, "train_size": "64", "validation_size": "4", "test_size": "4"}
    return study_configs(texts | {name: str(value) for name, value in options.items()})


def config(model: str, **options: Any) -> Any:
    (found,) = configs(model, **options)
    return found


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({}, "lora/smollm2-135m/atlas-nli/sw/c6e3460fc44d"),
        ({"space": "continuous", "search": "none"}, "lora/smollm2-135m/atlas-nli/sw/de8aadd04e76"),
        ({"variant": "vera"}, "vera/smollm2-135m/atlas-nli/sw/f0b70cc151cf"),
    ],
)
def test_studies_of_before_keep_their_names(options: dict[str, str], name: str) -> None:
    """The names change with the spec version only."""
    texts = {option: default for option, (default, _) in OPTIONS.items()} | {"precision": "fp32"}
    (found,) = study_configs(texts | options)
    assert found.name() == name


def test_the_recipe_is_searched_in_the_continuous_space_and_on_request(tiny_model: str) -> None:
    plain, new = config(tiny_model), config(tiny_model, space="continuous")
    assert new.space.dimensions.keys() - plain.space.dimensions.keys() == {
        *("batch_size", "warmup", "weight_decay", "dropout", "scheduler")
    }
    assert new.space.dimensions["batch_size"] == Range(low=4, high=16)  # 64 items, and four batches at least
    assert new.space.dimensions["warmup"] == Range(low=0.0, high=0.2, log=False)
    assert new.space.dimensions["weight_decay"] == Choice(values=(0.0, 0.01, 0.1))
    assert new.space.dimensions["alpha"] == Choice(values=("sqrt", "rank", "2*rank", 32, 16))
    some = config(tiny_model, search="batch_size,scheduler")
    assert some.space.to_json() == plain.space.to_json() | {
        "batch_size": [4, 8, 16],
        "scheduler": ["linear", "cosine", "constant"],
    }
    assert config(tiny_model, search="alpha_rule").space.to_json() == plain.space.to_json() | {
        "alpha": ["sqrt", "rank", "2*rank", 32, 16]
    }
    assert "warmup" not in config(tiny_model, space="continuous", warmup=0.1).space.dimensions
    assert len({found.name() for found in (plain, new, some)}) == 3


def test_a_variant_without_dropout_or_alpha_is_tuned_without_it(tiny_model: str) -> None:
    oft, vera, _ = configs(tiny_model, variant="oft,vera,lora", search="dropout,alpha_rule,warmup,batch_size")
    assert {"warmup", "batch_size"} <= oft.space.dimensions.keys()
    assert not {"dropout", "alpha"} & oft.space.dimensions.keys()
    assert "dropout" in vera.space.dimensions


def test_batches_leave_steps_in_the_lowest_rung_and_do_not_change_the_number_of_items(tiny_model: str) -> None:
    halved = config(tiny_model, train_size=256, rungs=2, trials=4, search="batch_size")
    assert halved.space.to_json()["batch_size"] == [4, 8, 16]
    halved.check()
    points = [halved.example | {"batch_size": size, "epochs": 1} for size in (4, 16)]
    assert {trained_examples(halved.plan(point, TUNING_SEED)) for point in points} == {256}


def test_a_study_of_the_recipe_can_train_several_trials_at_once(tiny_model: str) -> None:
    """Trials with dropout or large batches are then trained alone."""
    found = config(tiny_model, space="continuous", train_size=512)
    assert why_not_packable(found.plan(found.packed_example, TUNING_SEED)) is None
    assert why_not_packable(found.plan(found.packed_example | {"dropout": 0.1}, TUNING_SEED))
    assert why_not_packable(found.plan(found.packed_example | {"batch_size": 64}, TUNING_SEED))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"search": "batchsize"}, "search=batchsize: allowed are auto, none, all, batch_size, .* mean 'batch_size'"),
        ({"search": "warmup,"}, "search=warmup,: an empty name cannot be searched; allowed are auto, none, all"),
        ({"search": "warmup,all"}, "search=warmup,all: all cannot be searched; allowed are"),
        ({"search": "warmup", "warmup": 0.1}, "search=warmup: warmup=0.1 is set"),
        ({"search": "alpha_rule", "alpha": "2*rank"}, r"search=alpha_rule: alpha=2\*rank is set"),
        ({"search": "dropout", "variant": "oft,full"}, "search=dropout: dropout does not apply to oft, full"),
        ({"search": "alpha_rule", "variant": "vera"}, "search=alpha_rule: alpha does not apply to vera"),
    ],
)
def test_what_cannot_be_searched_is_refused(tiny_model: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=f"^{message}"):
        configs(tiny_model, **options)


def test_a_file_may_list_the_recipe(tmp_path: Path, tiny_model: str) -> None:
    path = tmp_path / "space.yaml"
    path.write_text(
        "dropout: {low: 0, high: 0.3}\nscheduler: [cosine, constant]\nalpha: [4*rank, 16]\nweight_decay: [0.1, 0]\n"
        "batch_size: [16, 2]\n"
    )
    found = config(tiny_model, space=path).space.dimensions
    assert found["dropout"] == Range(low=0.0, high=0.3, log=False)
    assert found["scheduler"] == Choice(values=("cosine", "constant"))
    assert found["alpha"] == Choice(values=("4*rank", 16.0))
    assert found["weight_decay"] == Choice(values=(0.0, 0.1))
    assert found["batch_size"] == Choice(values=(2, 16))
    with pytest.raises(OptionError, match=r"^space=16: batch_size must be at most 8"):
        config(tiny_model, space=path, train_size=32)


def test_a_rule_at_several_ranks_is_another_study_than_its_number(tiny_model: str) -> None:
    names = {config(tiny_model, alpha=alpha).name() for alpha in ("16", "32", "rank", "2*rank")}
    assert len(names) == 4
    assert config(tiny_model, alpha="2*rank", rank=8).name() == config(tiny_model, alpha="16", rank=8).name()


def test_a_continuous_study_of_before_is_neither_resumed_nor_mixed(options: dict[str, str]) -> None:
    options |= {"space": "continuous"}
    earlier = study(options, search="none")
    texts = {name: default for name, (default, _) in OPTIONS.items()} | options
    tracker = Tracker(connect(), "whichlora")

    def opened(**more: str) -> str:
        (found,) = open_studies(study_configs(texts | more), tracker, command="", keep_adapters="all")
        return found.name

    with pytest.raises(OptionError, match=f"^search=auto: the study {earlier.name} has no recipe; search=none resumes"):
        opened()
    assert opened(search="none") == earlier.name
    assert opened(search="all") == opened() != earlier.name  # once the new one exists, auto is not ambiguous


@pytest.mark.parametrize("variant", ["lora", "vera", "lora-plus", "full"])
def test_the_best_point_as_an_arm_is_the_same_run(tmp_path: Path, tiny_model: str, variant: str) -> None:
    found = config(tiny_model, variant=variant, space="continuous", difficulty="normal")
    sampled = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    for number in range(3):
        best = Finalist(origin=f"trial {number}", point=found.space.suggest(sampled.ask()))
        defaults = {"model": tiny_model, "train_size": 64, "validation_size": 4, "test_size": 4, "seed": 7}
        arms = [report.arm(found, "the study", best)]
        path = tmp_path / f"{number}.yaml"
        path.write_text(yaml.safe_dump({"name": "best", "defaults": defaults, "arms": arms}))
        (plan,) = read_grid(str(path)).plans
        assert plan.spec.fingerprint == best.plan(found, 7).spec.fingerprint


@pytest.mark.slow
def test_a_study_of_the_recipe_trains_what_it_suggests(options: dict[str, str]) -> None:
    """Trials log the numbers that rules give, and the known values are tried first."""
    del options["batch_size"]
    assert call(options, space="paper", search="all", epochs=1, rank=4, trials=5, train_size=32, pruner="none") == 0
    opened = study(options, space="paper", search="all", rank="4", train_size="32", pruner="none")
    trials = {str(trial.number): trial.params for trial in opened.counted()}
    params = {run.data.tags["whichlora.trial"]: run.data.params for run in runs("trial")}
    assert len(trials) == 5
    rules = {"sqrt": 2.0, "rank": 4.0, "2*rank": 8.0}
    for number, point in trials.items():
        logged = params[number]
        assert float(logged["alpha"]) == rules.get(point["alpha"], point["alpha"])
        for name in NAMES[:-1]:
            assert logged[name] == str(point[name])
