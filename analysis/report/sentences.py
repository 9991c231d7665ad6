"""Writes the report's sentences from records alone, so that the same records give the same words."""

from __future__ import annotations

from collections.abc import Sequence

from analysis.decimals import interval
from analysis.measures.shallow_baselines import REACHED, count_with_floor
from analysis.records import Record, find
from analysis.stats.differences import (
    DETECTABLE,
    OTHER,
    PAIR_TESTS,
    PRIMARY,
    SAME,
    THESE,
    mean_records,
    pair_tests,
)
from analysis.stats.groupings import LETTERS, TEXT
from analysis.stats.paired import MCNEMAR

ALPHA = 0.05
NAMES = {"en": "English", "tl": "the target language"}
Records = Sequence[Record]


def answer(records: Records, outcome: str, margin: float) -> list[str]:
    """Return the answer for an outcome: which methods differ, on which question, and the detectable difference.

    Everything follows from the pairs of the primary analysis; the last sentence gives the other scope's answer.
    """
    of_outcome = find(records, outcome=outcome)
    where = f"In {NAMES[outcome]}"
    compared = pair_tests(of_outcome)
    tested = [r for r in compared if r.p_adjusted is not None]
    means = _ordered_means(of_outcome)
    if not tested:
        why = compared[0].note.removeprefix("no test: ") if compared else "there are no runs"
        sentences = [f"{where} no test of the methods can be made: {why}."]
        if len(means) > 1:
            top = f"{means[0][1]:.1f}"
            best = [name for name, mean in means if f"{mean:.1f}" == top]
            caveat = ", but not all methods ran in the same cells" * _incomplete(records)
            subject = f"{_and(best)} {'has' if len(best) == 1 else 'have'}"
            sentences.append(f"{subject} the highest mean F1, {top}{caveat}.")
        return [*sentences, *_by_item(of_outcome, means), *_other_scope(of_outcome)]
    sentences = []
    about = _about(tested)
    significant = [r for r in tested if (r.p_adjusted or 0.0) < ALPHA]
    equivalences = find(of_outcome, analysis=PRIMARY, test=SAME)
    same = [r for r in equivalences if r.p_adjusted is not None and r.p_adjusted < ALPHA]
    if significant:
        count = f"{len(significant)} of {_count(len(tested), 'pair')} of methods differ{'s' * (len(tested) == 1)}"
        sentences.append(f"{where} {count} {about}: {_order(of_outcome)}.")
        if lead := _lead(of_outcome, means):
            sentences.append(lead)
        if same and len(means) > 2:
            sentences.append(f"Equivalent within {format_points(margin)}: {_pairs(same)}.")
    elif equivalences and len(same) == len(compared):
        shown = f"{_all_pairs(equivalences)} within {format_points(margin)} (TOST)"
        sentences.append(f"{where} the methods are equivalent {about}: {shown}.")
    else:
        result = f"no difference between the methods was found {about}"
        sentences.append(f"{where} {result}, which does not show that there is none.")
        names = f": {_pairs(same)}" if same else ""
        sentences.append(
            f"{len(same)} of {_count(len(tested), 'pair')} are shown to be equivalent within {format_points(margin)}"
            f"{names}."
        )
    least = next((r for r in find(of_outcome, analysis=PRIMARY, test=DETECTABLE) if r.effect is not None), None)
    if least is not None and least.effect is not None:
        sentences.append(f"Minimum detectable difference of a pair: {least.effect:.1f} points (power 80 %).")
    return [*sentences, *_other_scope(of_outcome)]


def _about(tested: Records) -> str:
    """Return the words that say which question the tests of pairs answer."""
    if tested[0].test == PAIR_TESTS[THESE]:
        return "on these languages and ratios (error: seeds)"
    return "on other languages and ratios like these (error: how differences vary between them)"


def _other_scope(records: Records) -> list[str]:
    """Return one sentence with the answer to the question that is not the primary one."""
    compared = pair_tests(records, OTHER)
    tested = [r for r in compared if r.p_adjusted is not None]
    if not tested:
        return []
    significant = [r for r in tested if (r.p_adjusted or 0.0) < ALPHA]
    count = f"{len(significant)} of {_count(len(tested), 'pair')}"
    order = f": {_order(records, f'groupings, {OTHER}')}" if significant else ""
    about = _about(tested)
    return [f"{about[:1].upper()}{about[1:]}, {count} {'differ' if len(tested) > 1 else 'differs'}{order}."]


