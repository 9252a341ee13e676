"""Where the patches of the shifted patch grid lie, and which of them cover a pixel."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from cxr.names import Protocol


@dataclass(frozen=True)
class ShiftGrid:
    """The starts of the patches: in both axes at pixel `(index - lead) * stride` of the crop, for index 0 ... n - 1.

    The crop is padded with zeros. The patches of one shift lie side by side: they are every `steps`-th of the grid,
    k = S / patch_size per axis. Raises ValueError when a size does not divide the next.
    """

    patch_size: int
    steps: int
    image_size: int

    def __post_init__(self) -> None:
        if self.steps < 1 or self.patch_size % self.steps:
            divisors = ", ".join(str(d) for d in range(1, self.patch_size + 1) if self.patch_size % d == 0)
            raise ValueError(f"{self.steps} steps per patch of {self.patch_size} pixels; possible are {divisors}")
        if self.image_size % self.patch_size:
            raise ValueError(f"patch size {self.patch_size} does not divide image size {self.image_size}")

    @property
    def stride(self) -> int:
        return self.patch_size // self.steps

    @property
    def n(self) -> int:
        return self.image_size // self.stride

    @property
    def lead(self) -> int:
        """Starts before the first pixel: shifts reach from half a patch before it to just under half a patch after."""
        return self.patch_size // 2 // self.stride

    def windows(self, image: Tensor) -> Tensor:
        """image (1, S, S) or (1, 1, S, S) -> all patches (n, n, p, p), a view of the padded image."""
        return self.padded(image).unfold(0, self.patch_size, self.stride).unfold(1, self.patch_size, self.stride)

    def padded(self, image: Tensor) -> Tensor:
        """image (1, S, S) or (1, 1, S, S) -> (H, H): from the first pixel of the first patch to the end of the last."""
        size = self.image_size
        if image.shape not in ((1, size, size), (1, 1, size, size)):
            raise ValueError(f"expected an image (1, {size}, {size}), got {tuple(image.shape)}")
        before = self.lead * self.stride
        behind = self.patch_size - self.stride - before
        return F.pad(image.reshape(size, size), (before, behind, before, behind))

    def by_shift(self, grid: Tensor) -> Tensor:
        """(n, n) -> (steps * steps, k, k), shifts in row-major order from the most negative one."""
        k = self.image_size // self.patch_size
        return grid.reshape(k, self.steps, k, self.steps).permute(1, 3, 0, 2).reshape(-1, k, k)

    def from_shifts(self, patches: Tensor) -> Tensor:
        """The inverse of `by_shift`."""
        k = self.image_size // self.patch_size
        return patches.reshape(self.steps, self.steps, k, k).permute(2, 0, 3, 1).reshape(self.n, self.n)

    def unshifted(self, grid: Tensor) -> Tensor:
        """(n, n) -> (k, k): the patches of the grid without a shift, whose mean is the prediction."""
        return grid[self.lead :: self.steps, self.lead :: self.steps]

    def pixel_means(self, grid: Tensor, protocol: Protocol) -> Tensor:
        """Values per patch (n, n) float64 -> (S, S) float32: the sum of those that cover a pixel, over their number.

        `published` divides by the number of an inner pixel everywhere.
        """
        block = torch.arange(self.n, device=grid.device)  # the pixels of a block have the same patches
        last = (block + self.lead + 1).clamp(max=self.n)
        first = (block + self.lead + 1 - self.steps).clamp(min=0)
        for axis in (0, 1):
            total = F.pad(grid.cumsum(axis).movedim(axis, 0), (0, 0, 1, 0)).movedim(0, axis)
            grid = total.index_select(axis, last) - total.index_select(axis, first)
        covering = (last - first).outer(last - first) if protocol == "corrected" else self.steps**2
        pixels = (grid / covering).float()
        return pixels.repeat_interleave(self.stride, 0).repeat_interleave(self.stride, 1)
