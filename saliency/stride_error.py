"""An estimate of the error that a stride makes in a film's maps, without any further forward pass.

The map of every second start is compared with that of all: the difference is the error of twice the stride less that
of the stride itself. Linear interpolation of a smooth function has an error that grows with the square of the
stride, so a third of the difference estimates the stride's own error (Richardson's extrapolation). Evidence is not
quite smooth, which makes it an estimate; `benchmarks/bench_stride.py` compares it with the error itself.
"""

from __future__ import annotations

import torch
from torch import Tensor

from saliency.pixel_grid import PixelGrid

_TIMES_SMALLER = 3  # (2 d)^2 - d^2 is three times d^2


def stride_errors(grid: Tensor, pixels: PixelGrid) -> Tensor:
    """Evidence grid (C, m, m) -> (C,) float64: estimated mean error of each raw map, in percent of the map's range.

    NaN for a map without a range. Raises ValueError at a stride of 1, which makes no error.
    """
    if pixels.stride == 1:
        raise ValueError("every start is computed: there is no error to estimate")
    return torch.stack([_stride_error(values, pixels) for values in grid.double()])


def _stride_error(values: Tensor, pixels: PixelGrid) -> Tensor:
    """Values (m, m) float64 -> the error, without axes."""
    filled = (pixels.fill(values), pixels.fill_from_every_second(values))
    of_all, of_half = (pixels.shifts.pixel_means(each, "corrected").double() for each in filled)  # (S, S)
    value_range = of_all.max() - of_all.min()
    error = 100 * (of_all - of_half).abs().mean() / _TIMES_SMALLER / value_range
    return error if value_range > 0 else torch.full_like(error, torch.nan)