def advice(records: Records) -> list[str]:
    """Recommend methods: those not significantly below the best on either outcome, and the cheapest of them.

    The level is that of both outcomes together: a method is left out if its adjusted p is below half of ALPHA in one.
    A method with half or more of its results at or below the floor has not been shown to learn the task and is never
    recommended.
    """
    leading: set[str] | None = None
    low: set[str] = set()
    by_item = []
    for outcome in ("en", "tl"):
        of_outcome = find(records, outcome=outcome)
        tested = [r for r in pair_tests(of_outcome) if r.p_adjusted is not None]
        if not tested:
            return []
        best = _ordered_means(of_outcome)[0][0]
        below = {
            next(name for name in r.groups if name != best)
            for r in tested
            if best in r.groups and (r.p_adjusted or 0.0) < ALPHA / len(NAMES)
        }
        group = {name for name, _ in _ordered_means(of_outcome)} - below
        leading = group if leading is None else leading & group
        low |= {
            r.groups[0] for r in find(of_outcome, analysis="floors", test=REACHED) if r.groups and (r.effect or 0) >= 50
        }
        by_item.append((best, _fewer_right(of_outcome, best)))
    both = "in both English and the target language"
    if not leading:
        return [f"No method is among the best {both}."]
    if leading <= low:
        candidates = f"{_and(sorted(leading))}, which do not differ significantly from the best"
        return [f"No method is recommended. Of {candidates}, none has most of its results above the floor {both}."]
    excluded = sorted(leading & low)
    leading -= low
    exclusion = [f"Not {_and(excluded)}: half or more of its results are not above the floor."] if excluded else []
    if len(leading) == 1:
        return [f"{next(iter(leading))} alone is among the best {both}.", *exclusion]
    sentences = [
        f"Among the best {both} (no significant difference from the best, at 5 % over both): {_and(sorted(leading))}.",
        *exclusion,
    ]
    for language, (best, fewer) in zip(NAMES.values(), by_item, strict=True):
        if fewer & leading:
            sentences.append(
                f"Item by item these adapters of {_and(sorted(fewer & leading))} answer fewer right than those of "
                f"{best} in {language} (McNemar, Holm)."
            )
    cheapest: dict[str, list[str]] = {}
    for metric, what in (
        ("adapter/trainable_parameters", "the fewest trainable parameters"),
        ("train/seconds", "the least time"),
    ):
        costs = {r.groups[0]: r.effect for r in find(records, outcome="tl", analysis="pareto", test=metric)}
        known = sorted((cost, name) for name, cost in costs.items() if name in leading and cost is not None)
        if known:
            names = [name for cost, name in known if cost == known[0][0]]
            unit = " s" if metric == "train/seconds" else ""
            subject = f"{_and(names)} {'has' if len(names) == 1 else 'have'}"
            cheapest.setdefault(subject, []).append(f"{what} ({known[0][0]:,.0f}{unit})")
    clauses = [f"{subject} {' and '.join(costs)}" for subject, costs in cheapest.items()]
    return [*sentences, f"Of these {' and '.join(clauses)}."] if clauses else sentences


def scope(records: Records) -> str:
    """Return the size of the design: runs, adapters, methods, languages, ratios and seeds."""
    n = {r.test: r.n or 0 for r in find(records, analysis="design")}
    sentences = []
    if n["runs used"]:
        parts = [_count(n["methods"], "method"), _count(n["languages"], "target language")]
        parts += [_count(n["ratios"], "ratio"), _count(n["seeds"], "seed")]
        settings = f" in {_count(n['settings'], 'setting')}" if n["settings"] > 1 else ""
        runs = f"{_count(n['runs used'], 'run')} with {_count(n['adapters'], 'adapter')}{settings}"
        sentences.append(f"{runs}: {', '.join(parts)}.")
    if "injection runs" in n:
        parts = [_count(n[f"injection {what}s"], what) for what in ("method", "language", "seed")]
        runs = f"{_count(n['injection runs'], 'run')} of lexical injection"
        sentences.append(f"{runs} with {_count(n['injection adapters'], 'adapter')}: {', '.join(parts)}.")
    return " ".join(sentences)


