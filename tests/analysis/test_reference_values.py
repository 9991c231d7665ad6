"""Numbers in print come out of our own functions, to the digits that are printed."""

from __future__ import annotations

import numpy as np
import pandas as pd
import published
import pytest

from analysis.stats.blocked import blocked
from analysis.stats.effects import eta_squared, hedges_g_paired, omega_squared
from analysis.stats.equivalence import tost, wellek
from analysis.stats.groupings import grouping
from analysis.stats.linear import additive, interaction, tukey
from analysis.stats.own_errors import epsilon, greenhouse_geisser
from analysis.stats.paired import clustered_mcnemar, mcnemar
from analysis.stats.power import (
    detectable_difference,
    detectable_item_difference,
    f_power,
    seeds_needed,
)
from analysis.stats.ranks import critical_difference, friedman, mean_ranks, tie_correction
from analysis.stats.replication import (
    anova,
    bartlett,
    brown_forsythe,
    dunn,
    kruskal,
    replication,
    shapiro,
    tukey_hsd,
    welch,
)

PLANTS = {name: np.array(values) for name, values in published.PLANT_GROWTH.items()}
SPRAYS = {name: np.array(values) for name, values in published.INSECT_SPRAYS.items()}
PAIRS = (("ctrl", "trt1"), ("ctrl", "trt2"), ("trt1", "trt2"))


def printed(value: float, text: str) -> bool:
    """Is `text` what `value` prints as?"""
    return abs(float(value) - float(text)) <= 0.5000001 * 10 ** -len(text.partition(".")[2])


@pytest.mark.parametrize(
    ("test", "data", "statistic", "p"),
    [
        (anova, PLANTS, "4.8461", ".01591"),
        (welch, PLANTS, "5.181", ".01739"),
        (kruskal, PLANTS, "7.9882", None),
        (bartlett, PLANTS, "2.8786", None),
        (brown_forsythe, PLANTS, "1.1192", None),
        (shapiro, PLANTS, ".96607", None),
        (anova, SPRAYS, "34.702", None),
        (welch, SPRAYS, "36.0654", None),
        (bartlett, SPRAYS, "25.96", None),
        (kruskal, SPRAYS, "54.691", None),
    ],
)
def test_a_one_way_layout(test, data, statistic, p):
    found = test(data)
    assert printed(found.statistic, statistic)
    assert p is None or printed(found.p, p)


@pytest.mark.parametrize(("data", "df"), [(PLANTS, "17.128"), (SPRAYS, "30.043")])
def test_welchs_degrees_of_freedom(data, df):
    assert printed(welch(data).df[1], df)


@pytest.mark.parametrize(
    ("compare", "expected"),
    [
        (tukey_hsd, (".3908711", ".1979960", ".0120064")),
        (lambda groups: tukey_hsd(groups, equal=False), (".4745549", ".1128892", ".0237035")),
    ],
)
def test_all_pairs_of_plant_growth(compare, expected):
    found = compare(PLANTS)
    assert all(printed(found[pair][1], text) for pair, text in zip(PAIRS, expected, strict=True))


def test_tukeys_intervals_of_plant_growth():
    """R's TukeyHSD prints trt2-trt1 as 0.865 [0.1737839, 1.5562161]."""
    result, _ = tukey_hsd(PLANTS)["trt1", "trt2"]
    assert printed(-result.effect, "0.865")
    assert printed(-result.interval[1], "0.1737839")
    assert printed(-result.interval[0], "1.5562161")


def test_dunns_pairs_of_plant_growth():
    found = dunn(PLANTS)
    for pair, text in zip(PAIRS, (".2636843", ".0911639", ".0050003"), strict=True):
        assert printed(found[pair][0].p, text)


def test_effect_sizes_of_plant_growth():
    f = anova(PLANTS)
    assert printed(eta_squared(f.statistic, f.df, f.n).effect, ".26415")
    assert printed(omega_squared(f.statistic, f.df, f.n).effect, ".20408")


def test_the_interval_of_eta_squared_is_steigers():
    """Steiger 2004, example 3: F = 5, df 3 and 76, noncentrality 1.8666 to 32.563."""
    low, high = eta_squared(5, (3, 76), 80).interval
    assert 80 * low / (1 - low) == pytest.approx(1.8666, abs=1e-4)
    assert 80 * high / (1 - high) == pytest.approx(32.563, abs=1e-3)


def test_the_letters_of_insect_sprays():
    p = {pair: adjusted for pair, (_, adjusted) in tukey_hsd(SPRAYS).items()}
    found = grouping({name: values.mean() for name, values in SPRAYS.items()}, p)
    assert found.text == "F = B = A > D = E = C"
    assert [found.letters[m] for m in "ABFCDE"] == ["a", "a", "a", "b", "b", "b"]


def test_the_two_factors_of_warpbreaks():
    data = published.WARPBREAKS
    wool, tension, both = interaction(data["breaks"], data["wool"], data["tension"])
    assert printed(wool.statistic, "3.765")
    assert printed(tension.statistic, "8.498")
    assert printed(both.statistic, "4.189")
    assert (wool.df, tension.df, both.df) == ((1, 48), (2, 48), (2, 48))


def test_tukey_on_the_error_of_an_additive_model():
    data = published.WARPBREAKS
    fit = additive(data["breaks"], data["tension"], data["wool"])
    assert fit.df == 50
    for pair, text in ((("M", "H"), ".4474210"), (("L", "H"), ".0011218"), (("L", "M"), ".0336262")):
        assert printed(tukey(fit, *pair)[1], text)


