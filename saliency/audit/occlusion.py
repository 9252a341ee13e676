"""Occlusion: how much the logits of a film fall when one patch is filled with a grey value.

A network whose logit is an affine function of its patch logits needs no forward pass of a film for it: filling patch p
changes the logit by w_p (fill logit - patch logit), w_p = 1 / P for the mean. The fill logit is that of one constant
patch. Any other network is run once per patch (Zeiler and Fergus, arXiv 1311.2901).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from cxr.files import InputError, quoted
from saliency.evidence.folded_network import PatchNetwork, evaluating, require_linear

FILLS = ("black", "mean")
"""Named fills: grey 0, and the mean grey of the film's crop. A fill may also be a number in [0, 1]."""


def grey_of(fill: str, crop_mean: float) -> float:
    """The grey in [0, 1] of a fill. Raises InputError for a fill that is neither a name nor a number in [0, 1]."""
    if fill in FILLS:
        return 0.0 if fill == "black" else crop_mean
    try:
        grey = float(fill)
    except ValueError:
        grey = np.nan
    if not 0 <= grey <= 1:  # written so that NaN fails
        raise InputError(f"fill {quoted(fill)} is not {', '.join(FILLS)}, or a grey value from 0 to 1")
    return grey


@torch.inference_mode()
def patch_lines(model: PatchNetwork, outputs: Sequence[int] | slice = slice(None)) -> tuple[np.ndarray, np.ndarray]:
    """Factors and offsets (C, P), float64: the contribution at a place is factor * patch logit + offset.

    outputs: those of the model that are kept. Raises InputError for an aggregation that is not linear.
    """
    require_linear(model, "the contribution of a filled patch")
    patches, labels = (model.image_size // model.patch_size) ** 2, len(model.labels)
    aggregation = getattr(model, "aggregation", None)
    if aggregation is None:
        return np.full((labels, patches), 1 / patches)[outputs], np.zeros((labels, patches))[outputs]
    zero = torch.zeros(1, patches, labels, device=next(model.parameters()).device)
    found = [aggregation.contributions(logits)[0].T.double().cpu().numpy()[outputs] for logits in (zero, zero + 1)]
    return found[1] - found[0], found[0]


@torch.inference_mode()
def fill_logits(model: PatchNetwork, greys: Sequence[float]) -> np.ndarray:
    """(N, C) float64: the logits of N patches of one grey each.

    One by one: a batch rounds differently with its size, and a run that goes on has fewer films left than a whole one.
    Raises InputError for a grey outside [0, 1].
    """
    if not all(0 <= grey <= 1 for grey in greys):
        raise InputError("a grey value to fill patches with lies outside [0, 1]")
    device = next(model.parameters()).device
    size = (1, 1, model.patch_size, model.patch_size)
    with evaluating(model):
        patches = (torch.full(size, grey, dtype=torch.float32, device=device) for grey in greys)
        logits = [model.head(model.features(patch).mean(dim=(2, 3))) for patch in patches]  # (1, C) each
    return torch.cat(logits).double().cpu().numpy()


def closed_form_drops(
    contributions: np.ndarray, fill: np.ndarray | float, factors: np.ndarray | float, offsets: np.ndarray | float = 0.0
) -> np.ndarray:
    """(..., k, k) float64: logit of the film - logit with one patch filled, for each patch.

    contributions: (..., k, k), of the patches to the logit; fill: the logit of a filled patch; factors, offsets: as in
    `patch_lines`. All broadcast to the first.
    """
    return np.asarray(contributions, np.float64) - (factors * fill + offsets)


@torch.inference_mode()
def occlusion_drops(
    model: PatchNetwork, image: Tensor, *, side: int, grey: float, batch_size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Logits (C,), and (C, side, side) what they fall by when each of side x side squares is filled; float64.

    image: (1, S, S) in [0, 1], of which each square has S / side pixels a side. One forward pass per square.
    Raises ValueError when `side` does not divide S, InputError for a grey outside [0, 1].
    """
    size = model.image_size
    if size % side:
        raise ValueError(f"{side} squares a side do not fill an image of {size} pixels")
    if not 0 <= grey <= 1:
        raise InputError(f"fill {grey:g} is not a grey value from 0 to 1")
    device, square = next(model.parameters()).device, size // side
    image = image.reshape(1, size, size).to(device, torch.float32)
    with evaluating(model):
        logits = model(image[None])[0].double().cpu()  # (C,)
        parts = []
        for start in range(0, side**2, batch_size):
            places = range(start, min(start + batch_size, side**2))
            filled = image.repeat(len(places), 1, 1, 1)  # (b, 1, S, S)
            for row, place in enumerate(places):
                top, left = place // side * square, place % side * square
                filled[row, :, top : top + square, left : left + square] = grey
            parts.append(model(filled).double().cpu())  # (b, C)
    drops = logits[:, None] - torch.cat(parts).T  # (C, side * side)
    return logits.numpy(), drops.unflatten(1, (side, side)).numpy()


@torch.inference_mode()
def signed_cam(model: PatchNetwork, image: Tensor) -> np.ndarray:
    """(C, h, w) float32: row of the head times the last feature map, neither rectified nor normalised.

    image: (1, S, S) in [0, 1]. Its mean over h and w, plus the head's bias, is the logit of a baseline (CAM, Zhou et
    al., arXiv 1512.04150).
    """
    device = next(model.parameters()).device
    with evaluating(model):
        maps = model.feature_map(image.reshape(1, 1, *image.shape[-2:]).to(device, torch.float32))[0]  # (K, h, w)
        return torch.einsum("ck,khw->chw", model.head.weight, maps).float().cpu().numpy()
