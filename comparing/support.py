"""The sentences behind the answer of a comparison: how sure, at what cost, what it rests on, what would change it."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from analysis.decimals import fixed, interval
from analysis.measures.shallow_baselines import best_floor
from analysis.naming import names_of
from analysis.report.wording import count, join
from analysis.stats.cells import rows
from analysis.stats.sequential.boundaries import FIRST_LOOK
from comparing.comparison import Comparison
from comparing.costs import Costs
from comparing.narrowed import differences
from comparing.results import OUTCOMES, Results, languages_of
from comparing.rule import Rule
from tuning.space import describe_point
from whichlora.config.cli import format_duration
from whichlora.data.language_names import join_names

_MOST_LANGUAGES = 4
_MOST_SETTINGS = 6


def support(results: Results, costs: Costs, take: str | None) -> list[str]:
    """Return the sentences, each of which fits a line or two of a terminal."""
    table, rule = results.table(), results.comparison.rule
    names = names_of(table)
    sure = f"How sure: {rule.confidence * 100:g} %, for all methods and all looks together, on {names.score} in "
    sure += f"{names.of(rule.primary)}, for these test items and seeds like these."
    return [
        sure,
        *_by_language(results, table),
        *_narrowed(results),
        cost_text(costs),
        _basis(results, table, rule, take),
        *settings_texts(results.comparison, most=_MOST_SETTINGS),
        *(f"What would change it: {text}." for text in ["; ".join(_changes(results, table, rule, take))] if text),
    ]


def cost_text(costs: Costs) -> str:
    """Return what the comparison has cost, and what the full grid would."""
    text = f"Cost: {format_duration(costs.spent)} of device time"
    text += f", {format_duration(costs.tuning)} of which for tuning" if costs.tuning else ""
    text += f"; {count(costs.runs, 'run')} used"
    known = "all" if costs.reused == costs.runs else costs.reused
    text += f", {known} of which were there already" if costs.reused else ""
    if costs.grid is not None:
        runs = count(costs.grid_runs, "run")
        text += f". All methods with all seeds would be {runs}, about {format_duration(costs.grid)}"
    return text + "."


def settings_texts(comparison: Comparison, *, most: int | None = None) -> list[str]:
    """Return what tuning has found, in a sentence for each method, language and ratio; empty if it was not used.

    Args:
        most: number of sentences after which the rest is counted; None for all.
    """
    several = len(comparison.cells) > len(comparison.methods)
    texts = []
    for cell, tuned in zip(comparison.cells, comparison.tuned, strict=False):
        plan = tuned.plan(comparison.rule.rounds[0])
        where = f" in {join_names([plan.spec.language])}, ratio {plan.spec.tl_ratio:g}" if several else ""
        best = tuned.best
        assert best is not None
        values = "the arm recommended" if best.recommended else describe_point(best.point)
        text = f"Tuned: {cell.method}{where} has {values}; {fixed(best.score * 100, 1)} points on validation items "
        text += f"(study {tuned.study}, run {tuned.run_id[:8]})"
        ends = [f"{name} is on the {end} edge of the space" for name, end in tuned.undecided.items()]
        texts.append(text + (f"; {join(ends)}." if ends else "."))
    rest = len(texts) - (len(texts) if most is None else most)
    return texts if rest <= 0 else [*texts[:most], f"Tuned: {rest} more in answer.json."]


def reach_text(results: Results, *, affordable: bool = True) -> list[str]:
    """Return what the rounds to come can still decide, in a sentence.

    Args:
        affordable: whether they end with the budget, and not only with `max_seeds`.
    """
    verdict = results.verdict if affordable else results.judge(affordable=False)
    if verdict.finished or len(results.scores) >= results.comparison.rule.max_seeds:
        return []
    if verdict.seeds < 2:
        return ["What it can decide is known after two seeds, from their spread."]
    known = [s for s in verdict.standings if s.shows_worse is not None and s.shows_level is not None]
    if not known:
        return [f"The budget does not pay for {FIRST_LOOK} seeds, before which nothing is decided."]
    worse, level = max(s.shows_worse or 0.0 for s in known), max(s.shows_level or 0.0 for s in known)
    margin = results.comparison.rule.margin
    enough = "" if level <= margin else "only "
    last = "by the end of the budget" if affordable and results.limited else "with all seeds"
    return [
        f"{last[:1].upper()}{last[1:]} a method that is {fixed(worse, 1)} points worse is dropped, and one as good as "
        f"the best is found level {enough}with a margin of {fixed(level, 1)} points or more (power 80 %)."
    ]


def _by_language(results: Results, table: pd.DataFrame) -> Iterator[str]:
    """Yield how the methods stand in each language alone, if there are several."""
    languages = languages_of(table)
    if len(languages) < 2 or results.comparison.rule.primary == "en":
        return
    for language in languages[:_MOST_LANGUAGES]:
        verdict = results.judge(language=language)
        states = {
            state: [s.method for s in verdict.standings if s.state == state] for state in ("level", "open", "dropped")
        }
        parts = [f"{verdict.standings[0].method} leads"]
        parts += [f"{join(methods)} {state}" for state, methods in states.items() if methods]
        yield f"{join_names([language])} alone: {', '.join(parts)}."
    if rest := len(languages) - _MOST_LANGUAGES:
        yield from [f"{rest} more languages: see the report."] * (rest > 0)


def _narrowed(results: Results) -> Iterator[str]:
    """Yield the differences over all seeds, if some were run after every method was decided."""
    verdict, rule = results.verdict, results.comparison.rule
    if len(results.scores) <= verdict.seeds:
        return
    kept = [standing.method for standing in verdict.standings if standing.state != "dropped"]
    found = differences(results.scores, kept[0], max_seeds=rule.max_seeds, confidence=rule.confidence)
    texts = [
        f"{d.method} {fixed(d.behind, 1)} points behind (interval {interval(*d.interval)})"
        for d in found
        if d.method in kept
    ]
    if texts:
        yield f"Over all {len(results.scores)} seeds, against {kept[0]}: {', '.join(texts)}."


def _basis(results: Results, table: pd.DataFrame, rule: Rule, take: str | None) -> str:
    seeds = list(results.scores.index)
    items = sorted(set(table["test_size"].dropna().astype(int))) if "test_size" in table else []
    method = take or results.verdict.standings[0].method
    names, parts = names_of(table), []
    for outcome in OUTCOMES[rule.primary]:
        frame, floors = rows(table, outcome), best_floor(table, outcome)
        text = f"{method} has {fixed(float(frame.loc[frame['method'] == method, 'value'].mean()), 1)} points"
        text += f" in {names.of(outcome)}"
        text += f", the best shallow baseline {fixed(float(floors['floor'].mean()), 1)}" if len(floors) else ""
        parts.append(text)
    size = f", {items[0]:,} test items a language" if len(items) == 1 else ""
    return f"It rests on {count(len(results.rows), 'run')}, seeds {seeds[0]} to {seeds[-1]}{size}; {'; '.join(parts)}."


def _changes(results: Results, table: pd.DataFrame, rule: Rule, take: str | None) -> Iterator[str]:
    """Yield what could lead to another answer."""
    if len(results.scores) < rule.max_seeds:
        yield from (text.rstrip(".") for text in reach_text(results, affordable=False))
    elif not results.verdict.finished:
        yield "more seeds, in another comparison with a higher max_seeds, which uses these runs again"
    edges = zip(results.comparison.cells, results.comparison.tuned, strict=False)
    if at_edge := list(dict.fromkeys(cell.method for cell, tuned in edges if tuned.undecided)):
        yield f"a wider search space for {join(at_edge)}"
    leader = results.verdict.standings[0].method
    for outcome in ("en", "tl"):
        if outcome not in OUTCOMES[rule.primary] and outcome in set(table["outcome"]):
            means = rows(table, outcome).groupby("method")["value"].mean()
            best = str(means.idxmax())
            if best not in (take, leader):
                yield f"in {names_of(table).of(outcome)} {best} has the highest mean"
    if take is not None:
        limit = results.verdict[take].collapse_limit
        yield f"as far as these seeds show, up to {limit * 100:.0f} % of the runs of {take} may collapse"
