import numpy as np
import pandas as pd
import pytest

from cxr.labels import LabelSet
from cxr.predictions import Predictions
from cxr.thresholds import Thresholds
from evaluation.bootstrap import resample_weights
from evaluation.metrics import auroc
from evaluation.subgroups import COLUMNS, age_band, attributes_of, subgroup_table

NAMES = ("Edema", "Mass", "Fracture")
FILMS = 300
THRESHOLDS = Thresholds({"Edema": 0.45, "Mass": 0.3, "Fracture": None}, {"Fracture": "no positives in validation"})


@pytest.fixture
def predictions():
    """Men are easier than women; Fracture has 4 positive women."""
    rng = np.random.default_rng(0)
    labels = (rng.random((FILMS, 3)) < 0.4).astype(float)
    labels[rng.random(FILMS) < 0.2, 1] = np.nan
    labels[(SEXES == "F") & (np.arange(FILMS) > 25), 2] = 0
    easier = np.where(SEXES == "M", 2.0, 0.7)[:, None]
    probabilities = 1 / (1 + np.exp(-(rng.normal(size=labels.shape) + easier * (np.nan_to_num(labels) - 0.5))))
    paths = tuple(f"patient{i // 2}/study1/view{i}.jpg" for i in range(FILMS))  # two films of each patient
    return Predictions(paths, probabilities, labels, LabelSet(NAMES, {"lung": ("Edema", "Mass")}))


