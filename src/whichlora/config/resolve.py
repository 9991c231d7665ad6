"""Resolves options into a plan: `auto` becomes the value of the arm and the task, and every value is checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from whichlora.config import word_pairs
from whichlora.config.hyperparameters import adapted_shapes, arm_values, rank_of, resolve_modules
from whichlora.config.layers import parse_layers
from whichlora.config.options import RunOptions
from whichlora.config.plan import Plan, TestSet
from whichlora.config.retention import retained_items, retained_task
from whichlora.config.spec import RunSpec
from whichlora.data import mixture
from whichlora.data.mixture import Mixture
from whichlora.data.tasks import Item, PairTask, Task, get_task
from whichlora.data.tasks.base import SOURCE_LANGUAGE
from whichlora.errors import OptionError, choose
from whichlora.evaluation.scoring import Scoring, WordSimilarity, prompt_scoring
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


def resolve(options: RunOptions, variant_options: Mapping[str, Any] | None = None) -> Plan:
    """Make a plan of options, cheapest checks first.

    `variant_options` replace the variant's own settings of these names.

    Raises:
        OptionError: a value is not allowed, alone or with the others.
    """
    variant, task = get_variant(options.variant), get_task(options.task, options.prompt_language)
    settings = _settings(variant, variant_options or {})
    retained = _check(options, variant, task)
    values = _hyperparameters(options, variant, task)
    amounts = _amounts(options, task)
    drawn, tested = _draw(options, task, amounts)
    kept = retained_items(retained, options) if retained else {}
    model = _read_model(options)
    adapted = _adapted(options, variant, values, model.shape, settings)
    scoring = _scoring(options, task, adapted.layers, model.shape.n_layers)
    tests = _test_sets(task, tested, scoring, options)
    if retained:
        tests += _test_sets(retained, kept, prompt_scoring(retained), options, retained=True)
    return Plan(
        spec=_spec(options, variant, task, settings, values, amounts, drawn, tests, model.source, adapted, scoring),
        variant=variant,
        task=task,
        scoring=scoring,
        source=model.source,
        shape=model.shape,
        tokenizer=model.tokenizer,
        mixture=drawn,
        tests={test.name: test for test in tests},
    )


@dataclass(frozen=True, kw_only=True)
class _Amounts:
    """How many items of what a run trains on and is scored on, and what its checkpoint is chosen by."""

    tl_ratio: float
    composition: str
    train_size: int
    validation_size: int
    test_size: int | None
    select_on: str


@dataclass(frozen=True, kw_only=True)
class _Model:
    """What is known of the base model without its weights."""

    source: ModelSource
    shape: ModelShape
    tokenizer: PreTrainedTokenizerBase


@dataclass(frozen=True, kw_only=True)
class _Adapted:
    """Where the adapter goes; nothing where there is none."""

    layers: tuple[int, ...] = ()
    modules: tuple[str, ...] = ()
    rank: int | None = None


def _settings(variant: Variant, replacements: Mapping[str, Any]) -> dict[str, Any]:
    """Return the variant's own settings with these replaced."""
    for name in replacements:
        choose("options", name, variant.options)
    return {**variant.options, **replacements}


def _check(options: RunOptions, variant: Variant, task: Task) -> Task | None:
    """Check what can be checked by the names of variant and task, and return the retained task, if there is one."""
    languages = [code for code in task.languages if code != SOURCE_LANGUAGE]
    choose("language", options.language, [*languages, mixture.POOLED])
    task.check_prompts([SOURCE_LANGUAGE, *mixture.target_languages(task, options.language)])
    choose("difficulty", _difficulty(options, task), task.difficulties)
    if not isinstance(task, PairTask):
        prompt_scoring(task, options.scoring)
    retained = retained_task(task, options)
    _check_variant(options, variant)
    return retained


def _check_variant(options: RunOptions, variant: Variant) -> None:
    """Check that the variant has what the options set."""
    given = [name for name in ("rank", "alpha", "target_modules") if getattr(options, name) is not None]
    given += ["layers"] if options.layers != "all" else []
    if not variant.has_adapter and given:
        allowed = f"variant {variant.name} has no adapter; remove the option"
        raise OptionError(given[0], getattr(options, given[0]), allowed)
    given = [name for name in ("learning_rate", "epochs", "batch_size") if getattr(options, name) is not None]
    if not variant.trains and given:
        allowed = f"variant {variant.name} trains nothing; remove the option"
        raise OptionError(given[0], getattr(options, given[0]), allowed)
    for name, has in (("rank", variant.has_rank), ("alpha", variant.has_alpha)):
        if getattr(options, name) is not None and not has:
            raise OptionError(name, getattr(options, name), f"variant {variant.name} has no {name}; remove the option")
    if options.quantization != "none" and not variant.quantizable:
        allowed = f"variant {variant.name} needs the weights in full precision; allowed is none"
        raise OptionError("quantization", options.quantization, allowed)
    check_quantization(options.quantization)


def _difficulty(options: RunOptions, task: Task) -> str:
    return options.difficulty or task.difficulties[0]


def _hyperparameters(options: RunOptions, variant: Variant, task: Task) -> Hyperparameters | None:
    """Return the hyperparameters of the arm with those that the options give; None for `none`, which trains nothing."""
    values = arm_values(variant, options.arm, learning_rate=options.learning_rate, task=task)
    if values is not None:
        names = ("alpha", "learning_rate", "epochs", "batch_size")
        given = {name: value for name in names if (value := getattr(options, name)) is not None}
        values = replace(values, **given)
        distributed.check_batch(values.batch_size)
    word_pairs.check_options(task, options, batch_size=None if values is None else values.batch_size)
    return values


