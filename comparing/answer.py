"""Says what a comparison has shown: which method to take, by how much, how sure, at what cost, and what it rests on."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import pandas as pd

from analysis.decimals import fixed, interval
from analysis.measures import device_use, floored_blocks
from analysis.measures.shallow_baselines import REACHED, floor_records
from analysis.records import find
from analysis.report.choice import PARAMETERS, all_at_floor
from analysis.report.wording import count, format_points, join
from analysis.stats.sequential.verdict import Standing, Verdict
from comparing.costs import Costs
from comparing.results import OUTCOMES, Results
from comparing.support import cost_text, settings_texts, support
from whichlora.config.cli import format_duration
from whichlora.csv_text import to_csv
from whichlora.text_tables import table as text_table

DECIDED, BUDGET, MAX_SEEDS, FAILED, RUNNING = "decided", "budget", "max_seeds", "failed", "running"
"""Why a comparison has ended, or that it has not."""
HEAD = ("method", "state", "points behind", "interval", "seeds", "collapsed", "parameters", "seconds")
SECONDS = "train/seconds"
_MOST_ROWS = 7


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a comparison has shown.

    Attributes:
        ended: why it has ended, or `RUNNING`.
        take: the method to take; None if there is none yet.
        alternatives: further methods that are shown to be level with the best.
        lead: the answer in a sentence.
        sentences: what supports it.
        rows: of the table, with `HEAD`, the leader first.
    """

    ended: str
    take: str | None
    alternatives: tuple[str, ...]
    lead: str
    sentences: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def text(self, *, width: int | None) -> str:
        """Return the answer for a terminal; of many methods the table has the first ones."""
        shown, rest = self.rows[:_MOST_ROWS], len(self.rows) - _MOST_ROWS
        optional = ("seconds", "collapsed", "seeds")
        lines = [self.lead, *([text_table([HEAD, *shown], width=width, optional=optional)] if shown else [])]
        lines += [f"and {rest} more in {TABLE_NAME}"] if rest > 0 else []
        return "\n".join([*lines, *self.sentences])


TABLE_NAME = "standings.csv"


def answer_of(results: Results, costs: Costs, ended: str, reason: str = "") -> Answer:
    """Return the answer that the runs give so far.

    A method is recommended if it is shown to be less than the margin worse than the best; of several the cheapest, as
    in the advice of the report. Like there, a method whose results are not above the shallow baselines never is.

    Args:
        reason: what is to be said of how it ended.
    """
    verdict, rule = results.verdict, results.comparison.rule
    if not verdict.seeds:
        lead = "No answer yet: no seed has the runs of all methods."
        found = (_ended(ended, verdict, rule.max_seeds), reason, cost_text(costs), *settings_texts(results.comparison))
        return Answer(ended=ended, take=None, alternatives=(), lead=lead, sentences=tuple(filter(None, found)), rows=())
    table = results.table()
    low = _at_floor(table, OUTCOMES[rule.primary])
    near = [s.method for s in verdict.standings if s.state in ("leader", "level") and s.decided]
    choices = [name for name in near if name not in low]
    take, why = _cheapest(choices, table)
    sentences = [_ended(ended, verdict, rule.max_seeds), reason, *support(results, costs, take)]
    return Answer(
        ended=ended,
        take=take,
        alternatives=tuple(name for name in choices if name != take),
        lead=_lead(verdict, rule.margin, near, low, take, why),
        sentences=tuple(filter(None, sentences)),
        rows=tuple(_row(standing, table) for standing in verdict.standings),
    )


def files(answer: Answer, results: Results, costs: Costs) -> dict[str, str]:
    """Return the artifacts of the comparison's run, by name."""
    standings = [_flat(standing) for standing in results.verdict.standings]
    rule = results.comparison.rule
    content = {
        **asdict(answer),
        "head": HEAD,
        "comparison": results.comparison.digest,
        "margin": rule.margin,
        "confidence": rule.confidence,
        "primary": rule.primary,
        "max_seeds": rule.max_seeds,
        "seeds": results.verdict.seeds,
        "finished": results.verdict.finished,
        "standings": standings,
        "settings": results.comparison.settings,
        "cost": asdict(costs),
    }
    scores = results.scores.rename_axis(index="seed").reset_index()
    return {
        "answer.json": json.dumps(content, indent=1, allow_nan=False) + "\n",
        "answer.md": "\n\n".join([answer.lead, _markdown(answer), *answer.sentences]) + "\n",
        TABLE_NAME: to_csv(pd.DataFrame(standings)),
        "scores.csv": to_csv(scores),
    }


