"""A map at a film's full size, made only when a question needs it: a film has twenty times the pixels of its map.

Every answer is that of the stretched map, to the last bit. Where the map itself bounds all pixels that bilinear
stretching can give closely enough, nothing is stretched.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np

from cxr.heat_maps import HeatMap
from evaluation.localizing.segmentation import above_otsu, normalise, resize_to_film

_EPSILON = float(np.finfo(np.float32).eps)
_MOST_CANDIDATES = 400
"""Map pixels near the maximum that are looked at one by one; where there are more, the map is stretched."""


class StretchedMap:
    """One map on a film of `film_size`."""

    def __init__(self, heat_map: HeatMap) -> None:
        self.heat_map = heat_map

    @cached_property
    def pixels(self) -> np.ndarray:
        """(H, W) float32."""
        return resize_to_film(self.heat_map)

    @cached_property
    def peak(self) -> int:
        """Place of the first largest pixel in row-major order."""
        return int(self.pixels.argmax())

    @cached_property
    def low(self) -> np.float32:
        return np.float32(self.pixels.min())

    @property
    def high(self) -> np.float32:
        return np.float32(self.pixels.flat[self.peak])

    @cached_property
    def is_constant(self) -> bool:
        """Whether all pixels are equal, so that normalising gives no number."""
        return not surely_uneven(self.heat_map) and self.low == self.high

    def is_any_above(self, threshold: float | None) -> bool:
        """Whether the predicted mask has a pixel. threshold: of the normalised map, or None for Otsu's."""
        if threshold is None:
            return bool(self.above(None).any())
        return bool(np.float32(threshold) < 1) and not self.is_constant  # the largest pixel is normalised to 1

    def above(self, threshold: float | None) -> np.ndarray:
        """(H, W) bool: the normalised map above the threshold, or above Otsu's; empty for a constant map."""
        if self.is_constant:
            return np.zeros(self.pixels.shape, dtype=bool)
        if threshold is None:
            normalised = normalise(self.pixels)
            return np.zeros(self.pixels.shape, dtype=bool) if normalised is None else above_otsu(normalised)
        return self.pixels >= least_above(self.low, self.high, threshold)

    def hits(self, mask: np.ndarray) -> float:
        """1 where the first largest pixel lies in the mask (H, W) bool, else 0."""
        known = None if "pixels" in self.__dict__ else sure_hit(self.heat_map, mask)
        return float(mask.flat[self.peak]) if known is None else known


# ------------------------------------------------------------------------------------------------- without stretching


def surely_uneven(heat_map: HeatMap) -> bool:
    """Whether the stretched map has two different pixels, without making it; False also where that is not sure.

    In a film at least twice as long as the map along both axes, some pixel lies within a quarter of a map pixel of the
    map's maximum, which then has at least 9/16 of its weight; so does the minimum. These two differ by at least an
    eighth of the map's range, and rounding takes away far less.
    """
    height, width = heat_map.map.shape
    if heat_map.film_size[0] < 2 * width or heat_map.film_size[1] < 2 * height:
        return False
    low, high = float(heat_map.map.min()), float(heat_map.map.max())
    return (high - low) / 8 > max(64 * _EPSILON * max(abs(low), abs(high)), float(np.finfo(np.float32).tiny))


def sure_hit(heat_map: HeatMap, mask: np.ndarray) -> float | None:
    """`StretchedMap.hits` where all film pixels that can be the largest agree whether they are in the mask, else None.

    Values are computed in double precision and known up to `slack`, for single precision places a pixel within 4 eps
    of the map's length and rounds its value a few times.
    """
    values, (film_width, film_height) = heat_map.map, heat_map.film_size
    height, width = values.shape
    if film_height < height or film_width < width or min(height, width) < 2:
        return None
    low, high = float(values.min()), float(values.max())
    slack = 8 * _EPSILON * max(height, width) * (high - low) + 16 * _EPSILON * max(abs(low), abs(high))
    top, left = divmod(int(values.argmax()), width)
    rows, columns = (_nearest(top, height, film_height), _nearest(left, width, film_width))
    least = float(_stretched_at(values, np.array([[rows]]), np.array([[columns]]), mask.shape)[0, 0]) - 2 * slack
    ys, xs = np.nonzero(values >= least)
    if len(ys) > _MOST_CANDIDATES:
        return None
    rows_near, columns_near = _around(ys, height, film_height), _around(xs, width, film_width)  # (N, a), (N, b)
    found = _stretched_at(values, rows_near[:, :, None], columns_near[:, None, :], mask.shape)  # (N, a, b)
    inside = mask[rows_near[:, :, None], columns_near[:, None, :]][found >= found.max() - 2 * slack]
    return float(inside[0]) if inside.all() or not inside.any() else None


def _nearest(index: int, length: int, film_length: int) -> int:
    """The film pixel closest to the centre of a map pixel."""
    return min(int((index + 0.5) * film_length / length), film_length - 1)


def _around(indices: np.ndarray, length: int, film_length: int) -> np.ndarray:
    """(N, a) all film pixels that a map pixel (N,) has weight in, and some more beside them."""
    reach = int(np.ceil(1.5 * film_length / length)) + 2
    centres = ((indices + 0.5) * film_length / length).astype(np.int64)
    return (centres[:, None] + np.arange(-reach, reach + 1)).clip(0, film_length - 1)


def _stretched_at(values: np.ndarray, rows: np.ndarray, columns: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """Film pixels of the map, in double precision. rows, columns: of a film of `size`; broadcast with each other."""
    (top, down), (left, across) = (
        _places(index, length, of_film)
        for index, length, of_film in ((rows, values.shape[0], size[0]), (columns, values.shape[1], size[1]))
    )
    corners = [values[top + i, left + j].astype(np.float64) for i in (0, 1) for j in (0, 1)]
    above, below = (corners[k] * (1 - across) + corners[k + 1] * across for k in (0, 2))
    return above * (1 - down) + below * down


def _places(index: np.ndarray, length: int, film_length: int) -> tuple[np.ndarray, np.ndarray]:
    """The map pixel before each film pixel, and the weight of the one after it."""
    position = ((index + 0.5) * (length / film_length) - 0.5).clip(0, length - 1)
    before = np.minimum(position.astype(np.int64), length - 2)
    return before, position - before


# --------------------------------------------------------------------------------------------------------- thresholds


def least_above(low: np.float32, high: np.float32, threshold: float) -> np.float32:
    """The least v of [low, high] whose (v - low) / (high - low) is above a threshold in single precision, or infinity.

    Subtracting and dividing never turn an order round, so the pixels above are those from v on.
    """
    limit, span = np.float32(threshold), high - low
    if not limit < 1:
        return np.float32(np.inf)
    below, above = _ordinal(low), _ordinal(high)
    if limit < 0:
        return low
    while above - below > 1:
        middle = (below + above) // 2
        if (_of_ordinal(middle) - low) / span > limit:
            above = middle
        else:
            below = middle
    return _of_ordinal(above)


def _ordinal(value: np.float32) -> int:
    """Number of a float in the order of all floats; 0 for zero."""
    bits = int(np.abs(value).view(np.int32))
    return -bits if value < 0 else bits


def _of_ordinal(number: int) -> np.float32:
    value = np.int32(abs(number)).view(np.float32)
    return -value if number < 0 else value
