import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression

from cxr.calibration_lines import Calibration, Line, logit
from cxr.labels import LabelSet
from cxr.predictions import Predictions
from evaluation.bootstrap import resample_weights
from evaluation.calibration import CalibrationErrors, calibrated, fit_calibration, fit_line, recalibration_table
from evaluation.metrics import brier_score, expected_calibration_error

NAMES = ("Edema", "Mass", "Rare")


def films(count, seed, slope=0.5, intercept=-1.0, prevalence=None):
    """Labels drawn with probability sigmoid(slope * logit + intercept)."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0.5, 2, size=count)
    labels = (rng.random(count) < 1 / (1 + np.exp(-(slope * logits + intercept)))).astype(float)
    return labels, 1 / (1 + np.exp(-logits))


def panel(count, seed):
    """Edema overconfident, Mass with a fifth not labelled, Rare without a positive."""
    columns = [films(count, seed + i, *line) for i, line in enumerate(((0.5, -1.0), (0.8, 0.4), (1.0, 0.0)))]
    labels, probabilities = (np.column_stack(part) for part in zip(*columns, strict=True))
    labels[np.random.default_rng(seed).random(count) < 0.2, 1] = np.nan
    labels[:, 2] = 0
    paths = tuple(f"patient{i // 2}/study1/view{i}.jpg" for i in range(count))
    return Predictions(paths, probabilities, labels, LabelSet(NAMES))


@pytest.mark.parametrize(
    ("count", "slope", "intercept"), [(30, 0.5, -1), (300, 2.0, 3), (300, -0.7, 0), (2000, 0.05, -2)]
)
def test_fit_equals_scikit_learns_logistic_regression_without_penalty(count, slope, intercept):
    labels, probabilities = films(count, 3, slope, intercept)
    model = LogisticRegression(C=np.inf, tol=1e-10, max_iter=10_000).fit(logit(probabilities)[:, None], labels)
    line, reason = fit_line(labels, probabilities)
    assert (line.slope, line.intercept) == pytest.approx((model.coef_[0, 0], model.intercept_[0]), rel=1e-5, abs=1e-6)
    chances = line.probabilities(probabilities)
    assert (chances - labels).sum() == pytest.approx(0, abs=1e-8)  # the likelihood's own equations
    assert ((chances - labels) * logit(probabilities)).sum() == pytest.approx(0, abs=1e-7)
    assert not reason


def test_fit_recovers_the_truth():
    line, _ = fit_line(*films(200_000, 1, 0.6, -0.9))
    assert (line.slope, line.intercept) == pytest.approx((0.6, -0.9), abs=0.02)


def test_far_and_certain_probabilities_are_fitted():
    """Logits at the limit and large offsets: Newton's steps have to be halved, and no number overflows."""
    rng = np.random.default_rng(0)
    for offset, scale in ((15, 0.01), (-18, 3), (0, 20)):
        logits = offset + scale * rng.normal(size=400)
        labels = (rng.random(400) < 1 / (1 + np.exp(-(logits - offset) / scale))).astype(float)
        line, _ = fit_line(labels, 1 / (1 + np.exp(-logits)))
        chances = line.probabilities(1 / (1 + np.exp(-logits)))
        assert chances.mean() == pytest.approx(labels.mean(), abs=1e-8)


@pytest.mark.parametrize(
    ("labels", "probabilities", "reason"),
    [
        ([0, 0, 0], [0.1, 0.2, 0.3], "no positives in validation"),
        ([1, 1, np.nan], [0.1, 0.2, 0.3], "no negatives in validation"),
        ([np.nan, np.nan, np.nan], [0.1, 0.2, 0.3], "no labelled films in validation"),
        ([1, 0, 1], [0.4, 0.4, 0.4], "one probability for all films of validation"),
        ([0, 0, 1], [0.1, 0.2, 0.3], "validation is perfectly separated"),
        ([1, 0, 0], [0.1, 0.2, 0.3], "validation is perfectly separated"),
        ([0, 0, 1, 1], [0.1, 0.2, 0.2, 0.3], "validation is perfectly separated"),  # a tie still leaves no maximum
    ],
)
def test_degenerate_validation_gives_no_line_and_the_reason(labels, probabilities, reason):
    assert fit_line(np.array(labels, float), np.array(probabilities)) == (None, reason)


