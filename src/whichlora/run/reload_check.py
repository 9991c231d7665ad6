"""Checks that a saved adapter predicts what the trained model predicted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from whichlora.config.plan import Plan
from whichlora.data.mixture import languages_of
from whichlora.errors import ProofError
from whichlora.evaluation.scores import Scores, score
from whichlora.training import base_cache

MAX_GAP = {"fp32": 0.0, "bf16": 0.2}
"""Largest gap in probability at which the reloaded adapter may predict another label, by precision.

In bf16, PiSSA is trained with rounded residual weights but reloaded onto the original base weights. The bound was set
when logits were bf16 too (until spec version 5): between 16 and 32 they were spaced 1/8 apart, the trained and the
reloaded model rounded independently, and one such step changed the gap between two labels by up to .06. It has not been
measured again since."""

_SOME = 8
"""Number of items per role that `check_reload_of_some` scores: about 1 % of the work of a packaged trial."""


def check_reload_of_some(plan: Plan, folder: Path, trained: Mapping[str, Sequence[str | None]]) -> None:
    """Load the adapter saved in `folder` and check its predictions for the first validation items of each role.

    A run scores all of them anyway; a trial has no other need to.

    Args:
        trained: the trained model's predictions by role, for all validation items.

    Raises:
        ProofError: More than one prediction of a role differs.
    """
    with base_cache.saved_model(plan, folder) as model:
        validation = {}
        for role in trained:
            items = plan.mixture.validation[role][:_SOME]
            name = f"reloaded {languages_of(items)}"
            validation[role] = score(model, plan.encoder(), items, scoring=plan.scoring, name=name)
    check_reload(plan, validation, {role: before[:_SOME] for role, before in trained.items()})


def check_reload(plan: Plan, validation: Mapping[str, Scores], trained: Mapping[str, Sequence[str | None]]) -> None:
    """Compare the saved adapter's predictions on the plain base model with those of the trained model, by role.

    Up to 2% of the predictions of a role, but at least one, may differ, because conversion and another order of
    summation change the last digits.

    Raises:
        ProofError: More predictions differ.
    """
    for role, before in trained.items():
        differing = _differing(before, validation[role], near=MAX_GAP[plan.spec.precision])
        if differing > max(1, len(before) // 50):
            raise ProofError(
                f"the saved {plan.spec.variant} adapter predicts {differing} of {len(before)} {role} validation items "
                "differently from the trained model"
            )


def _differing(before: Sequence[str | None], after: Scores, *, near: float) -> int:
    """Return the number of differing predictions.

    If `after` has probabilities, a difference counts only if the earlier label is now more than `near` less probable
    than the predicted one.
    """
    pairs = list(zip(before, after.predicted, strict=True))
    if after.probabilities is None:
        return sum(a != b for a, b in pairs)
    index = {label: i for i, label in enumerate(after.labels)}
    gaps = [p.max() - p[index[a]] for (a, _), p in zip(pairs, after.probabilities, strict=True) if a is not None]
    return sum(bool(gap > near) for gap in gaps)
