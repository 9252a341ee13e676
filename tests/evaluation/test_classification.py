import json

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics as sk

from cxr.files import InputError
from cxr.labels import CHEXPERT, LabelSet
from cxr.predictions import Predictions, read_predictions, write_predictions
from cxr.tables import write_csv
from cxr.thresholds import Thresholds, read_thresholds, write_thresholds
from evaluation.bootstrap import resample_weights
from evaluation.classification import (
    calibration_points,
    classification_table,
    roc_points,
    youden_thresholds,
)
from evaluation.metrics import METRICS, auroc, confusion, expected_calibration_error, sensitivity

LABELS = CHEXPERT.names
COLUMNS = "label,metric,rule,threshold,value,ci_low,ci_high,bootstrap_mean,bootstrap_median,resamples,note".split(",")
MEANS = ["Mean (14)", "Mean (CheXlocalize 10)"]


def simulate(films=120, seed=0, never=(), always=()):
    """Predictions of a fair model; labels named in `never` have no positive film, those in `always` no negative."""
    rng = np.random.default_rng(seed)
    labels = (rng.random((films, 14)) < np.linspace(0.05, 0.6, 14)).astype(np.int8)
    for names, truth in ((never, 0), (always, 1)):
        labels[:, [LABELS.index(name) for name in names]] = truth
    probabilities = np.round(1 / (1 + np.exp(1 - 1.5 * labels - rng.normal(size=labels.shape))), 3)
    return Predictions(
        tuple(f"patient{i // 2}/study1/view{i}.jpg" for i in range(films)), probabilities, labels, CHEXPERT
    )


def pick(table, label, metric, rule="-"):
    (row,) = table[(table.label == label) & (table.metric == metric) & (table.rule == rule)].to_dict("records")
    return row


def test_rows_and_columns_of_the_table():
    table = classification_table(simulate(), youden_thresholds(simulate(seed=1)), resamples=20)
    assert list(table.columns) == COLUMNS
    assert list(table.label.unique()) == [*LABELS, *MEANS]
    for label, rows in table.groupby("label"):
        assert list(zip(rows.metric, rows.rule, strict=True)) == list(METRICS), label


def test_values_are_those_of_the_test_films_at_the_validation_thresholds():
    test, thresholds = simulate(), youden_thresholds(simulate(seed=1))
    table = classification_table(test, thresholds, resamples=0)
    for i, name in enumerate(LABELS):
        labels, scores = test.labels[:, i], test.probabilities[:, i]
        assert pick(table, name, "auroc")["value"] == pytest.approx(sk.roc_auc_score(labels, scores), abs=1e-14)
        row = pick(table, name, "sensitivity", "youden")
        assert row["threshold"] == thresholds[name]
        assert row["value"] == float(sensitivity(confusion(labels, scores, thresholds[name])))
        assert pick(table, name, "f1", "0.5")["value"] == pytest.approx(sk.f1_score(labels, scores >= 0.5))
        assert pick(table, name, "f1", "0.5")["threshold"] == 0.5
    values = {name: pick(table, name, "auroc")["value"] for name in LABELS}
    assert pick(table, "Mean (14)", "auroc")["value"] == pytest.approx(np.mean(list(values.values())))
    ten = np.mean([values[name] for name in CHEXPERT.groups["CheXlocalize"]])
    assert pick(table, "Mean (CheXlocalize 10)", "auroc")["value"] == pytest.approx(ten)


def test_without_resamples_there_are_values_and_no_intervals():
    table = classification_table(simulate(), youden_thresholds(simulate(seed=1)), resamples=0)
    assert table.value.notna().all() and (table.resamples == 0).all()
    assert table[["ci_low", "ci_high", "bootstrap_mean", "bootstrap_median"]].isna().all(axis=None)


