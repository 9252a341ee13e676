"""Convolutional networks that end in average pooling and one linear layer, cut before the pooling.

Everything behind the last convolutional feature map is then linear, which is what makes both the patch logits and the
closed-form class activation maps exact.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import timm
import torch
import torchvision
from torch import Tensor, nn

from cxr.files import InputError

TORCHVISION = {
    "efficientnet_b0": torchvision.models.EfficientNet_B0_Weights.IMAGENET1K_V1,
    "efficientnet_v2_s": torchvision.models.EfficientNet_V2_S_Weights.IMAGENET1K_V1,
}


@dataclass(frozen=True)
class Backbone:
    """`features` maps (B, 1, H, W) to (B, width, h, w); `dropout` is the rate before the linear layer."""

    features: nn.Module
    width: int
    dropout: float


def build_backbone(name: str, pretrained: bool = False) -> Backbone:
    """Builds `efficientnet_b0` or `efficientnet_v2_s` (torchvision), or `timm/<name>`, with a one-channel stem.

    Without `pretrained` nothing is ever downloaded. With it, ImageNet weights are taken and the RGB stem is summed over
    its channels, so that a grey film gives what its RGB copy would have given.

    Raises InputError when the name is unknown, when the network does not end in average pooling and one linear
    layer, or when the ImageNet weights cannot be had.
    """
    try:
        if name in TORCHVISION:
            return _torchvision_backbone(name, pretrained)
        if re.fullmatch(r"timm/[\w.]+", name):  # timm's own prefixes, as in hf-hub:owner/name, would download
            return _timm_backbone(name.removeprefix("timm/"), pretrained)
    except (OSError, RuntimeError) as error:  # URLError and the hub's offline errors are OSErrors
        if not pretrained:
            raise InputError(f"backbone {name!r}: {_first_line(error)}") from error
        raise InputError(
            f"the ImageNet weights of {name!r} cannot be had ({_first_line(error)}); "
            "connect once to download them, or start from random weights with --init random"
        ) from error
    known = ", ".join(TORCHVISION)
    raise InputError(f"unknown backbone {name!r}; known are {known} and timm/<name>")


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


def _torchvision_backbone(name: str, pretrained: bool) -> Backbone:
    net = getattr(torchvision.models, name)(weights=None)
    if pretrained:
        net.load_state_dict(TORCHVISION[name].get_state_dict(progress=True, check_hash=True))
    net.features[0][0] = _one_channel(net.features[0][0], keep_weights=pretrained)
    return Backbone(net.features, net.classifier[1].in_features, net.classifier[0].p)


def _one_channel(stem: nn.Conv2d, keep_weights: bool) -> nn.Conv2d:
    """The stem for grey films; its weights are the RGB stem's, summed over the channels, or fresh."""
    stem.in_channels = 1
    if keep_weights:
        stem.weight = nn.Parameter(stem.weight.data.sum(dim=1, keepdim=True))
    else:
        stem.weight = nn.Parameter(torch.empty_like(stem.weight[:, :1]))
        nn.init.kaiming_normal_(stem.weight, mode="fan_out")
    return stem


def _timm_backbone(name: str, pretrained: bool) -> Backbone:
    whole: Any = timm.create_model(name, pretrained=pretrained, in_chans=1)
    _check_linear_end(name, whole)
    dropout = float(getattr(whole, "drop_rate", 0.0))
    width = whole.num_features
    whole.reset_classifier(num_classes=0, global_pool="")  # forward now ends at the last feature map
    return Backbone(whole, width, dropout)


@torch.no_grad()
def _check_linear_end(name: str, net: Any) -> None:
    """Raises InputError unless the network's output is its linear layer on the mean of its last feature map."""
    net.eval()
    image = torch.rand(1, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    classifier = net.get_classifier()
    try:
        maps: Tensor = net.forward_features(image)
        linear_end = isinstance(classifier, nn.Linear) and torch.allclose(
            net(image), classifier(maps.mean(dim=(2, 3))), rtol=1e-4, atol=1e-5
        )
    except (AssertionError, IndexError, RuntimeError):  # token sequences, channels-last maps, fixed input sizes
        linear_end = False
    net.train()
    if not linear_end:
        raise InputError(f"timm/{name} does not end in average pooling and one linear layer; choose another network")
