import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from cxr.labels import LabelSet
from cxr.predictions import Predictions
from evaluation.bootstrap import resample_weights
from evaluation.precision_recall import PrecisionSums, average_precision, precision_recall_table


def simulate(films, prevalence, seed, grid=None):
    rng = np.random.default_rng(seed)
    labels = (rng.random(films) < prevalence).astype(float)
    scores = 1 / (1 + np.exp(1 - rng.normal(size=films) - labels))
    return labels, scores if grid is None else np.round(scores * grid) / grid


@pytest.mark.parametrize("grid", [None, 6])
@pytest.mark.parametrize("seed", range(4))
def test_every_resample_equals_scikit_learn(seed, grid):
    labels, scores = simulate(70, 0.2, seed, grid)
    weights = np.concatenate(list(resample_weights(np.arange(70), 30, seed)), axis=1)
    found = PrecisionSums(labels, scores)(weights)
    for resample, weight in enumerate(weights.T):
        expected = average_precision_score(labels, scores, sample_weight=weight)
        assert found[0, resample] == pytest.approx(expected, abs=1e-12)
        assert found[1, resample] == pytest.approx(weight @ labels / weight.sum())
    assert average_precision(labels, scores) == pytest.approx(average_precision_score(labels, scores), abs=1e-12)


def test_films_that_are_not_labelled_do_not_count():
    labels, scores = simulate(90, 0.3, 1)
    hidden = np.random.default_rng(0).random(90) < 0.5
    found = average_precision(np.where(hidden, np.nan, labels), scores)
    assert found == pytest.approx(average_precision_score(labels[~hidden], scores[~hidden]), abs=1e-12)


def test_by_hand():
    # found at ranks 1 and 3: (1/1 + 2/3) / 2
    assert average_precision(np.array([1, 0, 1, 0]), np.array([4, 3, 2, 1])) == pytest.approx(5 / 6)
    assert average_precision(np.array([1, 0, 0, 0]), np.full(4, 0.5)) == 0.25  # all tied: the prevalence
    assert average_precision(np.array([1, 1, 0]), np.array([3, 2, 1])) == 1
    assert np.isnan(average_precision(np.zeros(3), np.arange(3.0)))
    assert np.isnan(average_precision(np.full(3, np.nan), np.arange(3.0)))
    assert average_precision(np.ones(3), np.arange(3.0)) == 1


def test_the_table():
    labels = np.column_stack([simulate(60, 0.3, 1)[0], np.zeros(60), np.full(60, np.nan)])
    scores = np.column_stack([simulate(60, 0.3, 1)[1]] * 3)
    names = ("Edema", "Fracture", "Mass")
    made = Predictions(tuple(f"{i}.png" for i in range(60)), scores, labels, LabelSet(names))
    table = precision_recall_table(made, resamples=50, seed=4)
    rows = {(row["label"], row["metric"]): row for row in table.to_dict("records")}
    assert list(rows)[:2] == [("Edema", "auprc"), ("Edema", "prevalence")] and len(rows) == 8
    row = rows["Edema", "auprc"]
    weights = np.concatenate(list(resample_weights(np.arange(60), 50, 4)), axis=1)
    samples = [average_precision_score(labels[:, 0], scores[:, 0], sample_weight=weight) for weight in weights.T]
    assert row["value"] == pytest.approx(average_precision_score(labels[:, 0], scores[:, 0]))
    assert (row["ci_low"], row["ci_high"]) == pytest.approx(tuple(np.percentile(samples, [2.5, 97.5])))
    for metric in ("auprc", "prevalence"):
        assert rows["Fracture", metric]["note"] == "no positives" and np.isnan(rows["Fracture", metric]["value"])
    assert rows["Mean (3)", "prevalence"]["value"] == pytest.approx(labels[:, 0].mean())
    assert rows["Mass", "auprc"]["note"] == rows["Mass", "prevalence"]["note"] == "no labelled films"
    assert rows["Mean (3)", "auprc"]["value"] == pytest.approx(row["value"])
    assert rows["Mean (3)", "auprc"]["note"] == "mean of 1 of 3 labels, without Fracture, Mass"


def test_the_bytes_do_not_depend_on_how_many_resamples_are_made_at_once():
    labels, scores = simulate(101, 0.3, 3)
    weights = np.concatenate(list(resample_weights(np.arange(101), 200, 3)), axis=1)
    sums = PrecisionSums(labels, scores)
    whole = sums(weights)
    for chunk in (1, 7, 64):
        parts = [sums(weights[:, start : start + chunk]) for start in range(0, 200, chunk)]
        assert np.concatenate(parts, axis=1).tobytes() == whole.tobytes()
