"""Measures of faithfulness, each against a second, slow implementation or against scipy and scikit-learn."""

import itertools
import math

import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.metrics import average_precision_score, roc_auc_score

from cxr.names import CHANCE
from evaluation.audit.body_outline import body_mask
from evaluation.audit.faithfulness import (
    BEST,
    area,
    area_gains,
    border_ring,
    by_map,
    closed_curves,
    curve_share,
    deletion_curve,
    infidelity,
    insertion_curve,
    pixel_ranking,
    rank_correlation,
    same_top_patch,
    shares_inside,
)


def grids(seed: int, side: int = 4, ties: bool = False) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(2, side, side))
    return (a.round(0), b.round(0)) if ties else (a, b)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_rank_correlation_is_scipys(seed, ties):
    patches, drops = grids(seed, ties=ties)
    expected = spearmanr(patches.ravel(), drops.ravel()).statistic
    assert rank_correlation(patches, drops) == pytest.approx(expected, abs=1e-12)


def test_rank_correlation_of_what_says_the_same_is_one_and_of_a_constant_undefined():
    patches, _ = grids(0)
    assert rank_correlation(patches, 3 * patches - 7) == pytest.approx(1)
    assert rank_correlation(patches, -np.exp(patches)) == pytest.approx(-1)
    assert math.isnan(rank_correlation(np.ones((2, 2)), grids(0, 2)[1]))


def test_top_patch():
    drops = np.array([[0.1, 0.5], [0.5, -2.0]])
    assert same_top_patch(np.array([[0, 9], [1, 2]]), drops) == 1
    assert same_top_patch(np.array([[0, 1], [9, 2]]), drops) == 1  # the two effects are equal
    assert same_top_patch(np.array([[9, 0], [1, 2]]), drops) == 0
    assert math.isnan(same_top_patch(np.ones((2, 2)), drops))


def slow_curves(drops: np.ndarray, order) -> tuple[list[float], list[float]]:
    """Patch by patch: the logit minus the effects of those that are filled."""
    flat = list(drops.ravel())
    deletion = [-sum(flat[p] for p in order[:count]) for count in range(len(flat) + 1)]
    insertion = [-sum(flat[p] for p in order[count:]) for count in range(len(flat) + 1)]
    return deletion, insertion


@pytest.mark.parametrize("seed", range(3))
def test_curves_are_sums_of_effects(seed):
    patches, drops = grids(seed)
    deletion, insertion = slow_curves(drops, by_map(patches))
    np.testing.assert_allclose(deletion_curve(drops, by_map(patches)), deletion, atol=1e-12)
    np.testing.assert_allclose(insertion_curve(drops, by_map(patches)), insertion, atol=1e-12)
    assert deletion[0] == 0 and insertion[-1] == 0 and insertion[0] == pytest.approx(deletion[-1])


def test_area_is_that_of_trapezoids():
    curve = np.array([0.0, -1.0, -1.5, -3.0])
    assert area(curve) == pytest.approx(np.trapezoid(curve, [0, 1 / 3, 2 / 3, 1]))


def test_no_order_is_better_than_the_best():
    """Of four patches every order, of sixteen 200 random ones; the mean of all orders is a straight line."""
    _, drops = grids(11, side=2)
    shares = [curve_share(drops, np.array(order), deletion=True) for order in itertools.permutations(range(4))]
    assert max(shares) == pytest.approx(1) == curve_share(drops, by_map(drops), deletion=True)
    assert min(shares) == pytest.approx(-1) and np.mean(shares) == pytest.approx(0, abs=1e-12)
    _, drops = grids(12)
    rng = np.random.default_rng(0)
    orders = [rng.permutation(16) for _ in range(200)]
    best = area(deletion_curve(drops, by_map(drops)))
    assert all(best <= area(deletion_curve(drops, order)) for order in orders)
    best = area(insertion_curve(drops, by_map(drops)))
    assert all(best >= area(insertion_curve(drops, order)) for order in orders)


def test_gains_over_chance_are_those_over_the_mean_of_all_orders():
    """Of four patches: every order, patch by patch; the shares of the best order are the gains over its own."""
    patches, drops = grids(5, side=2)
    curves = closed_curves({"own": patches}, {"black": drops})
    areas = {
        order: [np.trapezoid(curve, dx=1 / 4) for curve in slow_curves(drops, order)]
        for order in itertools.permutations(range(4))
    }
    mean, own = np.mean(list(areas.values()), axis=0), np.array(areas[tuple(map(int, by_map(patches)))])
    gains = area_gains(curves["own", "black"], curves[CHANCE, "black"])
    np.testing.assert_allclose(gains, (own - mean) * [-1, 1], atol=1e-12)
    best = area_gains(curves[BEST, "black"], curves[CHANCE, "black"])
    assert gains[0] / best[0] == pytest.approx(curve_share(drops, by_map(patches), deletion=True))
    assert area_gains(curves[CHANCE, "black"], curves[CHANCE, "black"]) == (0, 0)


def test_the_area_of_a_curve_with_wide_steps():
    curve, counts = np.array([0.0, -1.0, -4.0]), np.array([0, 1, 4])
    assert area(curve, counts) == pytest.approx(np.trapezoid(curve, counts / 4))


