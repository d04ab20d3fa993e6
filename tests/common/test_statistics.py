"""Statistics against SciPy, published and hand-worked examples, and simulation."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from benchmark.common.statistics import (
    ALPHA,
    Comparison,
    Difference,
    Sample,
    Verdict,
    compare,
    holm,
    p_less_sensitive,
    shortfall,
    shortfall_interval,
)

fast = settings(max_examples=100, deadline=None, derandomize=True, database=None)
stds = st.floats(0.01, 5)
counts = st.integers(2, 30)
means = st.floats(-50, 50)
samples = st.builds(Sample, means, stds, counts)
margins = st.floats(0.05, 10)


# ---- worked examples


def test_published_equivalence_test() -> None:
    """Lakens's (2017) example: Moery and Calin-Jageman (2016), t(182) = -2.69, p = .004 for d = 0.43.

    He gives the bounds as 0.384 scale points; 0.43 x sqrt((0.95^2 + 0.83^2) / 2) = 0.3836.
    """
    welch = Difference.welch(Sample(5.25, 0.95, 95), Sample(5.22, 0.83, 89))
    margin = 0.43 * math.sqrt((0.95**2 + 0.83**2) / 2)
    assert (welch.difference - margin) / welch.error == pytest.approx(-2.69, abs=0.005)
    assert welch.df == pytest.approx(182, abs=1)
    assert welch.p_equivalence(margin) == pytest.approx(0.004, abs=0.0005)


def test_example_worked_by_hand() -> None:
    """2.87 +- 0.09 against 2.76 +- 0.10, five seeds each, margin 0.3.

    Variances of the means 0.00162 and 0.002; standard error sqrt(0.00362) = 0.060166; degrees of freedom
    0.00362^2 / ((0.00162^2 + 0.002^2) / 4) = 7.9128; t(0.975) there between 2.306 (8) and 2.365 (7).
    """
    welch = Difference.welch(Sample(2.87, 0.09, 5), Sample(2.76, 0.10, 5))
    assert welch.difference == pytest.approx(0.11)
    assert welch.error == pytest.approx(0.060166, abs=1e-6)
    assert welch.df == pytest.approx(7.9128, abs=1e-4)
    low, high = welch.interval
    assert high - welch.difference == pytest.approx(welch.difference - low)
    assert 2.306 < (high - welch.difference) / welch.error < 2.365
    # t = 0.11 / 0.060166 = 1.828 and (0.11 - 0.3) / 0.060166 = -3.158: between the tabulated values of 8
    # degrees of freedom, 1.397 (0.10) and 1.860 (0.05) one-sided, 2.896 (0.01) and 3.355 (0.005).
    assert 2 * 0.05 < welch.p_difference < 2 * 0.10
    assert 0.005 < welch.p_equivalence(0.3) < 0.01


def test_holm_by_hand() -> None:
    """Four p-values ascending: x4, x3, x2, x1, and never below the one before; the first beyond 1 is 1."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.01, 0.02, 0.03, 0.04, 0.05]) == pytest.approx([0.05, 0.08, 0.09, 0.09, 0.09])
    assert holm([0.9, 0.8]) == [1, 1]
    assert holm([0.03]) == [0.03]
    assert holm([]) == []


@fast
@given(samples, samples)
def test_welch_is_scipys(ours: Sample, paper: Sample) -> None:
    welch = Difference.welch(ours, paper)
    expected = stats.ttest_ind_from_stats(
        ours.mean, ours.std, ours.n, paper.mean, paper.std, paper.n, equal_var=False
    )
    assert welch.difference / welch.error == pytest.approx(expected.statistic)
    assert welch.p_difference == pytest.approx(expected.pvalue, rel=1e-9, abs=1e-15)


def test_interval_and_one_sided_tests_are_scipys_on_raw_data() -> None:
    rng = np.random.default_rng(1)
    for _ in range(20):
        a, b = rng.normal(1, 2, 5), rng.normal(2, 0.5, 7)
        welch = Difference.welch(Sample.of(a), Sample.of(b))
        expected = stats.ttest_ind(a, b, equal_var=False)
        assert welch.interval == pytest.approx(tuple(expected.confidence_interval(1 - ALPHA)))
        sides = [
            stats.ttest_ind(a + shift, b, equal_var=False, alternative=side).pvalue
            for shift, side in ((0.7, "greater"), (-0.7, "less"))
        ]
        assert welch.p_equivalence(0.7) == pytest.approx(max(sides))


@fast
@given(st.lists(st.floats(-5, 5), min_size=2, max_size=8, unique=True), st.floats(-2, 2))
def test_paired_differences_are_scipys(differences: list[float], bound: float) -> None:
    paired = Difference.paired(differences)
    if paired.error > 1e-6:  # SciPy warns of cancellation
        expected = stats.ttest_1samp(differences, bound, alternative="greater").pvalue
        assert paired.p_above(bound) == pytest.approx(expected, rel=1e-6, abs=1e-12)
        interval = stats.ttest_1samp(differences, 0).confidence_interval(1 - ALPHA)
        assert paired.interval == pytest.approx(tuple(interval))