@pytest.mark.parametrize("unit", ["film", "patient"])
def test_intervals_of_labels_and_means_by_brute_force(unit):
    test, resamples = simulate(60), 40
    table = classification_table(test, youden_thresholds(simulate(seed=1)), resamples=resamples, seed=9, unit=unit)
    units = (
        np.arange(60) if unit == "film" else pd.factorize(np.array([p.split("/")[0] for p in test.paths], object))[0]
    )
    weights = np.concatenate(list(resample_weights(units, resamples, 9)), axis=1).astype(int)
    samples = np.empty((14, resamples))
    for resample in range(resamples):
        drawn = np.repeat(np.arange(60), weights[:, resample])
        for i in range(14):
            samples[i, resample] = auroc(test.labels[drawn, i], test.probabilities[drawn, i])
    with np.errstate(all="raise"):
        means = np.nanmean(samples, axis=0)
    for label, values in [*zip(LABELS, samples, strict=True), ("Mean (14)", means)]:
        row = pick(table, label, "auroc")
        defined = values[~np.isnan(values)]
        assert row["resamples"] == len(defined)
        expected = [*np.percentile(defined, [2.5, 97.5, 50]), defined.mean()]
        found = [row["ci_low"], row["ci_high"], row["bootstrap_median"], row["bootstrap_mean"]]
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


def test_undefined_labels_are_nan_with_a_reason_and_means_say_what_they_cover():
    test = simulate(never=["Fracture"], always=["Edema"])
    thresholds = youden_thresholds(simulate(seed=1, never=["Pneumonia"]))
    table = classification_table(test, thresholds, resamples=50)
    for label, metric, rule, note in (
        ("Fracture", "auroc", "-", "no positives"),
        ("Fracture", "sensitivity", "0.5", "no positives"),
        ("Edema", "auroc", "-", "no negatives"),
        ("Edema", "specificity", "youden", "no negatives"),
        ("Pneumonia", "f1", "youden", "no Youden threshold: no positives in validation"),
    ):
        row = pick(table, label, metric, rule)
        assert (row["note"], row["resamples"]) == (note, 0), (label, metric, rule)
        assert np.isnan([row["value"], row["ci_low"], row["bootstrap_mean"]]).all()
    assert pick(table, "Fracture", "specificity", "0.5")["value"] > 0
    assert np.isnan(pick(table, "Pneumonia", "accuracy", "youden")["threshold"])
    row = pick(table, "Mean (14)", "auroc")
    assert row["note"].startswith("mean of 12 of 14 labels, without Edema, Fracture")
    assert row["value"] == pytest.approx(np.nanmean([pick(table, name, "auroc")["value"] for name in LABELS]))
    assert pick(table, "Mean (CheXlocalize 10)", "auroc")["note"].startswith("mean of 9 of 10 labels, without Edema")
    assert pick(table, "Mean (14)", "brier")["note"] == "mean of 14 of 14 labels"


def test_left_out_resamples_are_noted_on_the_label_and_on_its_means():
    test = simulate(500, never=["Fracture"])
    test.labels[:4, LABELS.index("Fracture")] = 1
    table = classification_table(test, youden_thresholds(simulate(seed=1)), resamples=2000)
    row = pick(table, "Fracture", "auroc")
    left_out = 2000 - row["resamples"]
    assert 15 <= left_out <= 60  # 36 expected
    assert row["note"] == f"{left_out} resamples undefined: no positives or no negatives"
    mean = pick(table, "Mean (14)", "auroc")
    assert mean["resamples"] == 2000
    assert mean["note"] == f"mean of 14 of 14 labels; of fewer in {left_out} resamples"


def test_a_table_is_recomputed_from_its_predictions_to_the_last_byte(tmp_path):
    rng = np.random.default_rng(0)
    test = simulate()
    write_predictions(tmp_path / "p.csv", Predictions(test.paths, rng.random((120, 14)), test.labels, CHEXPERT))
    for name in ("one.csv", "two.csv"):
        read = read_predictions(tmp_path / "p.csv")
        write_csv(tmp_path / name, classification_table(read, youden_thresholds(read), resamples=50, seed=4))
        write_predictions(tmp_path / "p.csv", read)
    assert (tmp_path / "one.csv").read_bytes() == (tmp_path / "two.csv").read_bytes()
    other = classification_table(read, youden_thresholds(read), resamples=50, seed=5)
    assert not other.ci_low.equals(pd.read_csv(tmp_path / "one.csv").ci_low)


