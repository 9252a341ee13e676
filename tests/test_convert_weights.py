"""The published layout: there and back without a changed bit, and loadable in plain torchvision."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
import torchvision
from torch import nn

import cli
from convertWeights import main
from cxr.labels import CHEXPERT
from models.checkpoint import build_model, load_model, save_model
from models.published import save_published


class PublishedLayout(nn.Module):
    """As the published class names its tensors: a whole torchvision network called baseBackbone."""

    def __init__(self, backbone: str, patch_size: int) -> None:
        super().__init__()
        self.baseBackbone = getattr(torchvision.models, backbone)(weights=None)
        stem = self.baseBackbone.features[0][0]
        self.baseBackbone.features[0][0] = nn.Conv2d(1, stem.out_channels, 3, stride=2, padding=1, bias=False)
        self.baseBackbone.classifier[1] = nn.Linear(1280, len(CHEXPERT.names))
        self.patch_size = patch_size

    def forward(self, images):
        """One patch after the other, cut out by slicing."""
        p = self.patch_size
        starts = range(0, images.shape[-1], p)
        votes = [self.baseBackbone(images[:, :, y : y + p, x : x + p]) for y in starts for x in starts]
        return torch.stack(votes).mean(dim=0)


def write_published(folder: Path, backbone: str) -> tuple[PublishedLayout, Path]:
    """A network in the published layout and its .pt file, with running statistics that are not all 0 and 1."""
    torch.manual_seed(1)
    network = PublishedLayout(backbone, 64).eval()
    for name, tensor in network.state_dict().items():
        if name.endswith("running_mean"):
            tensor.normal_(0, 0.1)
        elif name.endswith("running_var"):
            tensor.uniform_(0.5, 1.5)
    path = folder / f"{backbone}.pt"
    torch.save({f"_orig_mod.{name}": tensor for name, tensor in network.state_dict().items()}, path)
    return network, path


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> Path:
    return write_published(tmp_path_factory.mktemp("published"), "efficientnet_b0")[1]


@pytest.mark.parametrize("backbone", ["efficientnet_b0", "efficientnet_v2_s"])
def test_round_trip_keeps_every_bit_and_loads_in_plain_torchvision(tmp_path, capsys, backbone):
    network, path = write_published(tmp_path, backbone)
    folder, back = tmp_path / "folder", tmp_path / "back.pt"
    assert cli.guarded(main, ["convert", str(path), str(folder), "--patch-size", "64"]) == 0
    assert cli.guarded(main, ["convert", str(folder), str(back)]) == 0
    state = torch.load(back, weights_only=True)
    assert state.keys() == network.state_dict().keys()
    for name, tensor in network.state_dict().items():
        assert torch.equal(state[name], tensor), name
    plain = PublishedLayout(backbone, 64).eval()
    plain.load_state_dict(state, strict=True)
    images = torch.rand(1, 1, 128, 128, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = network(images)
        loaded = load_model(folder)
        loaded.image_size = 128  # of 512, which would only cost more patches
        torch.testing.assert_close(loaded(images), expected, rtol=0, atol=1e-6)
        torch.testing.assert_close(plain(images), expected, rtol=0, atol=0)
    printed = capsys.readouterr().out
    assert len(set(re.findall(r"^[0-9a-f]{64}", printed, flags=re.M))) == 3
    assert f"{len(state)} tensors, identical in both" in printed


def test_a_published_file_is_the_same_bytes_every_time(published, tmp_path):
    model = load_model(published, patch_size=512)
    save_published(model, tmp_path / "a.pt")
    save_published(model, tmp_path / "elsewhere" / "b.pt")
    assert (tmp_path / "a.pt").read_bytes() == (tmp_path / "elsewhere" / "b.pt").read_bytes()


def test_a_folder_remembers_the_file_it_came_from(published, tmp_path):
    main(["convert", str(published), str(tmp_path / "folder"), "--patch-size", "512"])
    assert load_model(tmp_path / "folder").details["training_data"]["converted_from"] == published.name


@pytest.mark.parametrize("reason", ["backbone", "image size", "labels"])
def test_what_the_published_layout_cannot_say_is_not_written(tmp_path, capsys, reason):
    backbone = "timm/test_efficientnet" if reason == "backbone" else "efficientnet_b0"
    size = 256 if reason == "image size" else 512
    labels = CHEXPERT.names[::-1] if reason == "labels" else CHEXPERT.names
    save_model(build_model(backbone, patch_size=64, image_size=size, labels=labels), tmp_path / "folder")
    assert cli.guarded(main, ["convert", str(tmp_path / "folder"), str(tmp_path / "out.pt")]) == 2
    assert capsys.readouterr().err.startswith(f"error: {tmp_path / 'out.pt'}: the published layout holds")
    assert not (tmp_path / "out.pt").exists()
