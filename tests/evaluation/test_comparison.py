import dataclasses

import numpy as np
import pytest

from cxr.files import InputError
from cxr.labels import CHEXPERT
from cxr.predictions import Predictions
from evaluation.bootstrap import resample_weights
from evaluation.classification import classification_table, youden_thresholds
from evaluation.comparison import compare
from evaluation.delong import holm, paired_test
from evaluation.metrics import METRICS, auroc

LABELS = CHEXPERT.names
FILMS = 80


@pytest.fixture
def models():
    """A better and a worse model on the same films; no film shows a fracture."""
    rng = np.random.default_rng(0)
    labels = (rng.random((FILMS, 14)) < 0.4).astype(np.int8)
    labels[:, LABELS.index("Fracture")] = 0
    paths = tuple(f"patient{i}/study1/view1_frontal.jpg" for i in range(FILMS))

    def model(separation):
        return Predictions(
            paths, 1 / (1 + np.exp(1 - separation * labels - rng.normal(size=labels.shape))), labels, CHEXPERT
        )

    return model(2), model(1)


def compared(a, b, **options):
    return compare(a, b, youden_thresholds(a), youden_thresholds(b), **options)


def pick(table, label, metric, rule="-"):
    (row,) = table[(table.label == label) & (table.metric == metric) & (table.rule == rule)].to_dict("records")
    return row


def test_values_are_those_of_the_two_tables_and_differences_are_a_minus_b(models):
    table = compared(*models, resamples=30)
    for model, column in zip(models, ("value_a", "value_b"), strict=True):
        alone = classification_table(model, youden_thresholds(model), resamples=0)
        assert table[["label", "metric", "rule"]].equals(alone[["label", "metric", "rule"]])
        np.testing.assert_allclose(table[column], alone.value, rtol=1e-13)
    np.testing.assert_allclose(table.value_a - table.value_b, table.difference, atol=1e-14)
    assert len(table) == 16 * len(METRICS)


def test_intervals_are_those_of_the_paired_differences_by_brute_force(models):
    a, b = models
    table = compared(a, b, resamples=40, seed=3)
    weights = np.concatenate(list(resample_weights(np.arange(FILMS), 40, 3)), axis=1).astype(int)
    gaps = np.empty((14, 40))
    for resample in range(40):
        drawn = np.repeat(np.arange(FILMS), weights[:, resample])
        for i in range(14):
            first, second = (auroc(m.labels[drawn, i], m.probabilities[drawn, i]) for m in models)
            gaps[i, resample] = first - second
    defined = [i for i, name in enumerate(LABELS) if name != "Fracture"]
    for label, values in [*((LABELS[i], gaps[i]) for i in defined), ("Mean (14)", gaps[defined].mean(axis=0))]:
        row = pick(table, label, "auroc")
        expected = [*np.percentile(values, [2.5, 97.5, 50]), values.mean()]
        found = [row["ci_low"], row["ci_high"], row["bootstrap_median"], row["bootstrap_mean"]]
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)
        assert row["resamples"] == 40


def test_delong_and_holm_stand_in_the_auroc_rows_of_the_labels(models):
    a, b = models
    table = compared(a, b, resamples=0)
    rows = table[(table.metric == "auroc") & table.label.isin(LABELS)]
    expected = [paired_test(a.labels[:, i], a.probabilities[:, i], b.probabilities[:, i]).p for i in range(14)]
    np.testing.assert_array_equal(rows.delong_p, expected)
    np.testing.assert_array_equal(rows.delong_p_holm, holm(np.array(expected)))
    assert rows.delong_p.notna().sum() == 13
    assert table.drop(rows.index)[["delong_p", "delong_p_holm"]].isna().all(axis=None)


def test_undefined_differences_say_why_and_means_say_what_they_cover(models):
    table = compared(*models, resamples=20)
    row = pick(table, "Fracture", "auroc")
    assert np.isnan(row["difference"]) and row["resamples"] == 0
    assert row["note"] == "a: no positives; b: no positives; no DeLong test: fewer than 2 positives or 2 negatives"
    row = pick(table, "Mean (14)", "sensitivity", "youden")
    assert row["note"] == "mean of 13 of 14 labels, without Fracture"


def test_a_mean_covers_only_labels_that_both_models_define(models):
    a, b = models
    edema = LABELS.index("Edema")
    silent = b.probabilities.copy()
    silent[:, edema] = 0.1  # never decided positive: b has no precision here
    b = dataclasses.replace(b, probabilities=silent)
    table = compared(a, b, resamples=20)
    row = pick(table, "Edema", "precision", "0.5")
    assert row["value_a"] > 0 and np.isnan(row["value_b"]) and np.isnan(row["difference"])
    assert row["note"] == "b: no film decided positive"
    mean = pick(table, "Mean (14)", "precision", "0.5")
    covered = [pick(table, name, "precision", "0.5") for name in LABELS if name != "Edema"]
    covered = [row for row in covered if not np.isnan(row["difference"])]
    assert mean["value_a"] == pytest.approx(np.mean([row["value_a"] for row in covered]))
    assert mean["value_b"] == pytest.approx(np.mean([row["value_b"] for row in covered]))
    assert mean["difference"] == pytest.approx(mean["value_a"] - mean["value_b"])


