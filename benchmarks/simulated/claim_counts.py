"""Simulates how often a claim about a number of configurations is judged wrongly.

Run it by `python -m benchmarks.simulated.claim_counts`.

The claim is that a change helps in at least 15 of 18 configurations (six methods, three languages, three seeds). It is
false by one: the change helps a great deal in 14, chosen anew in each draw, and does nothing in the others. The second
table is of its power: the change helps in all by `LEAD` times their standard deviation. The first draws also go
through the whole path, from a table of runs to the verdict, and must give the same.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from analysis.claims.claims import Claim, judge
from analysis.stats.moderated import moderated
from benchmarks.simulated.false_alarms import markdown

METHODS, LANGUAGES, SEEDS, NEEDED, TRUE = 6, 3, 3, 15, 14
LEVELS, LEAD, MANY = (0.05, 0.01, 0.0025), 5.0, 50.0
DEVIATIONS = {
    "equal deviations": np.ones(18),
    "SD .2 and 3, half of the configurations each": np.repeat([0.2, 3.0], 9),
    "SD .3, one method with 3": np.repeat([0.3, 3.0], [15, 3]),
    "SD 3, one method with .3": np.repeat([3.0, 0.3], [15, 3]),
    "SD from .4 to 2.7": np.exp(np.linspace(-1, 1, 18)),
}
CLAIM = Claim(
    name="helps",
    says="",
    outcome="tl",
    test="configurations",
    arguments={"factor": "tl_ratio", "order": "0.01 > 0", "hold": NEEDED},
)


def draw(
    deviations: NDArray[np.float64], draws: int, *, shared: bool, true: int, lead: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return scores of shape (draws, 2, configurations, seeds), without and with the change.

    With `shared`, one adapter serves the languages of a method without the change.
    """
    rng = np.random.default_rng(1)
    count = METHODS * LANGUAGES
    scores = rng.normal(size=(draws, 2, count, SEEDS)) * deviations[:, None]
    if shared:
        scores[:, 0] = np.repeat(scores[:, 0, ::LANGUAGES], LANGUAGES, axis=1)
    order = rng.permuted(np.tile(np.arange(count), (draws, 1)), axis=1)
    scores[:, 1] += (lead * (order < true))[:, :, None]
    return scores


def p_values(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return p of the partial conjunction in each draw."""
    effect, error, df, _ = moderated((scores[:, 1] - scores[:, 0])[:, :, None, :], dispersion=1.0)
    p = np.sort(stats.t.sf(effect / error, df), axis=1)
    result: NDArray[np.float64] = np.minimum(1.0, (p.shape[1] - NEEDED + 1) * p[:, NEEDED - 1])
    return result


def runs(scores: NDArray[np.float64]) -> pd.DataFrame:
    """Return one draw as the table of its runs, with an adapter for each."""
    rows = [
        {
            "method": f"m{configuration // LANGUAGES}",
            "language": f"l{configuration % LANGUAGES}",
            "tl_ratio": 0.01 * change,
            "seed": seed,
            "outcome": "tl",
            "f1": score / 100,
        }
        for (change, configuration, seed), score in np.ndenumerate(scores)
    ]
    return pd.DataFrame(rows)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the simulations and print the shares of draws in which the claim is supported, as Markdown tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=4000)
    parser.add_argument("--checked", type=int, default=3, help="draws of each design that go through the whole path")
    options = parser.parse_args(arguments)
    for true in (TRUE, METHODS * LANGUAGES):
        shares = {}
        for name, deviations in DEVIATIONS.items():
            for shared in (False, True):
                lead = np.full(len(deviations), MANY) if true == TRUE else LEAD * deviations
                scores = draw(deviations, options.draws, shared=shared, true=true, lead=lead)
                found = p_values(scores)
                for values, p in zip(scores[: options.checked], found, strict=False):
                    evidence = judge(CLAIM, runs(values)).evidence[0]
                    assert evidence.p is not None
                    np.testing.assert_allclose(evidence.p, p)
                label = name + ", one adapter without the change" * shared
                shares[label] = {f"{level:g}": float(np.mean(found < level)) for level in LEVELS}
        print(f"\n{markdown(pd.DataFrame.from_dict(shares, orient='index'))}", flush=True)


if __name__ == "__main__":
    main()
