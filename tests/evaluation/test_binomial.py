import numpy as np
import pytest
from scipy.stats import binom, binomtest

from evaluation.binomial import exact_interval


@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.999])
@pytest.mark.parametrize("trials", [1, 2, 16, 150, 10_000])
def test_interval_equals_scipys(trials, confidence):
    for successes in sorted({0, 1, trials // 3, trials - 1, trials}):
        expected = binomtest(successes, trials).proportion_ci(confidence, method="exact")
        np.testing.assert_allclose(exact_interval(successes, trials, confidence), expected, rtol=1e-9, atol=1e-12)


def test_by_hand():
    assert exact_interval(0, 16) == (0, pytest.approx(1 - 0.025 ** (1 / 16)))  # 0.206
    assert exact_interval(16, 16) == (pytest.approx(0.025 ** (1 / 16)), 1)
    assert exact_interval(1, 1) == (pytest.approx(0.025), 1)


@pytest.mark.parametrize("proportion", [0.02, 0.3, 0.5])
def test_it_covers_the_true_proportion_at_least_95_percent_of_the_time(proportion):
    counts = np.arange(31)
    limits = np.array([exact_interval(int(count), 30) for count in counts])
    covers = (limits[:, 0] <= proportion) & (proportion <= limits[:, 1])
    assert binom.pmf(counts, 30, proportion)[covers].sum() >= 0.95


def test_no_trials_are_nan_and_impossible_counts_are_refused():
    assert np.isnan(exact_interval(0, 0)).all()
    for successes, trials, confidence in ((2, 1, 0.95), (-1, 4, 0.95), (1, 4, 1.0), (1, 4, 0.0)):
        with pytest.raises(ValueError, match="is not a proportion"):
            exact_interval(successes, trials, confidence)
