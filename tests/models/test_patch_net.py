import json

import pytest
import torch

from cxr.files import InputError
from cxr.labels import LabelSet
from models.checkpoint import build_model, load_model, save_model
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
    with pytest.raises(InputError, match="expected at least one name"):
        build_model("efficientnet_b0", patch_size=32, image_size=96, labels=())


def test_images_of_another_size_are_refused_with_both_sizes_by_everything_that_takes_images():
    model = build_model("timm/test_efficientnet", patch_size=32, image_size=64, labels=LABELS)
    for take in (model, model.patch_logits, model.contributions, model.feature_map, model.check_images):
        with pytest.raises(ValueError, match=r"takes images \(B, 1, 64, 64\), got \(1, 1, 128, 128\)"):
            take(torch.rand(1, 1, 128, 128))


@pytest.mark.parametrize(
    ("images", "told"),
    [
        (torch.full((2, 1, 64, 64), 255.0), "expected images in [0, 1], got values from 255 to 255"),
        (torch.randint(0, 256, (1, 1, 64, 64), dtype=torch.uint8), "expected float images in [0, 1], got torch.uint8"),
        (torch.rand(1, 1, 64, 64) - 0.5, "got values from -0."),
        (torch.full((1, 1, 64, 64), torch.nan), "got values from nan to nan"),
        (torch.rand(1, 1, 64, 64).index_fill(3, torch.tensor([5]), torch.inf), "to inf"),
    ],
)
def test_pixels_outside_their_range_are_refused_where_data_meets_the_model(images, told):
    model = build_model("timm/test_efficientnet", patch_size=32, image_size=64, labels=LABELS)
    with pytest.raises(ValueError) as refusal:
        model.check_images(images)
    assert told in str(refusal.value) and "\n" not in str(refusal.value)


def test_pixels_in_range_pass_the_check_in_every_precision():
    model = build_model("timm/test_efficientnet", patch_size=32, image_size=64, labels=LABELS)
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        images = torch.rand(2, 1, 64, 64, dtype=dtype)
        assert model.check_images(images) is None
        with pytest.raises(ValueError):
            model.check_images(images + 2)
    assert model.check_images(torch.rand(0, 1, 64, 64)) is None


def test_the_label_set_travels_with_the_network(tmp_path):
    own = LabelSet(("b", "a", "Edema"), {"first": ("a", "b")}, {"a": "A in the ground truth"})
    model = build_model("timm/test_efficientnet", patch_size=32, image_size=64, labels=own)
    assert model.label_set == own and model.labels == ("b", "a", "Edema")
    save_model(model, tmp_path / "own")
    assert load_model(tmp_path / "own").label_set == own
    assert MedicalPatchNet.from_pretrained(tmp_path / "own").label_set == own
    config = json.loads((tmp_path / "own" / "config.json").read_text())
    assert config["labels"] == ["b", "a", "Edema"]
    assert config["label_set"] == {"groups": {"first": ["a", "b"]}, "tasks": {"a": "A in the ground truth"}}


def test_bare_names_of_labels_are_their_own_label_set(tmp_path):
    model = build_model("timm/test_efficientnet", patch_size=32, image_size=64, labels=("Edema", "Lung Opacity", "x"))
    assert model.label_set == LabelSet.of(("Edema", "Lung Opacity", "x"))
    save_model(model, tmp_path)
    assert "label_set" not in json.loads((tmp_path / "config.json").read_text())
    assert load_model(tmp_path).label_set == model.label_set


def test_training_reaches_every_weight():
    model = build_model("efficientnet_b0", patch_size=32, image_size=64, labels=LABELS).train()
    model(torch.rand(2, 1, 64, 64)).sum().backward()
    assert [name for name, weight in model.named_parameters() if weight.grad is None] == []
