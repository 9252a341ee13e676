"""Evidence grids of networks that do not average: what every patch contributes, in the place of its patch logit.

The value of a patch is its contribution times the number of patches, which for the mean is the patch logit itself, so
that maps, shares and means over a shift read the same for every aggregation.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from saliency.folded_network import PatchNetwork, aggregation_name


@torch.inference_mode()
def evidence_values(model: PatchNetwork, grid: Tensor, steps: int) -> Tensor:
    """Patch logits (C, n, n) at every start -> values (C, n, n) float32 on the CPU, C the labels of the network.

    The patches of one shift are aggregated together, as those of the unshifted grid are: a local aggregation sees each
    patch by its own rule, another one the patches beside it in the same shift. Weights per place are interpolated
    linearly between the centres of the patches. The mean's values are the patch logits, bit for bit.
    """
    if aggregation_name(model) == "mean":
        return grid
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
