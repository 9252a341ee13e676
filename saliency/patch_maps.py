"""Evidence maps of a patch network, from the logits of the patch at every start of a shifted patch grid.

The published code runs the network on every shift of the film and adds up full-size maps. No patch belongs to two
shifts, so one pass over all patches gives the evidence grid, and the sum over the patches that cover a pixel is a box
filter over that grid. Wienholt et al., Scientific Reports 2026, doi 10.1038/s41598-026-40358-0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from cxr.files import InputError
from cxr.names import Protocol, check_protocol
from saliency.evidence.dense_grid import dense_logits, is_dense
from saliency.evidence.evidence_values import evidence_values
from saliency.evidence.folded_network import PatchNetwork, folded_network, is_linear, map_in_threads
from saliency.evidence.pixel_grid import PixelGrid
from saliency.evidence.shift_grid import ShiftGrid

LOGIT_LIMIT = 200.0
"""Logits are clipped to +- this before they become heat-map values, as published."""

_PIXELS_AT_ONCE = 32 * 64 * 64
"""Patch pixels that one CPU thread computes at once: the activations then still fit into its caches."""

_PUBLISHED_BATCH = 4
"""Shifts per batch in the published code, on which its broadcast bug depends."""


def patch_maps(
    model: PatchNetwork,
    image: Tensor,
    *,
    steps_per_patch: int,
    protocol: Protocol,
    batch_size: int,
    stride: int = 1,
) -> dict[str, Tensor]:
    """image (1, S, S) or (1, 1, S, S) in [0, 1] -> {method: (C, S, S)}, logits, float32 on the CPU.

    One map for each method of `PATCH_VALUES` (`raw` alone for an aggregation that is not linear), not clipped and in
    the crop's frame. steps_per_patch: starts per patch width and axis, a divisor of the patch size; the cost grows with
    its square. stride: with as many steps as a patch has pixels, and `corrected`, the pixels between the starts that
    are computed; those between are filled linearly. batch_size: memory, in films' worth of patches computed at once.
    Raises ValueError for steps that do not divide the patch size, a stride that does not go with them or with the
    protocol, and an image of another size.
    """
    check_protocol(protocol)
    check_stride(protocol, stride)
    grid = evidence_grid(model, image, steps_per_patch=steps_per_patch, batch_size=batch_size, stride=stride)
    grid = evidence_values(model, grid, steps_per_patch, stride)
    return maps_from_grid(
        grid,
        patch_size=model.patch_size,
        steps_per_patch=steps_per_patch,
        protocol=protocol,
        image_size=model.image_size,
        stride=stride,
        methods=None if is_linear(model) else ["raw"],
    )


def check_stride(protocol: Protocol, stride: int) -> None:
    """Raises InputError for `published` maps of a grid with gaps: they repeat the published code, which has none."""
    if protocol == "published" and stride > 1:
        raise InputError(f"published maps need every start, not every {stride} px: give --steps-per-patch instead")


def evidence_grid(
    model: PatchNetwork,
    image: Tensor,
    *,
    steps_per_patch: int,
    batch_size: int,
    stride: int = 1,
    progress: Callable[[int], object] | None = None,
) -> Tensor:
    """image (1, S, S) or (1, 1, S, S) -> (C, m, m) float32 on the CPU: the logits of the patch at the starts.

    m = S * steps_per_patch / patch_size at a stride of 1, else about S / stride; `ShiftGrid` says where the patches
    lie, `PixelGrid` which of them a stride takes. The model is used as in evaluation and does not change. progress:
    called with the number of patches just computed, m * m in all.
    Raises ValueError for steps that do not divide the patch size, a stride that does not go with them, and an image of
    another size.
    """
    shifts = ShiftGrid(model.patch_size, steps_per_patch, model.image_size)
    grid = PixelGrid(shifts, stride)
    device = next(model.parameters()).device
    image = image.to(device, torch.float32)
    if is_dense(model):
        values = dense_logits(model, shifts.padded(image), grid.starts * shifts.stride).to("cpu", torch.float32)
        if progress is not None:
            progress(grid.m**2)
        return values
    windows = shifts.windows(image)  # (n, n, p, p)
    network = folded_network(model)
    pixels = batch_size * model.image_size**2
    at_once = max(1, (min(pixels, _PIXELS_AT_ONCE) if device.type == "cpu" else pixels) // model.patch_size**2)

    starts = grid.starts.to(device)

    @torch.inference_mode()
    def logits_from(first: int) -> Tensor:
        index = torch.arange(first, min(first + at_once, grid.m**2), device=device)
        patches = windows[starts[index // grid.m], starts[index % grid.m]].unsqueeze(1)  # (N, 1, p, p)
        return network(patches)  # (N, C)

    batches = range(0, grid.m**2, at_once)
    workers = min(torch.get_num_threads(), max(1, pixels // _PIXELS_AT_ONCE)) if device.type == "cpu" else 1
    parts = map_in_threads(logits_from, batches, workers) if workers > 1 else map(logits_from, batches)
    logits = []
    for part in parts:
        logits.append(part)
        if progress is not None:
            progress(len(part))
    return torch.cat(logits).T.unflatten(1, (grid.m, grid.m)).to("cpu", torch.float32).contiguous()


def maps_from_grid(
    grid: Tensor,
    *,
    patch_size: int,
    steps_per_patch: int,
    protocol: Protocol,
    image_size: int,
    methods: Sequence[str] | None = None,
    stride: int = 1,
) -> dict[str, Tensor]:
    """Evidence grid (C, m, m) -> {method: (C, S, S)}, logits, float32, for `methods` or all of `PATCH_VALUES`.

    The grid of a stride is filled first. A pixel of a map is the sum of the values of the patches that cover it,
    divided by their number (`corrected`) or by that of an inner pixel (`published`: maps fade towards the border).
    """
    check_protocol(protocol)
    check_stride(protocol, stride)
    shifts = ShiftGrid(patch_size, steps_per_patch, image_size)
    sampled = PixelGrid(shifts, stride)
    if grid.shape[1:] != (sampled.m, sampled.m):
        raise ValueError(f"expected an evidence grid (C, {sampled.m}, {sampled.m}), got {tuple(grid.shape)}")
    shape = (len(grid), image_size, image_size)
    wanted = [method for method in PATCH_VALUES if methods is None or method in methods]
    maps = {method: torch.empty(shape, device=grid.device) for method in wanted}
    for label, values in enumerate(grid.double()):  # one by one: the map of a label must not depend on the others
        logits = sampled.fill(values)  # (n, n)
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
