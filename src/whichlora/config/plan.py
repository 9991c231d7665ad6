"""Turns options into a run spec: `auto` becomes the value of the arm and the task, and everything is checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from whichlora.config import retention, word_pairs
from whichlora.config.layers import parse_layers
from whichlora.config.spec import RunSpec
from whichlora.data import mixture
from whichlora.data.encoding import Encoder
from whichlora.data.mixture import Mixture
from whichlora.data.tasks import Task, get_task
from whichlora.data.tasks.base import SOURCE_LANGUAGE
from whichlora.errors import OptionError, choose
from whichlora.models.loading import (
    ModelShape,
    ModelSource,
    check_quantization,
    current_device,
    load_tokenizer,
    locate,
    read_shape,
)
from whichlora.parallel import distributed
from whichlora.variants import Hyperparameters, Variant, get_variant

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A run spec with what it takes to carry it out; `retained` is a task that is only scored."""

    spec: RunSpec
    variant: Variant
    task: Task
    source: ModelSource
    shape: ModelShape
    tokenizer: PreTrainedTokenizerBase
    mixture: Mixture
    retained: Task | None = None

    def scorer(self, role: str) -> tuple[Task, str]:
        """Return the task that the test items of a role belong to, and how they are scored."""
        if role.startswith(retention.ROLES):
            assert self.retained is not None
            return self.retained, scoring_of(self.retained, None)
        return self.task, self.spec.scoring

    @property
    def adapted(self) -> dict[str, tuple[int, int]]:
        """The linear layers that get an adapter, by full name, as (in_features, out_features)."""
        return adapted_shapes(self.shape, self.spec.target_modules, self.spec.layers)


