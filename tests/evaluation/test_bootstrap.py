import hashlib
import os
import subprocess
import sys

import numpy as np
import pytest
from scipy.stats import norm
from sklearn import metrics as sk

from cxr.files import InputError
from cxr.labels import LabelSet
from cxr.predictions import Predictions
from evaluation.bootstrap import film_units, interval, mean_of_defined, resample_weights, resampled_sums
from evaluation.metrics import METRICS, LabelSums


def simulate(films, prevalence, seed, grid=None, separation=1.5):
    """Labels and scores; `grid` rounds the scores so that most films are tied."""
    rng = np.random.default_rng(seed)
    labels = (rng.random(films) < prevalence).astype(np.int8)
    scores = norm.cdf(rng.normal(size=films) + separation * labels - 1)
    return labels, scores if grid is None else np.round(scores * grid) / grid


def with_scikit_learn(labels, scores, thresholds):
    """Every metric of one resample by scikit-learn, NaN where it is undefined."""
    both = 0 < labels.sum() < len(labels)
    values = {("auroc", "-"): sk.roc_auc_score(labels, scores) if both else np.nan}
    for rule, threshold in thresholds.items():
        decided = (scores >= threshold).astype(int)
        undefined = {"zero_division": np.nan}
        values["accuracy", rule] = sk.accuracy_score(labels, decided)
        values["sensitivity", rule] = sk.recall_score(labels, decided, **undefined)
        values["specificity", rule] = sk.recall_score(labels, decided, pos_label=0, **undefined)
        values["precision", rule] = sk.precision_score(labels, decided, **undefined)
        values["f1", rule] = sk.f1_score(labels, decided, **undefined)
    values["brier", "-"] = np.mean((scores - labels) ** 2)
    bins = np.minimum((scores * 15 + 1e-12).astype(int), 14)
    parts = [np.mean(bins == k) * abs(np.mean((scores - labels)[bins == k])) for k in set(bins)]
    values["ece", "-"] = sum(parts)
    return values


@pytest.mark.parametrize(("films", "resamples"), [(2, 24), (7, 20), (234, 10), (668, 10)])
def test_equals_scikit_learn_on_the_same_resamples_with_heavy_ties(films, resamples):
    thresholds = {"0.5": 0.5, "youden": 0.3}
    columns = [simulate(films, 0.3, 1, grid=8), simulate(films, 0.02, 2, grid=20), simulate(films, 0.6, 3)]
    panel = [LabelSums(labels, scores, thresholds) for labels, scores in columns]
    (sums,) = resampled_sums([panel], np.arange(films), resamples=resamples, seed=5, chunk=7)
    weights = np.concatenate(list(resample_weights(np.arange(films), resamples, 5)), axis=1).astype(int)
    found = {key: sums.metric(*key) for key in METRICS}
    for column, (labels, scores) in enumerate(columns):
        for resample in range(resamples):
            drawn = np.repeat(np.arange(films), weights[:, resample])
            expected = with_scikit_learn(labels[drawn], scores[drawn], thresholds)
            assert set(expected) == set(METRICS)
            for key, value in expected.items():
                np.testing.assert_allclose(found[key][column, resample], value, rtol=0, atol=1e-12, err_msg=str(key))


def test_two_panels_share_the_resamples():
    labels, scores = simulate(50, 0.4, 0)
    thresholds = {"0.5": 0.5, "youden": None}
    panel = [LabelSums(labels, scores, thresholds)]
    alone = resampled_sums([panel], np.arange(50), resamples=30, seed=1)[0]
    first, second = resampled_sums([panel, panel * 2], np.arange(50), resamples=30, seed=1)
    for sums in (first, second):
        np.testing.assert_array_equal(sums.metric("auroc", "-")[0], alone.metric("auroc", "-")[0])
    assert np.isnan(alone.metric("accuracy", "youden")).all() and not np.isnan(alone.metric("accuracy", "0.5")).any()


