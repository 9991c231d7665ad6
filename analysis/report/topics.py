"""Lists the topics of the report: what each section shows, and from which records and plots.

To add a section, add a `Topic` to one of the tuples; records whose analysis it names appear in it.
"""

from __future__ import annotations

from typing import NamedTuple

from analysis.measures.lexical_injection import FORGOTTEN, OUTPUT, POOLED, RETAINED, RISE_ANALYSES


class Topic(NamedTuple):
    """What a section of the report shows.

    Attributes:
        anchor: id of the section in the page.
        analyses: the values of `Record.analysis` that it shows; a final "*" matches any ending.
        plots: prefixes of the names of its plots.
    """

    anchor: str
    title: str
    description: str
    analyses: tuple[str, ...]
    plots: tuple[str, ...] = ()


TESTS = (
    Topic(
        "primary",
        "Primary analysis: pairwise differences",
        "Every pair of methods is tested on its own standard error, moderated towards the mean over pairs (empirical "
        "Bayes). Adjusted p and 95 % CIs are simultaneous over all pairs. The experimental unit is the "
        "adapter: one that "
        "serves several languages counts once. On these languages and ratios the error is that of the seeds; on others "
        "like them it is the variation of the difference between blocks. Equivalence (TOST, Holm) uses "
        "the same errors.",
        (
            *("primary", "groupings", "primary in *", "groupings in *", "primary for *", "groupings for *"),
            *("primary, all blocks", "groupings, all blocks", "other scope", "groupings, other scope"),
        ),
        ("differences", "blocks"),
    ),
    Topic(
        "omnibus",
        "Omnibus test",
        "F of the methods against the method x block interaction, on means in blocks of language and ratio; pairwise "
        "comparisons by Tukey on the same error. One error variance is assumed for all pairs. The primary "
        "analysis does "
        "not depend on it.",
        ("blocked",),
    ),
    Topic(
        "own-errors",
        "Omnibus test without sphericity",
        "The omnibus test assumes that the differences of all pairs have the same variance (sphericity). Here that is "
        "tested, F has Greenhouse-Geisser degrees of freedom, and each pair has a paired t test on its own error over "
        "blocks.",
        ("own errors",),
    ),
    Topic(
        "mixed-model",
        "Mixed model of all scores",
        "The general form of the primary analysis: a linear mixed model (REML) with random effects of the adapter, of "
        "the seed in its block and, for blocks like these, of the block and of method x block; F and degrees of "
        "freedom by Kenward and Roger. One error variance is assumed for all methods. The primary analysis does not "
        "depend on it.",
        ("mixed model",),
    ),
    Topic(
        "equivalence",
        "Equivalence",
        "The absence of a significant difference does not show equivalence. Two one-sided tests (TOST, Holm) test "
        "whether a pair differs by less than the margin; Wellek's test does so for all methods jointly.",
        ("equivalence",),
    ),
    Topic(
        "ranks",
        "Rank tests",
        "Friedman's test over the same blocks, and Nemenyi's for pairs: no assumption on the distribution of {score}.",
        ("friedman",),
        ("ranks",),
    ),
    Topic(
        "items",
        "Tests on items",
        "Each pair of methods on the same test items, conditional on these adapters: McNemar's test and a "
        "bootstrap over "
        "items, Holm.",
        ("paired",),
    ),
    Topic(
        "effects",
        "Effect sizes",
        "Share of variance explained by the methods, and standardised differences, with 95 % CIs.",
        ("effects",),
    ),
    Topic(
        "power",
        "Minimum detectable differences",
        "Differences that the design detects with a power of 80 %, and the number of seeds at which the "
        "margin is detected.",
        ("power",),
        ("detectable",),
    ),
    Topic(
        "replication",
        "The test of the paper",
        "One-way ANOVA over all runs and Tukey's HSD, as in “Which LoRA?”. Language and ratio enter the error term, so "
        "the test has little power; it is reported for comparison, with checks of its assumptions and the alternatives "
        "of Welch, Games-Howell, Kruskal-Wallis and Dunn.",
        ("replication",),
    ),
)
VIEWS = (
    Topic(
        "gain", "Gain over the base model", "Test {score} minus that of the untrained base model, points.", ("gain",)
    ),
    Topic(
        "floors",
        "{Score} above the floor",
        "Test {score} minus that of the best shallow method on the same items (the majority label, a classifier of the "
        "hypothesis alone, of a field's characters or of word overlap; for questions a random candidate), points, "
        "and the number of results that are not above it.",
        ("above the floor", "floors"),
    ),
    Topic("languages", "By language", "Mean {score} over ratios and seeds, points.", ("F1 by language",)),
    Topic(
        "retention",
        "Retention of {source}",
        "{Source} {score} minus that at ratio 0, same method and seed, points.",
        ("retention",),
    ),
    Topic("gap", "Transfer gap", "{Source} minus target-language {score} of the same run, points.", ("transfer gap",)),
    Topic(
        "bought",
        "Gain per percent of target items",
        "Target-language {score} minus that at ratio 0, divided by the percent of target items.",
        ("gain per percent",),
    ),
    Topic("forgetting", "Forgetting", "Loss of F1 on tasks that were not trained, points.", ("forgetting",)),
    Topic(
        "general-text",
        "Forgetting of general text",
        "Rise of the cross-entropy of general text from the plain base model to the trained one, in nats per token of "
        "the model's tokenizer. Every pair of methods is tested as in the primary analysis; adjusted p and 95 % CIs "
        "are simultaneous over all pairs.",
        ("forgetting of general text in *",),
    ),
    Topic(
        "tuned",
        "Tuned against default values",
        "Paired comparison of the tuned arm with the default values (matched) and the method's recommended ones.",
        ("tuned",),
    ),
    Topic(
        "cost",
        "{Score} and cost",
        "Mean {score} (statistic) against mean cost (estimate) over all runs. On the Pareto front no other "
        "method is cheaper "
        "and at least as good. On the front of several costs no other is at least as good in {score} and in all of "
        "them, and better in one; the more costs, the more methods are on it.",
        ("pareto", "pareto, all costs"),
        ("cost",),
    ),
    Topic(
        "agreement",
        "Agreement",
        "Share of items that both methods answer right or both answer wrong, with Cohen's kappa.",
        ("agreement",),
    ),
    Topic(
        "calibration",
        "Calibration",
        "Expected calibration error (ECE): mean distance between confidence and share of right answers, points.",
        ("calibration",),
    ),
)
INJECTED = (
    Topic(
        "injected-output",
        "Differences between methods: model output",
        "Rise of the centred gap of control pairs in the model's output, hundredths of a cosine, means over seeds in "
        "blocks of language; tested by the omnibus test.",
        (RISE_ANALYSES[OUTPUT],),
    ),
    Topic(
        "injected-pooled",
        "Differences between methods: block of the loss",
        "The same rise at the block whose output is trained, where that is one block for all methods.",
        (RISE_ANALYSES[POOLED],),
    ),
    Topic(
        "injected-lost",
        "Forgetting",
        "Loss of F1 on a task that was not trained, points below the base model.",
        (FORGOTTEN,),
    ),
    Topic(
        "injected-retained",
        "Differences between methods: retained F1",
        "F1 on that task after training, in blocks of language; tested by the omnibus test.",
        (RETAINED,),
    ),
)