def cautions(records: Records, synthetic: Sequence[str]) -> list[str]:
    """Return the limitations of these results, a sentence each; `synthetic` names the invented data sets."""
    n = {r.test: r.n or 0 for r in find(records, analysis="design")}
    sentences = []
    if synthetic:
        sentences.append(
            f"Synthetic data ({_and(list(synthetic))}): a test of the platform, not of language understanding."
        )
    seeds = min((n[key] for key in ("seeds", "injection seeds") if n.get(key)), default=0)
    if seeds == 1:
        sentences.append("One seed: what differs between seeds is not known, and every difference may be chance.")
    elif seeds == 2:
        sentences.append("Two seeds are too few to know what differs between seeds.")
    items = n.get("test items a run, least")
    if items is not None and items < 1000:
        sentences.append(
            f"Few test items ({items:,} in the smallest test set): F1 of one run is uncertain by several points."
        )
    if n["incomplete cells"]:
        sentences.append(f"The design is incomplete: {_count(n['incomplete cells'], 'cell')} without all seeds.")
    for outcome, language in NAMES.items():
        reached = find(records, outcome=outcome, analysis="floors", test=REACHED)
        methods = [f"{r.groups[0]} ({r.n})" for r in reached if r.groups and r.n]
        if methods:
            total = sum(r.n or 0 for r in reached if r.groups)
            floors, results = count_with_floor(records, outcome)
            of = f"{results} results" if floors == results else f"the {floors} results with a floor (of {results})"
            sentences.append(
                f"{total} of {of} in {language} {'is' if total == 1 else 'are'} not above the floor, the best "
                f"shallow method on the same items: {_and(methods)}."
            )
    if unfinished := n["unfinished runs"]:
        sentences.append(f"{_count(unfinished, 'run')} {'is' if unfinished == 1 else 'are'} not finished.")
    if unusable := n["failed runs"] + n["runs that lack a needed value"]:
        sentences.append(f"{_count(unusable, 'run')} without a usable result.")
    return sentences


def format_points(margin: float) -> str:
    """Format a number of F1 points."""
    return f"{margin:g} point{'' if margin == 1 else 's'}"


def _order(records: Records, analysis: str = "groupings") -> str:
    """Return the methods as "A = B > C" where they fall into groups, else with their grouping letters."""
    grouped = find(records, analysis=analysis)
    text = next(iter(find(grouped, test=TEXT)), None)
    if text is not None and " > " in text.note and not text.note.startswith("no "):
        order = text.note.partition(" ('=': ")[0]
        return f"{order} ('=': no significant difference)" if " = " in order else order
    lettered = ", ".join(f"{r.groups[0]} ({r.note})" for r in find(grouped, test=LETTERS))
    return f"from the highest mean down {lettered}; methods that share a letter do not differ significantly"


def _incomplete(records: Records) -> bool:
    """Return whether some methods lack cells that others have."""
    return any(r.n for r in find(records, analysis="design", test="incomplete cells"))


def _by_item(records: Records, means: Sequence[tuple[str, float]]) -> list[str]:
    """Compare these adapters item by item, for designs in which the methods themselves cannot be tested."""
    tested = [r for r in find(records, analysis="paired", test=MCNEMAR) if r.p_adjusted is not None]
    if not tested or not means:
        return []
    significant = [r for r in tested if (r.p_adjusted or 0.0) < ALPHA]
    best = means[0][0]
    with_best = {next(iter({*r.groups} - {best})) for r in tested if best in r.groups}
    similar = sorted(with_best - {name for r in significant if best in r.groups for name in r.groups})
    text = f"Item by item {len(significant)} of {len(tested)} pairs of these adapters differ (McNemar, Holm)"
    result = (
        f"no significant difference from {best}: {_and(similar)}" if similar else f"{best} differs from every other"
    )
    return [f"{text}; {result}. Other seeds may give another order."]


def _fewer_right(records: Records, best: str) -> set[str]:
    """Return the methods whose adapters have significantly fewer items right than those of the best."""
    methods = set()
    for r in find(records, analysis="paired", test=MCNEMAR):
        if best in r.groups and r.p_adjusted is not None and r.p_adjusted < ALPHA and r.effect is not None:
            ahead = r.groups[0] if r.effect > 0 else r.groups[1]
            methods |= {*r.groups} - {best} if ahead == best else set()
    return methods


def _lead(records: Records, means: Sequence[tuple[str, float]]) -> str:
    """Return how far the best is above the worst, with the interval; empty if that pair was not tested."""
    best, worst = means[0][0], means[-1][0]
    record = next((r for r in pair_tests(records) if {best, worst} == set(r.groups)), None)
    if record is None or record.effect is None or record.interval is None:
        return ""
    sign = 1 if record.groups[0] == best else -1
    low, high = sorted(sign * end for end in record.interval)
    return f"{best} is {sign * record.effect:.1f} points above {worst} (95 % CI over all pairs {interval(low, high)})."


def _ordered_means(records: Records) -> list[tuple[str, float]]:
    """Return the methods and their mean F1, best first: adjusted for blocks if available, else over all runs."""
    means = mean_records(records) or find(records, analysis="description", test="mean F1")
    return sorted(((r.groups[0], r.effect or 0.0) for r in means), key=lambda pair: (-pair[1], pair[0]))


def _pairs(records: Records, most: int = 4) -> str:
    names = [" and ".join(r.groups) for r in records]
    rest = len(names) - most
    return "; ".join(names[:most]) + (f"; and {rest} more pair{'s' * (rest > 1)}" if rest > 0 else "")


def _all_pairs(records: Records) -> str:
    return f"all {len(records)} pairs" if len(records) > 1 else _pairs(records)


def _and(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _count(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"
