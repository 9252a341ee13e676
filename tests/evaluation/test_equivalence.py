import dataclasses

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm

from cxr.files import InputError
from cxr.labels import LabelSet
from cxr.predictions import Predictions
from evaluation.bootstrap import resample_weights
from evaluation.delong import holm, paired_test
from evaluation.equivalence import COLUMNS, equivalence
from evaluation.margin_tests import Normal, p_values
from evaluation.metrics import auroc

NAMES = ("Edema", "Mass", "Rare", "Opacity")
LABELS = LabelSet(NAMES, {"common": ("Edema", "Mass")}, {})
FILMS = 240


def models(difference=0.0, films_per_patient=1, seed=0, noise=0.3):
    """Two models whose scores share most of their error; Rare has 4 positives, of Opacity a third is not labelled."""
    rng = np.random.default_rng(seed)
    labels = (rng.random((FILMS, 4)) < 0.4).astype(float)
    labels[:, 2] = np.arange(FILMS) < 4
    labels[rng.random(FILMS) < 0.33, 3] = np.nan
    patients = np.arange(FILMS) // films_per_patient
    shared = rng.normal(size=(FILMS, 4)) + rng.normal(size=(FILMS, 4))[patients]
    paths = tuple(f"patient{patient}/study1/view{film}.jpg" for film, patient in enumerate(patients))

    def model(gain):
        logits = shared + (1.5 + gain) * np.nan_to_num(labels) + noise * rng.normal(size=labels.shape)
        return Predictions(paths, norm.cdf(logits - 1), labels, LABELS)

    return model(difference), model(0)


def slow_test(labels, first, second):
    """Difference and standard error from the table of won pairs, as DeLong et al. define them."""
    won = []
    for score in (first, second):
        gap = score[labels == 1][:, None] - score[labels == 0][None, :]
        won.append((gap > 0) + 0.5 * (gap == 0))
    gap = won[0] - won[1]
    variance = gap.mean(axis=1).var(ddof=1) / gap.shape[0] + gap.mean(axis=0).var(ddof=1) / gap.shape[1]
    return gap.mean(), np.sqrt(variance)


def rows_of(table):
    return {row["label"]: row for row in table.to_dict("records")}


def test_label_rows_equal_a_second_implementation():
    a, b = models()
    margin = 0.03
    rows = rows_of(equivalence(a, b, margin=margin, resamples=50))
    assert list(rows) == [*NAMES, "Mean (4)", "Mean (common 2)"]
    p = np.full((3, 4), np.nan)
    for i, name in enumerate(NAMES):
        if name == "Rare":
            continue
        known = ~np.isnan(a.labels[:, i])
        columns = (a.labels[known, i], a.probabilities[known, i], b.probabilities[known, i])
        difference, error = slow_test(*columns)
        row = rows[name]
        assert (row["value_a"], row["value_b"]) == pytest.approx([auroc(columns[0], score) for score in columns[1:]])
        assert (row["difference"], row["margin"]) == (pytest.approx(difference), margin)
        z = norm.ppf(0.95)
        assert (row["ci90_low"], row["ci90_high"]) == pytest.approx((difference - z * error, difference + z * error))
        p[:, i] = [
            norm.sf((difference + margin) / error),
            max(norm.sf((difference + margin) / error), norm.sf((margin - difference) / error)),
            norm.sf((abs(difference) - margin) / error) + norm.sf((abs(difference) + margin) / error),
        ]
    for question, expected in zip(("noninferior", "equivalent", "beyond"), p, strict=True):
        found = [rows[name][f"p_{question}"] for name in NAMES]
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-15)
        corrected = [rows[name][f"p_{question}_holm"] for name in NAMES]
        np.testing.assert_allclose(corrected, holm(expected), rtol=1e-9, atol=1e-15)
    assert rows["Rare"]["verdict"] == "undefined" and rows["Rare"]["note"] == "4 positives: fewer than 10"
    assert rows["Edema"]["verdict"] == "equivalent"


@pytest.mark.parametrize("unit", ["film", "patient"])
def test_mean_rows_equal_a_bootstrap_by_brute_force(unit):
    a, b = models(0.2, films_per_patient=3)
    margin, resamples = 0.02, 60
    rows = rows_of(equivalence(a, b, margin=margin, resamples=resamples, seed=5, unit=unit))
    units = np.arange(FILMS) if unit == "film" else pd.factorize(np.array(a.patients, object))[0]
    weights = np.concatenate(list(resample_weights(units, resamples, 5)), axis=1)
    samples = []
    for weight in weights.T.astype(int):
        drawn = np.repeat(np.arange(FILMS), weight)
        gaps = [
            auroc(a.labels[drawn, i], a.probabilities[drawn, i]) - auroc(b.labels[drawn, i], b.probabilities[drawn, i])
            for i in range(2)
        ]
        samples.append(np.mean(gaps))
    row = rows["Mean (common 2)"]
    assert row["method"] == f"bootstrap over {unit}s"
    assert (row["ci90_low"], row["ci90_high"]) == pytest.approx(tuple(np.percentile(samples, [5, 95])), abs=1e-12)
    assert row["p_noninferior"] == pytest.approx((np.sum(np.array(samples) <= -margin) + 1) / (resamples + 1))
    assert row["p_noninferior_holm"] == row["p_noninferior"]  # each mean is a question of its own
    assert row["difference"] == pytest.approx(np.mean([rows[name]["difference"] for name in ("Edema", "Mass")]))
    assert row["note"] == "mean of 2 of 2 labels"