SEXES = np.array(["M", "M", "F", "F", "M", ""] * (FILMS // 6))
VIEWS = np.array(["PA", "L"] * (FILMS // 2))


def pick(table, **key):
    (row,) = table[np.logical_and.reduce([table[name] == value for name, value in key.items()])].to_dict("records")
    return row


def slow(metric, labels, scores, threshold):
    """A metric by counting films; NaN where it is undefined."""
    known = ~np.isnan(labels)
    labels, decided = labels[known], scores[known] >= threshold if threshold is not None else None
    if metric == "auroc":
        return auroc(labels, scores[known])
    of_class = decided[labels == (metric == "sensitivity")]
    return (of_class if metric == "sensitivity" else ~of_class).mean() if len(of_class) else np.nan


@pytest.mark.parametrize(
    ("metric", "rule", "thresholds"),
    [
        ("auroc", "-", (None, None)),
        ("sensitivity", "0.5", (0.5, 0.5)),
        ("specificity", "youden", (0.45, 0.3)),
    ],
)
def test_rows_against_a_brute_force_bootstrap_of_patients(predictions, metric, rule, thresholds):
    table = subgroup_table(predictions, THRESHOLDS, {"Sex": SEXES}, resamples=30, seed=2)
    units = pd.factorize(np.array(predictions.patients, object))[0]
    weights = np.concatenate(list(resample_weights(units, 30, 2)), axis=1).astype(int)
    everyone = [np.arange(FILMS), *(np.repeat(np.arange(FILMS), weight) for weight in weights.T)]

    def values(group, label):
        drawn = [films[SEXES[films] == group] for films in everyone]
        columns = predictions.labels[:, label], predictions.probabilities[:, label]
        return np.array([slow(metric, *(column[d] for column in columns), thresholds[label]) for d in drawn])

    gaps = []
    for label, name in enumerate(NAMES[:2]):
        men, women = values("M", label), values("F", label)
        row = pick(table, group="F", label=name, metric=metric, rule=rule)
        assert (row["value"], row["reference_value"]) == pytest.approx((women[0], men[0]))
        assert (row["reference"], row["difference"]) == ("M", pytest.approx(women[0] - men[0]))
        assert (row["ci_low"], row["ci_high"]) == pytest.approx(tuple(np.percentile(women[1:], [2.5, 97.5])))
        gaps.append(women - men)
        expected = tuple(np.percentile(gaps[-1][1:], [2.5, 97.5]))
        assert (row["difference_low"], row["difference_high"]) == pytest.approx(expected, abs=1e-12)
        own = pick(table, group="M", label=name, metric=metric, rule=rule)
        assert own["value"] == pytest.approx(men[0]) and np.isnan(own["difference"])
        assert (row["resample_unit"], row["resamples"]) == ("patient", 30)
        known = predictions.labels[SEXES == "F", label]
        assert (row["positives"], row["negatives"]) == ((known == 1).sum(), (known == 0).sum())
        assert row["threshold"] == thresholds[label] or thresholds[label] is None
        assert row["films"] == (SEXES == "F").sum()
    mean = pick(table, group="F", label="Mean (lung 2)", metric=metric, rule=rule)
    assert mean["difference"] == pytest.approx(np.mean([gap[0] for gap in gaps]))
    expected = tuple(np.percentile(np.mean(gaps, axis=0)[1:], [2.5, 97.5]))
    assert (mean["difference_low"], mean["difference_high"]) == pytest.approx(expected, abs=1e-12)


def test_cells_with_few_films_are_refused_and_means_cover_what_both_groups_have(predictions):
    table = subgroup_table(predictions, THRESHOLDS, {"Sex": SEXES}, resamples=30)
    count = int((predictions.labels[SEXES == "F", 2] == 1).sum())
    assert 0 < count < 10
    for metric, rule in (("auroc", "-"), ("sensitivity", "0.5"), ("specificity", "0.5")):
        row = pick(table, group="F", label="Fracture", metric=metric, rule=rule)
        assert row["note"] == f"{count} positives: fewer than 10" and row["positives"] == count
        assert np.isnan([row["value"], row["ci_low"], row["difference"], row["difference_low"]]).all()
    men = pick(table, group="M", label="Fracture", metric="auroc")
    assert men["value"] > 0.5
    mean = pick(table, group="F", label="Mean (3)", metric="auroc")
    rows = [pick(table, group="F", label=name, metric="auroc") for name in NAMES[:2]]
    for column in ("value", "reference_value", "difference"):
        assert mean[column] == pytest.approx(np.mean([row[column] for row in rows]))
    assert mean["note"].startswith("mean of 2 of 3 labels, without Fracture")
    of_men = pick(table, group="M", label="Mean (3)", metric="auroc")
    assert of_men["value"] != pytest.approx(mean["reference_value"])  # all three of the men's


def test_a_group_beside_a_refused_reference_has_a_value_and_no_difference(predictions):
    groups = np.where(SEXES == "F", "F", np.where(np.arange(FILMS) % 3 == 0, "M", ""))  # now women are the most
    row = pick(
        subgroup_table(predictions, THRESHOLDS, {"Sex": groups}, resamples=20),
        group="M",
        label="Fracture",
        metric="auroc",
    )
    assert row["reference"] == "F" and row["value"] > 0 and np.isnan(row["difference"])
    assert "F: " in row["note"] and "positives: fewer than 10" in row["note"]


def test_a_label_without_threshold_says_why(predictions):
    table = subgroup_table(predictions, THRESHOLDS, {"Sex": SEXES}, resamples=0)
    row = pick(table, group="M", label="Fracture", metric="sensitivity", rule="youden")
    assert row["note"] == "no Youden threshold: no positives in validation" and np.isnan(row["value"])


def test_groups_that_differ_are_told_apart_and_equal_ones_are_not(predictions):
    attributes = {"Sex": SEXES, "View": VIEWS}
    table = subgroup_table(predictions, THRESHOLDS, attributes, resamples=500)
    row = pick(table, attribute="Sex", group="F", label="Mean (lung 2)", metric="auroc")
    assert row["difference_high"] < 0
    row = pick(table, attribute="View", group="PA", label="Mean (lung 2)", metric="auroc")
    assert row["reference"] == "L" and row["difference_low"] < 0 < row["difference_high"]
    assert tuple(table.columns) == COLUMNS
    assert list(table.attribute.unique()) == ["Sex", "View"] and list(table.group.unique()) == ["M", "F", "L", "PA"]


def test_one_group_is_the_whole(predictions):
    table = subgroup_table(predictions, THRESHOLDS, {"View": np.full(FILMS, "PA")}, resamples=0)
    row = pick(table, group="PA", label="Edema", metric="auroc")
    assert row["value"] == auroc(predictions.labels[:, 0], predictions.probabilities[:, 0])
    assert table["difference"].isna().all()


def test_films_are_resampled_where_a_patient_is_unknown(predictions):
    paths = ("a.png", *predictions.paths[1:])
    made = Predictions(paths, predictions.probabilities, predictions.labels, predictions.label_set)
    assert set(subgroup_table(made, THRESHOLDS, {"Sex": SEXES}, resamples=5).resample_unit) == {"film"}


@pytest.mark.parametrize(
    ("age", "band"),
    [
        ("0", "under 18"), ("17.9", "under 18"), ("18", "18 to 39"), ("39", "18 to 39"), ("40", "40 to 59"),
        ("59", "40 to 59"), ("60", "60 to 79"), ("80", "80 and over"), ("90", "80 and over"), ("130", "80 and over"),
        ("", ""), ("nan", ""), ("inf", ""), ("-1", ""), ("131", ""), ("058Y", ""), ("1e3", ""),
    ],
)  # fmt: skip
def test_age_bands(age, band):
    assert age_band(age) == band


def test_attributes_that_do_not_tell_films_apart_are_left_out():
    assert attributes_of(["M", "M"], ["", ""], ["PA", ""]) == {"View": ("PA", "")}
    found = attributes_of(["M", ""], ["", "x"], ["PA", "L"])
    assert found == {"Sex": ("M", ""), "View": ("PA", "L")}
    one = Predictions(("a.png",), np.array([[0.5]]), np.array([[1.0]]), LabelSet(("Mass",)))
    assert subgroup_table(one, Thresholds({"Mass": 0.5}), {}, resamples=0).empty
