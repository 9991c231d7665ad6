"""Plain sentences, each made from records and from nothing else: the same records give the same words."""

from __future__ import annotations

from collections.abc import Sequence

from analysis.measures.shallow_baselines import REACHED, count_with_floor
from analysis.records import Record, find
from analysis.stats.blocked import F_TEST, MEAN, PAIR_TEST
from analysis.stats.equivalence import PAIR_TEST as TOST
from analysis.stats.groupings import LETTERS, TEXT
from analysis.stats.own_errors import F_TEST as CORRECTED
from analysis.stats.own_errors import PAIR_TEST as OWN_PAIR
from analysis.stats.own_errors import SPHERICITY
from analysis.stats.paired import MCNEMAR
from analysis.stats.power import DETECTABLE

ALPHA = 0.05
NAMES = {"en": "English", "tl": "the target language"}
ONE_BLOCK = "there is one block only"
Records = Sequence[Record]


def answer(records: Records, outcome: str, margin: float) -> list[str]:
    """Say which methods are better on an outcome, whether that is real, and how much would have been seen."""
    own = find(records, outcome=outcome)
    where = f"In {NAMES[outcome]}"
    test = next(iter(find(own, analysis="blocked", test=F_TEST)), None)
    means = _ordered_means(own)
    if test is None or test.p is None:
        why = test.note.removeprefix("no test: ").partition("; a block")[0] if test else "there are no runs"
        if why == ONE_BLOCK:
            why = f"{why}, that is one mixture and one seed"
        sentences = [f"{where} no test of the methods can be made: {why}."]
        if len(means) > 1:
            top = f"{means[0][1]:.1f}"
            best = [name for name, mean in means if f"{mean:.1f}" == top]
            own_cells = ", but not all methods ran in the same cells" * _incomplete(records)
            who = f"{_and(best)} {'has' if len(best) == 1 else 'have'}"
            sentences.append(f"{who} the highest mean F1, {top}{own_cells}.")
        return sentences + _by_item(own, means)
    sentences = []
    tested = find(own, analysis="equivalence", test=TOST)
    same = [r for r in tested if r.p_adjusted is not None and r.p_adjusted < ALPHA]
    if test.p < ALPHA:
        sentences.append(f"{where} the methods differ ({fisher(test)}): {_order(own)}.")
        if lead := _lead(own, means):
            sentences.append(lead)
        if same and len(means) > 2:
            sentences.append(f"Equivalent within {points(margin)}: {_pairs(same)}.")
    elif tested and len(same) == len(tested):
        sentences.append(f"{where} the methods are equivalent: {_every(tested)} within {points(margin)} (TOST).")
    else:
        found = f"no difference between the methods was found ({fisher(test)})"
        sentences.append(f"{where} {found}, which does not show that there is none.")
        shown = f": {_pairs(same)}" if same else ""
        sentences.append(
            f"{len(same)} of {len(tested)} pairs are shown to be equivalent within {points(margin)}{shown}."
        )
    uneven = next(iter(find(own, analysis="own errors", test=SPHERICITY)), None)
    if uneven is not None and uneven.p is not None and uneven.p < ALPHA:
        allowed = find(own, analysis="own errors", test=CORRECTED)[0]
        sentences.append(
            f"But pairs differ in their errors ({probability(uneven.p)}); with that allowed for, the methods' "
            f"{probability(allowed.p)} (Greenhouse-Geisser), and {_apart(own)}."
        )
    least = next((r for r in find(own, analysis="power", test=DETECTABLE) if r.effect is not None), None)
    if least is not None and least.effect is not None:
        sentences.append(f"This design shows a pair's difference from {least.effect:.1f} points on (power 80 %).")
    return sentences


