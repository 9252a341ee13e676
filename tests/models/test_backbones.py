import socket
import time

import pytest
import timm
import torch
import torchvision
from torch import nn

import models.backbones
from cxr.files import InputError
from models.backbones import build_backbone
from models.checkpoint import build_model


@pytest.fixture
def offline(monkeypatch):
    """Any attempt to reach a server fails the way a missing connection does, and is noted."""
    attempts = []

    def refuse(*arguments, **_):
        attempts.append(arguments)
        raise OSError("Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    return attempts


@pytest.mark.parametrize(
    ("name", "width"), [("efficientnet_b0", 1280), ("efficientnet_v2_s", 1280), ("timm/resnet18", 512)]
)
def test_backbones_take_one_grey_channel_and_tell_their_width(name, width, offline):
    backbone = build_backbone(name)
    assert backbone.width == width
    assert backbone.features.eval()(torch.rand(1, 1, 64, 64)).shape == (1, width, 2, 2)
    assert offline == []


def test_dropout_is_the_backbones_own():
    rates = [build_backbone(name).dropout for name in ("efficientnet_b0", "efficientnet_v2_s", "timm/resnet18")]
    assert rates == [0.2, 0.2, 0.0]


def test_a_timm_networks_end_is_average_pooling_and_the_head():
    torch.manual_seed(0)
    whole = timm.create_model("resnet18", pretrained=False, in_chans=1).eval()
    model = build_model("timm/resnet18", patch_size=64, image_size=64, labels=[str(i) for i in range(1000)]).eval()
    model.features.load_state_dict({k: v for k, v in whole.state_dict().items() if not k.startswith("fc.")})
    model.head.load_state_dict(whole.fc.state_dict())
    image = torch.rand(1, 1, 64, 64)
    assert torch.allclose(model(image), whole(image), atol=1e-5)


@pytest.mark.parametrize("name", ["timm/vit_tiny_patch16_224", "timm/vgg11", "timm/convnext_atto"])
def test_networks_with_another_end_are_refused(name):
    """Tokens, several linear layers, and a normalisation behind the pooling."""
    with pytest.raises(InputError, match=f"{name} does not end in average pooling and one linear layer"):
        build_backbone(name)


@pytest.mark.parametrize("name", ["resnet50", "", "timm/no_such_network", "timm/"])
def test_unknown_names_are_told_in_one_line(name):
    with pytest.raises(InputError) as told:
        build_backbone(name)
    assert repr(name) in str(told.value) and "\n" not in str(told.value)


def test_imagenet_weights_are_taken_with_the_colour_stem_summed(monkeypatch):
    """A grey film gives what its RGB copy gives the original network."""
    torch.manual_seed(0)
    colour = torchvision.models.efficientnet_b0(weights=None)

    class Weights:
        @staticmethod
        def get_state_dict(**_):
            return colour.state_dict()

    monkeypatch.setitem(models.backbones.TORCHVISION, "efficientnet_b0", Weights)
    features = build_backbone("efficientnet_b0", pretrained=True).features.eval()
    film = torch.rand(1, 1, 64, 64)
    expected = colour.eval().features(film.expand(-1, 3, -1, -1))
    assert isinstance(features[0][0], nn.Conv2d) and features[0][0].in_channels == 1
    assert torch.allclose(features(film), expected, atol=1e-5)


@pytest.mark.parametrize("name", ["efficientnet_b0", "timm/resnet18"])
def test_imagenet_weights_that_cannot_be_had_are_told_with_the_way_out(name, offline, monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # between the hub's attempts
    with pytest.raises(InputError, match="not available .*--init random") as told:
        build_model(name, patch_size=64, image_size=64, labels=["a"], init="imagenet")
    assert "\n" not in str(told.value)
