"""How alike a text and its translation are at each layer, beside texts that are no translations of each other.

The scan behind targeted lexical injection (arXiv 2506.15415) averages over all tokens, the first one (BOS) too. Its
state is so large at most layers, and so much the same in every text, that it rules the mean: translations and random
pairs come out equally similar, at .99 and more. So here the first token is left out, random pairs stand beside, the
mean over each language is taken off as well (what a language has in common is no alignment), and it is counted how
often a text finds its translation among all others. `first_token=keep` averages as the original did.

Of each text and layer one averaged state is kept, on disk: pairs x 2 x (layers + 1) x width x 4 bytes, twice that with
another model, and once more for the layer at hand. In memory are blocks of them (`cosines.BLOCK`) and, of each pair,
its texts and a few numbers.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from whichlora.data.encoding import word_tokens
from whichlora.data.tasks import pairs as texts
from whichlora.data.tasks.items import texts_of
from whichlora.errors import OptionError
from whichlora.evaluation.translation_similarity import MEASURES, compare
from whichlora.models.hidden_states import EMBEDDING, pad_right, visit_hidden_states
from whichlora.models.memory import in_batches
from whichlora.models.pooling import mean_over_tokens
from whichlora.probing import probed_model
from whichlora.probing.alignment import cka
from whichlora.probing.bootstrap import Means
from whichlora.probing.figures import alignment_figure, similarity_figure
from whichlora.probing.options import AlignmentChoices, Request, as_params
from whichlora.probing.partial_results import Arrays, PartialResults
from whichlora.probing.results import COLUMNS, Job, ProbeResult, by_layer, curve, points

if TYPE_CHECKING:
    from whichlora.probing.probed_model import ProbedModel

MOST_PAIRS = 2000
"""Unless the option `items` says otherwise: each text is compared with all."""
DEFAULT_LANGUAGE = "sw"
BATCH_TOKENS = 2048

SIMILARITIES = ("cka/english", "cka/translation")
"""Of the same texts' states in another model."""


def prepare(request: Request, subject: ProbedModel) -> Job:
    """Return the alignment probe of packaged word pairs, a task's parallel texts, or a user's file.

    Raises:
        OptionError: the pairs are not to be had, or are too few.
    """
    assert isinstance(request.choices, AlignmentChoices)
    scan = _Scan(request, subject)
    other = scan.other.plan.spec.fingerprint if scan.other and scan.other.run_id else request.choices.against
    identity = {
        **as_params(request.choices),
        "against": other or "",
        "language": scan.language,
        "items": len(scan.pairs),
        "items_digest": hashlib.sha256(json.dumps(scan.pairs).encode()).hexdigest(),
    }
    return Job(identity=identity, measure=scan.measure)


