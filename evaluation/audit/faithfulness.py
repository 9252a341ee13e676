"""Does a map say what its network does? Measures on one film and label, from occlusion effects and masks.

map: what a method gives each patch (k, k) or pixel (h, w), positive for "speaks for the label"; drops: (k, k), what the
logit falls by when a patch is filled. All return NaN where they are undefined.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from scipy.stats import rankdata

from cxr.names import CHANCE

BEST = "best order"
"""Of curves, in the place of a method."""

Curves = dict[tuple[str, str], np.ndarray]
"""(method, fill) -> (3, T + 1): numbers of patches, and the change of the logit after that many were filled, or came
back into a film that was filled throughout."""


def rank_correlation(patches: np.ndarray, drops: np.ndarray) -> float:
    """Spearman's correlation over the patches; NaN where either is constant."""
    ranks = [rankdata(values) for values in (patches.ravel(), drops.ravel())]
    a, b = (values - values.mean() for values in ranks)
    scale = np.sqrt((a @ a) * (b @ b))
    return float(a @ b / scale) if scale > 0 else np.nan


def same_top_patch(patches: np.ndarray, drops: np.ndarray) -> float:
    """1 where the patch of the map's maximum is one whose filling lowers the logit most; NaN for a constant map."""
    if np.ptp(patches) == 0:
        return np.nan
    return float(drops.ravel()[patches.argmax()] == drops.max())


def by_map(patches: np.ndarray) -> np.ndarray:
    """(P,) patches from the highest value on; of equal ones the first in row-major order comes first."""
    return np.argsort(-patches.ravel(), kind="stable")


def deletion_curve(drops: np.ndarray, order: np.ndarray) -> np.ndarray:
    """(P + 1,) change of the logit after 0, 1, ..., P patches were filled in that order; needs a linear aggregation."""
    return -np.concatenate([[0.0], drops.ravel()[order].cumsum()])


def insertion_curve(drops: np.ndarray, order: np.ndarray) -> np.ndarray:
    """(P + 1,) logit - that of the film after 0, 1, ..., P patches of a film that was filled throughout came back."""
    gains = drops.ravel()[order]
    return np.concatenate([[0.0], gains.cumsum()]) - gains.sum()


def closed_curves(patches: Mapping[str, np.ndarray], drops: Mapping[str, np.ndarray]) -> Curves:
    """Both curves of every method and fill; those of the best order; and of chance, the mean over all orders.

    patches: method -> (k, k); drops: fill -> (k, k), of a linear aggregation.
    """
    found: Curves = {}
    for fill, of_fill in drops.items():
        counts = np.arange(of_fill.size + 1)
        for method, values in (*patches.items(), (BEST, of_fill)):
            order = by_map(values)
            found[method, fill] = np.stack([counts, deletion_curve(of_fill, order), insertion_curve(of_fill, order)])
        straight = of_fill.sum() * counts / of_fill.size
        found[CHANCE, fill] = np.stack([counts, -straight, straight - of_fill.sum()])
    return found


def area(curve: np.ndarray, counts: np.ndarray | None = None) -> float:
    """Area under a curve over the share of patches, [0, 1], by trapezoids (RISE, arXiv 1806.07421).

    counts: of patches at the curve's points, from 0 to all; one more at each without.
    """
    widths = np.ones(len(curve) - 1) if counts is None else np.diff(counts)
    return float(np.average((curve[1:] + curve[:-1]) / 2, weights=widths))


def area_gains(curve: np.ndarray, chance: np.ndarray) -> tuple[float, float]:
    """Gains of an order over chance by deletion and by insertion, in logits; more is better, 0 is chance.

    curve, chance: (3, T + 1), see `Curves`. Gain: how much lower the logit is on average while patches are filled, and
    how much higher while they come back.
    """
    areas, random = ([area(of[kind], of[0]) for kind in (1, 2)] for of in (curve, chance))
    return random[0] - areas[0], areas[1] - random[1]


def curve_share(drops: np.ndarray, order: np.ndarray, *, deletion: bool) -> float:
    """Area that an order gains over a random one, as a share of what the best order gains: 1 best, 0 random, -1 worst.

    Random orders give a straight line on average. The best order is that of the drops, for deletion and for insertion,
    because the effects of patches add up. NaN where all patches have the same effect.
    """
    curve = deletion_curve if deletion else insertion_curve
    own, best = area(curve(drops, order)), area(curve(drops, by_map(drops)))
    ends = curve(drops, order)[[0, -1]]
    straight = float(ends.mean())
    return (own - straight) / (best - straight) if np.ptp(drops) > 0 else np.nan


def infidelity(patches: np.ndarray, drops: np.ndarray) -> float:
    """Share of the squared effects that the map does not explain, times the factor that suits it best: 0 to 1.

    Infidelity of Yeh et al. (arXiv 1901.09392) with their optimal scaling, over the P perturbations that fill one patch
    each, relative to the map that is 0 everywhere.
    """
    a, b = patches.ravel(), drops.ravel()
    power, total = float(a @ a), float(b @ b)
    if total == 0:
        return np.nan
    return 1.0 - float(a @ b) ** 2 / (power * total) if power > 0 else 1.0


# -------------------------------------------------------------------------------------------------------------- regions


def shares_inside(values: np.ndarray, regions: Sequence[np.ndarray]) -> list[float]:
    """Share of the positive part of a map (S, S) that lies in each region; NaN where the map has none.

    regions: (S, S) in [0, 1], each pixel's share. Of masks: the energy-based pointing game of Score-CAM (arXiv
    1910.01279).
    """
    positive = np.maximum(values, 0)
    total = positive.sum(dtype=np.float64)
    if total == 0:
        return [np.nan] * len(regions)
    return [float((positive * inside).sum(dtype=np.float64) / total) for inside in regions]


def pixel_ranking(
    values: np.ndarray, inside: np.ndarray, unseen: tuple[float, float] = (0.0, 0.0)
) -> tuple[float, float]:
    """AUROC and average precision (AUPRC) of finding the pixels inside a mask by their value; NaN where undefined.

    values, inside: (S, S); inside in [0, 1] is the share of a pixel that the mask covers: with that weight it counts
    inside, with the rest outside. unseen: number of pixels inside and outside the mask that the map does not show; they
    have its least value. Ties count half in the AUROC, and together in the AUPRC, as in scikit-learn.
    """
    positives, negatives = _weights_by_value(values, inside)  # (V,), values descending
    positives[-1] += unseen[0]
    negatives[-1] += unseen[1]
    found = positives.cumsum()
    if found[-1] <= 0:
        return np.nan, np.nan
    above = found - positives / 2
    pairs = found[-1] * negatives.sum()
    precision = found / np.maximum(found + negatives.cumsum(), np.finfo(float).tiny)
    return float(negatives @ above / pairs) if pairs > 0 else np.nan, float(positives @ precision / found[-1])


def _weights_by_value(values: np.ndarray, inside: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(V,) weights inside and outside of each of the V values that occur, descending."""
    flat = values.ravel()
    order = np.argsort(-flat)
    ordered, weights = flat[order], inside.ravel()[order].astype(np.float64)
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    positives = np.add.reduceat(weights, starts)
    return positives, np.diff(np.append(starts, len(flat))) - positives


def border_ring(height: int, width: int, share: float = 0.05) -> np.ndarray:
    """(H, W) bool: the pixels closer to an edge than a share of the shorter side, one at least."""
    depth = max(1, round(share * min(height, width)))
    ring = np.ones((height, width), dtype=bool)
    ring[depth : height - depth, depth : width - depth] = False
    return ring
