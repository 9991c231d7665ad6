"""Search spaces: contents for each variant, limits of the model, and overrides of the user."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml

from tuning.sampler import TrialSampler
from tuning.space import KINDS, SEARCHED, Choice, Range, build_space, known_points, read_space
from tuning.study_config import TUNING_SEED
from tuning.tune import study_configs
from whichlora.config.alpha import resolve_alpha
from whichlora.errors import OptionError
from whichlora.models.loading import locate, read_shape
from whichlora.testing import save_tiny_model
from whichlora.variants import CATALOGUE

TRAINED = [v.name for v in CATALOGUE.values() if v.trains]


def configs(model: str, **options: Any) -> Any:
    """Return the configurations of small studies."""
    from tuning.tune import OPTIONS

    texts = {name: default for name, (default, _) in OPTIONS.items()}
    texts |= {"model": model, "train_size": "16", "validation_size": "4", "test_size": "4"}
    return study_configs(texts | {name: str(value) for name, value in options.items()})


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("variant", TRAINED)
def test_every_point_of_every_space_is_a_run(variant: str, kind: str, tiny_model: str) -> None:
    """The recommended and the matched values are in the space, and sampled points resolve, even on a narrow model."""
    (config,) = configs(tiny_model, variant=variant, space=kind)
    known = config.known_points
    assert known["recommended"] in config.space
    assert ("matched" in known) == (CATALOGUE[variant].matched_learning_rate is not None)
    study = optuna.create_study(sampler=TrialSampler(variant))
    points = [config.space.suggest(study.ask()) for _ in range(4)]
    for point in [*known.values(), *points]:
        assert point in config.space
        spec = config.plan(point, TUNING_SEED).spec
        assert (spec.arm, spec.seed) == ("tuned", TUNING_SEED)
        for name, value in point.items():
            if name == "alpha":
                assert spec.alpha == resolve_alpha(value, spec.rank)
            elif name in SEARCHED and name != "target_modules":
                assert getattr(spec, name) == value
            elif name != "target_modules":
                assert spec.variant_options[name] == value


def test_the_grid_is_the_paper_s_with_the_known_values(tiny_model: str) -> None:
    shape = read_shape(locate(tiny_model))
    space = build_space(CATALOGUE["lora"], shape, fixed=(), kind="paper", overrides={})
    assert space.to_json() == {
        "learning_rate": [2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 4e-3],
        "rank": [4, 8, 16, 32],
        "alpha": [4, 8, 16, 32],
        "epochs": [1, 3, 5],
        "target_modules": ["q_proj,v_proj", "all-linear"],
    }


def test_ranks_are_capped_at_the_layers_width(tiny_model: str) -> None:
    shape = read_shape(locate(tiny_model))
    space = build_space(CATALOGUE["vera"], shape, fixed=(), kind="paper", overrides={})
    assert space.to_json()["rank"] == [32]  # of 256 to 2048, none fits
    assert known_points(CATALOGUE["vera"], shape)["recommended"]["rank"] == 32
    assert max(build_space(CATALOGUE["pissa"], shape, fixed=(), kind="paper", overrides={}).to_json()["rank"]) == 16


def test_an_option_that_is_set_is_not_searched(tiny_model: str) -> None:
    free, fixed = configs(tiny_model)[0], configs(tiny_model, rank=8, epochs=1)[0]
    assert free.space.dimensions.keys() - fixed.space.dimensions.keys() == {"rank", "epochs"}
    plan = fixed.plan(fixed.known_points["recommended"], 1)
    assert (plan.spec.rank, plan.spec.epochs) == (8, 1)


def test_the_continuous_space_is_logarithmic_between_the_grid_s_ends(tiny_model: str) -> None:
    (config,) = configs(tiny_model, space="continuous")
    assert config.space.dimensions["learning_rate"] == Range(low=2e-5, high=4e-3)
    assert config.space.dimensions["rank"] == Range(low=4, high=32)
    (config,) = configs(tiny_model, variant="gralora", space="continuous")
    assert isinstance(config.space.dimensions["rank"], Choice)  # only some ranks divide the widths
    assert isinstance(config.space.dimensions["learning_rate"], Range)


def test_the_name_depends_on_everything_fixed_but_not_on_paths(tmp_path: Path, tiny_model: str) -> None:
    shutil.copytree(tiny_model, tmp_path / "elsewhere")
    names = {
        configs(model, **options)[0].name()
        for model in (tiny_model, str(tmp_path / "elsewhere"))
        for options in ({}, {"reports": 3, "pruner": "none"}, {"pruner": "none"}, {"seed": 7, "trials": 9})
    }
    assert len(names) == 2  # with a pruner and without
    for options in ({"objective": "en"}, {"train_size": 18}, {"rank": 8}, {"space": "continuous"}, {"tl_ratio": 0}):
        (name,) = {configs(tiny_model, **options)[0].name()}
        assert name not in names


def test_variant_options_are_searched(tiny_model: str) -> None:
    (config,) = configs(tiny_model, variant="lora-plus")
    assert config.space.to_json()["rate_ratio"] == [4.0, 8.0, 16.0]
    point = config.known_points["recommended"] | {"rate_ratio": 4.0}
    assert config.plan(point, 1).spec.variant_options == {"rate_ratio": 4.0}
    assert CATALOGUE["lora-plus"].options == {"rate_ratio": 16.0}


@pytest.mark.parametrize(
    ("dimension", "value", "edge"),
    [
        (Choice(values=(1, 2, 3)), 1, "lower"),
        (Choice(values=(1, 2, 3)), 2, None),
        (Choice(values=(1, 2, 3)), 3, "upper"),
        (Choice(values=(1, 2)), 1, None),
        (Choice(values=("a", "b", "c")), "a", None),
        (Range(low=1e-4, high=1e-2), 1.01e-4, "lower"),
        (Range(low=1e-4, high=1e-2), 1e-3, None),
        (Range(low=1e-4, high=1e-2), 9.9e-3, "upper"),
        (Range(low=0.0, high=0.2, log=False), 0.0, None),  # nothing lies below 0
        (Range(low=0.0, high=0.2, log=False), 0.1, None),
        (Range(low=0.0, high=0.2, log=False), 0.199, "upper"),
        (Choice(values=(0.0, 0.01, 0.1)), 0.0, None),
        (Choice(values=("rank", "2*rank", 16)), 16, None),
    ],
)
def test_an_optimum_on_an_edge_is_detected(dimension: Choice | Range, value: Any, edge: str | None) -> None:
    assert dimension.edge(value) == edge


def test_a_user_overrides_any_range(tmp_path: Path, tiny_model: str) -> None:
    path = tmp_path / "space.yaml"
    path.write_text("learning_rate: {low: 1e-4, high: 1e-2}\nrank: [4, 2]\nalpha: [8]\nvera: {rank: [16]}\n")
    assert configs(tiny_model, variant="lora", space=path)  # a section of another variant is ignored
    lora, vera = configs(tiny_model, variant="lora,vera", space=path)
    assert lora.space.dimensions["learning_rate"] == Range(low=1e-4, high=1e-2)
    assert lora.space.dimensions["rank"] == Choice(values=(2, 4))
    assert vera.space.dimensions["rank"] == Choice(values=(16,))
    assert lora.space.dimensions["alpha"] == Choice(values=(8,))
    assert "alpha" not in vera.space.dimensions  # a dimension for all variants applies to those that have it
    assert lora.space.dimensions["epochs"] == configs(tiny_model)[0].space.dimensions["epochs"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"learning_rates": [1e-3]}, r"has 'learning_rates'; allowed for lora are .*did you mean 'learning_rate'"),
        ({"learning_rate": {"low": 1e-2, "high": 1e-3}}, "learning_rate must be a list of positive numbers or"),
        ({"learning_rate": []}, "learning_rate must be a list"),
        ({"rank": ["many"]}, "rank must be a list"),
        ({"rank": [0]}, "rank must be a list"),
        ({"batch_size": {"low": 0, "high": 8}}, "batch_size must be a list of positive whole numbers"),
        ({"dropout": [-0.1]}, "dropout must be a list of numbers from 0"),
        ({"dropout": [0, 1]}, "dropout=1: must be a number at least 0 and at most 0.9"),
        ({"scheduler": [1]}, "scheduler must be a list of texts, such as cosine"),
        ({"scheduler": ["step"]}, "scheduler=step: allowed are linear, cosine, constant"),
        ({"alpha": ["2*rnk"]}, r"alpha=2\*rnk: must be a number"),
        ({"lora": {"rate_ratio": [4]}}, "has 'rate_ratio'; allowed for lora are"),
        ([1], "must name dimensions"),
    ],
)
def test_a_bad_space_is_refused_with_what_is_allowed(tmp_path: Path, content: Any, message: str) -> None:
    path = tmp_path / "space.yaml"
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(OptionError, match=rf"^space=.*{message}"):
        read_space(str(path), [CATALOGUE["lora"]])


def test_ranks_and_modules_of_the_user_must_fit(tmp_path: Path, tiny_model: str) -> None:
    path = tmp_path / "space.yaml"
    path.write_text("rank: [8, 64]\n")
    with pytest.raises(OptionError, match=r"^space=64: rank of lora must be at most 32"):
        configs(tiny_model, space=path)
    path.write_text("target_modules: [q_porj]\n")
    with pytest.raises(OptionError, match=r"^target_modules=q_porj"):
        configs(tiny_model, space=path)


@pytest.mark.parametrize("variant", ["hra", "oft"])
def test_a_range_of_ranks_is_refused_where_only_some_between_fit(tmp_path: Path, tiny_model: str, variant: str) -> None:
    path = tmp_path / "space.yaml"
    path.write_text("rank: {low: 4, high: 16}\n")
    with pytest.raises(OptionError, match=rf"^space=4..16: rank of {variant} must be a list"):
        configs(tiny_model, space=path, variant=variant)


@pytest.mark.parametrize("variant", ["lora", "dora"])  # the recommended modules of the latter are named as in Llama
def test_a_model_without_the_recommended_modules_is_tuned_on_those_it_has(tmp_path: Path, variant: str) -> None:
    model = str(save_tiny_model(tmp_path / "neox", config="GPTNeoXConfig"))
    (config,) = configs(model, variant=variant)
    config.check()
    assert config.known_points.keys() == {"matched"}
    assert config.plan(config.example, 1).spec.target_modules
    assert config.name().startswith(f"{variant}/folder-")
    (given,) = configs(model, variant=variant, target_modules="query_key_value")
    assert given.known_points.keys() == {"matched", "recommended"}


def test_full_fine_tuning_of_a_model_without_linear_layers_begins_with_the_known_values(tmp_path: Path) -> None:
    (config,) = configs(str(save_tiny_model(tmp_path / "gpt2", config="GPT2Config")), variant="full")
    assert config.known_points.keys() == {"matched", "recommended"}


def test_a_space_that_is_neither_a_kind_nor_a_file_is_refused() -> None:
    with pytest.raises(OptionError, match=r"^space=papr: allowed are .*did you mean 'paper'"):
        read_space("papr", [CATALOGUE["lora"]])
    with pytest.raises(OptionError, match=r"^space=none\.yaml: cannot be read"):
        read_space("none.yaml", [CATALOGUE["lora"]])
