"""Measures the similarity of texts and their translations at each layer, compared with random pairs of texts.

The layer scan of targeted lexical injection (arXiv 2506.15415) averages hidden states over all tokens, including the
first one (BOS). At most layers the state of that token is so large, and so similar in all texts, that it dominates the
mean: translations and random pairs are equally similar, at .99 and more. This probe therefore excludes the first token,
reports random pairs as a baseline, also centres the states of each language (what all texts of a language share is not
alignment), and measures how often a text retrieves its translation among all others. `first_token=keep` averages as in
the paper.

One averaged state per text and layer is stored on disk: pairs x 2 x (layers + 1) x width x 4 bytes, twice that if two
models are compared, plus a copy of the current layer. Only blocks of the states
(`translation_similarity.BLOCK`) and, for each pair, its texts and a few numbers are in memory.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from whichlora.announcements import announce
from whichlora.data.language_names import language_name
from whichlora.data.tasks import pairs as word_pairs
from whichlora.data.tasks.base import SOURCE_LANGUAGE
from whichlora.data.tasks.items import texts_of
from whichlora.data.tasks.pairs import tatoeba
from whichlora.data.word_pooling import retrieval_layer
from whichlora.errors import OptionError
from whichlora.evaluation.translation_similarity import CSLS_MEASURES, MEASURES, compare, compare_by_csls
from whichlora.models.hidden_states import EMBEDDING
from whichlora.probing import probed_model
from whichlora.probing.alignment import cka
from whichlora.probing.averaged_states import averages
from whichlora.probing.bootstrap import PoissonBootstrap
from whichlora.probing.choices import AlignmentChoices
from whichlora.probing.figures import alignment_figure, similarity_figure
from whichlora.probing.options import TATOEBA
from whichlora.probing.partial_results import Arrays, PartialResults
from whichlora.probing.request import Request, as_params
from whichlora.probing.results import COLUMNS, PreparedProbe, ProbeResult, at_layer, curve, layer_rows, points

if TYPE_CHECKING:
    from whichlora.probing.probed_model import ProbedModel

MAX_PAIRS = 2000
"""Default of the option `items`: each text is compared with all others, so the cost is quadratic."""
DEFAULT_LANGUAGE = "sw"

ALIGNMENT_MEASURES = (*MEASURES, *CSLS_MEASURES)
_PROPORTIONS = [i for i, name in enumerate(ALIGNMENT_MEASURES) if name.startswith("p1/")]
_SPACES = ("raw", "centred", "csls")
HEADLINE = tuple(f"{measure}/{way}/{space}" for measure in ("p1", "mrr") for space in _SPACES for way in ("to", "from"))
"""The measures that are also reported at one named layer, as XTREME-R does with `p1/to/raw`."""
CKA_MEASURES = ("cka/english", "cka/translation")
"""CKA with another model's states of the same texts, for each side of the pairs."""


def prepare(request: Request, probed: ProbedModel) -> PreparedProbe:
    """Prepare the alignment probe of packaged word pairs, a task's parallel texts, or a user's file.

    Raises:
        OptionError: the pairs are not available, or too few.
    """
    assert isinstance(request.choices, AlignmentChoices)
    probe = _AlignmentProbe(request, probed)
    against = (
        probe.comparison.plan.spec.fingerprint
        if probe.comparison and probe.comparison.run_id
        else request.choices.against
    )
    identity = {
        **as_params(request.choices),
        "against": against or "",
        "language": probe.language,
        "items": len(probe.pairs),
        "items_digest": hashlib.sha256(json.dumps(probe.pairs).encode()).hexdigest(),
        **(probed.other_source if request.choices.pairs == "task" else {}),
    }
    return PreparedProbe(identity=identity, measure=probe.measure)