def test_a_model_does_not_differ_from_itself(models):
    table = compared(models[0], models[0], resamples=30)
    defined = table[table.difference.notna()]
    assert (defined[["difference", "ci_low", "ci_high"]] == 0).all(axis=None)
    assert (defined.delong_p.dropna() == 1).all()


def test_the_order_of_the_films_may_differ(models):
    a, b = models
    order = np.random.default_rng(1).permutation(FILMS)
    shuffled = Predictions(tuple(b.paths[i] for i in order), b.probabilities[order], b.labels[order], CHEXPERT)
    assert compared(a, shuffled, resamples=30).equals(compared(a, b, resamples=30))


def test_different_films_are_refused_with_the_first_and_both_files(models):
    a, b = models
    renamed = dataclasses.replace(b, paths=(*b.paths[:3], "patient999/study1/view1_frontal.jpg", *b.paths[4:]))
    fewer = Predictions(a.paths[:-1], a.probabilities[:-1], a.labels[:-1], CHEXPERT)
    for first, second, film in ((a, renamed, "patient3/"), (fewer, b, f"patient{FILMS - 1}/")):
        with pytest.raises(InputError) as error:
            compared(first, second, names=("one.csv", "two.csv"), resamples=0)
        assert str(error.value).startswith(film)
        assert "one.csv" in str(error.value) and "two.csv" in str(error.value)


def test_different_ground_truth_is_refused(models):
    a, b = models
    labels = b.labels.copy()
    labels[5, LABELS.index("Edema")] ^= 1
    with pytest.raises(InputError, match=r"patient5/.*label Edema.*one\.csv.*two\.csv"):
        compared(a, dataclasses.replace(b, labels=labels), names=("one.csv", "two.csv"), resamples=0)


def test_only_labels_that_both_have_are_compared(models):
    a, b = models
    some = ["Edema", "Cardiomegaly", "Support Devices"]
    table = compared(a, b.restrict([*some[::-1], "Fracture"]), resamples=20)
    assert set(table.label) == {*some, "Fracture", "Mean (4)", "Mean (CheXlocalize 3)"}
    whole = compared(a, b, resamples=20)
    for label in some:
        for column in ("value_a", "value_b", "difference", "ci_low", "ci_high", "delong_p"):
            assert pick(table, label, "auroc")[column] == pick(whole, label, "auroc")[column]
    with pytest.raises(InputError, match="none of its labels is one of"):
        compared(a.restrict(["Edema"]), b.restrict(["Fracture"]), resamples=0)


def test_films_that_are_not_labelled_count_nowhere(models):
    a, b = models
    hidden = np.random.default_rng(3).random(a.labels.shape) < 0.3
    labels = np.where(hidden, np.nan, a.labels)
    partly_a, partly_b = (dataclasses.replace(model, labels=labels) for model in models)
    table = compared(partly_a, partly_b, resamples=20)
    edema = LABELS.index("Edema")
    known = ~hidden[:, edema]
    columns = [model.probabilities[known, edema] for model in models]
    row = pick(table, "Edema", "auroc")
    assert row["delong_p"] == paired_test(a.labels[known, edema], *columns).p
    assert row["value_a"] == auroc(a.labels[known, edema], columns[0])
    fewer = labels.copy()
    fewer[~hidden] = np.where(np.arange((~hidden).sum()) == 0, np.nan, fewer[~hidden])
    with pytest.raises(InputError, match="in a, not labelled in b"):
        compared(partly_a, dataclasses.replace(partly_b, labels=fewer), resamples=0)


def test_delong_s_test_takes_films_of_one_patient_together():
    """Every film four times over: the patients' test stays as it was, the films' claims four times the data."""
    rng = np.random.default_rng(3)
    labels = (rng.random((60, 1)) < 0.4).astype(float)
    scores = [1 / (1 + np.exp(-strength * labels - rng.normal(size=labels.shape))) for strength in (1.4, 0.9)]
    label_set = CHEXPERT.restrict(["Edema"])

    def predictions(values, copies):
        paths = tuple(f"patient{i}/study1/view{k}_frontal.jpg" for i in range(60) for k in range(copies))
        return Predictions(paths, np.repeat(values, copies, axis=0), np.repeat(labels, copies, axis=0), label_set)

    def p_value(copies, unit):
        pair = [predictions(values, copies) for values in scores]
        thresholds = [youden_thresholds(predictions) for predictions in pair]
        table = compare(*pair, *thresholds, resamples=10, unit=unit)
        return table[(table["label"] == "Edema") & (table["metric"] == "auroc")]["delong_p"].item()

    assert p_value(4, "patient") == pytest.approx(p_value(1, "patient"), rel=1e-9)
    assert p_value(4, "film") < 0.5 * p_value(1, "film")
