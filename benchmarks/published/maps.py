"""Heat maps the published way, written plainly: what ours are measured against, and checked against."""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.patch_net import MedicalPatchNet

BATCH = 4
"""Shifts per batch."""


def evidence_map(model: MedicalPatchNet, image: Tensor, steps: int, *, scaled: bool) -> Tensor:
    """image (1, S, S) -> (C, S, S), raw or scaled: one pass over every shift of the patch grid, gradients on.

    The patch logits of each shift fill their squares, are moved back to where they were seen, and added up.
    """
    size, patch = model.image_size, model.patch_size
    shifts = shifts_of(patch, steps)
    logits = shift_logits(model, image, shifts, scaled=scaled)  # (shifts, P, C)
    total = torch.zeros(logits.shape[-1], size, size)
    for of_shift, (dy, dx) in zip(logits, shifts, strict=True):
        squares = of_shift.T.unflatten(1, (size // patch, size // patch))  # (C, k, k)
        filled = squares.repeat_interleave(patch, dim=1).repeat_interleave(patch, dim=2)  # (C, S, S)
        total += moved(filled, -dy, -dx, patch)
    return total / len(shifts)


def shift_logits(model: MedicalPatchNet, image: Tensor, shifts: list[tuple[int, int]], *, scaled: bool) -> Tensor:
    """(shifts, P, C): what the network says of the patches of every shift; scaled as published, slip included."""
    parts = []
    for start in range(0, len(shifts), BATCH):
        films = torch.stack([moved(image, *shift, model.patch_size) for shift in shifts[start : start + BATCH]])
        logits = model.patch_logits(films)  # (B, P, C)
        if scaled:  # the slip: (B, 1, 1, C) * (B, P, C) makes (B, B, P, C), whose first entries stand for the shifts
            logits = (logits * logits.mean(dim=1).sigmoid()[:, None, None, :]).flatten(0, 1)
        parts.append(logits.detach())
    return torch.cat(parts)[: len(shifts)]


def shifts_of(patch: int, steps: int) -> list[tuple[int, int]]:
    """All (dy, dx) in row-major order, from half a patch before to just under half a patch behind."""
    stride = patch // steps
    axis = range(-(patch // 2 // stride * stride), patch // 2, stride)
    return [(dy, dx) for dy in axis for dx in axis]


def moved(plane: Tensor, dy: int, dx: int, patch: int) -> Tensor:
    """(C, S, S) -> (C, S, S): what lies dy further down and dx further right, zeros from outside."""
    around, size = patch // 2, plane.shape[-1]
    padded = F.pad(plane, (around, around, around, around))
    return padded[:, around + dy : around + dy + size, around + dx : around + dx + size]


def package_cam(model: nn.Module, layer: nn.Module, image: Tensor, method: str, labels: Iterable[int]) -> Tensor:
    """image (1, 1, S, S) -> (len(labels), S, S): the grad-cam package's maps, asked for one label at a time."""
    import pytorch_grad_cam as package  # here, for it imports much
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    algorithms = {"gradcam": package.GradCAM, "gradcam++": package.GradCAMPlusPlus, "eigencam": package.EigenCAM}
    planes = []
    for label in labels:
        with algorithms[method](model=model, target_layers=[layer]) as cam:
            planes.append(torch.from_numpy(cam(input_tensor=image, targets=[ClassifierOutputTarget(label)])))
    return torch.cat(planes)
