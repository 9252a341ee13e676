"""Fitted weights per place equal scikit-learn's, and are what validation asks for."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression

from training.position_fit import SPREADS, cross_entropy, fit_label, fit_table, fit_weights

PLACES = 9


def drawn(films: int, seed: int = 0, signal: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Patch logits of which one place alone says whether a film is positive, and labels."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(-1, 1.5, (films, PLACES)) + rng.normal(0, 1, (films, 1))
    chance = 1 / (1 + np.exp(-1.5 * logits[:, signal]))
    return logits, (rng.random(films) < chance).astype(float)


@pytest.mark.parametrize("spread", [0.1, 1.0, 10.0])
def test_weights_equal_scikit_learn_s(spread):
    """scikit-learn pulls towards 0. The pull towards 1 / P is a term linear in the weights, which a pair of films of
    opposite labels and opposite signs adds: log(1 + exp(-z)) - log(1 + exp(z)) = -z."""
    x, y = drawn(300)
    strength = (PLACES / spread) ** 2  # of the squared difference from 1 / P
    pull = np.full(PLACES, strength / PLACES)
    films = np.vstack([x, pull, pull, np.zeros((2, PLACES))])
    labels = np.concatenate([y, [1, 0, 0, 1]])
    signs = np.concatenate([np.ones(len(y)), [1, -1, 1, -1]])  # the last two take the offset out of the pair
    oracle = LogisticRegression(C=1 / strength, tol=1e-12, max_iter=100_000).fit(films, labels, sample_weight=signs)
    weights, offset = fit_weights(x, y, spread)
    np.testing.assert_allclose(weights, oracle.coef_[0], rtol=1e-3, atol=1e-5)
    assert offset == pytest.approx(oracle.intercept_[0], rel=1e-3, abs=1e-4)


def test_without_a_pull_they_equal_plain_logistic_regression():
    x, y = drawn(400, seed=1)
    oracle = LogisticRegression(C=np.inf, tol=1e-12, max_iter=100_000).fit(x, y)
    weights, offset = fit_weights(x, y, 1e6)
    np.testing.assert_allclose(weights, oracle.coef_[0], rtol=1e-4, atol=1e-5)
    assert offset == pytest.approx(oracle.intercept_[0], rel=1e-4)


def test_weights_are_the_minimum_of_the_objective_as_written():
    x, y = drawn(200, seed=2)

    def objective(theta: np.ndarray) -> float:
        weights, offset, total = theta[:PLACES], theta[PLACES], 0.0
        for film, label in zip(x, y, strict=True):
            z = float(sum(weights * film)) + offset
            total += np.log1p(np.exp(-z)) if label else np.log1p(np.exp(z))
        return total + 0.5 * sum(((PLACES * w - 1) / 0.5) ** 2 for w in weights)

    weights, offset = fit_weights(x, y, 0.5)
    best = minimize(objective, np.append(np.full(PLACES, 1 / PLACES), 0.0), method="BFGS", options={"gtol": 1e-7})
    np.testing.assert_allclose(np.append(weights, offset), best.x, rtol=1e-3, atol=1e-4)


def test_a_spread_of_zero_is_the_mean_with_the_best_offset():
    x, y = drawn(200, seed=3)
    weights, offset = fit_weights(x, y, 0.0)
    assert (weights == 1 / PLACES).all()
    mean_probability = 1 / (1 + np.exp(-(x.mean(axis=1) + offset)))
    assert mean_probability.mean() == pytest.approx(y.mean(), abs=1e-8)  # the offset's own equation


def test_films_that_one_weight_separates_keep_finite_weights():
    x, _ = drawn(60, seed=4)
    y = (x[:, 4] > 0).astype(float)
    for spread in SPREADS:
        weights, offset = fit_weights(1000 * x, y, spread)
        assert np.isfinite(weights).all() and np.isfinite(offset)


def test_validation_chooses_the_spread():
    """Where one place tells, uneven weights win; where none tells more than another, even ones do."""
    train, validation = drawn(600), drawn(2000, seed=9)
    fit = fit_label(train, validation)
    assert fit.spread >= 1 and np.argmax(fit.weights) == 4 and fit.loss < fit.even_loss - 0.05
    losses = []
    for spread in SPREADS:
        weights, offset = fit_weights(*train, spread)
        losses.append(cross_entropy(validation[0] @ weights + offset, validation[1]))
    assert (fit.spread, fit.loss) == (SPREADS[int(np.argmin(losses))], min(losses))
    rng = np.random.default_rng(5)
    x = [rng.normal(size=(n, PLACES)) for n in (40, 2000)]
    even = [(part, (rng.random(len(part)) < 1 / (1 + np.exp(-part.mean(axis=1)))).astype(float)) for part in x]
    assert fit_label(*even).spread <= 0.3


@pytest.mark.parametrize(
    ("where", "value", "words"),
    [
        (0, 0, "no positive film of training"),
        (0, 1, "no negative film of training"),
        (1, 0, "no positive film of validation"),
        (1, np.nan, "no positive film of validation"),
    ],
)
def test_labels_of_one_kind_keep_the_mean_and_say_so(where, value, words):
    parts = [drawn(30), drawn(20, seed=1)]
    parts[where][1][:] = value
    fit = fit_label(*parts)
    assert (fit.weights == 1 / PLACES).all() and fit.offset == 0
    assert str(fit) == f"keeps 1 / P ({words})" and fit_table({"a": fit})["note"].tolist() == [words]


def test_films_that_are_not_labelled_count_for_nothing():
    train, validation = drawn(100), drawn(100, seed=1)
    more = np.vstack([train[0], 1e3 * np.ones((5, PLACES))]), np.append(train[1], np.full(5, np.nan))
    a, b = fit_label(train, validation), fit_label(more, validation)
    assert np.array_equal(a.weights, b.weights) and a.offset == b.offset