def resolve(values: Mapping[str, Any], variant_options: Mapping[str, Any] | None = None) -> Plan:
    """Make a plan of the values of `options.parse_values`, cheapest checks first.

    `variant_options` take the place of the variant's own settings of these names.

    Raises:
        OptionError: a value is not allowed, alone or with the others.
    """
    variant, task = get_variant(values["variant"]), get_task(values["task"], values["prompt_language"])
    if variant_options:
        for name in variant_options:
            choose("options", name, variant.options)
        variant = replace(variant, options={**variant.options, **variant_options})
    _check_language(task, values["language"])
    task.check_prompts([SOURCE_LANGUAGE, *mixture.target_languages(task, values["language"])])
    difficulty = choose("difficulty", values["difficulty"] or task.difficulties[0], task.difficulties)
    scoring = None if task.kind == "pair" else scoring_of(task, values["scoring"])
    retained = retention.retained_task(task, values)
    _check_combination(variant, values)

    arm = arm_values(variant, values["arm"], learning_rate=values["learning_rate"], task=task)
    if arm is not None:
        distributed.check_batch(values["batch_size"] or arm.batch_size)
    paired = task.kind == "pair"
    word_pairs.check_options(task, values, batch_size=None if arm is None else values["batch_size"] or arm.batch_size)
    tl_ratio = values["tl_ratio"]
    if tl_ratio is None:
        tl_ratio = 1.0 if paired else 0.5
    sizes = {
        f"{split}_size": values[f"{split}_size"] or getattr(task.sizes, split)
        for split in ("train", "validation", "test")
    }
    n_target = mixture.target_count(tl_ratio, sizes["train_size"])
    if tl_ratio and not n_target:
        if values["tl_ratio"] is None:
            raise OptionError("train_size", sizes["train_size"], f"leaves no target item at tl_ratio={tl_ratio:g}")
        allowed = f"is no item of train_size={sizes['train_size']}: must be 0, or more of that"
        raise OptionError("tl_ratio", f"{tl_ratio:g}", allowed)
    # Without target items both compositions are the same run.
    composition = values["composition"] if n_target else mixture.COMPOSITIONS[0]
    only_target = composition == "substitution" and n_target == sizes["train_size"]
    select_on = values["select_on"] or ("en" if n_target == 0 else "tl" if only_target else "mean")
    if paired:
        select_on = "control"
    drawn = mixture.draw(
        task,
        language=values["language"],
        tl_ratio=tl_ratio,
        composition=composition,
        seed=values["seed"],
        difficulty=difficulty,
        data_dir=values["data_dir"],
        select_on=select_on,
        **sizes,
    )
    digests = {role: mixture.texts_digest(task, items) for role, items in drawn.test.items()}
    if retained is not None:
        kept = retention.test_items_by_role(retained, values)
        drawn = replace(drawn, test={**drawn.test, **kept})
        digests |= {role: mixture.texts_digest(retained, items) for role, items in kept.items()}

    source = locate(values["model"])
    shape = read_shape(source)
    tokenizer = load_tokenizer(source)
    layers: tuple[int, ...] = ()
    modules: tuple[str, ...] = ()
    rank = None
    if variant.kind == "adapter":
        assert arm is not None
        layers = parse_layers(values["layers"], shape.n_layers) or ()
        modules = resolve_modules(values["target_modules"] or arm.target_modules, shape, model=values["model"])
        rank = _rank(variant, arm, values["rank"], adapted_shapes(shape, modules, layers))
    chosen_on = [drawn.validation[role] for role in mixture.selection_roles(drawn.validation, select_on)]

    def trained(name: str) -> Any:
        return None if arm is None else values.get(name) or getattr(arm, name)

    spec = RunSpec(
        variant=variant.name,
        arm=values["arm"],
        task=task.name,
        difficulty=difficulty,
        language=values["language"],
        model=values["model"],
        tl_ratio=tl_ratio,
        composition=composition,
        seed=values["seed"],
        **sizes,
        rank=rank,
        alpha=trained("alpha") if variant.has_alpha else None,
        dropout=trained("dropout"),
        learning_rate=trained("learning_rate"),
        epochs=trained("epochs"),
        batch_size=trained("batch_size"),
        warmup=trained("warmup"),
        weight_decay=trained("weight_decay"),
        scheduler=trained("scheduler"),
        target_modules=modules,
        layers=layers,
        variant_options=dict(variant.options),
        scoring=scoring or str(word_pairs.pooling_of(values, layers, shape.n_layers)),
        select_on=select_on,
        precision=values["precision"] or ("fp32" if current_device().type == "cpu" else "bf16"),
        quantization=values["quantization"],
        prompt_language=task.prompt_language,
        prompt_version=task.prompt_version,
        train_digest=mixture.texts_digest(task, [*drawn.train, *(item for part in chosen_on for item in part)]),
        test_digests=digests,
        model_digest=source.digest,
    )
    return Plan(
        spec=spec,
        variant=variant,
        task=task,
        source=source,
        shape=shape,
        tokenizer=tokenizer,
        mixture=drawn,
        retained=retained,
    )


def arm_values(
    variant: Variant, arm: str, *, learning_rate: float | None = None, task: Task | None = None
) -> Hyperparameters | None:
    """Return the hyperparameters of a variant in an arm; None for `none`, which trains nothing.

    The values of a task's own source, where `task` has them for the variant, are the recommended ones.

    `learning_rate` is the one that is given, if any; it is needed where the equal sweep has none, and in the arm
    `tuned`, whose values are those of a study's trial: what the study did not choose is as in the arm `matched`.

    Raises:
        OptionError: the arm has no learning rate for the variant.
    """
    if variant.recommended is None:
        return None
    if arm == "recommended":
        return variant.recommended_for.get(task.name, variant.recommended) if task else variant.recommended
    if arm == "tuned" and learning_rate is None:
        raise OptionError("learning_rate", "auto", "the arm tuned needs the values that a study found; run tune first")
    rate = learning_rate or variant.matched_learning_rate
    if rate is None:
        allowed = f"no equal sweep yet for {variant.name}; give learning_rate or use arm=recommended"
        raise OptionError("learning_rate", "auto", allowed)
    return Hyperparameters(
        rank=variant.matched_rank,
        alpha=variant.matched_alpha if variant.has_alpha else None,
        learning_rate=rate,
        epochs=1,
        batch_size=4,
        warmup=0.05,
        source="equal for every variant; learning rate from an equal sweep (docs/learning-rates.md)",
    )


