"""Additivity of the prediction, measured: separately computed patch logits against the logits of the whole pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from saliency.evidence.folded_network import PatchNetwork
from saliency.patch_maps import evidence_grid

FILMS = 8
"""Films that are measured, spread over the split."""


def some_films(count: int) -> list[int]:
    """Indices of at most `FILMS` of `count` films, spread over them."""
    return np.unique(np.linspace(0, count - 1, FILMS).astype(int)).tolist()


def additivity_error(model: PatchNetwork, image_of: Callable[[int], Tensor], logits: Tensor) -> dict[str, Any]:
    """`films`, and `max_error`: the largest |aggregated patch logits - logits| over labels and some of the films.

    image_of: index of a film -> (1, S, S) in [0, 1]; logits: (N, C) of the whole forward passes, on the CPU.
    """
    chosen = some_films(len(logits))
    errors = []
    for index in chosen:
        grid = evidence_grid(model, image_of(index), steps_per_patch=1, batch_size=16)  # (C, n, n)
        patch_logits = grid.flatten(1).T[None].to(next(model.parameters()).device)  # (1, P, C)
        with torch.inference_mode():
            total = _aggregated(model, patch_logits)[0].cpu()  # (C,)
        errors.append(float((total - logits[index]).abs().max()))
    return {"films": len(chosen), "max_error": max(errors)}


def _aggregated(model: PatchNetwork, patch_logits: Tensor) -> Tensor:
    """(B, P, C) -> (B, C), the mean for a network without an aggregation of its own."""
    aggregation = getattr(model, "aggregation", None)
    return patch_logits.mean(dim=1) if aggregation is None else aggregation(patch_logits)