class _AlignmentProbe:
    """The alignment probe of one model."""

    def __init__(self, request: Request, probed: ProbedModel) -> None:
        assert isinstance(request.choices, AlignmentChoices)
        self.probed, self.choices, self.seed = probed, request.choices, request.seed
        self.language, available = _pairs(request, probed)
        task_source = probed.plan.task.source if self.choices.pairs == "task" else None
        self.source = language_name(task_source or SOURCE_LANGUAGE)  # the packaged word pairs are from English
        self.pairs = available[: request.items or MAX_PAIRS]
        self.n_layers = probed.plan.shape.n_layers
        self.comparison = None
        if self.choices.against is not None:
            self.comparison = probed_model.find_comparison(request, probed, self.choices.against)
            if len(self.pairs) < cka.MIN_TEXTS:
                raise OptionError("items", len(self.pairs), f"must be at least {cka.MIN_TEXTS} pairs with against")

    def measure(self, work: Path) -> ProbeResult:
        """Measure `ALIGNMENT_MEASURES` from the embedding on, and `CKA_MEASURES` if two models are compared."""
        results = self._states(self.probed, work / "own")
        comparison = self._states(self.comparison, work / "other") if self.comparison else None
        announce("Comparing the texts at each layer, with intervals, and drawing figures.")
        rows = []
        for layer in range(EMBEDDING, self.n_layers):
            states = results.gather(f"layer{layer}", work / "own.npy")
            means = PoissonBootstrap(len(ALIGNMENT_MEASURES), seed=self.seed, proportions=_PROPORTIONS)
            means.add(np.concatenate([compare(states, self.pairs), compare_by_csls(states, self.pairs)], axis=1))
            rows.append(layer_rows(ALIGNMENT_MEASURES, [layer], means.result()))
            if comparison:
                rows.append(_cka_rows(layer, states, comparison.gather(f"layer{layer}", work / "other.npy")))
        layers = pd.concat(rows, ignore_index=True)
        n = len(self.pairs)
        figures, languages = {}, (self.source, self.language)
        if self.comparison:
            figures["similarity"] = similarity_figure(layers, self.probed.name, self.comparison.name, languages)
        chance = {"chance/p1": 1 / n, "chance/mrr": sum(1 / rank for rank in range(1, n + 1)) / n}
        best = {f"best/{name}": _best(layers, f"{name}/centred") for name in ("cosine/gap", "p1/to", "p1/from")}
        names = ("cosine/translation", "cosine/random", "p1/to", "p1/from")
        headline, bounds = _headline(layers, retrieval_layer(self.n_layers))
        csls = {f"alignment/{name}": points(layers, name) for name in CSLS_MEASURES}
        return ProbeResult(
            layers=layers,
            metrics={**chance, **headline, **best, **bounds},
            series={f"alignment/{name}": points(layers, f"{name}/centred") for name in names} | csls,
            figures={
                "alignment": alignment_figure(layers, self.probed.name, languages, self.choices, chance),
                **figures,
            },
        )

    def _states(self, probed: ProbedModel, work: Path) -> PartialResults:
        """Return the averaged states of a model, measuring those that are not stored yet."""
        results = PartialResults(work / "parts", len(self.pairs))
        if not results.complete:
            with probed.loaded(work) as model:
                results.fill(lambda pairs: self._average(pairs, model), description=f"alignment in {probed.name}")
        return results

    def _average(self, pairs: range, model: Any) -> Arrays:
        """Return the averaged states of the pairs with these indices, (pairs, 2, width) for each layer."""
        texts = [text for i in pairs for text in self.pairs[i]]
        found = averages(self.probed, model, texts, self.choices.first_token)
        return {name: rows.reshape(len(pairs), 2, -1) for name, rows in found.items()}


def _pairs(request: Request, probed: ProbedModel) -> tuple[str, list[word_pairs.Pair]]:
    """Return the language of the second texts ("translation" if unknown) and the pairs."""
    assert isinstance(request.choices, AlignmentChoices)
    source = request.choices.pairs
    if source == "words":
        default = probed.plan.spec.language if probed.run_id else DEFAULT_LANGUAGE
        language = request.language or default
        return language, word_pairs.packaged(language)
    if source == TATOEBA:
        language = request.language or (probed.plan.spec.language if probed.run_id else DEFAULT_LANGUAGE)
        return tatoeba.short_code(language), tatoeba.read(language, request.data_dir)
    if source != "task":
        return request.language or "translation", word_pairs.from_file(source)
    task, tests = probed.plan.task, probed.plan.tests
    if not task.parallel:
        raise OptionError("pairs", source, f"{task.name} is not parallel; allowed are words or a TSV file")
    if task.source is None:
        raise OptionError("pairs", source, f"{task.name} has no source language; allowed are words or a TSV file")
    # The last text of an item, the hypothesis or the question, is short.
    return probed.language, [
        (texts_of(en)[-1], texts_of(tl)[-1]) for en, tl in zip(tests["en"].items, tests["tl"].items, strict=True)
    ]


def _cka_rows(layer: int, first: np.ndarray[Any, Any], second: np.ndarray[Any, Any]) -> pd.DataFrame:
    """Return rows of `ProbeResult.layers` from two models' states of the same texts, (pairs, 2, width)."""
    values = [cka.cka(first[:, side], second[:, side]) for side in range(len(CKA_MEASURES))]
    rows = [(layer, name, value, np.nan, np.nan, len(first)) for name, value in zip(CKA_MEASURES, values, strict=True)]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _headline(layers: pd.DataFrame, layer: int) -> tuple[dict[str, float], dict[str, float]]:
    """Return the layer and the values of `HEADLINE` there, and the ends of their intervals, by the metric's name."""
    values = {f"headline/{name}": at_layer(layers, name, layer) for name in HEADLINE}
    ends = {
        f"headline/{name}_{end}": at_layer(layers, name, layer, end) for name in HEADLINE for end in ("low", "high")
    }
    return {"headline/layer": float(layer), **values}, ends


def _best(layers: pd.DataFrame, measure: str) -> float:
    return float(curve(layers, measure)["value"].max())