def _lead(verdict: Verdict, margin: float, near: Sequence[str], low: Sequence[str], take: str | None, why: str) -> str:
    within = format_points(margin)
    if set(low) >= {standing.method for standing in verdict.standings}:
        return "Take none: no method is shown to exceed the best shallow baseline."
    if take is None:
        at_floor = [name for name in near if name in low]
        if at_floor:
            return f"Take none: {join(at_floor)} may be the best, but is not shown to exceed the shallow baselines."
        leader = verdict.standings[0]
        still = [s.method for s in verdict.standings[1:] if s.state == "open"]
        worse = [s.method for s in verdict.standings if s.state == "dropped"]
        text = f"No answer yet: {leader.method} has the highest mean"
        text += f", and {join(still)} may be as good" if still else ""
        return text + (f"; {join(worse)} {'is' if len(worse) == 1 else 'are'} dropped." if worse else ".")
    others = [name for name in near if name not in low and name != take]
    still = [s.method for s in verdict.standings if not s.decided and s.method != take]
    if others:
        lead = f"Take {take}: {join([take, *others])} are level within {within}{why}."
    elif still:
        lead = f"Take {take}: it is at most {within} worse than the best."
    else:
        lead = f"Take {take}: every other method is dropped."
    return lead + (f" Not decided: {join(still)}." if still else "")


def _cheapest(names: Sequence[str], table: pd.DataFrame) -> tuple[str | None, str]:
    """Return the cheapest method by parameters, then by seconds of training if they can be compared, and why it is."""
    if len(names) < 2:
        return (names[0] if names else None), ""
    by_parameters = {name: _mean(table, name, PARAMETERS) for name in names}
    kept = list(names)
    if all(math.isfinite(value) for value in by_parameters.values()):
        least = min(by_parameters.values())
        kept = [name for name in names if by_parameters[name] <= least * 1.001]
        if len(kept) == 1:
            most = fixed(max(by_parameters.values()), 0)
            return kept[0], f", and it has the fewest trainable parameters ({fixed(least, 0)}, others up to {most})"
    seconds = {name: _mean(table, name, SECONDS) for name in kept}
    comparable = not device_use.not_comparable(table[table["outcome"] == "tl"], SECONDS)
    if comparable and all(math.isfinite(value) for value in seconds.values()):
        first = min(kept, key=lambda name: (seconds[name], name))
        return first, f", and it trains fastest ({format_duration(seconds[first])})"
    return kept[0], ", and it has the highest mean of them"


def _ended(ended: str, verdict: Verdict, max_seeds: int) -> str:
    after = f"after {verdict.seeds} of at most {count(max_seeds, 'seed')}"
    return {
        DECIDED: f"Every method is decided {after}.",
        BUDGET: f"The budget is spent {after}.",
        MAX_SEEDS: f"All {count(max_seeds, 'seed')} are done.",
        FAILED: f"Runs have no result, so it stopped {after}; the same command repeats them.",
        RUNNING: f"It is not finished: this is the answer {after}.",
    }[ended]


def _row(standing: Standing, table: pd.DataFrame) -> tuple[str, ...]:
    unreliable = " (collapses)" if standing.unreliable else ""
    parameters, seconds = (_mean(table, standing.method, metric) for metric in (PARAMETERS, SECONDS))
    return (
        standing.method,
        standing.state + unreliable,
        fixed(standing.behind, 1),
        interval_of(standing),
        str(standing.runs),
        str(standing.collapses),
        fixed(parameters, 0) if math.isfinite(parameters) else "",
        fixed(seconds, 1) if math.isfinite(seconds) else "",
    )


def interval_of(standing: Standing) -> str:
    """Return how much worse a method is than the best, in words."""
    low, high = standing.interval
    if math.isfinite(high):
        return interval(low, high)
    return f"at least {fixed(low, 1)}" if low > 0 else "not known"


def _at_floor(table: pd.DataFrame, outcomes: Sequence[str]) -> list[str]:
    """Return the methods that are not shown to exceed the shallow baselines in one of the outcomes (see `choice`)."""
    names: set[str] = set()
    for outcome in outcomes:
        kept, records = floored_blocks.split(table, outcome)
        if all_at_floor(records, outcome):
            names |= set(table["method"])
        reached = find(floor_records(kept, outcome), test=REACHED)
        names |= {record.groups[0] for record in reached if record.groups and (record.effect or 0.0) >= 50}
    return sorted(names)


def _mean(table: pd.DataFrame, method: str, metric: str) -> float:
    if metric not in table:
        return math.nan
    values = table.loc[(table["method"] == method) & (table["outcome"] == "tl"), metric].astype(float)
    return float(values.mean())


def _markdown(answer: Answer) -> str:
    lines = [" | ".join(row) for row in (HEAD, ("---",) * len(HEAD), *answer.rows)]
    return "\n".join(f"| {line} |" for line in lines)


def _flat(standing: Standing) -> dict[str, object]:
    """Return a standing with its interval as two values, and None in place of infinite ones, which JSON lacks."""
    values = asdict(standing)
    values["interval_low"], values["interval_high"] = values.pop("interval")
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}