@pytest.mark.parametrize("chunk", [1, 7, 64, 1000])
def test_same_seed_same_bytes_whatever_the_chunk_size(chunk):
    units = np.array([0, 0, 1, 2, 2, 2, 3])
    whole = np.concatenate(list(resample_weights(units, 300, 11)), axis=1)
    chunked = np.concatenate(list(resample_weights(units, 300, 11, chunk=chunk)), axis=1)
    assert chunked.tobytes() == whole.tobytes()
    fewer = np.concatenate(list(resample_weights(units, 90, 11, chunk=chunk)), axis=1)
    assert fewer.tobytes() == np.ascontiguousarray(whole[:, :90]).tobytes()
    other = np.concatenate(list(resample_weights(units, 300, 12, chunk=chunk)), axis=1)
    assert other.tobytes() != whole.tobytes()


def test_sums_have_the_same_bytes_whatever_the_chunk_size():
    labels, scores = simulate(101, 0.3, 4)
    panel = [LabelSums(labels, scores, {"0.5": 0.5, "youden": 0.4})]
    rows = {
        chunk: resampled_sums([panel], np.arange(101), resamples=200, seed=3, chunk=chunk)[0].rows.tobytes()
        for chunk in (None, 1, 33, 199)
    }
    assert len(set(rows.values())) == 1


def sums_digest():
    """sha256 of the sums of a fixed example; `test_same_bytes_for_any_thread_count` runs it with three threads too."""
    columns = [simulate(200, prevalence, seed) for seed, prevalence in enumerate((0.05, 0.3, 0.6))]
    panel = [LabelSums(labels, scores, {"0.5": 0.5, "youden": 0.4}) for labels, scores in columns]
    (sums,) = resampled_sums([panel], np.arange(200), resamples=3000, seed=3)
    return hashlib.sha256(sums.rows.tobytes()).hexdigest()