# ---- simulation


@pytest.mark.parametrize("where", ["no difference", "at the margin"])
def test_false_positives_over_a_table(where: str) -> None:
    """Tables of ten cells whose every null hypothesis is true: one or more false verdicts in at most 5 %."""
    rng = np.random.default_rng(3)
    tables, cells, margin = 1000, 10, 1.0
    shift = 0.0 if where == "no difference" else margin
    wrong = 0
    for _ in range(tables):
        table = {}
        for cell in range(cells):
            ours, paper = rng.normal(shift, 0.3, 5), rng.normal(0, 0.2 + 0.1 * cell, 5)
            table[cell] = (Sample.of(ours), Sample.of(paper), margin)
        welch = {cell: Difference.welch(a, b) for cell, (a, b, _) in table.items()}
        if where == "no difference":
            corrected = holm([w.p_difference for w in welch.values()])
        else:
            corrected = holm([w.p_equivalence(margin) for w in welch.values()])
        wrong += min(corrected) <= ALPHA
    assert wrong / tables <= ALPHA + 3 * math.sqrt(ALPHA * (1 - ALPHA) / tables)
    assert wrong > 0  # a test that never rejects would pass, too


# ---- verdicts

PAPER = Sample(10.0, 0.1, 5)


@pytest.mark.parametrize(
    ("mean", "std", "margin", "verdict"),
    [
        (10.01, 0.1, 0.5, Verdict.EQUIVALENT),
        (10.3, 0.1, 0.5, Verdict.DIFFERENT_WITHIN_MARGIN),
        (11.0, 0.1, 0.5, Verdict.DIFFERENT),
        (10.0, 2.0, 0.5, Verdict.INCONCLUSIVE),
        (10.0, 0.1, 0.05, Verdict.INCONCLUSIVE),
    ],
)
def test_verdicts(mean: float, std: float, margin: float, verdict: Verdict) -> None:
    (found,) = compare({"": (Sample(mean, std, 5), PAPER, margin)}, 1).values()
    assert found.verdict is verdict


def test_correction_counts_the_whole_table() -> None:
    """A verdict is corrected over all cells, those without results included."""
    clear = (Sample(10.16, 0.1, 5), PAPER, 0.3)
    alone = compare({"clear": clear}, 1)["clear"]
    assert alone.verdict is Verdict.DIFFERENT_WITHIN_MARGIN
    vague = (Sample(10.0, 3.0, 5), PAPER, 0.3)
    among = compare({"clear": clear, **{str(i): vague for i in range(9)}}, 10)["clear"]
    before = compare({"clear": clear}, 10)["clear"]  # the nine others have no results yet
    assert before == among
    assert among.p_difference == alone.p_difference == alone.corrected_p_difference
    assert among.corrected_p_difference == pytest.approx(10 * alone.p_difference)
    assert among.corrected_p_equivalence == pytest.approx(10 * alone.p_equivalence)
    assert among.verdict is Verdict.INCONCLUSIVE
    assert among.interval == alone.interval
    assert compare({}, 0) == {}


def test_zero_deviations() -> None:
    """The limits as both deviations tend to zero; one deviation alone is an ordinary case."""
    same, other = Sample(3.0, 0.0, 5), Sample(4.0, 0.0, 5)
    for ours, paper, margin, verdict in (
        (same, same, 0.5, Verdict.EQUIVALENT),
        (same, other, 0.5, Verdict.DIFFERENT),
        (same, other, 1.5, Verdict.DIFFERENT_WITHIN_MARGIN),
        (same, other, 1.0, Verdict.DIFFERENT),
    ):
        (found,) = compare({"": (ours, paper, margin)}, 1).values()
        assert found.verdict is verdict
        assert found.interval == (ours.mean - paper.mean,) * 2
        tiny = [Sample(s.mean, 1e-9, 5) for s in (ours, paper)]
        (near,) = compare({"": (tiny[0], tiny[1], margin)}, 1).values()
        assert near.verdict is verdict
    one = Difference.welch(same, PAPER)
    assert one.df == pytest.approx(PAPER.n - 1)
    assert one.error == pytest.approx(PAPER.error)


def test_sample_of_values() -> None:
    assert Sample.of([1.0, 2.0, 4.0]) == Sample(pytest.approx(7 / 3), pytest.approx(math.sqrt(7 / 3)), 3)


# ---- properties


@fast
@given(samples, samples, margins)
def test_symmetry(ours: Sample, paper: Sample, margin: float) -> None:
    there, back = Difference.welch(ours, paper), Difference.welch(paper, ours)
    assert there.p_difference == pytest.approx(back.p_difference)
    assert there.p_equivalence(margin) == pytest.approx(back.p_equivalence(margin))
    assert there.interval == pytest.approx(tuple(-x for x in reversed(back.interval)))


