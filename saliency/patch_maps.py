"""Evidence maps of a patch network, from the logits of the patch at every start of a shifted patch grid.

The published code runs the network on every shift of the film and adds up full-size maps. No patch belongs to two
shifts, so one pass over all patches gives the evidence grid, and the sum over the patches that cover a pixel is a box
filter over that grid. Wienholt et al., Scientific Reports 2026, doi 10.1038/s41598-026-40358-0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from cxr.names import Protocol, check_protocol
from saliency.evidence_values import evidence_values
from saliency.folded_network import FoldedNetwork, PatchNetwork, is_linear, map_in_threads

LOGIT_LIMIT = 200.0
"""Logits are clipped to +- this before they become heat-map values, as published."""

_PIXELS_AT_ONCE = 32 * 64 * 64
"""Patch pixels that one CPU thread computes at once: the activations then still fit into its caches."""

_PUBLISHED_BATCH = 4
"""Shifts per batch in the published code, on which its broadcast bug depends."""


def patch_maps(
    model: PatchNetwork, image: Tensor, *, steps_per_patch: int, protocol: Protocol, batch_size: int
) -> dict[str, Tensor]:
    """image (1, S, S) or (1, 1, S, S) in [0, 1] -> {method: (C, S, S)}, logits, float32 on the CPU.

    One map for each method of `PATCH_VALUES` (`raw` alone for an aggregation that is not linear), not clipped and in
    the crop's frame. steps_per_patch: starts per patch
    width and axis, a divisor of the patch size; the cost grows with its square. batch_size: memory, in films' worth of
    patches computed at once.
    Raises ValueError for steps that do not divide the patch size, and for an image of another size.
    """
    check_protocol(protocol)
    grid = evidence_grid(model, image, steps_per_patch=steps_per_patch, batch_size=batch_size)
    grid = evidence_values(model, grid, steps_per_patch)
    return maps_from_grid(
        grid,
        patch_size=model.patch_size,
        steps_per_patch=steps_per_patch,
        protocol=protocol,
        image_size=model.image_size,
        methods=None if is_linear(model) else ["raw"],
    )


def evidence_grid(
    model: PatchNetwork,
    image: Tensor,
    *,
    steps_per_patch: int,
    batch_size: int,
    progress: Callable[[int], object] | None = None,
) -> Tensor:
    """image (1, S, S) or (1, 1, S, S) -> (C, n, n) float32 on the CPU: the logits of the patch at every start.

    n = S * steps_per_patch / patch_size; `ShiftGrid` says where the patches lie. The model is used as in evaluation and
    does not change. progress: called with the number of patches just computed, n * n in all.
    Raises ValueError for steps that do not divide the patch size, and for an image of another size.
    """
    shifts = ShiftGrid(model.patch_size, steps_per_patch, model.image_size)
    device = next(model.parameters()).device
    windows = shifts.windows(image.to(device, torch.float32))  # (n, n, p, p)
    network = FoldedNetwork(model)
    pixels = batch_size * model.image_size**2
    at_once = max(1, (min(pixels, _PIXELS_AT_ONCE) if device.type == "cpu" else pixels) // model.patch_size**2)

    @torch.inference_mode()
    def logits_from(start: int) -> Tensor:
        index = torch.arange(start, min(start + at_once, shifts.n**2), device=device)
        patches = windows[index // shifts.n, index % shifts.n].unsqueeze(1)  # (N, 1, p, p)
        return network(patches)  # (N, C)

    starts = range(0, shifts.n**2, at_once)
    workers = min(torch.get_num_threads(), max(1, pixels // _PIXELS_AT_ONCE)) if device.type == "cpu" else 1
    parts = map_in_threads(logits_from, starts, workers) if workers > 1 else map(logits_from, starts)
    logits = []
    for part in parts:
        logits.append(part)
        if progress is not None:
            progress(len(part))
    return torch.cat(logits).T.unflatten(1, (shifts.n, shifts.n)).to("cpu", torch.float32).contiguous()


def maps_from_grid(
    grid: Tensor,
    *,
    patch_size: int,
    steps_per_patch: int,
    protocol: Protocol,
    image_size: int,
    methods: Sequence[str] | None = None,
) -> dict[str, Tensor]:
    """Evidence grid (C, n, n) -> {method: (C, S, S)}, logits, float32, for `methods` or all of `PATCH_VALUES`.

    A pixel of a map is the sum of the values of the patches that cover it, divided by their number (`corrected`) or by
    that of an inner pixel (`published`: maps fade towards the border).
    """
    check_protocol(protocol)
    shifts = ShiftGrid(patch_size, steps_per_patch, image_size)
    if grid.shape[1:] != (shifts.n, shifts.n):
        raise ValueError(f"expected an evidence grid (C, {shifts.n}, {shifts.n}), got {tuple(grid.shape)}")
    shape = (len(grid), image_size, image_size)
    wanted = [method for method in PATCH_VALUES if methods is None or method in methods]
    maps = {method: torch.empty(shape, device=grid.device) for method in wanted}
    for label, logits in enumerate(grid.double()):  # one by one: the map of a label must not depend on the others
        for method, pixels in maps.items():
            pixels[label] = shifts.pixel_means(PATCH_VALUES[method](logits, shifts, protocol), protocol)
    return maps


def logits_to_unit(logits: Tensor) -> Tensor:
    """Logits -> [0, 1] with 0.5 for a logit of 0, as the published heat maps are stored."""
    return logits.clip(-LOGIT_LIMIT, LOGIT_LIMIT) / (2 * LOGIT_LIMIT) + 0.5


def raw_logits(logits: Tensor, shifts: ShiftGrid, protocol: Protocol) -> Tensor:
    """Patch logits (n, n), unchanged."""
    return logits


def scaled_logits(logits: Tensor, shifts: ShiftGrid, protocol: Protocol) -> Tensor:
    """Patch logits (n, n), each times the film's probability according to the patches of its shift.

    `published` repeats the broadcast bug of the published code.
    """
    patches = shifts.by_shift(logits)  # (shifts, k, k)
    probability = torch.sigmoid(patches.mean(dim=(1, 2), keepdim=True))  # (shifts, 1, 1)
    if protocol == "published":
        patches, probability = _broadcast_bug(patches, probability)
    return shifts.from_shifts(patches * probability)


def _broadcast_bug(patches: Tensor, probability: Tensor) -> tuple[Tensor, Tensor]:
    """The factors that the published code multiplies in the place of each shift's own.

    It broadcasts the B probabilities of a batch over its B films of patches, which gives B * B films per batch, and
    then reads the first ones of these as if there were one per shift.
    """
    entry = torch.arange(len(patches), device=patches.device)
    batch, place = entry // _PUBLISHED_BATCH**2, entry % _PUBLISHED_BATCH**2
    first = _PUBLISHED_BATCH * batch
    return patches[first + place % _PUBLISHED_BATCH], probability[first + place // _PUBLISHED_BATCH]


PATCH_VALUES: dict[str, Callable[[Tensor, ShiftGrid, Protocol], Tensor]] = {"raw": raw_logits, "scaled": scaled_logits}
"""Method of `cxr.names.METHODS` -> function of one class's patch logits (n, n), giving the values (n, n) to be averaged
over the patches that cover a pixel."""


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
        size = self.image_size
        if image.shape not in ((1, size, size), (1, 1, size, size)):
            raise ValueError(f"expected an image (1, {size}, {size}), got {tuple(image.shape)}")
        before = self.lead * self.stride
        behind = self.patch_size - self.stride - before
        padded = F.pad(image.reshape(size, size), (before, behind, before, behind))
        return padded.unfold(0, self.patch_size, self.stride).unfold(1, self.patch_size, self.stride)

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
