"""The body's outline on a film, found by a plain rule: what is dark and connected to the film's edge is not body.

Air around the patient, collimated borders and film holders are dark and reach the edge; lungs are dark and enclosed.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

DARK = 0.15
"""A pixel is dark below this share of the film's 99th percentile, after smoothing."""
_SMOOTHING = 0.01  # standard deviation, of the shorter side


def body_mask(pixels: np.ndarray) -> np.ndarray:
    """(H, W) grey in [0, 1] -> (H, W) bool. On a film whose edges are bright everywhere, all of it is body."""
    smooth = ndimage.gaussian_filter(pixels.astype(np.float64), _SMOOTHING * min(pixels.shape), mode="nearest")
    dark = smooth < DARK * np.quantile(pixels, 0.99)
    regions, count = ndimage.label(dark)
    edges = np.concatenate([regions[0], regions[-1], regions[:, 0], regions[:, -1]])
    outside = np.isin(np.arange(count + 1), edges) & (np.arange(count + 1) > 0)
    return ~outside[regions]
