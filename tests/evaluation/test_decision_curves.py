import numpy as np
import pytest

from cxr.calibration_lines import Calibration, Line
from cxr.labels import LabelSet
from cxr.predictions import Predictions
from evaluation.decision_curves import THRESHOLDS, decision_curves, net_benefit

NAMES = ("Edema", "Mass", "Unknown")


@pytest.fixture
def predictions():
    rng = np.random.default_rng(0)
    labels = (rng.random((80, 3)) < 0.3).astype(float)
    labels[:20, 1] = np.nan
    labels[:, 2] = np.nan
    probabilities = np.round((rng.random((80, 3)) + np.nan_to_num(labels)) / 2, 2)  # many lie on a threshold
    return Predictions(tuple(f"{i}.png" for i in range(80)), probabilities, labels, LabelSet(NAMES))


def test_curves_equal_counting_film_by_film(predictions):
    lines = Calibration({"Edema": Line(0.8, -0.4), "Mass": None}, {"Mass": "no positives in validation"})
    table = decision_curves(predictions, lines)
    assert list(table.label.unique()) == ["Edema", "Mass"] and len(table) == 2 * 99
    for row in table.to_dict("records"):
        i, threshold = NAMES.index(row["label"]), row["threshold"]
        benefit = {"net_benefit": 0.0, "net_benefit_calibrated": 0.0, "treat_all": 0.0}
        count = 0
        for label, p in zip(predictions.labels[:, i], predictions.probabilities[:, i], strict=True):
            if np.isnan(label):
                continue
            count += 1
            worth = 1 if label == 1 else -threshold / (1 - threshold)
            odds = np.exp(-0.4) * (p / (1 - p)) ** 0.8 if p < 1 else np.inf
            decided = (p >= threshold, odds >= threshold / (1 - threshold), True)
            for column, positive in zip(benefit, decided, strict=True):
                benefit[column] += worth * positive
        expected = {column: total / count for column, total in benefit.items()}
        if row["label"] == "Mass":
            expected["net_benefit_calibrated"] = np.nan
        for column, value in expected.items():
            np.testing.assert_allclose(row[column], value, atol=1e-12, err_msg=f"{row['label']} {column} {threshold}")
        assert row["treat_none"] == 0


def test_by_hand():
    labels, probabilities = np.array([1, 1, 0, 0]), np.array([0.9, 0.2, 0.5, 0.1])
    # at 0.5: one true, one false positive: 1/4 - 1/4; at 0.2: two true, one false: 2/4 - 1/4 * 1/4
    assert net_benefit(labels, probabilities, np.array([0.5, 0.2])) == pytest.approx([0, 0.4375])


def test_a_perfect_score_gains_the_prevalence_everywhere():
    labels = np.repeat([1, 0], [3, 9])
    np.testing.assert_allclose(net_benefit(labels, labels.astype(float), THRESHOLDS), 0.25)


def test_treating_all_is_worth_nothing_at_the_prevalence():
    labels = np.repeat([1, 0], [3, 9])
    assert net_benefit(labels, np.ones(12), np.array([0.25])) == pytest.approx(0)


def test_nothing_labelled_has_no_rows():
    nothing = Predictions(("a.png",), np.array([[0.5]]), np.array([[np.nan]]), LabelSet(("Mass",)))
    table = decision_curves(nothing, Calibration({}))
    assert table.empty and "net_benefit_calibrated" in table.columns
