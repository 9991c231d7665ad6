"""The plan of a comparison: what will be done in which order, at what cost, and what it can decide."""

from __future__ import annotations

from analysis.decimals import fixed
from analysis.report.wording import count, format_points, join
from analysis.stats.sequential.boundaries import FIRST_LOOK
from analysis.stats.sequential.verdict import Standing
from comparing.answer import interval_of
from comparing.comparison import Comparison
from comparing.costs import Costs
from comparing.results import Results
from comparing.studies import Studies
from comparing.support import reach_text, settings_texts
from tuning.finalists import N_BEST
from tuning.study_config import FRESH_SEEDS
from whichlora.config.cli import format_duration
from whichlora.config.plan import Plan
from whichlora.data.language_names import join_names
from whichlora.data.targets import POOLED, target_languages

_PRIMARY = {"tl": "the target language", "en": "the source language", "mean": "the mean of source and target language"}


def plan_text(
    comparison: Comparison,
    results: Results,
    costs: Costs,
    *,
    experiment: str,
    stop: str,
    studies: Studies | None = None,
) -> str:
    """Return the plan in some ten lines.

    Args:
        studies: those that are still to find the settings; None if there are none.
    """
    rule, first = comparison.rule, comparison.plans(comparison.rule.rounds[0])
    plans = [plan for of_method in first.values() for plan in of_method]
    tasks = ", ".join(dict.fromkeys(f"{plan.spec.task} with {plan.model_name}" for plan in plans))
    languages = "; ".join(dict.fromkeys(_title(plan) for plan in plans))
    ratios = ", ".join(f"{ratio:g}" for ratio in sorted({plan.spec.tl_ratio for plan in plans}))
    seeds = ", ".join(map(str, rule.rounds[:4]))
    name = "" if studies else f"{comparison.digest[:6]} "  # which the settings decide
    lines = [
        f"Comparison {name}in the experiment {experiment}: {join(comparison.methods)}",
        f"on {tasks}: {languages}, ratio {ratios}; what counts is the score in {_PRIMARY[rule.primary]}.",
        *_settings(comparison, studies),
        f"2. Rounds of seeds {seeds}, ..., at most {rule.max_seeds}: every method that is not decided trains and is "
        f"scored with the same seed, languages and ratios; {count(len(plans), 'run')} in the first round.",
        f"3. From round {FIRST_LOOK} on a method is dropped if it is shown to be more than "
        f"{format_points(rule.margin)} worse than the best, and level if it is shown to be less "
        f"({rule.confidence * 100:g} % for all methods and looks together).",
        f"4. It ends when {_end(stop, costs)}, and names the method to take.",
        _cost(costs, results),
        *reach_text(results),
    ]
    return "\n".join(lines)


def round_text(results: Results, costs: Costs) -> str:
    """Return how the methods stand after a round, in a line or two."""
    verdict, rule = results.verdict, results.comparison.rule
    parts = [f"{verdict.standings[0].method} leads"]
    for state in ("level", "open", "dropped"):
        found = [s for s in verdict.standings if s.state == state]
        if found:
            parts.append(f"{state}: " + ", ".join(f"{s.method} {_behind(s)}" for s in found))
    spent = f"{format_duration(costs.spent)} of device time"
    head = f"After {verdict.seeds} of at most {count(rule.max_seeds, 'seed')} ({spent}): {'; '.join(parts)}."
    return "\n".join([head, *reach_text(results)])


def _settings(comparison: Comparison, studies: Studies | None) -> list[str]:
    """Return where the settings come from: the arms, studies that are still to run, or their results."""
    if studies is None and not comparison.tuned:
        return ["1. Settings: each method has those of its arm."]
    if studies is None:
        head = f"1. Settings, found in {format_duration(comparison.tuning_seconds)} of device time:"
        return [head, *(f"   {text}" for text in settings_texts(comparison))]
    first, several = studies.configs[0], len(studies.configs) > len(comparison.methods)
    rungs = f" in {first.rungs.number} rungs" if first.rungs.halving else ""
    lines = [
        f"1. Settings: for each method at most {format_duration(studies.seconds)} of trials{rungs}"
        + (", in each language and ratio" if several else "")
        + f"; then the {N_BEST} best points and the known ones again with {len(FRESH_SEEDS)} fresh seeds each. "
        "No trial reads test items or has a seed of a round."
    ]
    for config, forecast in zip(studies.configs, studies.forecasts(), strict=True):
        ratio = config.options.tl_ratio
        where = f"{config.options.language}, ratio {'auto' if ratio is None else f'{ratio:g}'}; " if several else ""
        lines.append(f"   {where}{forecast.text}")
    return lines


def _behind(standing: Standing) -> str:
    return f"{fixed(standing.behind, 1)} points behind (interval {interval_of(standing)})"


def _title(plan: Plan) -> str:
    language = plan.spec.language
    return language if language == POOLED else join_names(target_languages(plan.task, language))


def _end(stop: str, costs: Costs) -> str:
    if stop == "budget":
        return f"the budget of {format_duration(costs.budget or 0)} is spent"
    budget = f", the budget of {format_duration(costs.budget)} is spent" if costs.budget is not None else ""
    return f"every method is dropped or level{budget} or all seeds are done"


def _cost(costs: Costs, results: Results) -> str:
    max_seeds = results.comparison.rule.max_seeds
    if costs.round == 0 or len(results.scores) >= max_seeds:
        why = "every method is decided" if results.verdict.finished else "all seeds are done"
        return f"Nothing is left to do: {why}."
    if costs.round is None:
        return "Cost: not known until a run has finished on this machine."
    tuning = f"{format_duration(costs.tuning)} for tuning, " if costs.tuning else ""
    text = f"Cost: {tuning}about {format_duration(costs.round)} of device time for the next round"
    text += f", {format_duration(costs.grid or 0)} for all methods with all {max_seeds} seeds"
    if costs.affordable is not None:
        text += f"; the budget pays for {count(costs.affordable, 'more round')} like it"
    return text + "."
