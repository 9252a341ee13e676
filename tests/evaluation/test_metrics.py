from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from sklearn import metrics as sk
from torchmetrics.functional.classification import binary_accuracy, binary_calibration_error

from evaluation.metrics import (
    DECISION_METRICS,
    METRICS,
    LabelSums,
    auroc,
    brier_score,
    calibration_bin,
    confusion,
    expected_calibration_error,
    panel_sums,
    roc_counts,
    youden_threshold,
)

RULES_AT_HALF = {"0.5": 0.5, "youden": 0.5}


def pairwise_auroc(labels, scores):
    """The definition, pair by pair, in exact fractions."""
    pairs = [(p, n) for p in scores[labels == 1] for n in scores[labels == 0]]
    if not pairs:
        return np.nan
    return float(sum(Fraction(2 * (p > n) + (p == n), 2) for p, n in pairs) / len(pairs))


@st.composite
def labelled_scores(draw, max_films=40):
    """Labels and scores with heavy ties."""
    films = draw(st.integers(1, max_films))
    labels = draw(npst.arrays(np.int8, films, elements=st.integers(0, 1)))
    scores = draw(npst.arrays(np.int64, films, elements=st.integers(0, 12))) / 12
    return labels, scores


@given(labelled_scores())
def test_auroc_is_the_fraction_of_pairs_won(data):
    labels, scores = data
    np.testing.assert_equal(auroc(labels, scores), pairwise_auroc(labels, scores))


@given(labelled_scores())
def test_auroc_knows_only_the_order_of_the_scores(data):
    labels, scores = data
    np.testing.assert_equal(auroc(labels, np.exp(3 * scores) - 7), auroc(labels, scores))


@given(labelled_scores(), st.randoms(use_true_random=False))
def test_no_metric_knows_the_order_of_the_films(data, random):
    labels, scores = data
    order = list(range(len(labels)))
    random.shuffle(order)
    ones = np.ones((len(labels), 1))
    before, after = (
        panel_sums([LabelSums(labels[index], scores[index], RULES_AT_HALF)], ones)
        for index in (np.arange(len(labels)), np.array(order))
    )
    for metric, rule in METRICS:
        np.testing.assert_allclose(after.metric(metric, rule), before.metric(metric, rule), rtol=1e-13, atol=1e-15)
    assert youden_threshold(labels[order], scores[order]) == youden_threshold(labels, scores)


def test_decision_metrics_by_hand():
    labels = np.array([1, 1, 1, 0, 0, 0, 0, 1])
    scores = np.array([0.9, 0.5, 0.4, 0.8, 0.5, 0.2, 0.1, 0.3])
    counts = confusion(labels, scores, 0.5)
    assert [float(count) for count in (counts.tp, counts.fp, counts.fn, counts.tn)] == [2, 2, 2, 2]
    counts = confusion(labels, scores, 0.4)
    found = {name: float(metric(counts)) for name, metric in DECISION_METRICS.items()}
    expected = {"accuracy": 5 / 8, "sensitivity": 3 / 4, "specificity": 1 / 2, "precision": 3 / 5, "f1": 6 / 9}
    assert found == pytest.approx(expected)


def test_undefined_is_nan_and_never_zero():
    none_positive = confusion(np.zeros(4), np.array([0.1, 0.2, 0.3, 0.4]), 0.5)
    assert {name for name, metric in DECISION_METRICS.items() if np.isnan(metric(none_positive))} == {
        "sensitivity",
        "precision",
        "f1",
    }
    all_positive = confusion(np.ones(4), np.array([0.1, 0.2, 0.3, 0.4]), 0.5)
    undefined = {name for name, metric in DECISION_METRICS.items() if np.isnan(metric(all_positive))}
    assert undefined == {"specificity", "precision"}
    assert DECISION_METRICS["f1"](all_positive) == 0  # there was something to find
    assert np.isnan(auroc(np.zeros(3), np.arange(3))) and np.isnan(auroc(np.ones(3), np.arange(3)))


def test_a_probability_of_exactly_one_half_is_decided_positive_unlike_in_torchmetrics():
    labels, scores = np.array([1, 0]), np.array([0.5, 0.4])
    assert DECISION_METRICS["accuracy"](confusion(labels, scores, 0.5)) == 1
    assert binary_accuracy(torch.tensor(scores), torch.tensor(labels)).item() == 0.5


