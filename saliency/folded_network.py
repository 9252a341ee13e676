"""Logits of many loose patches, as fast as fp32 allows: a folded copy of the network, fed by one thread per core.

Everything here is an exact rearrangement of the network's arithmetic; only the rounding of the last digits differs.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import pairwise
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torchvision.ops import SqueezeExcitation


class PatchNetwork(Protocol):
    """What this package needs of a network; `models.patch_net.MedicalPatchNet` is one.

    `head(features(patches).mean(dim=(2, 3)))` are the logits of patches (N, 1, p, p), apart from dropout.
    """

    patch_size: int
    image_size: int
    labels: tuple[str, ...]
    features: nn.Module
    head: nn.Linear

    def feature_map(self, images: Tensor) -> Tensor:
        """(B, 1, S, S) -> (B, K, h, w), all patches' feature maps laid out as the patches lie in the film."""

    def __call__(self, images: Tensor) -> Tensor:
        """(B, 1, S, S) -> logits (B, C)."""

    def parameters(self) -> Iterator[nn.Parameter]: ...

    def modules(self) -> Iterator[nn.Module]: ...


class FoldedNetwork(nn.Module):
    """A copy of a network in evaluation mode, with everything folded away that inference does not need.

    Batch normalisation goes into the convolution before it, memory is laid out channels last, and squeeze-excitation
    runs as two matrix products. The network itself stays as it is, its training mode included.
    """

    def __init__(self, network: PatchNetwork) -> None:
        super().__init__()
        features = copy.deepcopy(network.features).eval().requires_grad_(False)
        self.features = _fold(features).to(memory_format=torch.channels_last)
        self.head = copy.deepcopy(network.head).eval().requires_grad_(False)

    def forward(self, patches: Tensor) -> Tensor:
        """(N, 1, p, p) -> logits (N, C)."""
        maps = self.features(patches.contiguous(memory_format=torch.channels_last))  # (N, K, h, w)
        return self.head(maps.mean(dim=(2, 3)))


def _fold(module: nn.Module) -> nn.Module:
    for name, child in module.named_children():
        if isinstance(child, SqueezeExcitation):
            setattr(module, name, _SqueezeExcitation(child))
        else:
            _fold(child)
    if isinstance(module, nn.Sequential):  # elsewhere the order of the children need not be that of the forward pass
        for i, (first, second) in enumerate(pairwise(module)):
            if isinstance(first, nn.Conv2d) and type(second) is nn.BatchNorm2d:  # timm's subclass does more than that
                module[i], module[i + 1] = fuse_conv_bn_eval(first, second), nn.Identity()
    return module


class _SqueezeExcitation(nn.Module):
    """torchvision's block. Its 1x1 convolutions see one pixel, where a matrix product is several times faster."""

    def __init__(self, block: SqueezeExcitation) -> None:
        super().__init__()
        self.block = block

    def forward(self, x: Tensor) -> Tensor:
        down, up = self.block.fc1, self.block.fc2
        squeezed = F.linear(x.mean(dim=(2, 3)), down.weight.flatten(1), down.bias)  # (N, K) -> (N, K / r)
        scale = F.linear(self.block.activation(squeezed), up.weight.flatten(1), up.bias)  # (N, K)
        return x * self.block.scale_activation(scale)[:, :, None, None]


def map_in_threads(function: Callable[[int], Tensor], items: Iterable[int], workers: int) -> Iterator[Tensor]:
    """Yields `function(item)` in the items' order, from `workers` threads that compute without inner threads.

    Small convolutions gain little from sharing one between cores, and wait for each other at every layer. The results
    do not depend on the number of workers. torch's number of threads is found again as it was.
    """
    threads = torch.get_num_threads()
    with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        try:
            yield from pool.map(function, items)
        finally:
            pool.shutdown(cancel_futures=True)
            torch.set_num_threads(threads)  # the workers' setting is also the default of threads made later


@contextmanager
def evaluating(model: PatchNetwork) -> Iterator[None]:
    """Evaluation mode inside; afterwards every part is in the mode it was in."""
    modes = [(module, module.training) for module in model.modules()]
    for module, _ in modes:
        module.training = False
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
