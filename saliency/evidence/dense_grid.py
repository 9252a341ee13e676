"""Logits of many patches of a film from few passes over it, for backbones without padding (`models.dense_backbone`)."""

from __future__ import annotations

from itertools import product
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from saliency.evidence.folded_network import PatchNetwork, folded_network, map_in_threads


def is_dense(model: PatchNetwork) -> bool:
    """Whether `dense_logits` can be used: the backbone has a `window`, and whole strides of it fill the patch.

    Its output (i, j) then depends on the `window` x `window` pixels from `stride` * (i, j) on and on nothing else.
    """
    window, stride = _window_of(model)
    return window > 0 and (model.patch_size - window) % stride == 0


def _window_of(model: PatchNetwork) -> tuple[int, int]:
    features: Any = model.features
    return getattr(features, "window", 0), getattr(features, "stride", 1)


def dense_logits(model: PatchNetwork, padded: Tensor, starts: Tensor) -> Tensor:
    """Padded film (H, H) -> (C, m, m): the logits of the patches that start at the pixels `starts` (m,) of either axis.

    Starts that lie whole strides of the backbone apart come from the same pass, so a grid of every eighth pixel takes
    one and a grid of every pixel 64. A pass covers no more of the film than its patches do, and computes in one thread:
    the logits do not depend on the number of threads. Call where `is_dense`.
    """
    window, stride = _window_of(model)
    network = folded_network(model)
    windows = (model.patch_size - window) // stride + 1  # per patch and axis; features are averaged over them
    passes = list(product(_aligned(starts, stride), repeat=2))

    @torch.inference_mode()
    def logits_of(number: int) -> Tensor:
        rows, columns = (starts[group] for group in passes[number])  # (r,), (c,)
        top, left, p = int(rows[0]), int(columns[0]), model.patch_size
        film = padded[None, None, top : int(rows[-1]) + p, left : int(columns[-1]) + p]
        maps = network.features(film.contiguous(memory_format=torch.channels_last))
        maps = F.avg_pool2d(maps, windows, 1)[0]  # (K, h, w), entry (i, j) of the patch at pixel stride * (i, j)
        chosen = maps[:, (rows - top) // stride][:, :, (columns - left) // stride]  # (K, r, c)
        return network.head(chosen.permute(1, 2, 0)).permute(2, 0, 1)  # (C, r, c)

    workers = min(torch.get_num_threads(), len(passes))
    numbers = range(len(passes))
    parts = map_in_threads(logits_of, numbers, workers) if padded.device.type == "cpu" else map(logits_of, numbers)
    logits = padded.new_empty(len(model.labels), len(starts), len(starts))
    for (rows, columns), part in zip(passes, parts, strict=True):
        logits[:, rows[:, None], columns] = part
    return logits


def _aligned(starts: Tensor, stride: int) -> list[Tensor]:
    """Indices of the starts (ascending), those together that lie whole strides apart."""
    return [(starts % stride == remainder).nonzero().flatten() for remainder in (starts % stride).unique()]
