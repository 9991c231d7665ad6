"""Prints the comparison of two runs for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import fill

from mlflow.entities import Run

from analysis.decimals import fixed, interval
from analysis.two_runs.answers import Comparison
from analysis.two_runs.params import Differences
from whichlora.text_tables import table

_COSTS = {
    "train/seconds": "seconds of training",
    "adapter/trainable_parameters": "trainable parameters",
    "host/memory_max_mb": "host memory, MiB",
    "gpu/memory_max_mb": "GPU memory, MiB",
    "gpu/energy_j": "GPU energy, J",
    "adapter/file_bytes": "bytes of the adapter's files",
    "train/price": "price of training",
    "inference/token_ms": "inference, ms a token",
}
_DECIMALS = {"train/price": 4, "inference/token_ms": 1}


def report(
    first: Run,
    second: Run,
    groups: Mapping[str, Differences],
    comparisons: Sequence[Comparison],
    *,
    items: int,
    width: int | None,
) -> str:
    """Return the comparison as text: who they are, what differs, costs, scores with tests, and differing answers.

    Args:
        items: number of differing answers that are listed of each test set.
        width: number of cells in a line; None for no limit.
    """
    blocks = [_who(first, second, width), *(_group(title, group, width) for title, group in groups.items())]
    blocks += [_costs(first, second, width), _scores(comparisons, width)]
    blocks += [_answers(comparison, items, width) for comparison in comparisons]
    return "\n".join(filter(None, blocks))


def _who(first: Run, second: Run, width: int | None) -> str:
    rows = [("", "run", "name", "kind", "status")]
    for title, run in (("first", first), ("second", second)):
        kind = run.data.tags.get("whichlora.kind", "other")
        rows.append((title, run.info.run_id[:8], run.info.run_name or "", kind, run.info.status.lower()))
    lines = [table(rows, width=width, whole=("run",), optional=("kind", "status"))]
    tags = first.data.tags, second.data.tags
    for tag, text in (
        ("fingerprint", "one spec"),
        ("training_fingerprint", "one adapter: what is trained is the same"),
    ):
        values = {t.get(f"whichlora.{tag}") for t in tags}
        if len(values) == 1 and None not in values:
            lines.append(f"Both have {text}.")
            break
    return "\n".join(lines)


def _group(title: str, group: Differences, width: int | None) -> str:
    different, total = len(group.values), len(group.values) + group.same
    if not different:
        return f"{title.capitalize()}: all {total} values are equal." if total else ""
    rows = [("", "first", "second"), *((name, *values) for name, values in group.values.items())]
    head = _wrapped(
        f"{title.capitalize()}: {different} of {total} values {'differs' if different == 1 else 'differ'}:", width
    )
    return f"{head}\n{table(rows, width=width)}"


def _costs(first: Run, second: Run, width: int | None) -> str:
    rows = [
        (title, *(fixed(run.data.metrics[key], _DECIMALS.get(key, 0)) for run in (first, second)))
        for key, title in _COSTS.items()
        if key in first.data.metrics and key in second.data.metrics
    ]
    return f"Cost:\n{table([('', 'first', 'second'), *rows], width=width)}" if rows else ""


def _scores(comparisons: Sequence[Comparison], width: int | None) -> str:
    if not comparisons:
        return "The runs have no test set in common."
    metrics = {score.metric for c in comparisons for score in c.scores}
    head = ("test set", *(f"{title} {' / '.join(sorted(metrics))}" for title in ("first", "second")), "difference")
    rows: list[tuple[str, ...]] = [(*head, "95 % CI", "p", "only first", "only second", "alike", "items")]
    for c in comparisons:
        one, two = (score.value for score in c.scores)
        row = (c.test_set, fixed(100 * one, 1), fixed(100 * two, 1), fixed(100 * (one - two), 1, sign=True))
        if c.items is None:
            rows.append((*row, *"-" * 6))
            continue
        only_first, only_second = c.discordant()
        found = c.difference.interval if c.difference else None
        tested = c.mcnemar if c.right else c.difference
        counts = (only_first, only_second, len(c.items) - only_first - only_second, len(c.items))
        p = "-" if tested is None or tested.p is None else _p(tested.p)
        rows.append((*row, interval(*found) if found else "-", p, *(f"{n:,}" for n in counts)))
    notes = [f"{c.test_set}: {c.unlike}, so there is no paired test." for c in comparisons if c.unlike]
    lines = (_wrapped(text, width) for text in (*notes, *_explained(comparisons)))
    return "\n".join(["Scores:", table(rows, width=width, optional=("items", "alike")), *lines])


def _explained(comparisons: Sequence[Comparison]) -> list[str]:
    """Return what the columns are, and what the tests do not say."""
    tested = [c for c in comparisons if c.items is not None]
    if not tested:
        return []
    right = "McNemar's exact test" if any(c.right for c in tested) else ""
    parts = "the bootstrap for answers scored in parts" if any(not c.right for c in tested) else ""
    lines = [
        "Scores and differences are in points; intervals are from a paired bootstrap over items, p from "
        f"{' and '.join(filter(None, (right, parts)))}. only first, only second: items that only this run answers "
        "right, or better.",
        "The tests compare these two adapters. Comparing the methods takes several seeds: `whichlora analyze`.",
    ]
    if parts:
        lines.insert(1, "Answers in parts: token F1 with the first accepted answer, and tied translations share a hit.")
    return lines


def _answers(comparison: Comparison, items: int, width: int | None) -> str:
    """Return the number of differing answers, and the first of them."""
    if comparison.items is None:
        return ""
    frame = comparison.differing()
    title = f"{comparison.test_set}: {len(frame):,} of {len(comparison.items):,} answers differ"
    if not items or frame.empty:
        return f"{title}."
    rows = [("item", "right answer", "first", "second")]
    rows += [
        (str(row[0]), str(row[1]), str(row[2]), str(row[3]))
        for row in frame.head(items)[["id", "gold", "first", "second"]].to_numpy()
    ]
    return f"{title}{', such as' if len(frame) > items else ''}:\n{table(rows, width=width)}"


def _wrapped(text: str, width: int | None) -> str:
    return fill(text, width or 120, break_on_hyphens=False)


def _p(value: float) -> str:
    return f"{value:.3f}" if value >= 0.001 else f"{value:.1e}"
