"""Declares VeRA: one pair of frozen random matrices shared by all layers, scaled by trained vectors."""

from __future__ import annotations

from typing import Any

from whichlora.variants.base import POSITIVE, AdapterSettings, Hyperparameters, SearchSpace, Variant
from whichlora.variants.witness import check_shared


def _build(settings: AdapterSettings) -> Any:
    from peft import VeraConfig

    # The projections are drawn from the run's seed, so that they too vary between seeds, and saved, because another
    # machine may draw different numbers from the same seed.
    return VeraConfig(
        vera_dropout=settings.dropout,
        d_initial=settings.options["d_initial"],
        projection_prng_key=settings.seed,
        save_projection=True,
        **settings.common(),
    )


VERA = Variant(
    name="vera",
    title="VeRA",
    paper="Kopiczko et al. 2023, arXiv 2310.11454",
    recommended=Hyperparameters(
        rank=256,
        learning_rate=4e-3,
        epochs=1,
        batch_size=64,
        warmup=0.1,
        scheduler="cosine",
        source="the paper's instruction tuning (Llama)",
    ),
    matched_learning_rate=3e-2,
    matched_rank=256,
    space=SearchSpace(rank=(256, 512, 1024, 2048), alpha=(), epochs=(1, 3)),
    options={"d_initial": 0.1},
    option_ranges={"d_initial": POSITIVE},
    build=_build,
    expected_parameters=lambda shapes, rank, options: sum(rank + n_out for _, n_out in shapes.values()),
    witness=lambda model, evidence: check_shared(model, "vera_A", "vera_B"),
)