def test_same_bytes_for_any_thread_count():
    variables = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    command = "import sys; sys.path[:0] = ['.', 'tests/evaluation']; import test_bootstrap as t; print(t.sums_digest())"
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    environment = os.environ | dict.fromkeys(variables, "3")
    result = subprocess.run(
        [sys.executable, "-c", command], cwd=root, env=environment, capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == sums_digest()


def test_a_resample_draws_as_many_films_as_there_are():
    weights = np.concatenate(list(resample_weights(np.arange(40), 20000, 0)), axis=1)
    assert weights.shape == (40, 20000) and (weights.sum(axis=0) == 40).all()
    np.testing.assert_allclose(weights.mean(axis=1), 1, atol=0.04)  # 1 +- 5 standard errors
    np.testing.assert_allclose(weights.var(axis=1), 1 - 1 / 40, atol=0.06)


def test_films_of_a_patient_are_drawn_together():
    paths = [f"valid/patient{patient}/study1/view{i}.jpg" for i, patient in enumerate((7, 3, 7, 12, 3, 7))]
    units = film_units(of_films(paths), "patient")
    weights = np.concatenate(list(resample_weights(units, 500, 0)), axis=1)
    for patient in ([0, 2, 5], [1, 4]):
        assert (weights[patient] == weights[patient[0]]).all()
    assert (weights[[0, 1, 3]].sum(axis=0) == 3).all()  # three patients drawn each time
    assert len(np.unique(weights.sum(axis=0))) > 1  # so the number of films varies
    labels, scores = np.array([1, 0, 0, 1, 0, 1]), np.array([0.9, 0.2, 0.6, 0.4, 0.4, 0.7])
    (sums,) = resampled_sums([[LabelSums(labels, scores, {"0.5": 0.5, "youden": 0.3})]], units, resamples=10, seed=0)
    for resample in range(10):
        drawn = np.repeat(np.arange(6), weights[:, resample].astype(int))
        for key, value in with_scikit_learn(labels[drawn], scores[drawn], {"0.5": 0.5, "youden": 0.3}).items():
            np.testing.assert_allclose(sums.metric(*key)[0, resample], value, rtol=0, atol=1e-12)


def of_films(paths, patients=()):
    """Predictions of one label for some films."""
    values = np.zeros((len(paths), 1))
    return Predictions(tuple(paths), values, values, LabelSet.of(["Mass"]), patients=tuple(patients))


def test_units():
    assert film_units(of_films(["a.png", "b.png"]), "film").tolist() == [0, 1]
    assert film_units(of_films(["a.png", "b.png", "c.png"], ["y", "x", "y"]), "patient").tolist() == [0, 1, 0]
    with pytest.raises(InputError, match="b.png: its patient is unknown"):
        film_units(of_films(["patient1/a.png", "b.png"]), "patient")
    with pytest.raises(ValueError, match="study"):
        film_units(of_films(["a.png"]), "study")


@pytest.mark.parametrize("seed", range(3))
def test_films_that_are_not_labelled_count_nowhere(seed):
    """Against scikit-learn on the labelled films of each resample, label by label."""
    films, resamples, thresholds = 60, 15, {"0.5": 0.5, "youden": 0.3}
    rng = np.random.default_rng(seed)
    columns = []
    for unlabelled in (0.2, 0.9, 0.0, 1.0):
        labels, scores = simulate(films, 0.4, rng.integers(1000), grid=8)
        columns.append((np.where(rng.random(films) < unlabelled, np.nan, labels), scores))
    panel = [LabelSums(labels, scores, thresholds) for labels, scores in columns]
    (sums,) = resampled_sums([panel], np.arange(films), resamples=resamples, seed=5, chunk=4)
    weights = np.concatenate(list(resample_weights(np.arange(films), resamples, 5)), axis=1).astype(int)
    defined = 0
    for column, (labels, scores) in enumerate(columns):
        for resample in range(resamples):
            drawn = np.repeat(np.arange(films), weights[:, resample])
            drawn = drawn[~np.isnan(labels[drawn])]
            assert sums["films"][column, resample] == len(drawn)
            if not len(drawn):
                assert all(np.isnan(sums.metric(*key)[column, resample]) for key in METRICS)
                continue
            defined += 1
            expected = with_scikit_learn(labels[drawn].astype(int), scores[drawn], thresholds)
            for key, value in expected.items():
                found = sums.metric(*key)[column, resample]
                np.testing.assert_allclose(found, value, rtol=0, atol=1e-12, err_msg=str(key))
    assert 2 * resamples < defined <= 3 * resamples


def test_resamples_without_positives_are_left_out_and_counted():
    labels = np.zeros(500, np.int8)
    labels[[3, 99, 250, 499]] = 1
    scores = np.random.default_rng(0).random(500) / 2 + labels / 4
    panel = [LabelSums(labels, scores, {"0.5": 0.5, "youden": 0.4})]
    (sums,) = resampled_sums([panel], np.arange(500), resamples=20000, seed=0)
    samples = sums.metric("auroc", "-")[0]
    undefined = np.isnan(samples)
    assert undefined.mean() == pytest.approx((1 - 4 / 500) ** 500, abs=0.003)  # 0.0180, within 3 standard errors
    summary = interval(samples)
    assert summary.defined == 20000 - undefined.sum()
    assert summary.mean == pytest.approx(samples[~undefined].mean()) and samples[~undefined].min() > 0


def test_interval_by_hand():
    values = np.append(np.arange(1001.0), np.nan)
    summary = interval(np.random.default_rng(0).permutation(values))
    assert (summary.low, summary.high, summary.mean) == pytest.approx((25, 975, 500))
    assert (summary.median, summary.defined) == (500, 1001)
    empty = interval(np.full(5, np.nan))
    assert empty.defined == 0 and np.isnan([empty.low, empty.high, empty.mean, empty.median]).all()


def test_mean_is_over_the_defined_labels():
    values = np.array([[1, np.nan, np.nan], [3, 5, np.nan]])
    np.testing.assert_array_equal(mean_of_defined(values), [2, 5, np.nan])


def test_the_95_percent_interval_covers_a_known_auroc_95_percent_of_the_time():
    separation = 1.2
    truth = norm.cdf(separation / np.sqrt(2))  # the AUROC of two unit normals `separation` apart
    covered = 0
    for data_set in range(300):
        rng = np.random.default_rng((2024, data_set))
        labels = np.repeat([1, 0], [60, 140])
        scores = norm.cdf(rng.normal(size=200) + separation * labels)
        panel = [LabelSums(labels, scores, {"0.5": 0.5, "youden": None})]
        (sums,) = resampled_sums([panel], np.arange(200), resamples=2000, seed=data_set)
        summary = interval(sums.metric("auroc", "-")[0])
        covered += summary.low <= truth <= summary.high
    assert 0.92 <= covered / 300 <= 0.97
