import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from evaluation.delong import holm, paired_test
from evaluation.margin_tests import Normal, Resampled, holm_tests, p_values, smallest_margin, verdict

QUESTIONS = ("noninferior", "equivalent", "beyond")


def by_hand(difference, error, margin):
    """The three p values from their z statistics."""
    z_worse, z_better = (difference + margin) / error, (difference - margin) / error
    far = (abs(difference) - margin) / error, (abs(difference) + margin) / error
    equivalent = max(1 - norm.cdf(z_worse), norm.cdf(z_better))
    return [1 - norm.cdf(z_worse), equivalent, 1 - norm.cdf(far[0]) + 1 - norm.cdf(far[1])]


@given(st.floats(-0.3, 0.3), st.floats(0.005, 0.2), st.floats(0.001, 0.3))
def test_p_values_equal_those_of_the_z_statistics(difference, error, margin):
    found = p_values(Normal(difference, error), margin)
    np.testing.assert_allclose(
        [found[question] for question in QUESTIONS], by_hand(difference, error, margin), atol=1e-12
    )


@given(st.floats(-0.3, 0.3), st.floats(0.005, 0.2), st.floats(0.001, 0.3))
def test_equivalent_at_5_percent_is_the_90_percent_interval_within_the_margin(difference, error, margin):
    estimate = Normal(difference, error)
    low, high = estimate.interval()
    assert (low, high) == pytest.approx(
        (difference - 1.6448536269514722 * error, difference + 1.6448536269514722 * error)
    )
    p = p_values(estimate, margin)
    for question, holds, slack in (
        ("equivalent", -margin < low and high < margin, min(low + margin, margin - high)),
        ("noninferior", low > -margin, low + margin),
    ):
        assert (p[question] < 0.05) == holds or abs(slack) < 1e-9


def test_without_a_margin_beyond_is_the_two_sided_test():
    rng = np.random.default_rng(0)
    labels = np.repeat([1, 0], [40, 60])
    first, second = (rng.normal(size=100) + labels for _ in range(2))
    test = paired_test(labels, first, second)
    assert p_values(Normal(test.difference, test.standard_error), 0)["beyond"] == pytest.approx(test.p)


def test_resampled_p_values_by_counting():
    samples = np.sort(np.random.default_rng(0).normal(0.01, 0.02, 999).round(3))
    margin = 0.02
    worse, better = np.mean(samples <= -margin) * 999, np.mean(samples >= margin) * 999
    found = p_values(Resampled(0.01, samples), margin)
    assert found["noninferior"] == pytest.approx((worse + 1) / 1000)
    assert found["equivalent"] == pytest.approx((max(worse, better) + 1) / 1000)
    assert found["beyond"] == pytest.approx(((samples <= margin).sum() + 1 + worse + 1) / 1000)
    mirrored = p_values(Resampled(-0.01, np.sort(-samples)), margin)
    assert mirrored["beyond"] == pytest.approx(found["beyond"])
    assert Resampled(0.01, samples).interval() == pytest.approx(tuple(np.percentile(samples, [5, 95])))


def test_many_resamples_of_a_normal_difference_agree_with_the_normal():
    samples = np.sort(np.random.default_rng(1).normal(0.012, 0.01, 200_000))
    drawn, exact = (p_values(estimate, 0.02) for estimate in (Resampled(0.012, samples), Normal(0.012, 0.01)))
    for question in QUESTIONS:
        assert drawn[question] == pytest.approx(exact[question], abs=0.005)


def test_holm_corrects_each_question_and_leaves_out_what_is_not_tested():
    estimates = [Normal(0.001, 0.01), None, Normal(-0.01, 0.004), Normal(0.08, 0.01)]
    tests = holm_tests(estimates, 0.02)
    for question in QUESTIONS:
        raw = np.array([test[question] for test in tests])
        assert np.isnan(raw[1])
        np.testing.assert_array_equal([test[f"{question}_holm"] for test in tests], holm(raw))


@pytest.mark.parametrize(
    ("difference", "error", "expected"),
    [
        (0.0, 0.005, "equivalent"),
        (0.01, 0.01, "non-inferior"),
        (0.0, 0.05, "inconclusive"),
        (-0.01, 0.02, "inconclusive"),
        (0.08, 0.01, "different beyond margin"),
        (-0.08, 0.01, "different beyond margin"),
        (0.03, 0.01, "non-inferior"),
    ],
)
def test_verdicts(difference, error, expected):
    (test,) = holm_tests([Normal(difference, error)], 0.02)
    assert verdict(test) == expected


def test_nothing_tested_is_undefined():
    (test,) = holm_tests([None], 0.02)
    assert verdict(test) == "undefined" and np.isnan(smallest_margin([None], 0, "equivalent"))


def test_certainty():
    assert p_values(Normal(0.0, 0.0), 0.02) == {"noninferior": 0, "equivalent": 0, "beyond": 1}
    assert smallest_margin([Normal(0.0, 0.0)], 0, "equivalent") == 1e-6


@pytest.mark.parametrize("question", ["noninferior", "equivalent"])
def test_the_smallest_margin_holds_and_a_smaller_one_does_not(question):
    estimates = [Normal(0.004, 0.01), Normal(-0.01, 0.004), None, Resampled(-0.02, np.linspace(-0.05, 0.03, 500))]
    found = [smallest_margin(estimates, index, question) for index in range(4)]
    assert np.isnan(found[2])
    for index in (0, 1, 3):
        for margin, holds in ((found[index], True), (found[index] - 1e-6, False)):
            assert (holm_tests(estimates, margin)[index][f"{question}_holm"] < 0.05) == holds


def test_the_smallest_margin_of_one_test_is_the_end_of_its_interval():
    low, high = Normal(0.004, 0.01).interval()
    assert smallest_margin([Normal(0.004, 0.01)], 0, "equivalent") == pytest.approx(high, abs=1e-6)
    assert smallest_margin([Normal(0.004, 0.01)], 0, "noninferior") == pytest.approx(-low, abs=1e-6)
    assert smallest_margin([Normal(0.1, 0.01)], 0, "noninferior") == 0  # better than b: no margin is needed
    assert np.isnan(smallest_margin([Normal(0.1, 0.8)], 0, "equivalent"))
