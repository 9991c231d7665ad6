"""Writes what lies beside a run's adapter: model card, tokenizer, and what its predictions need."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from whichlora.cards.companions import write_card, write_tokenizer
from whichlora.cards.facts import read_facts
from whichlora.cards.model_card import Form, model_card
from whichlora.config.plan import Plan
from whichlora.models.published import published, write_notice
from whichlora.run.provenance import package_versions
from whichlora.serving import saved
from whichlora.tracking.run_log import RunLog


def write_companions(plan: Plan, log: RunLog, metrics: Mapping[str, float], adapter: Path) -> None:
    """Write the files to the folder of a trained adapter, in the place of those of the run that it may come from.

    Args:
        metrics: of the run.
    """
    chat = plan.model.chat(plan.task)
    write_tokenizer(adapter, plan.tokenizer, chat.text if chat else None)
    facts = read_facts(log.client.get_run(log.run_id), metrics)
    form = _form(plan)
    predicts = write_needs(plan, adapter)
    write_card(adapter, model_card(facts, published(plan.source), form=form, predicts=predicts))


def write_needs(plan: Plan, adapter: Path) -> bool:
    """Write what no trained adapter may lack beside it, of a trial too, and return whether a table can be read.

    These are the files of the base model's licence, and `whichlora.json`, which predictions need.
    """
    write_notice(adapter, published(plan.source), _form(plan))
    model = saved.of_plan(plan, package_versions(plan))
    if model is not None:
        model.write(adapter)
    return model is not None


def _form(plan: Plan) -> Form:
    return "model" if plan.variant.trains_whole_model else "adapter"
