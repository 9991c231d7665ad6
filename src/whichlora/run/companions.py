"""Logs what lies beside a run's adapter: model card, tokenizer, and what its predictions need."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from whichlora.cards.companions import write_card, write_tokenizer
from whichlora.cards.facts import read_facts
from whichlora.cards.model_card import Form, model_card
from whichlora.config.plan import Plan
from whichlora.models.published import published
from whichlora.serving import saved
from whichlora.tracking.run_log import RunLog
from whichlora.tracking.trained import ADAPTER


def log_companions(plan: Plan, log: RunLog, metrics: Mapping[str, float], folder: Path) -> None:
    """Write the files to a new folder, and log them into the run's folder `adapter`.

    They do not lie in the work folder's `adapter`, whose files belong to the record of the training.

    Args:
        metrics: of the run, which are not logged yet.
    """
    folder.mkdir(parents=True, exist_ok=True)
    chat = plan.model.chat(plan.task)
    write_tokenizer(folder, plan.tokenizer, chat.text if chat else None)
    facts = read_facts(log.client.get_run(log.run_id), metrics)
    form: Form = "model" if plan.variant.trains_whole_model else "adapter"
    write_card(folder, model_card(facts, published(plan.source), form=form))
    if model := saved.of_plan(plan, facts.versions):
        model.write(folder)
    log.artifacts(folder, ADAPTER)
