"""Writes the table of needs: which method has the best score, the fewest parameters, the least memory or time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from analysis.evidence import BY_LANGUAGE, BY_SETTING
from analysis.measures.costs import LATENCY, OVERLAPPING, PLACES, TIME
from analysis.measures.further_runs import HOURS, NEEDED
from analysis.naming import names_in
from analysis.records import Record, find, is_significant
from analysis.report.choice import PARAMETERS, Choice, all_at_floor, cheapest, choose, cost_of
from analysis.report.wording import count, format_points, join
from analysis.stats.best import contenders
from analysis.stats.differences import MEAN, PAIR_TESTS, PRIMARY, THESE, mean_records, pair_tests

Records = Sequence[Record]
MEMORY, SIZE = "gpu/memory_max_mb", "adapter/size_mb"


class Need(NamedTuple):
    """A row of the table of needs: what a reader may want, the methods that answer it, and how sure that is."""

    need: str
    answer: str
    detail: str


def needs(records: Records, primary: str, margin: float) -> list[Need]:
    """Return the table of needs: the best method by score, size, memory, time, language and setting."""
    choice = choose(records, primary)
    if choice is None or all_at_floor(records, primary) or not choice.candidates:
        return []
    where = names_in(records).of(primary)
    may = choice.may_be_best
    sure = "significantly better than every other" if len(may) == 1 else "do not differ significantly from each other"
    rows = [Need(f"Best score in {where}", join(may, "or"), f"{sure}; highest mean {_mean(records, primary, may)}")]
    among = f"within {format_points(margin)} of the best"
    doubt = "" if choice.recommended else f"not shown to be {among}; cheapest of those that may be the best: "
    for metric, need, unit in (
        (PARAMETERS, "Fewest trainable parameters", ""),
        (SIZE, "Smallest adapter file", " MB"),
        (MEMORY, "Least GPU memory", " MiB"),
    ):
        names = cheapest(records, choice.candidates, metric)
        if names and metric == MEMORY and (reason := _not_alone(records)):
            rows.append(Need(f"{need} {among}", "not compared", reason))
        elif names:
            cost = cost_of(records, names[0], metric) or 0.0
            amount = f"{cost:,.1f}" if metric == SIZE and cost < 100 else f"{cost:,.0f}"
            rows.append(Need(f"{need} {among}", join(names, "or"), f"{doubt}{amount}{unit}"))
    rows += _time(records, choice, TIME, f"Least training time {among}", "s", doubt)
    rows += _time(records, choice, LATENCY, f"Least time of inference, not merged, {among}", "ms a token", doubt)
    rows += [row for outcome in ("tl", "en") if outcome != primary for row in _other_outcome(records, outcome)]
    rows += _by_part(records, primary)
    return [*rows, *_undecided(records, primary, choice, margin)]


def _mean(records: Records, outcome: str, names: Sequence[str]) -> str:
    means = {r.groups[0]: r.effect or 0.0 for r in mean_records(find(records, outcome=outcome))}
    best = max(names, key=lambda name: means.get(name, 0.0))
    return f"{best}, {means.get(best, 0.0):.1f}"


def _time(records: Records, choice: Choice, analysis: str, need: str, unit: str, doubt: str) -> list[Need]:
    """Return the row of the least time, if the runs had the device to themselves and their times differ."""
    overlapping = find(records, analysis="design", test=OVERLAPPING)
    tested = [r for r in pair_tests(records, analysis) if r.p_adjusted is not None]
    if not overlapping or not tested:
        return []
    if reason := _not_alone(records):
        return [Need(need, "not compared", reason)]
    means = {r.groups[0]: r.effect or 0.0 for r in find(records, analysis=analysis, test=MEAN)}
    names = [name for name in choice.candidates if name in means]
    if not names:
        return []
    fastest = min(names, key=lambda name: means[name])
    slower = {
        next(name for name in r.groups if name != fastest) for r in tested if fastest in r.groups and is_significant(r)
    }
    equal = sorted((name for name in names if name not in slower), key=lambda name: means[name])
    amount = f"{means[fastest]:,.{0 if analysis == TIME else 1}f} {unit}"
    if len(equal) == len(names) > 1:
        return [Need(need, "no significant difference", f"{doubt}{join(equal)}, from {amount} on average")]
    also = "" if len(equal) == 1 else "; no significant difference between them"
    return [Need(need, join(equal, "or"), f"{doubt}{amount} on average{also}")]


def _not_alone(records: Records) -> str:
    """Return why figures of the device cannot be compared; "" if nothing is known against it."""
    overlapping = find(records, analysis="design", test=OVERLAPPING)
    if overlapping and overlapping[0].n:
        return f"{count(overlapping[0].n, 'run')} overlapped in time with other runs"
    places = find(records, analysis="design", test=PLACES)
    return f"the runs were done in {places[0].n} places (machines or work folders)" if places else ""


def _other_outcome(records: Records, outcome: str) -> list[Need]:
    of_outcome = find(records, outcome=outcome)
    names = contenders(of_outcome, PRIMARY)
    if not names:
        return []
    detail = f"secondary outcome; highest mean {_mean(records, outcome, names)}"
    return [Need(f"Best score in {names_in(records).of(outcome)}", join(names, "or"), detail)]


def _by_part(records: Records, primary: str) -> list[Need]:
    """Return a row for each setting, and for each language if the languages disagree."""
    rows = []
    for prefix, what in ((BY_SETTING, "In"), (BY_LANGUAGE, "For")):
        analyses = dict.fromkeys(r.analysis for r in records if r.outcome == primary and r.analysis.startswith(prefix))
        parts = {
            analysis.removeprefix(prefix): find(records, outcome=primary, analysis=analysis) for analysis in analyses
        }
        if prefix == BY_LANGUAGE and not languages_disagree(parts):
            continue
        for name, of_part in parts.items():
            best = contenders(of_part, of_part[0].analysis)
            if best:
                detail = f"5 % over {len(parts)} {'settings' if prefix == BY_SETTING else 'languages, which disagree'}"
                rows.append(Need(f"{what} {name}", join(best, "or"), detail))
    return rows


def languages_disagree(parts: dict[str, list[Record]]) -> bool:
    """Return whether no method may be the best in every language, or a pair differs in opposite directions."""
    best = [set(contenders(of_part, of_part[0].analysis)) for of_part in parts.values()]
    if len(best) > 1 and not set.intersection(*best):
        return True
    signs: dict[tuple[str, ...], set[bool]] = {}
    for of_part in parts.values():
        for r in of_part:
            if r.test in PAIR_TESTS.values() and r.interval and (r.interval[0] > 0 or r.interval[1] < 0):
                signs.setdefault(r.groups, set()).add(r.interval[0] > 0)
    return any(len(directions) > 1 for directions in signs.values())


def _undecided(records: Records, primary: str, choice: Choice, margin: float) -> list[Need]:
    """Return what would decide between the methods that may be the best, if none is recommended."""
    needed = find(records, outcome=primary, analysis=PRIMARY, test=NEEDED)
    if choice.recommended or not needed:
        return []
    need = "What would decide it"
    hopeless = [r for r in needed if r.n is None]
    if hopeless:
        return [Need(need, f"not more {_unit(records, primary)} alone", hopeless[0].note)]
    most = max(needed, key=lambda r: r.n or 0)
    hours = find(records, outcome=primary, analysis=PRIMARY, test=HOURS)
    cost = f"some {hours[0].effect:,.1f} device-hours of training" if hours and hours[0].effect is not None else ""
    listed = sorted(needed, key=lambda r: r.n or 0)
    pairs = "; ".join(f"{' and '.join(r.groups)}: {r.n:,}" for r in listed[:6])
    rest = f"; and {len(listed) - 6} more" if len(listed) > 6 else ""
    answer = f"{most.n:,} {_unit(records, primary)} in all"
    return [Need(need, answer, "; ".join(filter(None, [cost, f"by pair (power 80 %): {pairs}{rest}"])))]


def _unit(records: Records, primary: str) -> str:
    these = any(r.test == PAIR_TESTS[THESE] for r in pair_tests(find(records, outcome=primary)))
    return "seeds" if these else "blocks of language and ratio"
