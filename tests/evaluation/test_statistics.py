"""Intervals of rates and paired differences against published tables, closed forms and exact coverage."""

import math

import pytest

from hilam_hf.evaluation.statistics import PairedCounts, SuccessRate, wilson_interval


@pytest.mark.parametrize(
    ("successes", "trials", "confidence", "expected"),
    [
        # Newcombe (1998), Statistics in Medicine 17, table I, method 3: Wilson score without continuity correction.
        (81, 263, 0.95, (0.2553, 0.3662)),
        (15, 148, 0.95, (0.0624, 0.1605)),
        (0, 20, 0.95, (0.0000, 0.1611)),
        (1, 29, 0.95, (0.0061, 0.1718)),
    ],
)
def test_wilson_interval_agrees_with_newcombes_table(successes, trials, confidence, expected):
    assert wilson_interval(successes, trials, confidence) == pytest.approx(expected, abs=5e-5)


@pytest.mark.parametrize("trials", [1, 7, 50])
def test_wilson_interval_without_successes_has_a_closed_form(trials):
    z = 1.959963984540054
    assert wilson_interval(0, trials) == pytest.approx((0.0, z**2 / (trials + z**2)))
    assert wilson_interval(trials, trials) == pytest.approx((trials / (trials + z**2), 1.0))


@pytest.mark.parametrize(("successes", "trials"), [(3, 10), (50, 100), (99, 100)])
def test_wilson_bounds_are_the_rates_whose_score_test_just_rejects(successes, trials):
    z = 1.6448536269514722
    observed = successes / trials
    for bound in wilson_interval(successes, trials, confidence=0.90):
        assert abs(observed - bound) / math.sqrt(bound * (1 - bound) / trials) == pytest.approx(z)


def test_wilson_interval_mirrors():
    low, high = wilson_interval(7, 30)
    assert wilson_interval(23, 30) == pytest.approx((1 - high, 1 - low))


@pytest.mark.parametrize(
    ("arguments", "named"),
    [((1, 0), "trials"), ((-1, 5), "successes"), ((6, 5), "successes"), ((1, 5, 1.0), "confidence")],
)
def test_wilson_interval_rejects_bad_numbers(arguments, named):
    with pytest.raises(ValueError, match=named):
        wilson_interval(*arguments)


def test_success_rate():
    rate = SuccessRate(18, 20)
    assert rate.rate == 0.9
    assert rate.interval == wilson_interval(18, 20)
    assert rate.to_dict()["success_rate"] == 0.9
    assert str(rate).startswith("90 % (18/20, 95 % interval 70-97 %")
    with pytest.raises(ValueError, match="successes"):
        SuccessRate(21, 20)


def test_paired_interval_agrees_with_published_examples():
    # Fagerland, Lydersen, Laake (2017), Statistical Analysis of Contingency Tables, chapter 8: complete response before
    # and after consolidation therapy (Cavo et al. 2012), 59 6 / 16 80, and airway hyper-responsiveness before and after
    # transplantation (Bentur et al. 2009), 1 1 / 7 12: Newcombe's square-and-add intervals.
    cavo = PairedCounts(both=59, only_a=16, only_b=6, neither=80)
    assert (cavo.difference, *cavo.interval()) == pytest.approx((-0.0621, -0.1186, -0.0046), abs=5e-5)
    bentur = PairedCounts(both=1, only_a=7, only_b=1, neither=12)
    assert bentur.interval() == pytest.approx((-0.507, -0.026), abs=5e-4)
    assert bentur.p_value == pytest.approx(0.0703, abs=5e-5)


@pytest.mark.parametrize("counts", [(5, 3, 9, 2), (0, 4, 1, 7), (10, 0, 0, 10), (3, 3, 3, 3), (1, 12, 2, 1)])
def test_paired_interval_mirrors_and_holds_the_difference(counts):
    both, only_a, only_b, neither = counts
    low, high = PairedCounts(both, only_a, only_b, neither).interval()
    assert -1 <= low <= (only_b - only_a) / sum(counts) <= high <= 1
    assert PairedCounts(both, only_b, only_a, neither).interval() == pytest.approx((-high, -low))
    assert PairedCounts(neither, only_b, only_a, both).interval() == pytest.approx((-high, -low))


def test_paired_interval_covers_the_true_difference():
    # Every table of 15 pairs, weighted with its multinomial probability: the exact coverage.
    n, chances = 15, (0.5, 0.05, 0.25, 0.2)
    coverage = 0.0
    for a in range(n + 1):
        for b in range(n + 1 - a):
            for c in range(n + 1 - a - b):
                counts = (a, b, c, n - a - b - c)
                probability = math.factorial(n) * math.prod(
                    p**k / math.factorial(k) for p, k in zip(chances, counts, strict=True)
                )
                low, high = PairedCounts(*counts).interval()
                coverage += probability * (low <= 0.2 <= high)
    assert 0.93 < coverage < 0.99


def test_paired_interval_without_correlation_adds_both_widths():
    # Neither solves anything: both rates are 0 with Wilson's upper bound z²/(n + z²).
    bound = 1.959963984540054**2 / (20 + 1.959963984540054**2)
    assert PairedCounts(0, 0, 0, 20).interval() == pytest.approx((-bound, bound))


@pytest.mark.parametrize(("only_a", "only_b", "expected"), [(0, 5, 2 / 32), (1, 5, 14 / 64), (3, 3, 1.0), (0, 0, 1.0)])
def test_mcnemar_counts_tosses(only_a, only_b, expected):
    counts = PairedCounts(both=4, only_a=only_a, only_b=only_b, neither=9)
    assert counts.p_value == pytest.approx(expected)
    assert PairedCounts(4, only_b, only_a, 9).p_value == counts.p_value


@pytest.mark.parametrize("counts", [(0, 0, 0, 0), (1, -1, 2, 2)])
def test_paired_counts_reject_bad_numbers(counts):
    with pytest.raises(ValueError, match="at least"):
        PairedCounts(*counts)