def advice(records: Records) -> list[str]:
    """Name the cheapest of the methods that the primary test does not put below the best, in both outcomes.

    A method with half or more of its results at or below the floor has not been shown to learn the task, so it is not
    named, however it compares with others.
    """
    leading: set[str] | None = None
    low: set[str] = set()
    by_item = []
    for outcome in ("en", "tl"):
        own = find(records, outcome=outcome)
        test = next(iter(find(own, analysis="blocked", test=F_TEST)), None)
        if test is None or test.p is None:
            return []
        best = _ordered_means(own)[0][0]
        below = {
            next(name for name in r.groups if name != best)
            for r in find(own, analysis="blocked", test=PAIR_TEST)
            if best in r.groups and r.p_adjusted is not None and r.p_adjusted < ALPHA
        }
        group = {name for name, _ in _ordered_means(own)} - below
        leading = group if leading is None else leading & group
        low |= {r.groups[0] for r in find(own, analysis="floors", test=REACHED) if r.groups and (r.effect or 0) >= 50}
        by_item.append((best, _fewer_right(own, best)))
    both = "in both English and the target language"
    if not leading:
        return [f"No method is among the best {both}."]
    if leading <= low:
        which = f"{_and(sorted(leading))}, which the primary test does not tell from the best"
        return [f"No method is recommended. Of {which}, none has most of its results above the floor {both}."]
    without = sorted(leading & low)
    leading -= low
    short = [f"Not {_and(without)}: half or more of its results are not above the floor."] if without else []
    if len(leading) == 1:
        return [f"{next(iter(leading))} alone is among the best {both}.", *short]
    sentences = [
        f"Among the best {both} (the primary test does not tell them from the best): {_and(sorted(leading))}.",
        *short,
    ]
    for language, (best, fewer) in zip(NAMES.values(), by_item, strict=True):
        if fewer & leading:
            sentences.append(
                f"Item by item these adapters of {_and(sorted(fewer & leading))} answer fewer right than those of "
                f"{best} in {language} (McNemar, Holm)."
            )
    cheapest: dict[str, list[str]] = {}
    for cost_of, what in (
        ("adapter/trainable_parameters", "the fewest trainable parameters"),
        ("train/seconds", "the least time"),
    ):
        costs = {r.groups[0]: r.effect for r in find(records, outcome="tl", analysis="pareto", test=cost_of)}
        known = sorted((cost, name) for name, cost in costs.items() if name in leading and cost is not None)
        if known:
            names = [name for cost, name in known if cost == known[0][0]]
            unit = " s" if cost_of == "train/seconds" else ""
            who = f"{_and(names)} {'has' if len(names) == 1 else 'have'}"
            cheapest.setdefault(who, []).append(f"{what} ({known[0][0]:,.0f}{unit})")
    told = [f"{who} {' and '.join(costs)}" for who, costs in cheapest.items()]
    return [*sentences, f"Of these {' and '.join(told)}."] if told else sentences


def scope(records: Records) -> str:
    """Say how much there is."""
    n = {r.test: r.n or 0 for r in find(records, analysis="design")}
    told = []
    if n["runs used"]:
        parts = [_n(n["methods"], "method"), _n(n["languages"], "target language"), _n(n["ratios"], "ratio")]
        parts.append(_n(n["seeds"], "seed"))
        more = f" in {_n(n['settings'], 'setting')}" if n["settings"] > 1 else ""
        told.append(f"{_n(n['runs used'], 'run')} with {_n(n['adapters'], 'adapter')}{more}: {', '.join(parts)}.")
    if "injection runs" in n:
        parts = [_n(n[f"injection {what}s"], what) for what in ("method", "language", "seed")]
        runs = f"{_n(n['injection runs'], 'run')} of lexical injection"
        told.append(f"{runs} with {_n(n['injection adapters'], 'adapter')}: {', '.join(parts)}.")
    return " ".join(told)


def cautions(records: Records, synthetic: Sequence[str]) -> list[str]:
    """Say what keeps these results from meaning much."""
    n = {r.test: r.n or 0 for r in find(records, analysis="design")}
    found = []
    if synthetic:
        found.append(
            f"Synthetic data ({_and(list(synthetic))}): a test of the platform, not of language understanding."
        )
    seeds = min((n[key] for key in ("seeds", "injection seeds") if n.get(key)), default=0)
    if seeds == 1:
        found.append("One seed: what differs between seeds is not known, and every difference may be chance.")
    elif seeds == 2:
        found.append("Two seeds are too few to know what differs between seeds.")
    items = n.get("test items a run, least")
    if items is not None and items < 1000:
        found.append(
            f"Few test items ({items:,} in the smallest test set): F1 of one run is uncertain by several points."
        )
    if n["incomplete cells"]:
        found.append(f"The design is incomplete: {_n(n['incomplete cells'], 'cell')} without all seeds.")
    for outcome, language in NAMES.items():
        reached = find(records, outcome=outcome, analysis="floors", test=REACHED)
        methods = [f"{r.groups[0]} ({r.n})" for r in reached if r.groups and r.n]
        if methods:
            total = sum(r.n or 0 for r in reached if r.groups)
            with_floor, every = count_with_floor(records, outcome)
            of = f"{every} results" if with_floor == every else f"the {with_floor} results with a floor (of {every})"
            found.append(
                f"{total} of {of} in {language} {'is' if total == 1 else 'are'} not above the floor, the best "
                f"shallow method on the same items: {_and(methods)}."
            )
    if unfinished := n["unfinished runs"]:
        found.append(f"{_n(unfinished, 'run')} {'is' if unfinished == 1 else 'are'} not finished.")
    if lost := n["failed runs"] + n["runs that lack a needed value"]:
        found.append(f"{_n(lost, 'run')} without a usable result.")
    return found


