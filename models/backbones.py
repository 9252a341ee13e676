"""Convolutional networks that end in average pooling and one linear layer, cut before the pooling.

Everything behind the last convolutional feature map is then linear, which makes both the patch logits and the
closed-form class activation maps exact.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import torch
import torchvision
from torch import Tensor, nn

from cxr.files import InputError, quoted
from models.dense_backbone import DENSE_WINDOWS, DenseBackbone

TORCHVISION = {
    "efficientnet_b0": torchvision.models.EfficientNet_B0_Weights.IMAGENET1K_V1,
    "efficientnet_v2_s": torchvision.models.EfficientNet_V2_S_Weights.IMAGENET1K_V1,
}

MAX_PARAMETERS = 300_000_000
"""Of a timm network: 1.2 GB in float32. A name in a config file must not be able to fill the memory."""


@dataclass(frozen=True)
class Backbone:
    """`features` maps (B, 1, H, W) to (B, width, h, w), H and W of at least `smallest` pixels; `dropout` is the rate
    before the linear layer."""

    features: nn.Module
    width: int
    dropout: float
    smallest: int = 1


def build_backbone(name: str, pretrained: bool = False) -> Backbone:
    """Builds a network for grey films: `efficientnet_b0` or `efficientnet_v2_s` (torchvision), `dense32` or `dense64`
    (`models.dense_backbone`), or `timm/<name>`.

    Without `pretrained` nothing is ever downloaded. With it, ImageNet weights are loaded and the RGB stem is summed
    over its channels, so that a grey film gives the output of its RGB copy.

    Raises InputError when the name is unknown, when the network is too large or does not end in average pooling and
    one linear layer, or when the ImageNet weights are not available.
    """
    try:
        if name in TORCHVISION:
            return _torchvision_backbone(name, pretrained)
        if name in DENSE_WINDOWS:
            return _dense_backbone(name, pretrained)
        if re.fullmatch(r"timm/[\w.]{1,100}", name):  # timm's own prefixes, as in hf-hub:owner/name, would download
            return _timm_backbone(name.removeprefix("timm/"), pretrained)
    except (OSError, RuntimeError) as error:  # URLError and the hub's offline errors are OSErrors
        if not pretrained:
            raise InputError(f"backbone {quoted(name)}: {_first_line(error)}") from error
        raise InputError(
            f"the ImageNet weights of {quoted(name)} are not available ({_first_line(error)}); "
            "connect once to download them, or start from random weights with --init random"
        ) from error
    known = ", ".join((*TORCHVISION, *DENSE_WINDOWS))
    raise InputError(f"unknown backbone {quoted(name)}; known are {known} and timm/<name>")


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


def _dense_backbone(name: str, pretrained: bool) -> Backbone:
    if pretrained:
        raise InputError(f"there are no ImageNet weights of {name}; start from random weights with --init random")
    features = DenseBackbone(name)
    return Backbone(features, features.width, dropout=0.0, smallest=features.window)


def _timm_backbone(name: str, pretrained: bool) -> Backbone:
    import timm  # here, for it takes a while, and the default network is torchvision's

    _check_outline(name)
    whole: Any = timm.create_model(name, pretrained=pretrained, in_chans=1)
    if not _ends_linearly(whole):
        raise _wrong_end(name)
    dropout = float(getattr(whole, "drop_rate", 0.0))
    width = whole.num_features
    whole.reset_classifier(num_classes=0, global_pool="")  # forward now ends at the last feature map
    return Backbone(whole, width, dropout)


def _check_outline(name: str) -> None:
    """Raises InputError for a network that is too large or has another end, before any of its weights is allocated."""
    import timm

    with torch.device("meta"):
        net: Any = timm.create_model(name, pretrained=False, in_chans=1)
        try:
            maps = net.forward_features(torch.empty(1, 1, 64, 64))
            ends_in_maps = maps.ndim == 4 and maps.shape[1] == net.num_features
        except _OTHER_ARCHITECTURE:
            ends_in_maps = False
    if not (ends_in_maps and isinstance(net.get_classifier(), nn.Linear)):
        raise _wrong_end(name)
    parameters = sum(parameter.numel() for parameter in net.parameters())
    if parameters > MAX_PARAMETERS:
        raise InputError(
            f"timm/{name} has {parameters / 1e6:.0f} million parameters; "
            f"choose a network of at most {MAX_PARAMETERS / 1e6:.0f} million"
        )


@torch.no_grad()
def _ends_linearly(net: Any) -> bool:
    """Whether the network's output is its linear layer applied to the mean of its last feature map."""
    net.eval()
    image = torch.rand(1, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    try:
        maps: Tensor = net.forward_features(image)
        pooled = net.get_classifier()(maps.mean(dim=(2, 3)))
        return torch.allclose(net(image), pooled, rtol=1e-4, atol=1e-5)
    except _OTHER_ARCHITECTURE:
        return False
    finally:
        net.train()


_OTHER_ARCHITECTURE = (AssertionError, AttributeError, IndexError, RuntimeError, TypeError)
"""Raised by networks of token sequences, channels-last maps, fixed input sizes or several feature maps."""


def _wrong_end(name: str) -> InputError:
    return InputError(f"timm/{name} does not end in average pooling and one linear layer; choose another network")
