"""The pooled AUROC: against scikit-learn on repeated films, resample by resample."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from benchmarks.pooled.auroc import Scored, pooled_aurocs


def split(seed: int, films: int, patients: int) -> Scored:
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 6, (films, 2)) / 5  # with ties
    return Scored(rng.integers(0, patients, films), rng.integers(0, 2, films), scores)


def test_against_scikit_learn_on_films_repeated_as_their_patients_are_drawn():
    splits, patients = [split(1, 30, 12), split(2, 25, 12)], 12
    found = pooled_aurocs(splits, patients, resamples=40, seed=3)
    drawn = np.random.default_rng(3).integers(0, patients, (40, patients))
    expected = []
    for of_resample in [np.arange(patients), *drawn]:
        means = []
        for network in (0, 1):
            values = []
            for one in splits:
                films = [film for patient in of_resample for film in np.flatnonzero(one.patients == patient)]
                if len(set(one.truth[films])) == 2:
                    values.append(roc_auc_score(one.truth[films], one.scores[films, network]))
            means.append(np.mean(values))
        expected.append(means)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_a_split_without_positives_does_not_count():
    with_both = split(1, 30, 5)
    without = Scored(with_both.patients, np.zeros(30), with_both.scores)
    both = pooled_aurocs([with_both, without], 5, resamples=20, seed=0)
    np.testing.assert_array_equal(both, pooled_aurocs([with_both], 5, resamples=20, seed=0))
    assert np.isnan(pooled_aurocs([without], 5, resamples=3, seed=0)).all()
    assert both[0, 0] == pytest.approx(roc_auc_score(with_both.truth, with_both.scores[:, 0]))