def fisher(record: Record) -> str:
    """Write an F test: F(2, 10) = 3.21, p = .083."""
    df = ", ".join(f"{value:g}" for value in record.df or ())
    return f"F({df}) = {record.statistic:,.2f}, {probability(record.p)}"


def points(margin: float) -> str:
    """Write a number of F1 points."""
    return f"{margin:g} point{'' if margin == 1 else 's'}"


def probability(p: float | None) -> str:
    """Write p as papers do."""
    return "p unknown" if p is None else "p < .001" if p < 0.001 else f"p = {p:.3f}".replace("0.", ".", 1)


def _order(own: Records) -> str:
    """Return "A = B > C" where that can be said, else the methods with the letters that say the same."""
    text = next(iter(find(own, analysis="groupings", test=TEXT)), None)
    if text is not None and " > " in text.note and not text.note.startswith("no "):
        order = text.note.partition(" ('=' ")[0]
        return f"{order} ('=' says not told apart)" if " = " in order else order
    letters = find(own, analysis="groupings", test=LETTERS)
    shown = ", ".join(f"{r.groups[0]} ({r.note})" for r in letters)
    return f"from the highest mean down {shown}; methods that share a letter are not told apart"


def _incomplete(records: Records) -> bool:
    """Do methods lack cells that others have?"""
    return any(r.n for r in find(records, analysis="design", test="incomplete cells"))


def _by_item(own: Records, means: Sequence[tuple[str, float]]) -> list[str]:
    """Say what the answers to single items show of these adapters, where the methods cannot be tested."""
    tested = [r for r in find(own, analysis="paired", test=MCNEMAR) if r.p_adjusted is not None]
    if not tested or not means:
        return []
    apart = [r for r in tested if (r.p_adjusted or 0.0) < ALPHA]
    best = means[0][0]
    with_best = {next(iter({*r.groups} - {best})) for r in tested if best in r.groups}
    beside = sorted(with_best - {name for r in apart if best in r.groups for name in r.groups})
    text = f"Item by item {len(apart)} of {len(tested)} pairs of these adapters differ (McNemar, Holm)"
    told = f"not told from {best}: {_and(beside)}" if beside else f"{best} differs from every other"
    return [f"{text}; {told}. Other seeds may give another order."]


def _apart(own: Records) -> str:
    """Say how many pairs differ on their own errors."""
    tested = [r for r in find(own, analysis="own errors", test=OWN_PAIR) if r.p_adjusted is not None]
    apart = [r for r in tested if (r.p_adjusted or 0.0) < ALPHA]
    shown = f" ({_pairs(apart)})" if apart else ""
    return f"{len(apart)} of {len(tested)} pairs differ on their own errors{shown}"


def _fewer_right(own: Records, best: str) -> set[str]:
    """Return the methods whose adapters have significantly fewer items right than those of the best."""
    found = set()
    for r in find(own, analysis="paired", test=MCNEMAR):
        if best in r.groups and r.p_adjusted is not None and r.p_adjusted < ALPHA and r.effect is not None:
            ahead = r.groups[0] if r.effect > 0 else r.groups[1]
            found |= {*r.groups} - {best} if ahead == best else set()
    return found


def _lead(own: Records, means: Sequence[tuple[str, float]]) -> str:
    """Say how far the best is above the worst, with the interval."""
    best, worst = means[0][0], means[-1][0]
    record = next((r for r in find(own, analysis="blocked", test=PAIR_TEST) if {best, worst} == set(r.groups)), None)
    if record is None or record.effect is None or record.interval is None:
        return ""
    sign = 1 if record.groups[0] == best else -1
    low, high = sorted(sign * end for end in record.interval)
    return f"{best} is {sign * record.effect:.1f} points above {worst} (95 % interval {low:.1f} to {high:.1f})."


def _ordered_means(own: Records) -> list[tuple[str, float]]:
    found = find(own, analysis="blocked", test=MEAN) or find(own, analysis="description", test="mean F1")
    return sorted(((r.groups[0], r.effect or 0.0) for r in found), key=lambda pair: (-pair[1], pair[0]))


def _pairs(found: Records, most: int = 4) -> str:
    names = [" and ".join(r.groups) for r in found]
    rest = len(names) - most
    return "; ".join(names[:most]) + (f"; and {rest} more pairs" if rest > 0 else "")


def _every(found: Records) -> str:
    return f"all {len(found)} pairs" if len(found) > 1 else _pairs(found)


def _and(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _n(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"
