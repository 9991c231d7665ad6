"""Resolves options into a plan: replaces `auto` by the values of arm and task, and checks every value."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from whichlora.config import word_pairs
from whichlora.config.alignment import sentence_items, sentence_tests
from whichlora.config.alpha import resolve_alpha
from whichlora.config.base_model import BaseModel, read_base_model
from whichlora.config.compatibility import check_compatibility, difficulty_of
from whichlora.config.context import check_context
from whichlora.config.forgetting import check_tokens, forgetting_texts, text_digests
from whichlora.config.hyperparameters import (
    adapted_shapes,
    resolve_modules,
    resolve_rank,
    run_hyperparameters,
)
from whichlora.config.item_sizes import ItemSizes, item_sizes
from whichlora.config.layers import parse_layers
from whichlora.config.options import RunOptions
from whichlora.config.plan import Plan, TestSet
from whichlora.config.retention import retained_items
from whichlora.config.spec import RunSpec
from whichlora.config.variant_options import resolve_settings
from whichlora.data import mixture
from whichlora.data.chat import NONE
from whichlora.data.mixture import Mixture
from whichlora.data.targets import canonical_language
from whichlora.data.tasks import Item, PairTask, Task, get_task
from whichlora.evaluation.scoring_methods import Scoring, WordSimilarity, prompt_scoring
from whichlora.models.loading import ModelShape, current_device
from whichlora.parallel import distributed
from whichlora.scheduling.jobs import is_worker
from whichlora.variants import Hyperparameters, Variant, get_variant


def resolve(options: RunOptions, variant_options: Mapping[str, Any] | None = None) -> Plan:
    """Resolve options into a plan, with the cheapest checks first.

    `variant_options` override the variant's own settings by name.

    Workers print no warnings about it: the command that started them has planned the same runs.

    Raises:
        OptionError: A value is not allowed, or conflicts with another option.
    """
    if not is_worker():
        return _resolve(options, variant_options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return _resolve(options, variant_options)


def _resolve(options: RunOptions, variant_options: Mapping[str, Any] | None) -> Plan:
    variant, task = get_variant(options.variant), get_task(options.task, options.prompt_language)
    settings = resolve_settings(variant, variant_options or {})
    retention_task = check_compatibility(options, variant, task)
    texts = forgetting_texts(task, options)
    options = replace(options, language=canonical_language(task, options.language))
    hyperparameters = _checked_hyperparameters(options, variant, task)
    sizes = item_sizes(options, task)
    items, test_items = _draw(options, task, sizes)
    retention_items = retained_items(retention_task, options) if retention_task else {}
    sentences = sentence_items(task, options)
    model = read_base_model(options.model, options.chat_template)
    target = _adapter_target(options, variant, hyperparameters, model.shape, settings)
    scoring = _scoring(options, task, target.layers, model.shape.n_layers)
    tests = _test_sets(task, test_items, scoring, options, model)
    if retention_task:
        retained = prompt_scoring(retention_task)
        tests += _test_sets(retention_task, retention_items, retained, options, model, group="retention")
    tests += sentence_tests(sentences, model.shape.n_layers)
    check_context(model.encoder, task, items, tests, scoring, trains=variant.trains)
    check_tokens(texts, model.encoder(task), options)
    if variant.has_adapter and target.modules and model.shape.unadapted:
        _warn_of_unadapted(options.model, model.shape)
    digests = {test.name: test.digest for test in tests} | text_digests(texts)
    return Plan(
        spec=_spec(options, variant, task, settings, hyperparameters, sizes, items, digests, model, target, scoring),
        variant=variant,
        task=task,
        scoring=scoring,
        model=model,
        mixture=items,
        tests={test.name: test for test in tests},
        options=options,
        texts=texts,
    )


@dataclass(frozen=True, kw_only=True)
class _AdapterTarget:
    """The layers that get an adapter, its rank and its alpha; empty for variants without one."""

    layers: tuple[int, ...] = ()
    modules: tuple[str, ...] = ()
    rank: int | None = None
    alpha: float | None = None


def _checked_hyperparameters(options: RunOptions, variant: Variant, task: Task) -> Hyperparameters | None:
    """Return the hyperparameters of the run, after checks of the batch size; None for `none`, which trains nothing."""
    values = run_hyperparameters(options, variant, task)
    if values is not None:
        distributed.check_batch(values.batch_size)
    word_pairs.check_options(task, options, batch_size=None if values is None else values.batch_size)
    return values


def _draw(options: RunOptions, task: Task, sizes: ItemSizes) -> tuple[Mixture, dict[str, Sequence[Item]]]:
    """Draw the training and validation items, and the test items by role."""
    difficulty = difficulty_of(options, task)
    mixture.warn_of_repeats(task, language=options.language, difficulty=difficulty, data_dir=options.data_dir)
    items = mixture.draw(
        task,
        language=options.language,
        tl_ratio=sizes.tl_ratio,
        composition=sizes.composition,
        train_size=sizes.train_size,
        validation_size=sizes.validation_size,
        seed=options.seed,
        difficulty=difficulty,
        data_dir=options.data_dir,
        select_on=sizes.select_on,
    )
    tests = mixture.draw_tests(
        task,
        language=options.language,
        test_size=sizes.test_size,
        difficulty=difficulty,
        data_dir=options.data_dir,
    )
    for role, tested in tests.items():
        validated = items.validation[role]
        word_pairs.check_items({"train_size": items.train, "validation_size": validated, "test_size": tested})
    return items, ({"trained": items.train} if task.scores_training_items else {}) | tests


def _adapter_target(
    options: RunOptions,
    variant: Variant,
    hyperparameters: Hyperparameters | None,
    shape: ModelShape,
    settings: Mapping[str, Any],
) -> _AdapterTarget:
    """Return the decoder blocks and linear layers that get an adapter, its rank and its alpha."""
    if not variant.adapts_layers:
        return _AdapterTarget()
    assert hyperparameters is not None
    layers = parse_layers(options.layers, shape.n_layers) or ()
    modules = resolve_modules(options.target_modules or hyperparameters.target_modules, shape, model=options.model)
    shapes = adapted_shapes(shape, modules, layers)
    rank = resolve_rank(variant, hyperparameters, options.rank, shapes, settings)
    if variant.check_options is not None:
        variant.check_options(shapes, settings)
    alpha = hyperparameters.alpha if variant.has_alpha else None
    if options.alpha is not None:
        alpha = resolve_alpha(options.alpha, rank)
    return _AdapterTarget(layers=layers, modules=modules, rank=rank, alpha=alpha)


def _scoring(options: RunOptions, task: Task, layers: Sequence[int], n_layers: int) -> Scoring:
    if isinstance(task, PairTask):
        return WordSimilarity(word_pairs.pooling_of(options, layers, n_layers))
    return prompt_scoring(task, options.scoring)


def _test_sets(
    task: Task,
    items_by_role: Mapping[str, Sequence[Item]],
    scoring: Scoring,
    options: RunOptions,
    model: BaseModel,
    *,
    group: str = "",
) -> list[TestSet]:
    return [
        TestSet(
            role=role,
            language=task.source if role == "en" and task.source else options.language,
            task=task,
            items=items,
            scoring=scoring,
            digest=mixture.texts_digest(task, items, model.chat(task)),
            group=group,
        )
        for role, items in items_by_role.items()
    ]


def _warn_of_unadapted(name: str, shape: ModelShape) -> None:
    warnings.warn(
        f"model={name}: adapters reach no torch.nn.Linear in these matrices of the decoder blocks, which stay as they "
        f"are (share of all): {shape.unadapted_text()}.",
        stacklevel=2,
    )


def _spec(
    options: RunOptions,
    variant: Variant,
    task: Task,
    settings: Mapping[str, Any],
    hyperparameters: Hyperparameters | None,
    sizes: ItemSizes,
    items: Mixture,
    test_digests: Mapping[str, str],
    model: BaseModel,
    target: _AdapterTarget,
    scoring: Scoring,
) -> RunSpec:
    chat = model.chat(task)
    roles = mixture.selection_roles(items.validation, sizes.select_on)
    selection_items = [item for role in roles for item in items.validation[role]]
    return RunSpec(
        variant=variant.name,
        arm=options.arm,
        task=task.name,
        difficulty=difficulty_of(options, task),
        language=options.language,
        model=options.model,
        tl_ratio=sizes.tl_ratio,
        composition=sizes.composition,
        train_size=sizes.train_size,
        validation_size=sizes.validation_size,
        test_size=sizes.test_size,
        seed=options.seed,
        rank=target.rank,
        alpha=target.alpha,
        dropout=hyperparameters.dropout if hyperparameters else None,
        learning_rate=hyperparameters.learning_rate if hyperparameters else None,
        epochs=hyperparameters.epochs if hyperparameters else None,
        batch_size=hyperparameters.batch_size if hyperparameters else None,
        warmup=hyperparameters.warmup if hyperparameters else None,
        weight_decay=hyperparameters.weight_decay if hyperparameters else None,
        scheduler=hyperparameters.scheduler if hyperparameters else None,
        target_modules=target.modules,
        layers=target.layers,
        variant_options=dict(settings),
        scoring=str(scoring),
        select_on=sizes.select_on,
        precision=options.precision or ("fp32" if current_device().type == "cpu" else "bf16"),
        quantization=options.quantization,
        prompt_language=task.prompt_language,
        prompt_version=task.prompt_version,
        train_digest=mixture.texts_digest(task, [*items.train, *selection_items], chat),
        test_digests=test_digests,
        model_digest=model.source.digest,
        chat_template=NONE if chat is None else chat.digest,
    )