@fast
@given(samples, samples, margins, st.floats(1, 3))
def test_a_wider_margin_is_easier(ours: Sample, paper: Sample, margin: float, factor: float) -> None:
    welch = Difference.welch(ours, paper)
    assert welch.p_equivalence(factor * margin) <= welch.p_equivalence(margin)


@fast
@given(means, stds, counts, means, stds, counts, st.integers(1, 20))
def test_more_seeds_narrow_the_interval(
    m1: float, s1: float, n1: int, m2: float, s2: float, n2: int, more: int
) -> None:
    """As many more on both sides: with one side alone, Welch's degrees of freedom may fall."""
    few = Difference.welch(Sample(m1, s1, n1), Sample(m2, s2, n2)).interval
    many = Difference.welch(Sample(m1, s1, n1 * (1 + more)), Sample(m2, s2, n2 * (1 + more))).interval
    assert many[1] - many[0] < few[1] - few[0]


@fast
@given(samples, samples, margins)
def test_tests_agree_with_intervals(ours: Sample, paper: Sample, margin: float) -> None:
    """p <= ALPHA: zero outside the 1 - ALPHA interval; equivalence: the 1 - 2 ALPHA one within the margin."""
    welch = Difference.welch(ours, paper)
    low, high = welch.interval
    if abs(welch.p_difference - ALPHA) > 1e-9:
        assert (welch.p_difference < ALPHA) == (not low <= 0 <= high)
    reach = stats.t.ppf(1 - ALPHA, welch.df) * welch.error
    if abs(welch.p_equivalence(margin) - ALPHA) > 1e-9:
        within = -margin < welch.difference - reach and welch.difference + reach < margin
        assert (welch.p_equivalence(margin) < ALPHA) == within


@fast
@given(st.lists(st.floats(0, 1), max_size=12))
def test_holm_properties(p: list[float]) -> None:
    corrected = holm(p)
    assert all(1 >= after >= before for before, after in zip(p, corrected, strict=True))
    assert all(after <= min(1, len(p) * before) + 1e-15 for before, after in zip(p, corrected, strict=True))
    for i, j in itertools.permutations(range(len(p)), 2):
        assert corrected[i] <= corrected[j] or p[i] > p[j]


@fast
@given(st.floats(0, 1), st.floats(0, 1))
def test_a_verdict_always_and_no_reproduction_from_silence(difference: float, equivalence: float) -> None:
    verdict = Comparison(PAPER, PAPER, 1, difference, equivalence).verdict
    assert verdict is not Verdict.INCOMPLETE
    claims_equivalence = verdict in (Verdict.EQUIVALENT, Verdict.DIFFERENT_WITHIN_MARGIN)
    assert claims_equivalence == (equivalence <= ALPHA)


def test_shortfall_by_hand() -> None:
    """Of 0, 1, ..., 20: 19 is what one in twenty reaches, 10 the mean."""
    accuracy = np.arange(21.0)
    assert shortfall(accuracy) == 9.0
    assert shortfall(np.array([80.0] * 70 + [10.0] * 30)) == pytest.approx(21.0)  # three in ten do not train
    assert shortfall(np.stack([accuracy, 2 * accuracy]), 1).tolist() == [9.0, 18.0]
    low, high = shortfall_interval(accuracy)
    assert 4 < low < 9 < high < 14
    assert shortfall_interval(np.full(3, 7.0)) == (0.0, 0.0)


def test_shortfall_intervals_cover_the_truth() -> None:
    """Of normal samples of 100, about nineteen in twenty."""
    rng = np.random.default_rng(3)
    truth = stats.norm.ppf(0.95)
    intervals = [shortfall_interval(rng.normal(size=100)) for _ in range(60)]
    assert 52 <= sum(low <= truth <= high for low, high in intervals) <= 60
    assert max(high - low for low, high in intervals) < 2


def test_p_of_sensitivities_follows_the_margin() -> None:
    accuracy = np.random.default_rng(5).normal(size=100)
    assert p_less_sensitive(accuracy, 9 * accuracy, 0.0) < 0.001
    assert p_less_sensitive(9 * accuracy, accuracy, 0.0) > 0.999
    assert p_less_sensitive(9 * accuracy, accuracy, 30.0) < 0.001


def test_sensitivities_are_compared_configuration_by_configuration() -> None:
    """Two methods that are alike at each of them differ by nothing, whichever are drawn."""
    accuracy = np.random.default_rng(5).normal(size=100)
    assert p_less_sensitive(accuracy, accuracy + 1, 0.01) < 0.001
    assert p_less_sensitive(accuracy, accuracy[::-1], 0.01) > 0.3