def _amounts(options: RunOptions, task: Task) -> _Amounts:
    """Return the mixture's amounts, which the task gives where the options do not."""
    tl_ratio = task.default_tl_ratio if options.tl_ratio is None else options.tl_ratio
    train_size = options.train_size or task.sizes.train
    n_target = mixture.target_count(tl_ratio, train_size)
    if tl_ratio and not n_target:
        if options.tl_ratio is None:
            raise OptionError("train_size", train_size, f"leaves no target item at tl_ratio={tl_ratio:g}")
        allowed = f"is no item of train_size={train_size}: must be 0, or more of that"
        raise OptionError("tl_ratio", f"{tl_ratio:g}", allowed)
    # Without target items both compositions are the same run.
    composition = options.composition if n_target else mixture.COMPOSITIONS[0]
    only_target = composition == "substitution" and n_target == train_size
    select_on = options.select_on or ("en" if n_target == 0 else "tl" if only_target else "mean")
    return _Amounts(
        tl_ratio=tl_ratio,
        composition=composition,
        train_size=train_size,
        validation_size=options.validation_size or task.sizes.validation,
        test_size=options.test_size or task.sizes.test,
        select_on=task.selection_role or select_on,
    )


def _draw(options: RunOptions, task: Task, amounts: _Amounts) -> tuple[Mixture, dict[str, Sequence[Item]]]:
    """Draw the training and validation items, and the test items by role."""
    difficulty = _difficulty(options, task)
    drawn = mixture.draw(
        task,
        language=options.language,
        tl_ratio=amounts.tl_ratio,
        composition=amounts.composition,
        train_size=amounts.train_size,
        validation_size=amounts.validation_size,
        seed=options.seed,
        difficulty=difficulty,
        data_dir=options.data_dir,
        select_on=amounts.select_on,
    )
    tested: dict[str, Sequence[Item]] = {"trained": drawn.train} if task.scores_training_items else {}
    return drawn, tested | mixture.draw_tests(
        task,
        language=options.language,
        test_size=amounts.test_size,
        difficulty=difficulty,
        data_dir=options.data_dir,
    )


def _read_model(options: RunOptions) -> _Model:
    source = locate(options.model)
    return _Model(source=source, shape=read_shape(source), tokenizer=load_tokenizer(source))


def _adapted(
    options: RunOptions,
    variant: Variant,
    values: Hyperparameters | None,
    shape: ModelShape,
    settings: Mapping[str, Any],
) -> _Adapted:
    """Return the decoder blocks and linear layers that get an adapter, and its rank."""
    if not variant.has_adapter:
        return _Adapted()
    assert values is not None
    layers = parse_layers(options.layers, shape.n_layers) or ()
    modules = resolve_modules(options.target_modules or values.target_modules, shape, model=options.model)
    rank = rank_of(variant, values, options.rank, adapted_shapes(shape, modules, layers), settings)
    return _Adapted(layers=layers, modules=modules, rank=rank)


def _scoring(options: RunOptions, task: Task, layers: Sequence[int], n_layers: int) -> Scoring:
    if isinstance(task, PairTask):
        return WordSimilarity(word_pairs.pooling_of(options, layers, n_layers))
    return prompt_scoring(task, options.scoring)


def _test_sets(
    task: Task,
    items_by_role: Mapping[str, Sequence[Item]],
    scoring: Scoring,
    options: RunOptions,
    *,
    retained: bool = False,
) -> list[TestSet]:
    return [
        TestSet(
            role=role,
            language=SOURCE_LANGUAGE if role == "en" else options.language,
            task=task,
            items=items,
            scoring=scoring,
            digest=mixture.texts_digest(task, items),
            retained=retained,
        )
        for role, items in items_by_role.items()
    ]


def _spec(
    options: RunOptions,
    variant: Variant,
    task: Task,
    settings: Mapping[str, Any],
    values: Hyperparameters | None,
    amounts: _Amounts,
    drawn: Mixture,
    tests: Sequence[TestSet],
    source: ModelSource,
    adapted: _Adapted,
    scoring: Scoring,
) -> RunSpec:
    roles = mixture.selection_roles(drawn.validation, amounts.select_on)
    chosen_on = [item for role in roles for item in drawn.validation[role]]
    return RunSpec(
        variant=variant.name,
        arm=options.arm,
        task=task.name,
        difficulty=_difficulty(options, task),
        language=options.language,
        model=options.model,
        tl_ratio=amounts.tl_ratio,
        composition=amounts.composition,
        train_size=amounts.train_size,
        validation_size=amounts.validation_size,
        test_size=amounts.test_size,
        seed=options.seed,
        rank=adapted.rank,
        alpha=values.alpha if values and variant.has_alpha else None,
        dropout=values.dropout if values else None,
        learning_rate=values.learning_rate if values else None,
        epochs=values.epochs if values else None,
        batch_size=values.batch_size if values else None,
        warmup=values.warmup if values else None,
        weight_decay=values.weight_decay if values else None,
        scheduler=values.scheduler if values else None,
        target_modules=adapted.modules,
        layers=adapted.layers,
        variant_options=dict(settings),
        scoring=str(scoring),
        select_on=amounts.select_on,
        precision=options.precision or ("fp32" if current_device().type == "cpu" else "bf16"),
        quantization=options.quantization,
        prompt_language=task.prompt_language,
        prompt_version=task.prompt_version,
        train_digest=mixture.texts_digest(task, [*drawn.train, *chosen_on]),
        test_digests={test.name: test.digest for test in tests},
        model_digest=source.digest,
    )
