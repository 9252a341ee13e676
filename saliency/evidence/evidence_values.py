"""Evidence grids of networks that do not average: what every patch contributes, in the place of its patch logit.

The value of a patch is its contribution times the number of patches, which for the mean is the patch logit itself, so
that maps, shares and means over a shift read the same for every aggregation.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from saliency.evidence.folded_network import PatchNetwork, aggregation_name
from saliency.evidence.pixel_grid import PixelGrid
from saliency.evidence.shift_grid import ShiftGrid


@torch.inference_mode()
def evidence_values(model: PatchNetwork, grid: Tensor, steps: int, stride: int = 1) -> Tensor:
    """Patch logits (C, m, m) at the starts -> values (C, m, m) float32 on the CPU, C the labels of the network.

    steps, stride: of the `PixelGrid`; the logits between its starts, which an aggregation may need, are filled in.

    The patches of one shift are aggregated together, as those of the unshifted grid are: a local aggregation sees each
    patch by its own rule, another one the patches beside it in the same shift. Weights per place are interpolated
    linearly between the centres of the patches. The mean's values are the patch logits, bit for bit.
    """
    if aggregation_name(model) == "mean":
        return grid
    if stride > 1:
        pixels = PixelGrid(ShiftGrid(model.patch_size, steps, model.image_size), stride)
        whole = evidence_values(model, torch.stack([pixels.fill(logits) for logits in grid]), steps)
        return whole[:, pixels.starts][:, :, pixels.starts].contiguous()
    aggregation: Any = model.aggregation  # type: ignore[attr-defined]
    k = model.image_size // model.patch_size
    parts = grid.unflatten(2, (k, steps)).unflatten(1, (k, steps))  # (C, k, steps, k, steps)
    patch_logits = parts.permute(2, 4, 1, 3, 0).flatten(2, 3).flatten(0, 1)  # (shifts, P, C)
    lead = model.patch_size // 2 // (model.patch_size // steps)
    offsets = (torch.arange(steps) - lead) / steps  # in patches
    shifts = torch.cartesian_prod(offsets, offsets)  # (shifts, 2), rows first
    device = next(model.parameters()).device
    values = k * k * aggregation.shifted(patch_logits.to(device), shifts.to(device)).float().cpu()
    by_axis = values.unflatten(0, (steps, steps)).unflatten(2, (k, k))  # (steps, steps, k, k, C)
    return by_axis.permute(4, 2, 0, 3, 1).reshape(grid.shape).contiguous()
