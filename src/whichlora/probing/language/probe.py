"""The language probe: decodes the states after every block to tokens and detects their languages.

It follows "Which LoRA?" (arXiv 2606.10428, Figures 1 to 3), which follows Zhao et al. 2024 (arXiv 2402.18815); options
cover what neither paper specifies. A ceiling, the same detector applied to the true input, is reported with the layers,
because detectors are designed for texts and often fail on single tokens.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from whichlora.announcements import announce
from whichlora.data.batching import in_order, sorted_by_ids
from whichlora.data.detectors import MAX_BYTES, MIN_BYTES, RELIABLE
from whichlora.data.encoding import Encoded
from whichlora.models.hidden_states import EMBEDDING
from whichlora.models.memory import in_batches
from whichlora.probing.bootstrap import PoissonBootstrap
from whichlora.probing.choices import LanguageChoices
from whichlora.probing.figures import language_figure
from whichlora.probing.language import agreement
from whichlora.probing.language.classes import CLASSES, LanguageClassifier, class_shares
from whichlora.probing.language.logit_lens import LogitLens
from whichlora.probing.language.positions import NEW_TOKENS, PositionSelector
from whichlora.probing.options import LEVELS
from whichlora.probing.partial_results import Arrays, PartialResults
from whichlora.probing.request import Request, as_params
from whichlora.probing.results import PreparedProbe, ProbeResult, curve, layer_rows, points

if TYPE_CHECKING:
    import pandas as pd

    from whichlora.probing.probed_model import ProbedModel

MEASURES = tuple(f"{level}/{kind}" for level in LEVELS for kind in CLASSES)
BATCH_TOKENS = 2048


def prepare(request: Request, probed: ProbedModel) -> PreparedProbe:
    """Prepare the language probe of a model on its test items in the target language.

    Raises:
        OptionError: an option does not fit the tokenizer or the detectors.
    """
    assert isinstance(request.choices, LanguageChoices)
    probe = _LanguageProbe(probed, request.choices.for_task(probed.plan.task), request.seed)
    identity = {
        **as_params(probe.choices),
        "language": probed.language,
        "items": len(probe.items),
        "items_digest": probed.plan.tests["tl"].digest,
        **probed.other_source,
        "min_bytes": MIN_BYTES,
        "max_bytes": MAX_BYTES,
        "reliable_from": RELIABLE,
        "new_tokens": NEW_TOKENS if probe.choices.positions == "generated" else 0,
    }
    return PreparedProbe(identity=identity, measure=probe.measure)


class _LanguageProbe:
    """The language probe of one model."""

    def __init__(self, probed: ProbedModel, choices: LanguageChoices, seed: int) -> None:
        plan = probed.plan
        self.probed, self.choices, self.seed = probed, choices, seed
        # Sorted, so that prompts with a common prefix are in the same batch, where the prefix is computed once.
        self.items = sorted(plan.tests["tl"].items, key=plan.task.prompt)
        self.n_layers = plan.shape.n_layers
        source = plan.task.source
        self.classifier = LanguageClassifier(choices, plan.tokenizer, source=source)
        self.second_classifier = agreement.second_classifier(choices, plan.tokenizer, source)
        self.selector = PositionSelector(
            plan.encoder(),
            positions=choices.positions,
            special_tokens=choices.special_tokens,
        )

    def measure(self, work: Path) -> ProbeResult:
        """Measure the shares of the languages at each layer.

        Raises:
            ProofError: the last layer does not decode to the model's own prediction.
        """
        results = PartialResults(work / "parts", len(self.items))
        if not results.complete:
            with self.probed.loaded(work) as model:
                lens = LogitLens(model, self.probed.plan.shape.blocks, self.choices)
                lens.verify(self.selector.select(self.items[:1], model)[0][0])
                results.fill(
                    lambda indices: self._measure_items(indices, model, lens),
                    description=f"languages in {self.probed.name}",
                )

        announce("Computing means with intervals, comparing the detectors and drawing figures.")
        by_layer = [measure for measure in MEASURES for _ in range(EMBEDDING, self.n_layers)]
        # The text of a sequence has one language; of its tokens, each has one.
        texts = [i for i, measure in enumerate(by_layer) if measure.startswith("sequence/")]
        means = PoissonBootstrap(len(by_layer), seed=self.seed, proportions=texts)
        for part in results.read("shares"):
            means.add(part.reshape(len(part), -1))
        layers = layer_rows(MEASURES, range(EMBEDDING, self.n_layers), means.result())
        metrics = {f"ceiling/{kind}": _ceiling(layers, f"{self.choices.level}/{kind}") for kind in CLASSES}
        metrics["seconds_per_item"] = sum(float(seconds) for seconds in results.read("seconds")) / len(self.items)
        compared, differing = np.sum(list(results.read("compared")), axis=0)
        if compared:
            metrics["arithmetic/differing"] = float(differing / compared)
        if self.second_classifier:
            metrics |= agreement.kappas(results, self.classifier, self.second_classifier)
        return ProbeResult(
            layers=layers,
            metrics=metrics,
            series={f"language/{kind}": points(layers, f"{self.choices.level}/{kind}") for kind in CLASSES},
            figures={
                "languages": language_figure(
                    layers, self.probed.name, self.probed.plan.task.source, self.probed.language, self.choices
                )
            },
            files=[self._per_item(results, work / "items.parquet")],
        )

    def _measure_items(self, indices: range, model: Any, lens: LogitLens) -> Arrays:
        """Return the arrays to store for the items at these indices; `shares` is (items, measures, layers from -1)."""
        start, before = time.perf_counter(), np.array([lens.compared, lens.differing])
        items = [self.items[i] for i in indices]
        sequences, selected = self.selector.select(items, model)
        measured = np.full((len(indices), len(LEVELS), len(CLASSES), self.n_layers + 1), np.nan)
        sample = agreement.Sample(self.choices.agreement, len(self.items), self.seed)

        order, lengths = sorted_by_ids([Encoded(sequence, []) for sequence in sequences])

        def process(ranks: list[int]) -> None:
            batch = [order[k] for k in ranks]
            decoded = lens.decode([sequences[b] for b in batch], [selected[b] for b in batch])
            for b, by_block in zip(batch, decoded, strict=True):
                language = items[b].language
                true = np.array([[sequences[b][p]] for p in selected[b]], dtype=int).reshape(-1, 1)
                texts = [self.classifier.decode(tokens[:, 0]) for tokens in (true, *by_block)]
                for row, tokens in enumerate((true, *by_block)):
                    measured[b, 0, :, row] = class_shares(self.classifier.classify_tokens(tokens, language))
                    measured[b, 1, :, row] = class_shares(np.array(self.classifier.classify_text(texts[row], language)))
                sample.draw(indices[b], language, by_block, texts[1:])

        in_batches(lengths, process, divide=in_order, max_tokens=BATCH_TOKENS, max_items=len(indices))
        return {
            "shares": measured.reshape(len(indices), len(MEASURES), -1),
            "positions": np.array([len(positions) for positions in selected]),
            "compared": np.array([lens.compared, lens.differing]) - before,
            "seconds": np.array(time.perf_counter() - start),
            **sample.arrays(),
        }

    def _per_item(self, results: PartialResults, path: Path) -> Path:
        """Write a row for each item and layer: the item's id, its number of positions, and every measure."""
        ids = iter(self.items)
        fields = [("id", pa.string()), ("layer", pa.int32()), ("positions", pa.int32())]
        schema = pa.schema([*fields, *((measure, pa.float64()) for measure in MEASURES)])
        rows = self.n_layers + 1
        with pq.ParquetWriter(path, schema) as writer:
            for part, positions in zip(results.read("shares"), results.read("positions"), strict=True):
                columns = {
                    "id": np.repeat([next(ids).id for _ in part], rows),
                    "layer": np.tile(np.arange(EMBEDDING, self.n_layers), len(part)),
                    "positions": np.repeat(positions, rows),
                    **{measure: part[:, i].ravel() for i, measure in enumerate(MEASURES)},
                }
                writer.write_table(pa.table(columns).cast(schema))
        return path


def _ceiling(layers: pd.DataFrame, measure: str) -> float:
    return float(curve(layers, measure)["value"].iloc[0])