def test_swapping_the_models_mirrors_the_difference_and_keeps_equivalence():
    a, b = models(0.15)
    there, back = (equivalence(*pair, margin=0.02, resamples=0) for pair in ((a, b), (b, a)))
    np.testing.assert_allclose(there["difference"], -back["difference"])
    np.testing.assert_allclose(there["ci90_low"], -back["ci90_high"])
    np.testing.assert_allclose(there["p_equivalent"], back["p_equivalent"])
    np.testing.assert_allclose(there["p_beyond"], back["p_beyond"])


def test_a_much_better_model_is_different_beyond_the_margin_in_both_directions():
    a, b = models(1.5)
    for pair, sign in (((a, b), 1), ((b, a), -1)):
        row = rows_of(equivalence(*pair, margin=0.02, resamples=200))["Edema"]
        assert row["verdict"] == "different beyond margin" and np.sign(row["difference"]) == sign


def test_a_model_is_equivalent_to_itself_but_two_perfect_ones_are_not_tested():
    a, _ = models()
    row = rows_of(equivalence(a, a, margin=0.001, resamples=50))["Edema"]
    assert (row["verdict"], row["note"], row["difference"]) == ("equivalent", "both rank every film alike", 0)
    labels = np.nan_to_num(a.labels)
    noise = np.random.default_rng(0).random((2, *labels.shape))
    perfect, other = (dataclasses.replace(a, labels=labels, probabilities=(labels + n) / 2) for n in noise)
    row = rows_of(equivalence(perfect, other, margin=0.02, resamples=50))["Edema"]
    assert row["difference"] == 0 and row["verdict"] == "undefined" and row["note"] == "zero variance"


def test_few_positives_are_marked():
    a, b = models()
    labels = a.labels.copy()
    labels[:, 1] = np.arange(FILMS) % 16 == 0  # 15
    a, b = (dataclasses.replace(model, labels=labels) for model in (a, b))
    assert (
        rows_of(equivalence(a, b, margin=0.02, resamples=0))["Mass"]["note"]
        == "15 positives: the tests hold too easily"
    )


def test_patients_widen_the_interval_when_their_films_are_copies():
    """Three copies of every film: over patients the error is that of the films without copies."""
    a, b = models()
    alone = rows_of(equivalence(a, b, margin=0.02, resamples=0))["Edema"]

    def copies(model):
        paths = tuple(f"{path[:-4]}_{copy}.jpg" for copy in range(3) for path in model.paths)
        return Predictions(paths, np.tile(model.probabilities, (3, 1)), np.tile(model.labels, (3, 1)), LABELS)

    many = [copies(model) for model in (a, b)]
    by_film, by_patient = (
        rows_of(equivalence(*many, margin=0.02, resamples=0, unit=unit))["Edema"] for unit in ("film", "patient")
    )
    widths = [row["ci90_high"] - row["ci90_low"] for row in (alone, by_patient, by_film)]
    assert by_patient["method"] == "DeLong over patients"
    assert widths[1] == pytest.approx(widths[0], rel=1e-9)
    assert widths[2] == pytest.approx(widths[0] / np.sqrt(3), rel=0.02)


def test_no_resamples_leave_the_means_untested():
    row = rows_of(equivalence(*models(), margin=0.02, resamples=0))["Mean (4)"]
    assert row["verdict"] == "undefined" and row["note"] == "mean of 4 of 4 labels; no resamples"
    assert row["value_a"] > 0.5


def test_bad_margins_and_other_films_are_refused():
    a, b = models()
    for margin in (0, -0.1, 1, np.nan):
        with pytest.raises(ValueError, match="margin"):
            equivalence(a, b, margin=margin)
    with pytest.raises(InputError, match="a film of one that two lacks"):
        equivalence(
            a, Predictions(b.paths[1:], b.probabilities[1:], b.labels[1:], LABELS), margin=0.1, names=("one", "two")
        )


def test_columns():
    assert tuple(equivalence(*models(), margin=0.02, resamples=0).columns) == COLUMNS


@pytest.mark.parametrize(("truth", "expected"), [(0.05, 0.05), (0.0, 0.99)])
def test_equivalence_holds_5_percent_of_the_time_at_the_margin_and_nearly_always_without_difference(truth, expected):
    """Binormal models of AUROC 0.75 + truth and 0.75, 150 positives and 250 negatives, 400 data sets."""
    held, labels = 0, np.repeat([1, 0], [150, 250])
    for data_set in range(400):
        rng = np.random.default_rng((11, data_set))
        shared = rng.normal(size=400)
        first, second = (
            np.sqrt(0.95) * shared + np.sqrt(0.05) * rng.normal(size=400) + np.sqrt(2) * norm.ppf(area) * labels
            for area in (0.75 + truth, 0.75)
        )
        test = paired_test(labels, first, second)
        held += p_values(Normal(test.difference, test.standard_error), 0.05)["equivalent"] < 0.05
    low, high = (0.025, 0.09) if expected == 0.05 else (0.97, 1)
    assert low <= held / 400 <= high
