"""Logits of many single patches, as fast as fp32 allows: a folded copy of the network and one thread per core.

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

from cxr.files import InputError, quoted


class PatchNetwork(Protocol):
    """The part of a network that this package uses; `models.patch_net.MedicalPatchNet` has it.

    `head(features(patches).mean(dim=(2, 3)))` are the logits of patches (N, 1, p, p), apart from dropout. A network may
    have an `aggregation` (see `models.aggregation`); without one, its logits are the mean of the patch logits.
    """

    patch_size: int
    image_size: int
    labels: tuple[str, ...]
    features: nn.Module
    head: nn.Linear

    def feature_map(self, images: Tensor) -> Tensor:
        """(B, 1, S, S) -> (B, K, h, w): the feature maps of all patches, stitched together as the patches lie."""

    def __call__(self, images: Tensor) -> Tensor:
        """(B, 1, S, S) -> logits (B, C)."""

    def parameters(self) -> Iterator[nn.Parameter]: ...

    def modules(self) -> Iterator[nn.Module]: ...


def aggregation_name(model: PatchNetwork) -> str:
    """Name of the function that makes logits of patch logits; `mean` for a network that does not say."""
    return getattr(getattr(model, "aggregation", None), "name", "mean")


def is_linear(model: PatchNetwork) -> bool:
    """Whether the network's logits are affine in its patch logits, as its aggregation says; not where it says nothing.

    Without an aggregation they are the mean.
    """
    aggregation = getattr(model, "aggregation", None)
    return aggregation is None or getattr(aggregation, "linear", False) is True


def require_linear(model: PatchNetwork, what: str) -> None:
    """Raises InputError, naming the aggregation, unless the logits are affine in the patch logits as `what` needs."""
    if not is_linear(model):
        name = quoted(aggregation_name(model))
        raise InputError(f"{what} holds for linear aggregations (mean, position); this network aggregates with {name}")


def require_mean(model: PatchNetwork, what: str) -> None:
    """Raises InputError unless the network's logits are the mean of its patch logits, which `what` needs."""
    name = aggregation_name(model)
    if name != "mean":
        raise InputError(f"{what} holds for the mean of patch logits; this network aggregates with {quoted(name)}")


class FoldedNetwork(nn.Module):
    """A copy of a network in evaluation mode, without everything that inference does not need.

    Batch normalisation is folded into the convolution before it, memory is laid out channels last, and
    squeeze-excitation runs as two matrix products. The network itself and its training mode do not change.
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
    """torchvision's block with matrix products for its 1x1 convolutions of one pixel, which is several times faster."""

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

    Sharing a small convolution between cores gains little and synchronises them at every layer. The results do not
    depend on the number of workers. torch's number of threads is restored afterwards.
    """
    threads = torch.get_num_threads()
    with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        try:
            yield from pool.map(function, items)
        finally:
            pool.shutdown(cancel_futures=True)
            torch.set_num_threads(threads)  # the workers' setting is also the default of later threads


@contextmanager
def evaluating(model: PatchNetwork) -> Iterator[None]:
    """Sets evaluation mode; afterwards every module is in the mode that it was in."""
    modes = [(module, module.training) for module in model.modules()]
    for module, _ in modes:
        module.training = False
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
