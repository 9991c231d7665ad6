"""Measures retrieval of answer sentences by averaged states at each layer, on XQuAD-R (LAReQA), a subset if need be.

Every question searches the sentences of all chosen languages, and its answer in each of them counts. A sentence in the
language of the question that does not answer it must therefore not be nearer than a translation of the answer, which is
what LAReQA calls strong alignment. The authors encode a sentence with its paragraph by a trained encoder; here a
question and a sentence are each a text of their own, and nothing is trained.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from whichlora.announcements import announce
from whichlora.data.word_pooling import retrieval_layer
from whichlora.errors import check_choice, parse_unless
from whichlora.evaluation.ranking import tied_groups
from whichlora.evaluation.translation_similarity import BLOCK, subtract, unit_norm_blocks
from whichlora.models.hidden_states import EMBEDDING
from whichlora.option_lists import parse_list
from whichlora.probing.averaged_states import averages
from whichlora.probing.bootstrap import PoissonBootstrap
from whichlora.probing.choices import RetrievalChoices
from whichlora.probing.figures import retrieval_figure
from whichlora.probing.partial_results import PartialResults
from whichlora.probing.request import Request, as_params
from whichlora.probing.results import PreparedProbe, ProbeResult, at_layer, curve, layer_rows, points
from whichlora.probing.retrieval import xquad_r
from whichlora.probing.retrieval.precision import DEPTH, average_precision, expected_precision

if TYPE_CHECKING:
    from whichlora.probing.probed_model import ProbedModel

SPACES = ("raw", "centred")
Array = np.ndarray[Any, Any]


def prepare(request: Request, probed: ProbedModel) -> PreparedProbe:
    """Prepare the retrieval probe.

    Raises:
        OptionError: the data cannot be read, or has too few questions.
    """
    assert isinstance(request.choices, RetrievalChoices)
    parse = partial(parse_unless, "auto", partial(check_choice, choices=xquad_r.LANGUAGES))
    codes = xquad_r.LANGUAGES if request.language is None else parse_list("language", request.language, parse)
    probe = _RetrievalProbe(request, probed, tuple(code for code in xquad_r.LANGUAGES if code in codes))
    data = probe.data
    identity = {
        **as_params(request.choices),
        "data": "xquad-r",
        "language": ",".join(probe.languages),
        "subset": str(probe.languages != xquad_r.LANGUAGES or request.items is not None).lower(),
        "items": len(data.questions),
        "candidate_sentences": len(data.candidates),
        "items_digest": hashlib.sha256(json.dumps([data.questions, data.candidates]).encode()).hexdigest(),
    }
    return PreparedProbe(identity=identity, measure=probe.measure)


class _RetrievalProbe:
    """The retrieval probe of one model."""

    def __init__(self, request: Request, probed: ProbedModel, languages: tuple[str, ...]) -> None:
        assert isinstance(request.choices, RetrievalChoices)
        self.probed, self.choices, self.seed, self.languages = probed, request.choices, request.seed, languages
        self.data = xquad_r.read(languages, request.data_dir, request.items)
        self.measures = tuple(f"map20/{space}" for space in SPACES)
        self.measures += tuple(f"map20/{space}/{code}" for space in SPACES for code in languages)
        self.measures += tuple(f"own_language/{space}" for space in SPACES)

    def measure(self, work: Path) -> ProbeResult:
        """Measure mAP@20, also by the question's language, and the share of first results in that language."""
        texts = [text for _, text in (*self.data.questions, *self.data.candidates)]
        results = PartialResults(work / "parts", len(texts))
        if not results.complete:
            with self.probed.loaded(work) as model:
                results.fill(
                    lambda part: averages(self.probed, model, [texts[i] for i in part], self.choices.first_token),
                    description=f"retrieval in {self.probed.name}",
                )
        announce("Searching the sentences at each layer, with intervals, and drawing figures.")
        rows, n_layers = [], self.probed.plan.shape.n_layers
        shares = [i for i, name in enumerate(self.measures) if name.startswith("own_language/")]
        for layer in range(EMBEDDING, n_layers):
            means = PoissonBootstrap(len(self.measures), seed=self.seed, proportions=shares)
            means.add(self._values(results.gather(f"layer{layer}", work / "states.npy")))
            rows.append(layer_rows(self.measures, [layer], means.result()))
        layers = pd.concat(rows, ignore_index=True)
        chance = float(np.mean([expected_precision(len(r), len(self.data.candidates)) for r in self.data.relevant]))
        headline = retrieval_layer(n_layers)
        metrics = {"chance/map20": chance, "headline/layer": float(headline)}
        metrics |= {f"headline/{name}": at_layer(layers, name, headline) for name in self.measures}
        metrics |= {f"best/map20/{space}": float(curve(layers, f"map20/{space}")["value"].max()) for space in SPACES}
        for name in (f"map20/{space}" for space in SPACES):
            metrics |= {f"headline/{name}_{end}": at_layer(layers, name, headline, end) for end in ("low", "high")}
        return ProbeResult(
            layers=layers,
            metrics=metrics,
            series={f"retrieval/map20/{space}": points(layers, f"map20/{space}") for space in SPACES},
            figures={"retrieval": retrieval_figure(layers, self.probed.name, self.languages, chance)},
        )

    def _values(self, states: Array) -> Array:
        """Return the values of the measures for each question, (questions, measures), from the states of all texts."""
        unit = np.concatenate([block for _, block in unit_norm_blocks(states)])
        count = len(self.data.questions)
        asked, found = ([code for code, _ in texts] for texts in (self.data.questions, self.data.candidates))
        precision, own = [], []
        for space in SPACES:
            questions, candidates = unit[:count], unit[count:]
            if space == "centred":
                questions, candidates = _centred(questions, asked), _centred(candidates, found)
            of_space = [
                (average_precision(relevant, groups), np.mean(np.array(found)[groups[0]] == code))
                for relevant, code, groups in zip(
                    self.data.relevant, asked, _ranked(questions, candidates), strict=True
                )
            ]
            precision.append(np.array(of_space)[:, 0])
            own.append(np.array(of_space)[:, 1])
        of = np.array(asked)
        by_language = [np.where(of == code, values, np.nan) for values in precision for code in self.languages]
        return np.stack([*precision, *by_language, *own], axis=1)


def _centred(states: Array, languages: list[str]) -> Array:
    """Return states minus the mean of their language, scaled to unit length."""
    centred = np.empty_like(states)
    of = np.array(languages)
    for code in dict.fromkeys(languages):
        centred[of == code] = subtract(states[of == code], states[of == code].mean(0))
    return centred


def _ranked(questions: Array, candidates: Array) -> Iterator[list[Array]]:
    """Yield the first `DEPTH` candidates of each question, in groups of those that are tied."""
    for start in range(0, len(questions), BLOCK):
        for similarities in questions[start : start + BLOCK] @ candidates.T:
            yield tied_groups(similarities, DEPTH)
