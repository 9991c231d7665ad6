"""Chooses the layers that a variant trains in full, once for a run, and records the choice beside its adapter.

A run that is resumed reads the record, so that it trains the layers of its checkpoint.
"""

from __future__ import annotations

import json
import random
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from whichlora.config.plan import Plan
from whichlora.data.encoding import Encoder
from whichlora.data.tasks import Item
from whichlora.errors import DamagedError
from whichlora.parallel import distributed
from whichlora.training.objectives import Objective, objective_of
from whichlora.training.sealed import read_checked, write_record
from whichlora.variants import AdapterSettings, FullSelection

RECORD = "fully_trained.json"
"""File with the layers that are trained in full and what they were chosen by, in a run's work folder and adapter."""
INITIALIZATION_ITEMS, INITIALIZATION_BATCH = 512, 8
"""Training items used by data-driven choices and initialisations, and their batch size. PEFT hashes the activations of
the first batch number by number, which takes minutes for a large batch."""


def choose(model: nn.Module, plan: Plan, settings: AdapterSettings, work: Path | None) -> FullSelection:
    """Return the layers that the plan's variant trains in full, the same on every rank.

    Args:
        model: the base model; its parameters may require no gradient afterwards.
        work: folder of the record; None if there is to be none.

    Raises:
        ProofError: The variant cannot choose.
    """
    return distributed.from_leader(lambda: _recorded(work) or _chosen(model, plan, settings, work))


def record_is_lost(plan: Plan, work: Path) -> bool:
    """Return whether the record that belongs to the checkpoints in `work` is missing or damaged, with a warning."""
    if plan.variant.fully_trained is None:
        return False
    try:
        read_checked(work / RECORD)
    except DamagedError as error:
        print(f"warning: {error}: training starts over.", file=sys.stderr)
        return True
    return False


def _recorded(work: Path | None) -> FullSelection | None:
    if work is None or not (work / RECORD).is_file():
        return None
    record = read_checked(work / RECORD)
    return FullSelection(names=tuple(record["layers"]), scores=record["scores"])


def _chosen(model: nn.Module, plan: Plan, settings: AdapterSettings, work: Path | None) -> FullSelection:
    assert plan.variant.fully_trained is not None
    start = time.perf_counter()
    selection = plan.variant.fully_trained(model, plan.adapted, settings, backward_passes(model, plan))
    if work is not None:
        count = sum(plan.adapted[name][0] * plan.adapted[name][1] for name in selection.names)
        record = {"layers": selection.names, "parameters": count, "seconds": time.perf_counter() - start}
        work.mkdir(parents=True, exist_ok=True)
        write_record(work / RECORD, {**record, "settings": plan.spec.variant_options, "scores": selection.scores})
    return selection


def copy_record(work: Path, folder: Path) -> None:
    """Copy the record of a run's choice, if there is one, to the folder of its adapter."""
    if (work / RECORD).is_file():
        record = read_checked(work / RECORD)
        (folder / RECORD).write_text(json.dumps(record, indent=2), encoding="utf-8")


def facts(folder: Path) -> tuple[dict[str, Any], dict[str, float]]:
    """Return the params and the metrics that say what was trained in full, from the record in a folder, if any."""
    if not (folder / RECORD).is_file():
        return {}, {}
    record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    metrics = {"adapter/fully_trained_parameters": record["parameters"], "train/selection_seconds": record["seconds"]}
    return {"fully_trained": record["layers"]}, metrics


def first_items(plan: Plan) -> list[Sequence[Item]]:
    """Return batches of training items for a choice or an initialisation; the same when a run is resumed."""
    items = random.Random(plan.spec.seed).sample(plan.mixture.train, len(plan.mixture.train))[:INITIALIZATION_ITEMS]
    return [items[i : i + INITIALIZATION_BATCH] for i in range(0, len(items), INITIALIZATION_BATCH)]


def backward_passes(model: nn.Module, plan: Plan) -> list[partial[None]]:
    """Return functions that compute the gradients of the first training batches."""
    objective, encoder = objective_of(plan).optimized_for(model), plan.encoder()
    return [partial(_backward, items, objective, encoder) for items in first_items(plan)]


def _backward(items: Sequence[Item], objective: Objective, encoder: Encoder, model: nn.Module) -> None:
    examples = [objective.example(encoder, item) for item in items]
    with objective.batch_context(model):
        (objective.loss(model, examples) / objective.count(examples)).backward()  # type: ignore[no-untyped-call]
