"""Describes probes for their pages in MLflow."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from whichlora.data.language_names import join_names, language_name
from whichlora.probing.options import TATOEBA
from whichlora.probing.probed_model import ProbedModel
from whichlora.probing.request import Request
from whichlora.probing.results import ProbeResult
from whichlora.tracking.markdown import escaped, link, paragraphs, run_address, table

_ROWS = 20
_KINDS = {
    "language": "which language the model thinks in, layer by layer: its states are read with the head of the model",
    "alignment": "how similar the states of translations are, layer by layer",
    "retrieval": "how well the states of a question find its answer among the sentences of several languages",
    "weights": "where in the model the adapter changed the weights, and how much",
}


def sentences(identity: Mapping[str, Any]) -> str:
    """Return the end of the name of a probe that is usually made of several languages: sentences and language."""
    return f", {identity['pairs']} {identity['language']}" if identity.get("pairs") == TATOEBA else ""


def about(request: Request, probed: ProbedModel, identity: Mapping[str, Any]) -> str:
    """Return what a probe measures in which model, as known before it starts; `identity` is that of the pipeline."""
    spec = probed.plan.spec
    facts = [f"**Probe:** {request.kind}, {_KINDS[request.kind]}"]
    if probed.run_id is None:
        facts.append(f"**Model:** the base model {escaped(probed.plan.model_name)}, {spec.precision}")
    else:
        assert probed.client is not None
        experiment = probed.client.get_run(probed.run_id).info.experiment_id
        facts.append(f"**Model:** that of the run {link(probed.name, run_address(experiment, probed.run_id))}")
    if request.reads_items:
        languages = escaped(join_names(probed.language.split("+")))
        facts.append(f"**Items:** {escaped(probed.plan.task.name)}, {languages}; seed {request.seed}")
    elif "pairs" in identity:
        language = escaped(language_name(identity["language"]))
        facts.append(f"**Pairs:** {identity['items']} of {escaped(identity['pairs'])}, English and {language}")
    elif request.kind == "retrieval":
        languages = escaped(join_names(identity["language"].split(",")))
        subset = ", a subset of the benchmark" if identity["subset"] == "true" else ""
        sizes = f"{identity['items']} questions and {identity['candidate_sentences']} sentences"
        facts.append(f"**Items:** XQuAD-R (LAReQA), {sizes} in {languages}{subset}; the sentences without paragraphs")
    return "\n".join(f"- {fact}" for fact in facts)


def finished(result: ProbeResult, about: str) -> str:
    """Return the description of a finished probe, with the first of its metrics."""
    values = [(name, value) for name, value in result.metrics.items() if not math.isnan(value)]
    rows = [[escaped(name), f"{value:.4g}"] for name, value in values[:_ROWS]]
    more = f"and {len(values) - _ROWS} more under Metrics" if len(values) > _ROWS else ""
    files = "The figures are in the artifacts, under `figures`; `layers.parquet` has their numbers."
    return paragraphs(table(["metric", "value"], rows) if rows else "", more, about, files)
