"""An estimate of the error that a stride makes in a film's maps, without any further forward pass.

The map of every second start is compared with that of all: the difference is the error of twice the stride less that
of the stride itself. Between starts d pixels apart, linear interpolation of a parabola has a mean error over the pixels
proportional to d^2 - 1, so the difference times (d^2 - 1) / (3 d^2) estimates the stride's own error, which is
Richardson's extrapolation on whole pixels; a stride of 1 has none. Evidence is not quite smooth, which makes it an
estimate: it depends also on where a patch starts against the network's own stride, which samples with a common divisor
pass by. Odd strides see it, in part: `benchmarks/bench_stride.py` found the error itself to be 0.5 to 2 times the
estimate.
"""

from __future__ import annotations

import torch
from torch import Tensor

from saliency.evidence.pixel_grid import PixelGrid


def stride_errors(grid: Tensor, pixels: PixelGrid) -> Tensor:
    """Evidence grid (C, m, m) -> (C,) float64: estimated mean error of each raw map, in percent of the map's range.

    NaN for a map without a range.
    """
    return torch.stack([_stride_error(values, pixels) for values in grid.double()])


def _stride_error(values: Tensor, pixels: PixelGrid) -> Tensor:
    """Values (m, m) float64 -> the error, without axes."""
    filled = (pixels.fill(values), pixels.fill_from_every_second(values))
    of_all, of_half = (pixels.shifts.pixel_means(each, "corrected").double() for each in filled)  # (S, S)
    share = (pixels.stride**2 - 1) / (3 * pixels.stride**2)
    value_range = of_all.max() - of_all.min()
    error = 100 * share * (of_all - of_half).abs().mean() / value_range
    return error if value_range > 0 else torch.full_like(error, torch.nan)