def test_thresholds_round_trip(tmp_path):
    thresholds = youden_thresholds(simulate(never=["Fracture"]))
    assert thresholds["Fracture"] is None and thresholds.reasons == {"Fracture": "no positives in validation"}
    write_thresholds(tmp_path / "t.json", thresholds)
    again = read_thresholds(tmp_path / "t.json", LABELS)
    assert again == thresholds and again.reasons == thresholds.reasons and isinstance(again, Thresholds)
    content = json.loads((tmp_path / "t.json").read_text())
    assert content["Fracture"] == {"threshold": None, "reason": "no positives in validation"}
    assert content["Edema"] == {"threshold": thresholds["Edema"], "reason": None}


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda content: content.pop("Edema"), "Edema: expected"),
        (lambda content: content.update(Edema=0.3), "Edema: expected"),
        (lambda content: content["Edema"].update(threshold="high"), "Edema: threshold 'high' is not a probability"),
        (lambda content: content["Edema"].update(threshold=True), "Edema: threshold True is not a probability"),
        (lambda content: content["Edema"].update(threshold=1.5), "Edema: threshold 1.5 is not a probability"),
        (lambda content: content["Edema"].update(threshold=-1), "Edema: threshold -1 is not a probability"),
        (lambda content: content["Edema"].update(threshold=float("inf")), "Infinity is not a number"),
    ],
)
def test_bad_thresholds_are_refused_with_file_and_label(tmp_path, damage, says):
    write_thresholds(tmp_path / "t.json", youden_thresholds(simulate()))
    content = json.loads((tmp_path / "t.json").read_text())
    damage(content)
    (tmp_path / "t.json").write_text(json.dumps(content))
    with pytest.raises(InputError) as error:
        read_thresholds(tmp_path / "t.json", LABELS)
    assert "t.json" in str(error.value) and says in str(error.value)


def test_roc_points_are_the_corners_of_scikit_learns_curve():
    test = simulate(never=["Fracture"])
    points = roc_points(test)
    assert list(points.columns) == ["label", "fpr", "tpr", "threshold"]
    assert set(points.label) == set(LABELS) - {"Fracture"}
    for i, name in enumerate(LABELS):
        if name != "Fracture":
            labels, scores = test.labels[:, i], test.probabilities[:, i]
            found = points[points.label == name]
            curve = np.column_stack(sk.roc_curve(labels, scores, drop_intermediate=False))
            np.testing.assert_array_equal(
                found[["fpr", "tpr", "threshold"]], curve[np.isin(curve[:, 2], found.threshold)]
            )
            assert sk.auc(found.fpr, found.tpr) == pytest.approx(sk.roc_auc_score(labels, scores), abs=1e-14)
            assert len(found) <= len(sk.roc_curve(labels, scores)[0])


def test_roc_points_of_labels_without_both_classes_are_an_empty_table():
    assert list(roc_points(simulate(never=LABELS)).columns) == ["label", "fpr", "tpr", "threshold"]


def test_calibration_points_add_up_to_the_calibration_error():
    test = simulate()
    points = calibration_points(test)
    assert list(points.columns) == "label,bin_low,bin_high,count,mean_probability,fraction_positive".split(",")
    for i, name in enumerate(LABELS):
        bins = points[points.label == name]
        assert bins["count"].sum() == 120 and len(bins) == 15
        gaps = (bins.mean_probability - bins.fraction_positive).abs() * bins["count"] / 120
        expected = expected_calibration_error(test.labels[:, i], test.probabilities[:, i])
        assert gaps.sum() == pytest.approx(expected)
        filled = bins[bins["count"] > 0]
        assert (filled.mean_probability.between(filled.bin_low, filled.bin_high)).all()
        assert bins[bins["count"] == 0].mean_probability.isna().all()


SMALL = LabelSet(("Mass", "Nodule", "Effusion"), {"Lung": ("Nodule", "Mass")})