def test_a_slope_beyond_all_numbers_gives_no_line():
    """A positive between two negatives that differ by 1e-7, and others far away."""
    logits = np.array([30, 30, 4.1e-8, 12e-8, 30, 23.6e-8])
    line = fit_line(np.array([0.0, 0, 0, 1, 0, 0]), 1 / (1 + np.exp(-logits)))
    assert line == (None, "validation is all but perfectly separated")


def test_films_that_are_not_labelled_do_not_count():
    labels, probabilities = films(200, 5)
    hidden = np.random.default_rng(6).random(200) < 0.4
    assert fit_line(np.where(hidden, np.nan, labels), probabilities) == fit_line(
        labels[~hidden], probabilities[~hidden]
    )


def test_errors_equal_the_metrics():
    predictions = panel(150, 0)
    for i in range(3):
        columns = predictions.labels[:, i], predictions.probabilities[:, i]
        found = CalibrationErrors(*columns)(np.ones((150, 1)))[:, 0]
        assert found == pytest.approx([brier_score(*columns), expected_calibration_error(*columns)], abs=1e-12)
    assert np.isnan(CalibrationErrors(np.full(4, np.nan), np.ones(4))(np.ones((4, 2)))).all()


def test_table_against_a_brute_force_bootstrap():
    validation, test = panel(300, 10), panel(200, 20)
    calibration = fit_calibration(validation)
    table = recalibration_table(test, calibration, resamples=40, seed=3, unit="patient")
    after = calibrated(test, calibration)
    units = pd.factorize(np.array(test.patients, object))[0]
    weights = np.concatenate(list(resample_weights(units, 40, 3)), axis=1).astype(int)
    for metric, function in (("brier", brier_score), ("ece", expected_calibration_error)):
        samples = []
        for i, name in enumerate(NAMES[:2]):
            labels, before = test.labels[:, i], test.probabilities[:, i]
            (row,) = table[(table.label == name) & (table.metric == metric)].to_dict("records")
            assert row["value_before"] == pytest.approx(function(labels, before))
            assert row["value_after"] == pytest.approx(function(labels, after[:, i]))
            assert row["difference"] == pytest.approx(row["value_after"] - row["value_before"])
            drawn = [np.repeat(np.arange(200), weight) for weight in weights.T]
            gaps = [function(labels[d], after[d, i]) - function(labels[d], before[d]) for d in drawn]
            assert (row["ci_low"], row["ci_high"]) == pytest.approx(tuple(np.percentile(gaps, [2.5, 97.5])), abs=1e-12)
            samples.append(gaps)
        (row,) = table[(table.label == "Mean (3)") & (table.metric == metric)].to_dict("records")
        assert row["note"] == "mean of 2 of 3 labels, without Rare"
        assert (row["ci_low"], row["ci_high"]) == pytest.approx(tuple(np.percentile(np.mean(samples, 0), [2.5, 97.5])))
        assert row["value_after"] - row["value_before"] == pytest.approx(row["difference"])


def test_a_label_without_a_line_says_why():
    table = recalibration_table(panel(200, 20), fit_calibration(panel(300, 10)), resamples=20)
    rows = table[table.label == "Rare"]
    assert rows[["value_after", "difference", "ci_low"]].isna().all(axis=None)
    columns = panel(200, 20).labels[:, 2], panel(200, 20).probabilities[:, 2]
    assert rows.value_before.tolist() == pytest.approx([brier_score(*columns), expected_calibration_error(*columns)])
    assert set(rows.note) == {"no positives in validation"}
    other = recalibration_table(panel(200, 20), Calibration({"Edema": Line(1, 0)}), resamples=0)
    assert set(other[other.label == "Mass"].note) == {"not a label of the validation films"}


def test_a_line_that_falls_is_marked():
    lines = Calibration({"Edema": Line(-0.5, 0), "Mass": Line(0.5, 0)})
    table = recalibration_table(panel(100, 20), lines, resamples=0)
    notes = table.drop_duplicates("label").set_index("label").note
    assert notes["Edema"].startswith("the slope is negative") and not notes["Mass"]


def test_calibration_mends_overconfidence():
    table = recalibration_table(panel(4000, 20), fit_calibration(panel(2000, 10)), resamples=100)
    row = table[(table.label == "Edema") & (table.metric == "brier")].iloc[0]
    assert row.ci_high < 0 and row.value_after < row.value_before


def test_the_line_that_changes_nothing_has_no_difference():
    table = recalibration_table(panel(100, 20), Calibration(dict.fromkeys(NAMES, Line(1.0, 0.0))), resamples=20)
    np.testing.assert_allclose(table[["difference", "ci_low", "ci_high"]], 0, atol=1e-12)
