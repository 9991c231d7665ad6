"""What language each layer speaks: states after every block, through the LM head to tokens, and these to a detector.

After "Which LoRA?" (arXiv 2606.10428, Figures 1 to 3), which follows Zhao et al. 2024 (arXiv 2402.18815). What neither
of them states is an option. Beside the layers stands the ceiling, the same detector on the true input: a detector of
texts is asked for single tokens here, and often cannot tell.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from whichlora.data.batching import in_order, sorted_by_ids
from whichlora.data.encoding import Encoded, Encoder
from whichlora.data.mixture import texts_digest
from whichlora.models.hidden_states import EMBEDDING
from whichlora.models.memory import in_batches
from whichlora.probing.bootstrap import Means
from whichlora.probing.detectors import MAX_BYTES, MIN_BYTES, RELIABLE
from whichlora.probing.figures import language_figure
from whichlora.probing.language import agreement
from whichlora.probing.language.classes import CLASSES, LanguageClassifier, shares
from whichlora.probing.language.logit_lens import Lens
from whichlora.probing.language.positions import NEW_TOKENS, Reader
from whichlora.probing.options import LEVELS, LanguageChoices, Request, as_params
from whichlora.probing.partial_results import Arrays, PartialResults
from whichlora.probing.results import Job, ProbeResult, by_layer, curve, points

if TYPE_CHECKING:
    import pandas as pd

    from whichlora.probing.probed_model import ProbedModel

MEASURES = tuple(f"{level}/{kind}" for level in LEVELS for kind in CLASSES)
BATCH_TOKENS = 2048


def prepare(request: Request, subject: ProbedModel) -> Job:
    """Return the language probe of a subject's target-language test items.

    Raises:
        OptionError: a choice does not go with the tokenizer or the detectors.
    """
    assert isinstance(request.choices, LanguageChoices)
    scan = _Scan(subject, request.choices.for_task(subject.plan.task), request.seed)
    identity = {
        **as_params(scan.choices),
        "language": subject.language,
        "items": len(scan.items),
        "items_digest": texts_digest(subject.plan.task, subject.plan.tests["tl"].items),
        "min_bytes": MIN_BYTES,
        "max_bytes": MAX_BYTES,
        "reliable_from": RELIABLE,
        "new_tokens": NEW_TOKENS if scan.choices.positions == "generated" else 0,
    }
    return Job(identity=identity, measure=scan.measure)


class _Scan:
    """One language probe."""

    def __init__(self, subject: ProbedModel, choices: LanguageChoices, seed: int) -> None:
        plan = subject.plan
        self.subject, self.choices, self.seed = subject, choices, seed
        # Texts that begin alike stand together, because they are read together.
        self.items = sorted(plan.tests["tl"].items, key=plan.task.prompt)
        self.n_layers = plan.shape.n_layers
        self.judge = LanguageClassifier(choices, plan.tokenizer)
        self.other = agreement.other_detector(choices, plan.tokenizer)
        self.reader = Reader(
            Encoder(plan.task, plan.tokenizer, max_length=plan.shape.context),
            positions=choices.positions,
            special_tokens=choices.special_tokens,
        )

    def measure(self, work: Path) -> ProbeResult:
        """Measure the shares of languages by layer.

        Raises:
            ProofError: the last layer does not decode to the model's own prediction.
        """
        parts = PartialResults(work / "parts", len(self.items))
        if not parts.complete:
            with self.subject.model(work) as model:
                lens = Lens(model, self.subject.plan.shape.blocks, self.choices)
                lens.prove(self.reader.read(self.items[:1], model)[0][0])
                parts.measure(lambda part: self._part(part, model, lens), name=f"languages in {self.subject.name}")

        means = Means(len(MEASURES) * (self.n_layers + 1), seed=self.seed)
        for part in parts.read("shares"):
            means.add(part.reshape(len(part), -1))
        layers = by_layer(MEASURES, range(EMBEDDING, self.n_layers), means.result())
        metrics = {f"ceiling/{kind}": _ceiling(layers, f"{self.choices.level}/{kind}") for kind in CLASSES}
        metrics["seconds_per_item"] = sum(float(seconds) for seconds in parts.read("seconds")) / len(self.items)
        compared, differing = np.sum(list(parts.read("compared")), axis=0)
        if compared:
            metrics["arithmetic/differing"] = float(differing / compared)
        if self.other:
            metrics |= agreement.kappas(parts, self.judge, self.other)
        return ProbeResult(
            layers=layers,
            metrics=metrics,
            series={f"language/{kind}": points(layers, f"{self.choices.level}/{kind}") for kind in CLASSES},
            figures={"languages": language_figure(layers, self.subject.name, self.subject.language, self.choices)},
            files=[self._per_item(parts, work / "items.parquet")],
        )

    def _part(self, part: range, model: Any, lens: Lens) -> Arrays:
        """Return what is stored of some items: `shares` is (items, measures, layers from -1 on)."""
        start, before = time.perf_counter(), np.array([lens.compared, lens.differing])
        items = [self.items[i] for i in part]
        sequences, wanted = self.reader.read(items, model)
        found = np.full((len(part), len(LEVELS), len(CLASSES), self.n_layers + 1), np.nan)
        sample = agreement.Sample(self.choices.agreement, len(self.items), self.seed)

        order, lengths = sorted_by_ids([Encoded(sequence, []) for sequence in sequences])

        def take(places: list[int]) -> None:
            batch = [order[k] for k in places]
            decoded = lens.tokens([sequences[b] for b in batch], [wanted[b] for b in batch])
            for b, by_block in zip(batch, decoded, strict=True):
                own = np.array([[sequences[b][p]] for p in wanted[b]], dtype=int).reshape(-1, 1)
                texts = [self.judge.text_of(tokens[:, 0]) for tokens in (own, *by_block)]
                for row, tokens in enumerate((own, *by_block)):
                    found[b, 0, :, row] = shares(self.judge.of_tokens(tokens, items[b].language))
                    found[b, 1, :, row] = shares(np.array(self.judge.of_text(texts[row], items[b].language)))
                sample.take(part[b], items[b].language, by_block, texts[1:])

        in_batches(lengths, take, divide=in_order, max_tokens=BATCH_TOKENS, max_items=len(part))
        return {
            "shares": found.reshape(len(part), len(MEASURES), -1),
            "positions": np.array([len(w) for w in wanted]),
            "compared": np.array([lens.compared, lens.differing]) - before,
            "seconds": np.array(time.perf_counter() - start),
            **sample.arrays(),
        }

    def _per_item(self, parts: PartialResults, path: Path) -> Path:
        """Write a row an item and layer: the item's id, its number of positions, and every measure; part by part."""
        ids = iter(self.items)
        fields = [("id", pa.string()), ("layer", pa.int32()), ("positions", pa.int32())]
        schema = pa.schema([*fields, *((measure, pa.float64()) for measure in MEASURES)])
        rows = self.n_layers + 1
        with pq.ParquetWriter(path, schema) as writer:
            for part, positions in zip(parts.read("shares"), parts.read("positions"), strict=True):
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
