import pytest
import torch
from torch import nn
from torchvision.ops import SqueezeExcitation

from cxr.files import InputError
from models.backbones import build_backbone
from models.checkpoint import build_model, load_model, save_model
from models.dense_backbone import DENSE_WINDOWS, DenseBackbone
from tests.networks import calibrate

NAMES = sorted(DENSE_WINDOWS)


def calibrated(name: str, side: int) -> DenseBackbone:
    torch.manual_seed(0)
    backbone = DenseBackbone(name)
    calibrate(backbone, torch.rand(4, 1, side, side))
    return backbone


@pytest.mark.parametrize("name", NAMES)
def test_an_output_depends_on_every_border_of_its_window_and_on_nothing_outside(name):
    window = DENSE_WINDOWS[name]
    backbone = calibrated(name, window + 24)
    film = torch.rand(1, 1, window + 24, window + 16, requires_grad=True)
    maps = backbone(film)
    assert maps.shape == (1, backbone.width, 4, 3)
    maps[0, :, 2, 1].square().sum().backward()
    rows, columns = film.grad[0, 0].nonzero().T
    assert (int(rows.min()), int(rows.max())) == (16, 16 + window - 1)
    assert (int(columns.min()), int(columns.max())) == (8, 8 + window - 1)


@pytest.mark.parametrize("name", NAMES)
def test_a_window_has_the_same_features_in_the_film_as_cut_out_of_it(name):
    window = DENSE_WINDOWS[name]
    backbone = calibrated(name, window + 24)
    film = torch.rand(2, 1, window + 24, window + 24)
    with torch.no_grad():
        maps = backbone(film)
        assert maps.std() > 0.01
        for row in range(4):
            for column in range(4):
                y, x = 8 * row, 8 * column
                alone = backbone(film[:, :, y : y + window, x : x + window])
                assert alone.shape == (2, backbone.width, 1, 1)
                assert torch.allclose(alone[..., 0, 0], maps[..., row, column], rtol=1e-5, atol=1e-5)


def test_backbones_tell_their_width_and_their_smallest_patch():
    small, large = build_backbone("dense32"), build_backbone("dense64")
    assert (small.width, small.smallest, large.width, large.smallest) == (256, 32, 256, 64)


def test_neither_pads_nor_averages_over_the_film():
    """Either would make a window's features depend on what is around it."""
    for name in NAMES:
        for module in DenseBackbone(name).modules():
            assert not isinstance(module, (nn.AdaptiveAvgPool2d, SqueezeExcitation))
            assert not isinstance(module, nn.Conv2d) or module.padding == (0, 0)


def test_weights_go_into_a_folder_and_come_back(tmp_path):
    torch.manual_seed(0)
    model = build_model("dense32", patch_size=32, image_size=64, labels=["a", "b"])
    images = torch.rand(3, 1, 64, 64)
    calibrate(model, images)
    save_model(model, tmp_path)
    loaded = load_model(tmp_path)
    assert loaded.backbone == "dense32" and torch.equal(loaded(images), model(images))


def test_contributions_are_complete_and_do_not_depend_on_other_patches():
    torch.manual_seed(0)
    model = build_model("dense64", patch_size=64, image_size=128, labels=["a", "b"])
    film, other = torch.rand(2, 1, 1, 128, 128)
    calibrate(model, torch.cat([film, other]))
    mixed = film.clone()
    mixed[:, :, :, 64:] = other[:, :, :, 64:]
    with torch.no_grad():
        own, swapped, logits = model.contributions(film), model.contributions(mixed), model(film)
    assert torch.allclose(own.sum(dim=1), logits, atol=1e-6)
    assert torch.allclose(swapped[:, ::2], own[:, ::2], atol=1e-6)  # the left patches
    assert not torch.allclose(swapped[:, 1::2], own[:, 1::2], atol=1e-3)


@pytest.mark.parametrize(("name", "patch_size"), [("dense64", 32), ("dense32", 16)])
def test_patches_smaller_than_the_window_are_refused(name, patch_size):
    expected = f"^{name} takes patches of {DENSE_WINDOWS[name]} pixels or more, not of {patch_size}$"
    with pytest.raises(InputError, match=expected):
        build_model(name, patch_size=patch_size, image_size=64, labels=["a"])


def test_imagenet_weights_of_it_do_not_exist():
    with pytest.raises(InputError, match="no ImageNet weights of dense64; .*--init random"):
        build_model("dense64", patch_size=64, image_size=64, labels=["a"], init="imagenet")
