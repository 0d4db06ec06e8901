"""Wilson intervals against published tables and closed forms."""

import math

import pytest

from hilam_hf.evaluation.statistics import SuccessRate, wilson_interval


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
