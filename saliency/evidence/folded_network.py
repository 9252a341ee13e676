"""Logits of many single patches, as fast as fp32 allows: a folded copy of the network and one thread per core.

Everything here is an exact rearrangement of the network's arithmetic; only the rounding of the last digits differs.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, cast
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

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


_SQUEEZE_EXCITATION = "SqueezeExcitation"
"""torchvision's block. Layers are known by name: importing torchvision and timm takes seconds."""

_WITH_ACTIVATION = "BatchNormAct2d"
"""timm's batch normalisation, whose forward pass ends in its children, `drop` and `act`, in this order."""

_SAME_PADDING = "Conv2dSame"
"""timm's convolution that pads its input as TensorFlow does."""


def folded_network(model: PatchNetwork) -> FoldedNetwork:
    """The folded copy of a network, made anew only when a tensor or the kind of a layer has changed since the last one.

    Contents are compared, because a tensor may be changed without a trace (`parameter.data.mul_`); that takes a tenth
    of the time of a new copy. The copy goes with the network.
    """
    known = _FOLDED.get(model)
    now = _Contents.of(model)
    if known is None or not known[0].equals(now):
        known = _FOLDED[model] = (now.cloned(), FoldedNetwork(model))
    return known[1]


@dataclass(frozen=True)
class _Contents:
    """All of a network that its folded copy depends on."""

    kinds: list[tuple[str, type]]
    tensors: dict[str, Tensor]

    @classmethod
    def of(cls, model: PatchNetwork) -> _Contents:
        parts = {"features": model.features, "head": model.head}
        kinds = [(f"{part}.{name}", type(m)) for part, module in parts.items() for name, m in module.named_modules()]
        tensors = {
            f"{part}.{name}": tensor for part, module in parts.items() for name, tensor in module.state_dict().items()
        }
        return cls(kinds, tensors)

    def equals(self, other: _Contents) -> bool:
        """Whether kinds, names, devices and all values are the same; a NaN equals nothing."""
        if self.kinds != other.kinds or self.tensors.keys() != other.tensors.keys():
            return False
        pairs = ((tensor, other.tensors[name]) for name, tensor in self.tensors.items())
        return all(a.device == b.device and a.dtype == b.dtype and torch.equal(a, b) for a, b in pairs)

    def cloned(self) -> _Contents:
        return _Contents(self.kinds, {name: tensor.clone() for name, tensor in self.tensors.items()})


_FOLDED: WeakKeyDictionary[PatchNetwork, tuple[_Contents, FoldedNetwork]] = WeakKeyDictionary()


class FoldedNetwork(nn.Module):
    """A copy of a network in evaluation mode, without everything that inference does not need.

    Batch normalisation is folded into the convolution before it, memory is laid out channels last, and
    squeeze-excitation runs as two matrix products. The network itself and its training mode do not change.
    """

    def __init__(self, network: PatchNetwork) -> None:
        super().__init__()
        self.features = _folded_features(network).to(memory_format=torch.channels_last)
        self.head = copy.deepcopy(network.head).eval().requires_grad_(False)

    def forward(self, patches: Tensor) -> Tensor:
        """(N, 1, p, p) -> logits (N, C)."""
        maps = self.features(patches.contiguous(memory_format=torch.channels_last))  # (N, K, h, w)
        return self.head(maps.mean(dim=(2, 3)))


@torch.no_grad()
def _folded_features(network: PatchNetwork) -> nn.Module:
    """Folds what follows each other in the forward pass of a patch; nothing where that changes the pass's output.

    The output changes where the values between a convolution and its normalisation are used a second time.
    """
    features = _copied(network.features)
    weight = next(network.parameters())
    patch = torch.rand(1, 1, network.patch_size, network.patch_size, generator=torch.Generator().manual_seed(0))
    patch = patch.to(weight)
    pairs, expected = _followed(features, patch)
    for names in pairs:
        convolution, normalisation = map(features.get_submodule, names)
        fused = fuse_conv_bn_eval(cast(nn.Conv2d, convolution), cast(nn.BatchNorm2d, normalisation))
        features.set_submodule(names[0], fused)
        features.set_submodule(names[1], nn.Sequential(*normalisation.children()))
    scale = float(expected.abs().max())
    is_same = torch.allclose(features(patch), expected, rtol=1e-3, atol=1e-3 * scale)
    return features if is_same else _copied(network.features)


def _copied(features: nn.Module) -> nn.Module:
    """A copy in evaluation mode, its blocks of squeeze-excitation replaced."""
    features = copy.deepcopy(features).eval().requires_grad_(False)
    for module in list(features.modules()):
        for name, child in module.named_children():
            if type(child).__name__ == _SQUEEZE_EXCITATION:
                setattr(module, name, _SqueezeExcitation(child))
    return features


def _followed(features: nn.Module, patch: Tensor) -> tuple[list[tuple[str, str]], Tensor]:
    """Names of the convolutions and batch normalisations that take their output, each run once; and the output."""
    outputs: list[tuple[Tensor, str]] = []  # the tensors are kept, so that no other takes their place in memory
    runs: list[str] = []
    pairs: list[tuple[str, str]] = []

    def note_output(name: str, output: Tensor) -> None:
        runs.append(name)
        outputs.append((output, name))

    def note_input(name: str, entered: Tensor) -> None:
        runs.append(name)
        pairs.extend((before, name) for output, before in outputs if output is entered)

    hooks = []
    for name, module in features.named_modules():
        if type(module) is nn.Conv2d or type(module).__name__ == _SAME_PADDING:
            hooks.append(module.register_forward_hook(lambda m, i, output, name=name: note_output(name, output)))
        elif _is_foldable(module):
            hooks.append(module.register_forward_pre_hook(lambda m, inputs, name=name: note_input(name, inputs[0])))
    expected = features(patch)
    for hook in hooks:
        hook.remove()
    return [pair for pair in pairs if all(runs.count(name) == 1 for name in pair)], expected


def _is_foldable(module: nn.Module) -> bool:
    """torch's batch normalisation, or timm's; with the statistics of the training films."""
    known = type(module) is nn.BatchNorm2d or type(module).__name__ == _WITH_ACTIVATION
    return known and isinstance(module, nn.BatchNorm2d) and module.running_mean is not None


class _SqueezeExcitation(nn.Module):
    """torchvision's block with matrix products for its 1x1 convolutions of one pixel, which is several times faster."""

    def __init__(self, block: Any) -> None:
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
