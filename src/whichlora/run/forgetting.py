"""Measures forgetting: how much the cross-entropy of general text rises from the plain base model to the trained one.

The base is the model without any adapter, not the model at the start of training. The two differ for methods that do
not start at the identity: what their start changes is part of what the base loses.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from mlflow.entities import Run

from whichlora.config.forgetting import text_digests
from whichlora.config.plan import Plan
from whichlora.config.spec import SPEC_VERSION, canonical_digest
from whichlora.data.general_text import GeneralText
from whichlora.evaluation.cross_entropy import CrossEntropy, cross_entropy
from whichlora.run import description
from whichlora.run.reuse import logged_digests
from whichlora.tracking.client import work_folder
from whichlora.tracking.runs import Tracker
from whichlora.training import base_cache

Measured = Mapping[str, CrossEntropy]
"""The cross-entropy of each general text of a run, by the name of the text."""


def measure(plan: Plan, model: Any, *, known: Measured) -> dict[str, CrossEntropy]:
    """Return a model's cross-entropy on each general text of a plan that is not among the `known` ones.

    Raises:
        NonFiniteError: A logit is not finite.
    """
    encoder = plan.encoder()
    return {
        name: cross_entropy(model, encoder, text.blocks, name=f"general text {name}")
        for name, text in plan.texts.items()
        if name not in known
    }


def known(plan: Plan, run: Run) -> dict[str, CrossEntropy]:
    """Return what a finished run with the same adapter has logged of the same texts."""
    digests, metrics = logged_digests(run), run.data.metrics
    found = {}
    for name, digest in text_digests(plan.texts).items():
        if digests.get(name) == digest and f"{name}/ce" in metrics:
            found[name.partition("/")[2]] = CrossEntropy(
                nats=metrics[f"{name}/ce"], tokens=int(metrics[f"{name}/tokens"])
            )
    return found


def forgetting_metrics(plan: Plan, tracker: Tracker, trained: Measured | None) -> dict[str, float]:
    """Return `forgetting/LANG/ce`, `.../base_ce`, `.../ce_rise` (nats per token) and `.../tokens` of each text.

    Args:
        trained: the cross-entropy of the trained model; None for the base model itself, which forgets nothing.
    """
    metrics: dict[str, float] = {}
    for name, text in plan.texts.items():
        base = _of_base(plan, tracker, text)
        after = base if trained is None else trained[name]
        metrics |= {
            f"forgetting/{name}/ce": after.nats,
            f"forgetting/{name}/base_ce": base.nats,
            f"forgetting/{name}/ce_rise": after.nats - base.nats,
            f"forgetting/{name}/tokens": after.tokens,
        }
    return metrics


def _of_base(plan: Plan, tracker: Tracker, text: GeneralText) -> CrossEntropy:
    """Return the cross-entropy of the plain base model, measured once and logged in a run of kind `base`."""
    spec, key = plan.spec, f"forgetting/{text.name}"
    identity = {
        "spec_version": SPEC_VERSION,
        "model_digest": spec.model_digest,
        "precision": spec.precision,
        "quantization": spec.quantization,
        "text": text.name,
        "text_digest": text_digests(plan.texts)[key],
    }
    fingerprint = canonical_digest({"kind": "base", **identity})
    # The lease covers the caller's run only: another machine may be measuring the same base model.
    tracker = replace(tracker, check_lease=None)
    run_name = f"base {text.name} general text {plan.model_name} {fingerprint[:6]}"
    work = work_folder() / fingerprint[:16]
    with tracker.once("base", run_name, {"fingerprint": fingerprint}, work=work) as attempt:
        if attempt.finished is not None:
            logged = attempt.finished.data.metrics
            return CrossEntropy(nats=logged[f"{key}/ce"], tokens=int(logged[f"{key}/tokens"]))
        attempt.log.params({"model": spec.model, "task": "general text", **identity})
        model = base_cache.checkout(plan)
        found = cross_entropy(model, plan.encoder(), text.blocks, name=f"base, general text {text.name}")
        base_cache.give_back(model, plan)
        attempt.log.metrics({f"{key}/ce": found.nats, f"{key}/tokens": found.tokens})
        attempt.log.describe(description.base_text(text, plan.model_name, found.nats, found.tokens))
        return found
