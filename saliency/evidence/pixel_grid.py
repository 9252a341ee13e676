"""A shift grid computed at some of its starts only: every few pixels, filled linearly in between.

The logit of a patch changes little when the patch moves by a pixel. `benchmarks/bench_stride.py` measures the error.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from saliency.evidence.shift_grid import ShiftGrid


@dataclass(frozen=True)
class PixelGrid:
    """Of the n starts of `shifts` along either axis, every `stride`-th from the first on, and the last one.

    A stride of 1 takes every start of any shift grid. A larger one is in pixels, so it needs a shift grid with a start
    at every pixel. Raises ValueError otherwise, and for a stride beyond the patch size.
    """

    shifts: ShiftGrid
    stride: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.stride <= max(self.shifts.patch_size, 1):
            raise ValueError(f"a stride of {self.stride} px; possible are 1 to {self.shifts.patch_size}")
        if self.stride > 1 and self.shifts.stride > 1:
            reason = f"{self.shifts.steps} steps leave some out"
            raise ValueError(f"a stride of {self.stride} px is taken of starts at every pixel; {reason}")

    @property
    def m(self) -> int:
        """Starts per axis."""
        return 1 - (1 - self.shifts.n) // self.stride

    @property
    def starts(self) -> Tensor:
        """(m,) int64: indices of the starts along an axis of the shift grid."""
        return (torch.arange(self.m) * self.stride).clamp(max=self.shifts.n - 1)

    def fill(self, values: Tensor) -> Tensor:
        """(m, m) -> (n, n): linear between the starts, first along the rows, then along the columns.

        At a stride of 1 the values themselves; else the values at the starts are kept to the last bit.
        """
        return values if self.stride == 1 else filled(values, self.starts, self.shifts.n)

    def fill_from_every_second(self, values: Tensor) -> Tensor:
        """(m, m) -> (n, n): as a grid of twice the stride would be filled."""
        every_second = torch.arange(0, self.m + 1, 2).clamp(max=self.m - 1)
        return filled(values[every_second][:, every_second], self.starts[every_second], self.shifts.n)


def filled(values: Tensor, starts: Tensor, n: int) -> Tensor:
    """Values (m, m) at the rows and columns `starts` -> (n, n). starts: (m,) from 0 to n - 1, ascending."""
    if len(starts) == 1:
        return values
    place = torch.arange(n)
    left = (torch.searchsorted(starts, place, right=True) - 1).clamp(max=len(starts) - 2)  # (n,)
    weight = ((place - starts[left]).double() / (starts[left + 1] - starts[left])).to(values.device, values.dtype)
    left = left.to(values.device)
    rows = values[left] * (1 - weight)[:, None] + values[left + 1] * weight[:, None]  # (n, m)
    return rows[:, left] * (1 - weight) + rows[:, left + 1] * weight  # (n, n)
