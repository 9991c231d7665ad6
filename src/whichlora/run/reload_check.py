"""Checks that a saved adapter predicts what the trained model predicted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from whichlora.config.plan import Plan
from whichlora.errors import ProofError
from whichlora.evaluation.scores import Scores

MAX_GAP = {"fp32": 0.0, "bf16": 0.2}
"""Largest gap in probability at which the reloaded adapter may predict another label, by precision.

In bf16, PiSSA is trained with rounded residual weights but reloaded onto the original base weights. The bound was set
when logits were bf16 too (until spec version 5): between 16 and 32 they were spaced 1/8 apart, the trained and the
reloaded model rounded independently, and one such step changed the gap between two labels by up to .06. It has not been
measured again since."""


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