@pytest.mark.parametrize("seed", range(5))
def test_insertion_says_what_deletion_says_where_effects_add_up(seed):
    patches, drops = grids(seed)
    shares = [curve_share(drops, by_map(patches), deletion=kind) for kind in (True, False)]
    assert shares[0] == pytest.approx(shares[1]) and -1 <= shares[0] <= 1


def test_a_curve_of_equal_effects_has_no_share():
    assert math.isnan(curve_share(np.ones((2, 2)), np.arange(4), deletion=True))


def slow_infidelity(patches: np.ndarray, drops: np.ndarray) -> float:
    """The least mean squared error over many factors, relative to that of a map of zeros."""
    factors = np.linspace(-20, 20, 400_001)
    a, b = patches.ravel(), drops.ravel()
    errors = [((factors * x - y) ** 2) for x, y in zip(a, b, strict=True)]
    return float(np.mean(errors, axis=0).min() / np.mean(b**2))


@pytest.mark.parametrize("seed", range(3))
def test_infidelity_is_the_least_error_over_all_factors(seed):
    patches, drops = grids(seed, side=3)
    assert infidelity(patches, drops) == pytest.approx(slow_infidelity(patches, drops), abs=1e-6)


def test_infidelity_of_the_effects_themselves_and_of_nothing():
    _, drops = grids(4)
    assert infidelity(5 * drops, drops) == pytest.approx(0, abs=1e-12)
    assert infidelity(np.zeros((4, 4)), drops) == 1
    assert math.isnan(infidelity(drops, np.zeros((4, 4))))


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_pixel_ranking_is_scikit_learns(seed, ties):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(12, 15)).astype(np.float32)
    values = values.round(0) if ties else values
    inside = (rng.random((12, 15)) < 0.2).astype(np.float32)
    auroc, auprc = pixel_ranking(values, inside)
    assert auroc == pytest.approx(roc_auc_score(inside.ravel() > 0, values.ravel()), abs=1e-12)
    assert auprc == pytest.approx(average_precision_score(inside.ravel() > 0, values.ravel()), abs=1e-12)


def test_pixels_that_a_mask_covers_in_part_count_with_their_share():
    rng = np.random.default_rng(7)
    values, inside = rng.normal(size=(6, 7)).round(1), rng.random((6, 7))
    flat = np.concatenate([values.ravel()] * 2)
    truth = np.concatenate([np.ones(42), np.zeros(42)])
    weights = np.concatenate([inside.ravel(), 1 - inside.ravel()])
    auroc, auprc = pixel_ranking(values, inside)
    assert auroc == pytest.approx(roc_auc_score(truth, flat, sample_weight=weights), abs=1e-12)
    assert auprc == pytest.approx(average_precision_score(truth, flat, sample_weight=weights), abs=1e-12)


def test_a_mask_of_nothing_or_of_everything_has_no_ranking():
    values = np.arange(6.0).reshape(2, 3)
    assert all(map(math.isnan, pixel_ranking(values, np.zeros((2, 3)))))
    auroc, auprc = pixel_ranking(values, np.ones((2, 3)))
    assert math.isnan(auroc) and auprc == 1


def test_pixels_that_the_map_does_not_show_have_its_least_value():
    rng = np.random.default_rng(8)
    values, inside = rng.normal(size=(5, 5)).round(1), (rng.random((5, 5)) < 0.4).astype(float)
    flat = np.concatenate([values.ravel(), np.full(12, values.min())])
    truth = np.concatenate([inside.ravel(), np.repeat([1.0, 0.0], [3, 9])])
    auroc, auprc = pixel_ranking(values, inside, (3, 9))
    assert auroc == pytest.approx(roc_auc_score(truth, flat), abs=1e-12)
    assert auprc == pytest.approx(average_precision_score(truth, flat), abs=1e-12)


def test_shares_inside_count_what_speaks_for_the_label_alone():
    values = np.array([[2.0, -5.0], [1.0, 1.0]])
    regions = [np.array([[1.0, 1.0], [0.0, 0.5]]), np.array([[False, True], [False, True]])]
    assert shares_inside(values, regions) == pytest.approx([(2 + 0.5) / 4, 1 / 4])
    assert all(map(math.isnan, shares_inside(-np.ones((2, 2)), [np.ones((2, 2))] * 2)))


def test_the_border_is_a_ring():
    ring = border_ring(40, 60)
    expected = [[min(y, x, 39 - y, 59 - x) < 2 for x in range(60)] for y in range(40)]
    np.testing.assert_array_equal(ring, expected)
    assert border_ring(3, 3).sum() == 8


def test_dark_regions_at_the_edge_are_outside_the_body_and_enclosed_ones_inside():
    film = np.full((100, 80), 0.02)
    film[5:100, 15:65] = 0.6  # the body, which reaches the lower edge
    film[30:60, 25:35] = 0.02  # a lung
    mask = body_mask(film)
    assert mask[45, 30] and mask[80, 40] and mask[99, 40]
    assert not mask[2, 40] and not mask[50, 5] and not mask[50, 75]
    assert body_mask(np.full((20, 20), 0.5)).all()
    assert body_mask(np.zeros((20, 20))).all(), "nothing is darker than a black film"