def resolve_modules(wanted: str | tuple[str, ...], shape: ModelShape, *, model: str) -> tuple[str, ...]:
    """Return the names of linear layers that "all-linear" or a list of names stands for on a model.

    Raises:
        OptionError: a name is not one of the model's, which the message lists, or it has no linear layers.
    """
    names = shape.module_names()
    if not names:
        allowed = "has no torch.nn.Linear in its decoder blocks to adapt (GPT-2's Conv1D is none); full and none work"
        raise OptionError("model", model, allowed)
    if wanted == "all-linear":
        return tuple(names)
    parts = [p.strip() for p in wanted.split(",")] if isinstance(wanted, str) else list(wanted)
    missing = [part for part in parts if part not in names]
    if missing:
        raise OptionError(
            "target_modules",
            ",".join(parts),
            f"{missing[0]} is not in the model; allowed are all-linear or names from {', '.join(names)}",
        )
    return tuple(name for name in names if name in parts)


def adapted_shapes(shape: ModelShape, modules: tuple[str, ...], layers: tuple[int, ...]) -> dict[str, tuple[int, int]]:
    """Return the linear layers of these names in these decoder blocks."""
    return {
        name: size
        for name, size in shape.linears.items()
        if name.rpartition(".")[2] in modules and any(name.startswith(f"{shape.blocks}.{n}.") for n in layers)
    }


def _rank(
    variant: Variant, arm: Hyperparameters, given: int | None, shapes: Mapping[str, tuple[int, int]]
) -> int | None:
    if not variant.has_rank:
        return None
    assert arm.rank is not None
    rank = min(arm.rank, variant.rank_limit(shapes)) if given is None else given
    problem = variant.rank_problem(rank, shapes)
    if problem:
        raise OptionError("rank", rank, problem)
    return rank


def _check_language(task: Task, language: str) -> None:
    choose("language", language, [*(code for code in task.languages if code != SOURCE_LANGUAGE), mixture.POOLED])


def scoring_of(task: Task, given: str | None) -> str:
    """Return how a task of prompts is scored: as `given`, or as the task usually is.

    Raises:
        OptionError: the task cannot be scored so.
    """
    if task.kind == "choice":
        return given or "likelihood"
    if given == "likelihood":
        raise OptionError("scoring", given, f"{task.name} has no labels; allowed is generate")
    return "generate"


def _check_combination(variant: Variant, values: Mapping[str, Any]) -> None:
    adapter_only = ("rank", "alpha", "target_modules")
    given = [n for n in adapter_only if values[n] is not None] + (["layers"] if values["layers"] != "all" else [])
    if variant.kind != "adapter" and given:
        raise OptionError(given[0], values[given[0]], f"variant {variant.name} has no adapter; leave it out")
    given = [name for name in ("learning_rate", "epochs", "batch_size") if values[name] is not None]
    if variant.kind == "none" and given:
        raise OptionError(given[0], values[given[0]], f"variant {variant.name} trains nothing; leave it out")
    for name, has in (("rank", variant.has_rank), ("alpha", variant.has_alpha)):
        if values[name] is not None and not has:
            raise OptionError(name, values[name], f"variant {variant.name} has no {name}; leave it out")
    if values["quantization"] != "none" and not variant.quantizable:
        allowed = f"variant {variant.name} needs the weights in full precision; allowed is none"
        raise OptionError("quantization", values["quantization"], allowed)
    check_quantization(values["quantization"])


def run_name(plan: Plan) -> str:
    """Return a name that tells runs apart in the UI."""
    spec = plan.spec
    more = f" {spec.composition}" if spec.composition != "substitution" else ""
    what = spec.scoring if plan.task.kind == "pair" else f"{spec.tl_ratio:g}{more}"
    return f"{spec.variant}-{spec.arm} {spec.task} en+{spec.language} {what} seed {spec.seed}"


def encoder_of(plan: Plan, task: Task | None = None) -> Encoder:
    """Return an encoder of a plan's task, or of another, for the plan's model."""
    return Encoder(task or plan.task, plan.tokenizer, max_length=plan.shape.context)
