"""Logits of many patches of a film from few passes over it, for backbones without padding (`models.dense_backbone`)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from saliency.folded_network import FoldedNetwork, PatchNetwork


def is_dense(model: PatchNetwork) -> bool:
    """Whether `dense_logits` can be used: the backbone has a `window`, and whole strides of it fill the patch.

    Its output (i, j) then depends on the `window` x `window` pixels from `stride` * (i, j) on and on nothing else.
    """
    window, stride = _window_of(model)
    return window > 0 and (model.patch_size - window) % stride == 0


def _window_of(model: PatchNetwork) -> tuple[int, int]:
    features: Any = model.features
    return getattr(features, "window", 0), getattr(features, "stride", 1)


@torch.inference_mode()
def dense_logits(model: PatchNetwork, padded: Tensor, starts: Tensor) -> Tensor:
    """Padded film (H, H) -> (C, m, m): the logits of the patches that start at the pixels `starts` (m,) of either axis.

    Starts that lie whole strides of the backbone apart come from the same pass, so a grid of every eighth pixel takes
    one and a grid of every pixel 64. A pass covers no more of the film than its patches do. Call where `is_dense`.
    """
    window, stride = _window_of(model)
    network = FoldedNetwork(model)
    windows = (model.patch_size - window) // stride + 1  # per patch and axis; features are averaged over them
    logits = padded.new_empty(len(model.labels), len(starts), len(starts))
    groups = list(_aligned(starts, stride))
    for rows, top, bottom in groups:
        for columns, left, right in groups:
            film = padded[None, None, top : bottom + model.patch_size, left : right + model.patch_size]
            maps = network.features(film.contiguous(memory_format=torch.channels_last))
            maps = F.avg_pool2d(maps, windows, 1)[0]  # (K, h, w), entry (i, j) of the patch at pixel stride * (i, j)
            y, x = (starts[rows] - top) // stride, (starts[columns] - left) // stride
            chosen = maps[:, y][:, :, x].permute(1, 2, 0)  # (r, c, K)
            logits[:, rows[:, None], columns] = network.head(chosen).permute(2, 0, 1)
    return logits


def _aligned(starts: Tensor, stride: int) -> Iterator[tuple[Tensor, int, int]]:
    """Indices of the starts that lie whole strides apart, with the first and the last of these starts."""
    for remainder in (starts % stride).unique():
        index = (starts % stride == remainder).nonzero().flatten()
        yield index, int(starts[index].min()), int(starts[index].max())
