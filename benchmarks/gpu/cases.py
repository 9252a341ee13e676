"""Cases of `bench_gpu`: their names, networks and films."""

from __future__ import annotations

import argparse
from typing import NamedTuple, cast

import torch
from torch import nn

from cxr.labels import CHEXPERT
from models.checkpoint import build_model
from models.patch_net import MedicalPatchNet
from training.compiling import compiled
from training.loader import Batch

TRAINING, MAPS, RESUME = "training", "maps", "resume"
EAGER, COMPILED, GRAPHS = "eager", "compiled", "CUDA graphs"


class Case(NamedTuple):
    """One measurement. size: films of a batch, or the stride of the maps in pixels. mode: EAGER, COMPILED, GRAPHS, or
    the precision of the maps."""

    what: str
    backbone: str
    size: int
    mode: str


def network(case: Case, args: argparse.Namespace) -> MedicalPatchNet:
    """Random weights, the same at every call, in channels-last memory on the device."""
    torch.manual_seed(0)
    net = build_model(case.backbone, patch_size=args.patch_size, image_size=args.image_size, labels=CHEXPERT.names)
    return net.to(args.device).to(memory_format=torch.channels_last)


def noise(films: int, image_size: int, device: str, seed: int = 0) -> Batch:
    """A batch of noise that stays on the device."""
    rng = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (films, 1, image_size, image_size), dtype=torch.uint8, generator=rng).to(device)
    labels = torch.randint(0, 2, (films, len(CHEXPERT.names)), generator=rng).float().to(device)
    degrees, brightness = torch.linspace(-5, 5, films).to(device), torch.linspace(0.7, 1.3, films).to(device)
    return Batch(images, labels, degrees, brightness, torch.arange(films), {}, 0.0)


def wrapped(net: nn.Module, mode: str) -> nn.Module:
    """The network as a mode runs it; both share their weights."""
    if mode == GRAPHS:
        return cast(nn.Module, torch.compile(net, dynamic=False, mode="reduce-overhead"))
    return compiled(net, deterministic=True) if mode == COMPILED else net


def deterministic() -> None:
    """cuDNN as training has it."""
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