class _Scan:
    """One alignment probe."""

    def __init__(self, request: Request, subject: ProbedModel) -> None:
        assert isinstance(request.choices, AlignmentChoices)
        self.subject, self.choices, self.seed = subject, request.choices, request.seed
        self.language, found = _pairs(request, subject)
        self.pairs = found[: request.items or MOST_PAIRS]
        self.n_layers = subject.plan.shape.n_layers
        self.other = None
        if self.choices.against is not None:
            self.other = probed_model.find_other(request, subject, self.choices.against)
            if len(self.pairs) < cka.LEAST:
                raise OptionError("items", len(self.pairs), f"must be at least {cka.LEAST} pairs with against")

    def measure(self, work: Path) -> ProbeResult:
        """Measure `MEASURES` by layer, the embedding included, and `SIMILARITIES` where there is another model."""
        own = self._states(self.subject, work / "own")
        others = self._states(self.other, work / "other") if self.other else None
        rows = []
        for layer in range(EMBEDDING, self.n_layers):
            states = own.gather(f"layer{layer}", work / "own.npy")
            means = Means(len(MEASURES), seed=self.seed)
            means.add(compare(states, self.pairs))
            rows.append(by_layer(MEASURES, [layer], means.result()))
            if others:
                rows.append(_similarities(layer, states, others.gather(f"layer{layer}", work / "other.npy")))
        layers = pd.concat(rows, ignore_index=True)
        n = len(self.pairs)
        figures = {}
        if self.other:
            figures["similarity"] = similarity_figure(layers, self.subject.name, self.other.name, self.language)
        chance = {"chance/p1": 1 / n, "chance/mrr": sum(1 / rank for rank in range(1, n + 1)) / n}
        best = {f"best/{name}": _best(layers, f"{name}/centred") for name in ("cosine/gap", "p1/to", "p1/from")}
        names = ("cosine/translation", "cosine/random", "p1/to", "p1/from")
        return ProbeResult(
            layers=layers,
            metrics={**chance, **best},
            series={f"alignment/{name}": points(layers, f"{name}/centred") for name in names},
            figures={
                "alignment": alignment_figure(layers, self.subject.name, self.language, self.choices, chance),
                **figures,
            },
        )

    def _states(self, subject: ProbedModel, work: Path) -> PartialResults:
        """Return a subject's averaged states, having measured what is missing."""
        parts = PartialResults(work / "parts", len(self.pairs))
        if not parts.complete:
            with subject.model(work) as model:
                parts.measure(lambda part: self._part(part, model), name=f"alignment in {subject.name}")
        return parts

    def _part(self, part: range, model: Any) -> Arrays:
        """Return the averaged states of some pairs: for each layer (pairs, 2, width)."""
        sequences = [word_tokens(self.subject.plan.tokenizer, text) for i in part for text in self.pairs[i]]
        found: dict[str, np.ndarray[Any, Any]] = {}
        start = 1 if self.choices.first_token == "drop" else 0

        def take(batch: list[int]) -> None:
            lengths = torch.tensor([len(sequences[b]) for b in batch], device=model.device)

            def keep(layer: int, states: Tensor) -> None:
                mean = mean_over_tokens(states, lengths, start)
                rows = found.setdefault(f"layer{layer}", np.empty((len(sequences), states.shape[2]), np.float32))
                rows[batch] = mean.cpu().numpy()

            with torch.inference_mode():
                visit_hidden_states(
                    model, self.subject.plan.shape.blocks, pad_right([sequences[b] for b in batch], model.device), keep
                )

        in_batches([len(s) for s in sequences], take, max_tokens=BATCH_TOKENS, max_items=len(sequences))
        return {name: rows.reshape(len(part), 2, -1) for name, rows in found.items()}


def _pairs(request: Request, subject: ProbedModel) -> tuple[str, list[texts.Pair]]:
    """Return the second texts' language, as far as it is known, and the pairs."""
    assert isinstance(request.choices, AlignmentChoices)
    wanted = request.choices.pairs
    if wanted == "words":
        own = subject.plan.spec.language if subject.run_id else DEFAULT_LANGUAGE
        language = request.language or own
        return language, texts.packaged(language)
    if wanted != "task":
        return request.language or "translation", texts.from_file(wanted)
    task, tests = subject.plan.task, subject.plan.tests
    if not task.parallel:
        raise OptionError("pairs", wanted, f"{task.name} is not parallel; allowed are words or a TSV file")
    # What comes last in the prompt is short: the hypothesis, or the question.
    return subject.language, [
        (texts_of(en)[-1], texts_of(tl)[-1]) for en, tl in zip(tests["en"].items, tests["tl"].items, strict=True)
    ]


def _similarities(layer: int, own: np.ndarray[Any, Any], other: np.ndarray[Any, Any]) -> pd.DataFrame:
    """Return rows of `Measured.layers` from two models' states of the same texts, (pairs, 2, width)."""
    values = [cka.cka(own[:, side], other[:, side]) for side in range(len(SIMILARITIES))]
    found = [(layer, name, value, np.nan, np.nan, len(own)) for name, value in zip(SIMILARITIES, values, strict=True)]
    return pd.DataFrame(found, columns=list(COLUMNS))


def _best(layers: pd.DataFrame, measure: str) -> float:
    return float(curve(layers, measure)["value"].max())