def small(films=200, seed=0, unlabelled=(0.3, 0.0, 1.0)):
    """Three labels of another data set, of which not every film is labelled with every one, or none at all."""
    rng = np.random.default_rng(seed)
    labels = (rng.random((films, 3)) < 0.4).astype(float)
    probabilities = np.round(1 / (1 + np.exp(1 - 1.5 * labels - rng.normal(size=labels.shape))), 2)
    labels[rng.random(labels.shape) < unlabelled] = np.nan
    paths = tuple(f"films/{i}.png" for i in range(films))
    patients = tuple(f"p{i // 3}" for i in range(films))
    return Predictions(paths, probabilities, labels, SMALL, patients=patients)


@pytest.mark.parametrize("unit", ["film", "patient"])
def test_a_label_counts_the_films_that_are_labelled_with_it(unit):
    test, thresholds = small(), youden_thresholds(small(seed=1))
    table = classification_table(test, thresholds, resamples=60, seed=2, unit=unit)
    assert list(table.label.unique()) == ["Mass", "Nodule", "Effusion", "Mean (3)", "Mean (Lung 2)"]
    units = np.arange(200) // (1 if unit == "film" else 3)
    weights = np.concatenate(list(resample_weights(units, 60, 2)), axis=1).astype(int)
    for i, name in enumerate(("Mass", "Nodule")):
        known = ~np.isnan(test.labels[:, i])
        labels, scores = test.labels[known, i], test.probabilities[known, i]
        assert pick(table, name, "auroc")["value"] == pytest.approx(sk.roc_auc_score(labels, scores), abs=1e-14)
        decided = scores >= thresholds[name]
        assert pick(table, name, "precision", "youden")["value"] == pytest.approx(sk.precision_score(labels, decided))
        assert pick(table, name, "accuracy", "0.5")["value"] == pytest.approx(sk.accuracy_score(labels, scores >= 0.5))
        drawn = [np.repeat(np.flatnonzero(known), weights[known, b]) for b in range(60)]
        aurocs = [sk.roc_auc_score(test.labels[rows, i], test.probabilities[rows, i]) for rows in drawn]
        row = pick(table, name, "auroc")
        expected = [*np.percentile(aurocs, [2.5, 97.5]), np.mean(aurocs)]
        found = [row["ci_low"], row["ci_high"], row["bootstrap_mean"]]
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


def test_a_label_without_labelled_films_is_undefined_with_the_reason():
    table = classification_table(small(), youden_thresholds(small(seed=1)), resamples=20)
    rows = table[table.label == "Effusion"]
    assert rows.value.isna().all() and (rows.resamples == 0).all() and (rows.note == "no labelled films").all()
    values = [pick(table, name, "auroc")["value"] for name in ("Mass", "Nodule")]
    for mean, note in (
        ("Mean (3)", "mean of 2 of 3 labels, without Effusion"),
        ("Mean (Lung 2)", "mean of 2 of 2 labels"),
    ):
        assert pick(table, mean, "auroc")["value"] == pytest.approx(np.mean(values))
        assert pick(table, mean, "auroc")["note"] == note
    assert set(roc_points(small()).label) == {"Mass", "Nodule"}
    bins = calibration_points(small())
    assert bins[bins.label == "Effusion"]["count"].sum() == 0
    assert bins[bins.label == "Mass"]["count"].sum() == (~np.isnan(small().labels[:, 0])).sum() < 200


def test_the_order_of_the_labels_is_not_their_identity():
    """Labels, columns and thresholds permuted: the same numbers under the same names."""
    test, validation = simulate(), simulate(seed=1)
    names = CHEXPERT.names[::-1]
    table = classification_table(test, youden_thresholds(validation), resamples=30)
    turned = classification_table(test.restrict(names), youden_thresholds(validation), resamples=30)
    assert list(turned.label.unique()) == [*names, *MEANS]
    keys = ["label", "metric", "rule"]
    pd.testing.assert_frame_equal(
        table.drop(columns="note").set_index(keys).sort_index(),
        turned.drop(columns="note").set_index(keys).sort_index(),
        rtol=1e-12,
    )


def test_a_label_without_a_threshold_says_so():
    thresholds = youden_thresholds(simulate(seed=1).restrict([name for name in LABELS if name != "Edema"]))
    row = pick(classification_table(simulate(), thresholds, resamples=5), "Edema", "f1", "youden")
    assert np.isnan(row["value"]) and row["note"] == "no Youden threshold: not a label of the validation films"