def test_epsilon_of_unequal_errors():
    """pingouin 0.5: epsilon(data, correction="gg") of the example in its documentation gives 0.5587754577585018."""
    data = {"A": [2.2, 3.1, 4.3, 4.1, 7.2], "B": [1.1, 2.5, 4.1, 5.2, 6.4], "C": [8.2, 4.5, 3.4, 6.2, 7.2]}
    assert epsilon(pd.DataFrame(data)) == pytest.approx(0.5587754577585018, rel=1e-9)
    found = greenhouse_geisser(pd.DataFrame(data))
    assert found.effect == pytest.approx(0.5587754577585018, rel=1e-9)
    assert found.df == pytest.approx((2 * found.effect, 8 * found.effect))


def test_demsars_example():
    ranks = mean_ranks(published.DEMSAR)
    assert all(printed(r, t) for r, t in zip(ranks, ("3.143", "2.000", "2.893", "1.964"), strict=True))
    chi2, f = friedman(ranks, 14)
    assert printed(chi2.statistic, "9.28")
    assert printed(f.statistic, "3.69")
    assert f.df == (3, 39)
    assert printed(critical_difference(4, 14, 0.05), "1.25")
    assert printed(critical_difference(4, 14, 0.10), "1.12")


def test_friedman_with_ties_is_scipys():
    from scipy.stats import friedmanchisquare

    found, _ = friedman(mean_ranks(published.DEMSAR), 14, ties=tie_correction(published.DEMSAR))
    assert (found.statistic, found.p) == pytest.approx(tuple(friedmanchisquare(*published.DEMSAR.T)))


@pytest.mark.parametrize(("methods", "q"), [(2, "1.960"), (4, "2.569"), (6, "2.850"), (10, "3.164")])
def test_demsars_critical_values(methods, q):
    """Table 5a: q at .05 is the difference in units of sqrt(k (k + 1) / 6 N)."""
    assert printed(critical_difference(methods, 14) / np.sqrt(methods * (methods + 1) / 84), q)


def test_mcnemar():
    """Agresti 1990, p. 350: approval of the prime minister in two surveys."""
    table = [[794, 86], [150, 570]]
    assert printed(mcnemar(table).statistic, "16.8178")
    assert printed(mcnemar(table, correction=False).statistic, "17.3559")


def test_clustered_mcnemar_with_one_answer_an_item_is_mcnemar():
    differences = [1] * 86 + [-1] * 150 + [0] * 1364
    assert printed(clustered_mcnemar(differences, range(1600)).statistic, "17.3559")


def test_power_of_a_one_way_layout():
    """R: power.anova.test(groups = 4, n = 5, between.var = 1, within.var = 3)."""
    assert printed(f_power(5 * 3 * 1 / 3, (3, 16)), ".3535594")


@pytest.mark.parametrize(("sd", "seeds"), [(0.5, 6), (1, 17), (2, 64)])
def test_seeds_that_one_point_needs_in_one_cell(sd, seeds):
    assert seeds_needed(difference=1, sd=sd) == seeds


def test_least_differences_of_the_papers_design():
    assert printed(detectable_difference(sd=1, n=3), "3.1")
    assert printed(100 * detectable_item_difference(items=5010, discordance=0.05), "0.88")
    assert printed(100 * detectable_item_difference(items=5010, discordance=0.10), "1.25")


def test_tost_of_the_clinic():
    """R: equivalence::tost(paired, epsilon = 0.6)."""
    found = tost(published.CLINIC["first"], published.CLINIC["second"], 0.6)
    assert found.p == pytest.approx(0.003166881489265175, rel=1e-9)
    assert found.effect == pytest.approx(0.1646666666666667)
    assert found.interval == pytest.approx((-0.0744336620516462, 0.4037669953849797))
    assert found.df == (14,)


def test_wellek_on_jan_and_shiehs_groups():
    """Jan and Shieh 2019, p. 5: F = .0926, p = .0083 with epsilon .5."""
    groups = {str(i): np.array(values) for i, values in enumerate(published.JAN_SHIEH)}
    f = anova(groups)
    found = wellek(f.statistic, f.df, f.n / 4, 0.5)
    assert f.df == (3, 46)
    assert f.statistic == pytest.approx(0.0926, abs=6e-4)
    assert printed(found.p, "0.0083")


def test_hedges_g_of_students_sleep():
    """R: effectsize::cohens_d of the ten differences gives -1.28, [-2.12, -0.41]; g is d times the correction J(9)."""
    found = hedges_g_paired(published.SLEEP["1"], published.SLEEP["2"])
    j = found.effect / (np.mean(d := np.subtract(published.SLEEP["1"], published.SLEEP["2"])) / np.std(d, ddof=1))
    assert j == pytest.approx(1 - 3 / (4 * 9 - 1), abs=1e-3)
    assert [round(v / j, 2) for v in (found.effect, *found.interval)] == [-1.28, -2.12, -0.41]


def test_the_papers_f_are_those_of_a_one_way_layout_of_216_runs():
    """F = 0.33 and 5.14 with p = .89 and .0002 fit six groups over 216 runs: df 5 and 210."""
    from scipy.stats import f

    assert printed(f.sf(0.33, 5, 210), ".8945")
    assert printed(f.sf(5.14, 5, 210), ".000181")


def test_the_replication_of_a_table_of_216_runs_has_those_degrees_of_freedom():
    import designs

    table = designs.table(dict.fromkeys(("LoRA", "DoRA", "DoRA*", "AdaLoRA", "PiSSA", "VeRA"), 0.0), outcomes=("tl",))
    assert next(r for r in replication(table, outcome="tl") if r.test == "one-way ANOVA").df == (5, 210)
    assert next(r for r in blocked(table, outcome="tl") if r.test.startswith("F, method against")).df == (5, 45)
