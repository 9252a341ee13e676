import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from evaluation.bootstrap import resampled_sums
from evaluation.delong import components, holm, interval, paired_test
from evaluation.metrics import LabelSums, auroc


def binormal(positives, negatives, separation, seed, decimals=None):
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat([1, 0], [positives, negatives]))
    scores = rng.normal(size=len(labels)) + separation * labels
    return labels, scores if decimals is None else np.round(scores, decimals)


def slow_covariance(labels, *scores):
    """AUROCs and their covariance from the (positives, negatives) table of won pairs, as DeLong et al. define it."""
    won = []
    for score in scores:
        gap = score[labels == 1][:, None] - score[labels == 0][None, :]
        won.append((gap > 0) + 0.5 * (gap == 0))
    of_positives, of_negatives = ([table.mean(axis=axis) for table in won] for axis in (1, 0))
    covariance = np.cov(of_positives) / len(of_positives[0]) + np.cov(of_negatives) / len(of_negatives[0])
    return [table.mean() for table in won], np.atleast_2d(covariance)


@pytest.mark.parametrize("decimals", [None, 0])
def test_variance_and_interval_equal_the_slow_definition(decimals):
    labels, scores = binormal(23, 61, 1, 0, decimals)
    (expected,), covariance = slow_covariance(labels, scores)
    found = interval(labels, scores)
    error = np.sqrt(covariance[0, 0])
    assert found == pytest.approx((expected, error, expected - 1.959964 * error, expected + 1.959964 * error), rel=1e-6)
    assert found.auroc == pytest.approx(auroc(labels, scores), abs=1e-14)
    assert components(labels, scores).of_negatives.mean() == pytest.approx(found.auroc, abs=1e-14)


