"""From a heat map to a mask of the film, number for number as CheXlocalize does it, without OpenCV."""

from __future__ import annotations

import numpy as np
import torch
from scipy import ndimage
from torch.nn.functional import interpolate

from cxr.files import InputError
from cxr.heat_maps import HeatMap, heat_map_name
from cxr.masks import GroundTruth


def resize_to_film(heat_map: HeatMap) -> np.ndarray:
    """(h, w) -> (H, W) float32: stretched bilinearly over the film."""
    width, height = heat_map.film_size
    plane = torch.from_numpy(heat_map.map)[None, None]  # (1, 1, h, w)
    return interpolate(plane, size=(height, width), mode="bilinear", align_corners=False)[0, 0].numpy()


def value_range(resized: np.ndarray) -> tuple[np.float32, np.float32]:
    """Minimum, and the maximum of what is left when it is subtracted: 0 for a constant map."""
    low, high = (np.float32(value) for value in torch.from_numpy(resized).aminmax())
    return low, high - low


def normalise(resized: np.ndarray) -> np.ndarray | None:
    """(H, W) -> (H, W) float32 in [0, 1]; None for a constant map, which CheXlocalize turns into NaN: no mask."""
    low, span = value_range(resized)
    if span == 0:
        return None
    return (resized - low) / span


def above_threshold(normalised: np.ndarray, threshold: float) -> np.ndarray:
    """(H, W) bool. The threshold is rounded to float32 like the map: a map of 0.4 is not above a threshold of 0.4."""
    return normalised > np.float32(threshold)


def above_otsu(normalised: np.ndarray) -> np.ndarray:
    """(H, W) bool: the map in 256 levels above Otsu's threshold, holes filled, single pixels dropped.

    CheXlocalize finds contours and draws them filled; a contour of one pixel is not a polygon. The result is the same.
    """
    levels = (255 * normalised).astype(np.uint8)
    return _without_single_pixels(_without_holes(levels > otsu_threshold(levels)))


def otsu_threshold(levels: np.ndarray) -> int:
    """Otsu's level (IEEE T-SMC 9:62, 1979) of uint8 values: those above it are the foreground.

    The first level with the largest variance between the classes, computed in OpenCV's order, so that ties fall alike.
    """
    counts = np.bincount(levels.ravel(), minlength=256)
    scale = 1.0 / levels.size
    mean = float(np.arange(256) @ counts) * scale
    tiny = float(np.finfo(np.float32).eps)
    best, best_variance, below, mean_below = 0, 0.0, 0.0, 0.0
    for level, share in enumerate((counts * scale).tolist()):
        mean_below *= below
        below += share
        above = 1.0 - below
        if min(below, above) < tiny or max(below, above) > 1.0 - tiny:
            continue
        mean_below = (mean_below + level * share) / below
        mean_above = (mean - below * mean_below) / above
        variance = below * above * (mean_below - mean_above) * (mean_below - mean_above)
        if variance > best_variance:
            best, best_variance = level, variance
    return best


def _without_holes(mask: np.ndarray) -> np.ndarray:
    """Fills what the outside does not reach by steps up, down, left and right."""
    outside, _ = ndimage.label(np.pad(~mask, 1, constant_values=True))
    return (outside != outside[0, 0])[1:-1, 1:-1]


def _without_single_pixels(mask: np.ndarray) -> np.ndarray:
    """Drops pixels without any of their 8 neighbours."""
    padded = np.pad(mask, 1).astype(np.uint8)
    columns = padded[:-2] + padded[1:-1] + padded[2:]  # (H, W + 2)
    return mask & (columns[:, :-2] + columns[:, 1:-1] + columns[:, 2:] > 1)


def check_film_size(heat_map: HeatMap, ground_truth: GroundTruth) -> None:
    """Raises InputError when a film has another size in its heat map than in the ground truth."""
    width, height = heat_map.film_size
    if (height, width) != ground_truth.size(heat_map.image_id):
        expected_height, expected_width = ground_truth.size(heat_map.image_id)
        raise InputError(
            f"{heat_map_name(heat_map.image_id, heat_map.task)}: its film is {width} x {height} (width x height), in "
            f"{ground_truth.source} it is {expected_width} x {expected_height}; use the ground truth of these films"
        )
