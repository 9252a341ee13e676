"""The numbers that maps decompose, and how exactly: from evidence grids, without a forward pass.

The unshifted patches decompose the prediction. A fine map averages over all shifts of the patch grid, whose logits
differ from each other. Patch logits stand here for what evidence files hold, the contributions times their number. The
mean of a map, weighted by the number of patches on each pixel, is the mean of all patch logits, each
weighted by the part of its patch inside the crop; the mean over shifts weights them equally.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from saliency.evidence.shift_grid import ShiftGrid
from saliency.patch_maps import maps_from_grid


@dataclass(frozen=True)
class MapNumbers:
    """Logits of one film, each (C,) float64: of the unshifted patches, the mean and the standard deviation over shifts
    (the shifts being all there are), and `inside`, the mean weighted by the part of every patch inside the crop."""

    unshifted: np.ndarray
    mean: np.ndarray
    deviation: np.ndarray
    inside: np.ndarray

    @classmethod
    def of(cls, grids: np.ndarray, shifts: ShiftGrid) -> MapNumbers:
        """grids: evidence (C, n, n)."""
        values = np.asarray(grids, np.float64)
        by_shift = shift_logits(values, shifts)  # (C, steps * steps)
        area = inside_weights(shifts)[0]
        inside = np.einsum("chw,h,w->c", values, area, area, optimize=True) / area.sum() ** 2
        return cls(unshifted_means(values, shifts), by_shift.mean(axis=1), by_shift.std(axis=1), inside)


def shift_logits(grids: np.ndarray, shifts: ShiftGrid) -> np.ndarray:
    """Evidence grids (C, n, n) -> (C, steps * steps) float64: the logit of every shift, the mean of its patches."""
    values = torch.from_numpy(np.asarray(grids, np.float64))
    return torch.stack([shifts.by_shift(grid).mean(dim=(1, 2)) for grid in values]).numpy()


def unshifted_grids(grids: np.ndarray, shifts: ShiftGrid) -> np.ndarray:
    """Evidence grids (C, n, n) -> (C, k, k) float64: the unshifted patches."""
    values = torch.from_numpy(np.asarray(grids, np.float64))
    return torch.stack([shifts.unshifted(grid) for grid in values]).numpy()


def unshifted_means(grids: np.ndarray, shifts: ShiftGrid) -> np.ndarray:
    """Evidence grids (C, n, n) -> (C,) float64: the mean of the unshifted patches."""
    return unshifted_grids(grids, shifts).mean(axis=(1, 2))


def inside_weights(shifts: ShiftGrid) -> tuple[np.ndarray, np.ndarray]:
    """Per axis (n,) how many blocks of the crop a patch covers, and (n,) how many patches cover a block.

    A block is `stride` pixels wide. The weights of an image are the outer products of these with themselves.
    """
    first = np.arange(shifts.n)[:, None] - shifts.lead  # (n, 1): the first block of the patch
    blocks = np.arange(shifts.n)[None]  # (1, n)
    covers = (first <= blocks) & (blocks < first + shifts.steps)  # (n, n): patch x block
    return covers.sum(axis=1), covers.sum(axis=0)


def mean_of_map(grids: np.ndarray, shifts: ShiftGrid) -> np.ndarray:
    """Evidence grids (C, n, n) -> (C,): the mean of the raw map, its pixels weighted by their number of patches."""
    raw = maps_from_grid(
        torch.from_numpy(np.asarray(grids, np.float32)),
        patch_size=shifts.patch_size,
        steps_per_patch=shifts.steps,
        protocol="corrected",
        image_size=shifts.image_size,
        methods=["raw"],
    )["raw"].double()  # (C, S, S)
    cover = np.repeat(inside_weights(shifts)[1], shifts.stride).astype(np.float64)  # (S,)
    return np.einsum("chw,h,w->c", raw.numpy(), cover, cover, optimize=True) / cover.sum() ** 2


def logits_of(probabilities: np.ndarray) -> np.ndarray:
    """NaN for a probability that was rounded to 0 or 1, which says no logit."""
    with np.errstate(divide="ignore", invalid="ignore"):
        logits = np.log(probabilities) - np.log1p(-probabilities)
    return np.where(np.isfinite(logits), logits, np.nan)