@pytest.mark.parametrize("decimals", [None, 0])
def test_paired_test_equals_the_slow_definition(decimals):
    labels, first = binormal(23, 61, 1, 0, decimals)
    second = np.round(first + np.random.default_rng(1).normal(size=84), decimals or 9)
    (a, b), covariance = slow_covariance(labels, first, second)
    error = np.sqrt(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    expected = (a - b, error, 2 * (1 - norm.cdf(abs(a - b) / error)))
    assert paired_test(labels, first, second) == pytest.approx(expected, rel=1e-9)


def test_interval_by_hand():
    # positives 4, 2; negatives 3, 1: of_positives (1, 1/2), of_negatives (1/2, 1), each of variance 1/8
    found = interval(np.array([1, 0, 1, 0]), np.array([4, 3, 2, 1]))
    assert found.auroc == 0.75 and found.standard_error == pytest.approx(np.sqrt(1 / 8))
    assert found.high == 1  # cut


@given(st.integers(0, 10**6))
def test_swapping_the_models_flips_the_sign_and_keeps_p(seed):
    labels, first = binormal(9, 14, 1, seed, 0)
    second = binormal(9, 14, 1, seed + 1, 0)[1]
    there, back = paired_test(labels, first, second), paired_test(labels, second, first)
    assert back == pytest.approx((-there.difference, there.standard_error, there.p))


def test_the_same_ranking_gives_p_1():
    labels, scores = binormal(10, 20, 1, 3)
    assert paired_test(labels, scores, np.exp(scores)) == (0, 0, 1)


def test_too_few_films_of_a_class_give_nan():
    for labels in ([1, 0, 0, 0], [1, 1, 1, 0], [0, 0, 0, 0], [1, 1, 1, 1]):
        assert np.isnan(interval(np.array(labels), np.arange(4.0))).all()
        assert np.isnan(paired_test(np.array(labels), np.arange(4.0), np.ones(4))).all()


def test_a_difference_without_variance_has_no_p():
    labels, scores = np.array([1, 1, 0, 0]), np.array([3, 4, 1, 2])
    found = paired_test(labels, scores, -scores)
    assert (found.difference, found.standard_error) == (1, 0) and np.isnan(found.p)


def test_p_is_small_five_percent_of_the_time_when_the_models_are_equally_good():
    small = 0
    for data_set in range(400):
        rng = np.random.default_rng((7, data_set))
        labels = np.repeat([1, 0], [40, 60])
        shared = rng.normal(size=100) + labels
        first, second = (shared + rng.normal(size=100) for _ in range(2))
        small += paired_test(labels, first, second).p < 0.05
    assert 0.025 <= small / 400 <= 0.075


@pytest.mark.parametrize(("positives", "negatives", "separation"), [(30, 204, 1.5), (150, 518, 1.2), (334, 334, 0.5)])
def test_bootstrap_and_delong_agree_on_the_standard_error(positives, negatives, separation):
    labels, scores = binormal(positives, negatives, separation, 1, 1)
    panel = [LabelSums(labels, norm.cdf(scores), {"0.5": 0.5, "youden": None})]
    (sums,) = resampled_sums([panel], np.arange(len(labels)), resamples=5000, seed=0)
    bootstrap_error = sums.metric("auroc", "-")[0].std()
    assert bootstrap_error == pytest.approx(interval(labels, scores).standard_error, rel=0.1)


def test_holm_by_hand():
    # sorted 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1, never decreasing
    np.testing.assert_allclose(holm(np.array([0.01, 0.04, np.nan, 0.03, 0.005])), [0.03, 0.06, np.nan, 0.06, 0.02])
    np.testing.assert_allclose(holm(np.array([0.6, 0.7])), [1, 1])
    assert np.isnan(holm(np.array([np.nan]))).all()


def slow_clustered_variance(labels, gap_of_positives, gap_of_negatives, clusters):
    """Obuchowski's sums, cluster by cluster."""
    within = []
    for part, of_class in ((gap_of_positives, labels == 1), (gap_of_negatives, labels == 0)):
        within.append({})
        for value, cluster in zip(part - part.mean(), clusters[of_class], strict=True):
            within[-1][cluster] = within[-1].get(cluster, 0) + value
    positives, negatives, count = len(gap_of_positives), len(gap_of_negatives), len(set(clusters))
    s10, s01 = (
        len(sums) / ((len(sums) - 1) * films) * sum(value**2 for value in sums.values())
        for sums, films in zip(within, (positives, negatives), strict=True)
    )
    s11 = count / (count - 1) * sum(within[0].get(c, 0) * within[1].get(c, 0) for c in set(clusters))
    return s10 / positives + s01 / negatives + 2 * s11 / (positives * negatives)


@pytest.mark.parametrize("films_per_cluster", [1, 3])
def test_clustered_variance_equals_the_slow_definition(films_per_cluster):
    labels, first = binormal(30, 60, 1, 4)
    second = first + np.random.default_rng(5).normal(size=90)
    clusters = np.arange(90) // films_per_cluster
    a, b = components(labels, first), components(labels, second)
    gaps = a.of_positives - b.of_positives, a.of_negatives - b.of_negatives
    expected = np.sqrt(slow_clustered_variance(labels, *gaps, clusters))
    found = paired_test(labels, first, second, clusters)
    assert found.standard_error == pytest.approx(expected, rel=1e-12)
    if films_per_cluster == 1:
        assert found == pytest.approx(paired_test(labels, first, second), rel=1e-12)


def test_clustered_p_is_small_five_percent_of_the_time_where_films_of_a_patient_are_alike():
    """40 patients of 4 films with a shared error and label: DeLong's test would reject three times as often."""
    clusters = np.repeat(np.arange(40), 4)
    small = np.zeros(2)
    for data_set in range(400):
        rng = np.random.default_rng((8, data_set))
        labels = np.repeat([1, 0], [20, 20])[clusters]
        first, second = (labels + rng.normal(size=40)[clusters] + 0.3 * rng.normal(size=160) for _ in range(2))
        small += [paired_test(labels, first, second, c).p < 0.05 for c in (clusters, None)]
    assert 0.03 <= small[0] / 400 <= 0.09
    assert small[1] / 400 > 0.2


def test_one_cluster_of_a_class_has_no_variance():
    labels = np.array([1, 1, 0, 0])
    found = paired_test(labels, np.arange(4.0), np.ones(4), np.array([0, 0, 1, 2]))
    assert np.isnan(found).all()
