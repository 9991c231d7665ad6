"""Writes the report's sentences from records alone, so that the same records give the same words."""

from __future__ import annotations

from collections.abc import Sequence

from analysis.decimals import interval
from analysis.evidence import ALL_BLOCKS, P_VALUES
from analysis.measures.floored_blocks import AT_FLOOR, KEPT
from analysis.measures.shallow_baselines import REACHED, count_with_floor
from analysis.naming import names_in
from analysis.records import Record, find, is_significant
from analysis.report.wording import count, format_points, join
from analysis.stats.cells import enumerate_few
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

Records = Sequence[Record]


def answer(records: Records, outcome: str, margin: float) -> list[str]:
    """Return the answer for an outcome: which methods differ, on which question, and the detectable difference.

    Everything follows from the pairs of the primary analysis; the last sentence gives the other scope's answer.
    """
    of_outcome = find(records, outcome=outcome)
    where = f"In {names_in(records).of(outcome)}"
    compared = pair_tests(of_outcome)
    tested = [r for r in compared if r.p_adjusted is not None]
    means = _ordered_means(of_outcome)
    if not tested:
        why = compared[0].note.removeprefix("no test: ") if compared else "there are no runs"
        sentences = [f"{where} no test of the methods can be made: {why}."]
        if len(means) > 1 and not _apart(records):
            top = f"{means[0][1]:.1f}"
            best = [name for name, mean in means if f"{mean:.1f}" == top]
            caveat = ", but not all methods ran in the same cells" * _incomplete(records)
            subject = f"{join(best)} {'has' if len(best) == 1 else 'have'}"
            sentences.append(f"{subject} the highest mean {names_in(records).score}, {top}{caveat}.")
        return [*sentences, *_by_item(of_outcome, means), *_other_scope(of_outcome)]
    sentences = []
    about = _about(tested)
    significant = [r for r in tested if is_significant(r)]
    equivalences = find(of_outcome, analysis=PRIMARY, test=SAME)
    same = [r for r in equivalences if is_significant(r)]
    if significant:
        differing = f"{len(significant)} of {count(len(tested), 'pair')} of methods differ{'s' * (len(tested) == 1)}"
        sentences.append(f"{where} {differing} {about}: {_order(of_outcome)}.")
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
            f"{len(same)} of {count(len(tested), 'pair')} are shown to be equivalent within {format_points(margin)}"
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
    significant = [r for r in tested if is_significant(r)]
    differing = f"{len(significant)} of {count(len(tested), 'pair')}"
    order = f": {_order(records, f'groupings, {OTHER}')}" if significant else ""
    about = _about(tested)
    return [f"{about[:1].upper()}{about[1:]}, {differing} {'differ' if len(tested) > 1 else 'differs'}{order}."]


def scope(records: Records) -> str:
    """Return the size of the design: runs, adapters, methods, languages, ratios and seeds."""
    n = {r.test: r.n or 0 for r in find(records, analysis="design")}
    sentences = []
    if n["runs used"]:
        parts = [count(n["methods"], "method"), count(n["languages"], "target language")]
        parts += [count(n["ratios"], "ratio"), count(n["seeds"], "seed")]
        settings = f" in {count(n['settings'], 'setting')}" if n["settings"] > 1 else ""
        runs = f"{count(n['runs used'], 'run')} with {count(n['adapters'], 'adapter')}{settings}"
        sentences.append(f"{runs}: {', '.join(parts)}.")
    if "injection runs" in n:
        parts = [count(n[f"injection {what}s"], what) for what in ("method", "language", "seed")]
        runs = f"{count(n['injection runs'], 'run')} of lexical injection"
        sentences.append(f"{runs} with {count(n['injection adapters'], 'adapter')}: {', '.join(parts)}.")
    return " ".join(sentences)


def cautions(records: Records, synthetic: Sequence[str]) -> list[str]:
    """Return the limitations of these results, a sentence each; `synthetic` names the invented data sets."""
    n = {r.test: r.n or 0 for r in find(records, analysis="design")}
    sentences = []
    if synthetic:
        sentences.append(
            f"Synthetic data ({join(list(synthetic))}): a test of the platform, not of language understanding."
        )
    seeds = min((n[key] for key in ("seeds", "injection seeds") if n.get(key)), default=0)
    if seeds == 1:
        sentences.append("One seed: what differs between seeds is not known, and every difference may be chance.")
    elif seeds == 2:
        sentences.append("Two seeds are too few to know what differs between seeds.")
    items, score = n.get("test items a run, least"), names_in(records).score
    if items is not None and items < 1000:
        sentences.append(
            f"Few test items ({items:,} in the smallest test set): {score} of one run is uncertain by several points."
        )
    if n["incomplete cells"]:
        sentences.append(f"The design is incomplete: {count(n['incomplete cells'], 'cell')} without all seeds.")
    for outcome in ("en", "tl"):
        language = names_in(records).of(outcome)
        reached = find(records, outcome=outcome, analysis="floors", test=REACHED)
        methods = [f"{r.groups[0]} ({r.n})" for r in reached if r.groups and r.n]
        if methods:
            total = sum(r.n or 0 for r in reached if r.groups)
            floors, results = count_with_floor(records, outcome)
            of = f"{results} results" if floors == results else f"the {floors} results with a floor (of {results})"
            sentences.append(
                f"{total} of {of} in {language} {'is' if total == 1 else 'are'} not above the floor, the best "
                f"shallow method on the same items: {join(methods)}."
            )
    sentences += _left_out_blocks(records)
    return sentences