@given(labelled_scores())
def test_youden_is_the_first_maximum_of_scikit_learns_roc_curve(data):
    labels, scores = data
    assume(0 < labels.sum() < len(labels))
    for drop in (True, False):
        fpr, tpr, thresholds = sk.roc_curve(labels, scores, drop_intermediate=drop)
        positives, negatives = int(labels.sum()), int((1 - labels).sum())
        gain = [
            Fraction(round(t * positives), positives) - Fraction(round(f * negatives), negatives)
            for t, f in zip(tpr, fpr, strict=True)
        ]
        best = gain.index(max(gain))
        threshold, reason = youden_threshold(labels, scores)
        if best == 0:
            assert threshold is None and "chance" in reason
        else:
            assert (threshold, reason) == (thresholds[best], None)


@given(labelled_scores(), st.randoms(use_true_random=False))
def test_plain_functions_leave_out_films_that_are_not_labelled(data, random):
    labels, scores = data
    hidden = np.array([random.random() < 0.4 for _ in labels])
    partly = np.where(hidden, np.nan, labels)
    for function in (auroc, brier_score, expected_calibration_error):
        expected = function(labels[~hidden], scores[~hidden]) if not hidden.all() else np.nan
        np.testing.assert_equal(function(partly, scores), expected)
    for found, expected in zip(roc_counts(partly, scores), roc_counts(labels[~hidden], scores[~hidden]), strict=True):
        np.testing.assert_array_equal(found, expected)
    counts, kept = confusion(partly, scores, 0.5), confusion(labels[~hidden], scores[~hidden], 0.5)
    assert counts == kept


def test_the_film_at_the_youden_threshold_is_positive():
    labels, scores = np.array([0, 0, 1, 1]), np.array([0.1, 0.2, 0.35, 0.8])
    threshold, _ = youden_threshold(labels, scores)
    assert threshold == 0.35
    assert DECISION_METRICS["sensitivity"](confusion(labels, scores, threshold)) == 1


def test_no_youden_threshold_is_said_with_its_reason():
    scores = np.array([0.1, 0.2, 0.3])
    assert youden_threshold(np.full(3, np.nan), scores) == (None, "no labelled films in validation")
    assert youden_threshold(np.zeros(3, int), scores) == (None, "no positives in validation")
    assert youden_threshold(np.ones(3, int), scores) == (None, "no negatives in validation")
    assert youden_threshold(np.array([1, 0, 0]), scores) == (None, "no threshold is better than chance in validation")


@given(labelled_scores())
def test_roc_counts_are_the_confusion_counts_at_each_threshold(data):
    labels, scores = data
    for tp, fp, threshold in zip(*roc_counts(labels, scores), strict=True):
        counts = confusion(labels, scores, threshold)
        assert (counts.tp, counts.fp) == (tp, fp)


@settings(max_examples=50)
@given(st.integers(2, 300), st.integers(0, 2**32))
def test_calibration_equals_scikit_learn_and_torchmetrics(films, seed):
    rng = np.random.default_rng(seed)
    labels, probabilities = rng.integers(0, 2, films), rng.random(films) ** 2
    assert brier_score(labels, probabilities) == pytest.approx(sk.brier_score_loss(labels, probabilities), abs=1e-14)
    theirs = binary_calibration_error(torch.tensor(probabilities), torch.tensor(labels), n_bins=15)
    assert expected_calibration_error(labels, probabilities) == pytest.approx(theirs.item(), abs=1e-6)


def test_calibration_error_by_hand():
    labels, probabilities = np.array([0, 1, 1, 1]), np.array([0.01, 0.05, 0.9, 1.0])
    # bins [0, 1/15): |0.03 - 0.5|; [13/15, 14/15): |0.9 - 1|; [14/15, 1]: 0
    assert expected_calibration_error(labels, probabilities) == pytest.approx((2 * 0.47 + 0.1) / 4)


def test_calibration_bins_are_closed_below_and_the_last_holds_one():
    assert calibration_bin(np.array([0, 1 / 15 - 1e-9, 1 / 15, 0.2, 0.6, 14 / 15, 1])).tolist() == [
        0,
        0,
        1,
        3,
        9,
        14,
        14,
    ]


@given(labelled_scores())
def test_the_sums_give_what_the_plain_functions_give(data):
    labels, scores = data
    threshold, _ = youden_threshold(labels, scores)
    sums = panel_sums([LabelSums(labels, scores, {"0.5": 0.5, "youden": threshold})], np.ones((len(labels), 1)))
    for metric, rule in METRICS:
        found = sums.metric(metric, rule)[0, 0]
        if rule == "youden" and threshold is None:
            assert np.isnan(found)
        elif metric in DECISION_METRICS:
            counts = confusion(labels, scores, 0.5 if rule == "0.5" else threshold)
            np.testing.assert_equal(found, float(DECISION_METRICS[metric](counts)))
        else:
            plain = {"auroc": auroc, "brier": brier_score, "ece": expected_calibration_error}[metric]
            np.testing.assert_allclose(found, plain(labels, scores), rtol=1e-13, atol=1e-15)
