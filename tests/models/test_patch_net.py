import pytest
import torch

from cxr.files import InputError
from models.checkpoint import build_model
from models.patch_net import MedicalPatchNet, split_patches
from tests.networks import calibrate

LABELS = ("a", "b", "c")


@pytest.fixture(scope="module", params=[32, 96])
def model(request) -> MedicalPatchNet:
    """B0 that cuts its film into nine patches, and the baseline that sees it whole."""
    torch.manual_seed(0)
    model = build_model("efficientnet_b0", patch_size=request.param, image_size=96, labels=LABELS)
    calibrate(model, torch.rand(4, 1, 96, 96))
    return model


def test_patch_logits_average_to_the_logits(model):
    images = torch.rand(2, 1, 96, 96)
    with torch.inference_mode():
        patch_logits = model.patch_logits(images)
        assert patch_logits.shape == (2, (96 // model.patch_size) ** 2, 3)
        assert (patch_logits.mean(dim=1) - model(images)).abs().max() < 1e-5


def test_a_patchs_logits_come_from_its_pixels_alone_in_row_major_order(model):
    n, p = 96 // model.patch_size, model.patch_size
    images = torch.rand(2, 1, 96, 96)
    with torch.inference_mode():
        before = model.patch_logits(images)
        for place in range(n * n):
            changed = images.clone()
            changed[1, :, p * (place // n) : p * (place // n + 1), p * (place % n) : p * (place % n + 1)] = 0
            moved = (model.patch_logits(changed) - before).abs().amax(dim=2) > 1e-6  # (B, P)
            assert moved.nonzero().tolist() == [[1, place]]


def test_feature_map_lies_as_the_patches_lie_and_gives_the_logits(model):
    images = torch.rand(2, 1, 96, 96)
    p = model.patch_size
    side = p // 32
    with torch.inference_mode():
        maps = model.feature_map(images)
        assert maps.shape == (2, 1280, 3, 3)
        last = model.features(images[1:, :, 96 - p :, :p])[0]  # the lower left patch of the second film
        assert torch.allclose(maps[1, :, 3 - side :, :side], last, atol=1e-5)
        assert torch.allclose(model.head(maps.mean(dim=(2, 3))), model(images), atol=1e-5)


def test_patches_are_cut_film_by_film_and_row_by_row():
    images = torch.arange(2 * 16.0).reshape(2, 1, 4, 4)
    patches = split_patches(images, 2)
    assert patches.shape == (8, 1, 2, 2)
    assert patches[1, 0].tolist() == [[2, 3], [6, 7]]
    assert patches[6, 0].tolist() == [[24, 25], [28, 29]]


@pytest.mark.parametrize("shape", [(1, 3, 96, 96), (1, 1, 96, 64), (1, 96, 96), (1, 1, 80, 80), (1, 1, 192, 192)])
def test_images_of_another_shape_are_refused(shape):
    model = build_model("efficientnet_b0", patch_size=32, image_size=96, labels=LABELS)
    with pytest.raises(ValueError, match=r"takes images \(B, 1, 96, 96\), got \(" + str(shape)[1:6]):
        model(torch.rand(shape))


@pytest.mark.parametrize("patch_size", [0, -32, 60, 192])
def test_patch_sizes_that_do_not_divide_the_image_are_refused(patch_size):
    with pytest.raises(InputError, match=f"patch size {patch_size} does not divide image size 96"):
        build_model("efficientnet_b0", patch_size=patch_size, image_size=96, labels=LABELS)


def test_a_network_without_labels_is_refused():
    with pytest.raises(InputError, match="labels are empty"):
        build_model("efficientnet_b0", patch_size=32, image_size=96, labels=())


def test_training_reaches_every_weight():
    model = build_model("efficientnet_b0", patch_size=32, image_size=64, labels=LABELS).train()
    model(torch.rand(2, 1, 64, 64)).sum().backward()
    assert [name for name, weight in model.named_parameters() if weight.grad is None] == []