def multiplicity(records: Records, primary: str) -> str:
    """Return how many tests the report makes, and which of them the advice rests on."""
    pairs = [r for r in pair_tests(find(records, outcome=primary)) if r.p is not None]
    total = next((r.n or 0 for r in find(records, analysis="design", test=P_VALUES)), 0)
    where = names_in(records).of(primary)
    return (
        f"The advice rests on {count(len(pairs), 'pair')} of methods on the primary outcome, {where}, with "
        f"intervals and p values for all of them at once. In all, the report has {count(total, 'p value')}; the others "
        "are corrected within their own table at most and should be read as exploratory."
    )


def _left_out_blocks(records: Records) -> list[str]:
    """Return for each outcome which blocks are at the floor, and what the pairs are with and without them."""
    sentences = []
    for outcome in ("tl", "en"):
        of_outcome = find(records, outcome=outcome)
        blocks = [r.groups[0] for r in find(of_outcome, test=AT_FLOOR)]
        if not blocks:
            continue
        listed = enumerate_few(blocks)
        where = names_in(records).of(outcome)
        what = f"In {where} the methods are not shown to exceed the best shallow baseline"
        everything = pair_tests(of_outcome, f"{PRIMARY}, {ALL_BLOCKS}")
        if any(r.n == 0 for r in find(of_outcome, test=KEPT)):
            sentences.append(f"{what} in any block ({listed})." if len(blocks) > 1 else f"{what}.")
            continue
        differing = sum(map(is_significant, everything))
        now = sum(map(is_significant, pair_tests(of_outcome)))
        sentences.append(
            f"{what} at {listed}; the primary analysis leaves {'it' if len(blocks) == 1 else 'them'} out "
            f"({count(now, 'pair')} of methods differ{'s' * (now == 1)}; with all blocks, {differing:,})."
        )
    return sentences


def _order(records: Records, analysis: str = "groupings") -> str:
    """Return the methods as "A = B > C" where they fall into groups, else with their grouping letters."""
    grouped = find(records, analysis=analysis)
    text = next(iter(find(grouped, test=TEXT)), None)
    if text is not None and " > " in text.note and not text.note.startswith("no "):
        order = text.note.partition(" ('=': ")[0]
        return f"{order} ('=': no significant difference)" if " = " in order else order
    lettered = ", ".join(f"{r.groups[0]} ({r.note})" for r in find(grouped, test=LETTERS))
    return f"from the highest mean down {lettered}; methods that share a letter do not differ significantly"


def _apart(records: Records) -> bool:
    """Return whether some methods share no cell with others, so that their means cannot be ordered."""
    return any((r.n or 0) > 1 for r in find(records, analysis="design", test="groups of methods that share no cell"))


def _incomplete(records: Records) -> bool:
    """Return whether some methods lack cells that others have."""
    return any(r.n for r in find(records, analysis="design", test="incomplete cells"))


def _by_item(records: Records, means: Sequence[tuple[str, float]]) -> list[str]:
    """Compare these adapters item by item, for designs in which the methods themselves cannot be tested."""
    tested = [r for r in find(records, analysis="paired", test=MCNEMAR) if r.p_adjusted is not None]
    if not tested or not means:
        return []
    significant = [r for r in tested if is_significant(r)]
    best = means[0][0]
    with_best = {next(iter({*r.groups} - {best})) for r in tested if best in r.groups}
    similar = sorted(with_best - {name for r in significant if best in r.groups for name in r.groups})
    text = f"Item by item {len(significant)} of {len(tested)} pairs of these adapters differ (McNemar, Holm)"
    result = (
        f"no significant difference from {best}: {join(similar)}" if similar else f"{best} differs from every other"
    )
    return [f"{text}; {result}. Other seeds may give another order."]


def _lead(records: Records, means: Sequence[tuple[str, float]]) -> str:
    """Return how far the best is above the worst, with the interval; empty if that pair was not tested."""
    best, worst = means[0][0], means[-1][0]
    record = next((r for r in pair_tests(records) if {best, worst} == set(r.groups)), None)
    if record is None or record.effect is None or record.interval is None:
        return ""
    sign = 1 if record.groups[0] == best else -1
    low, high = sorted(sign * end for end in record.interval)
    return f"{best} is {sign * record.effect:.1f} points above {worst} (simultaneous 95 % CI {interval(low, high)})."


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
