"""What the published code computes, written again here slowly and plainly, against what this project computes."""

import itertools

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from models.checkpoint import build_model, load_model
from models.patch_net import MedicalPatchNet, split_patches
from saliency.patch_maps import patch_maps
from tests.networks import calibrate

LABELS = tuple("abcde")


def film(size: int) -> Tensor:
    """(1, S, S): coarse shapes, so that patches differ, and noise, so that shifts do."""
    torch.manual_seed(3)
    shapes = F.interpolate(torch.rand(1, 1, 9, 9), (size, size), mode="bicubic")[0]
    return (0.7 * shapes + 0.3 * torch.rand(1, size, size)).clamp(0, 1)


# ------------------------------------------------------------------------------------------------- weights and patches


@pytest.mark.parametrize("prefix", ["", "_orig_mod."])
@pytest.mark.parametrize(("backbone", "stem"), [("efficientnet_b0", 32), ("efficientnet_v2_s", 24)])
def test_a_published_state_dict_gives_torchvisions_patch_logits(backbone, stem, prefix, tmp_path):
    torch.manual_seed(1)
    direct = getattr(torchvision.models, backbone)(weights=None)
    direct.features[0][0] = nn.Conv2d(1, stem, 3, stride=2, padding=1, bias=False)
    direct.classifier[1] = nn.Linear(1280, 14)
    image = film(512)[None]
    calibrate(direct, split_patches(image, 64)[::4])
    path = tmp_path / "EfficientNetB0_weights.pt"  # the name says nothing about the content
    torch.save({f"{prefix}baseBackbone.{name}": tensor for name, tensor in direct.state_dict().items()}, path)

    model = load_model(path, patch_size=64)
    assert (model.backbone, model.patch_size, model.image_size) == (backbone, 64, 512)
    with torch.inference_mode():
        logits = model.patch_logits(image)[0]
        assert logits.shape == (64, 14) and logits.std(dim=0).min() > 1e-3
        for place in (0, 7, 8, 29, 63):
            top, left = 64 * (place // 8), 64 * (place % 8)
            expected = direct(image[:, :, top : top + 64, left : left + 64])[0]
            assert (logits[place] - expected).abs().max() < 1e-5
        assert (model(image)[0] - logits.mean(dim=0)).abs().max() < 1e-5


# ------------------------------------------------------------------------------------------------------- evidence maps


@pytest.fixture(scope="module")
def image() -> Tensor:
    return film(96)


@pytest.fixture(scope="module")
def model(image) -> MedicalPatchNet:
    """B0's first four stages on patches of 32 px, with patch logits around 0 with a standard deviation of 2.

    Through all stages of a random network, rounding errors grow to 1e-4 of how much the logits of patches differ.
    """
    torch.manual_seed(2)
    model = build_model("efficientnet_b0", patch_size=32, image_size=96, labels=LABELS).eval()
    model.features, model.head = model.features[:4], nn.Linear(40, len(LABELS))
    calibrate(model, torch.stack([moved(image, *shift) for shift in shifts_of(32, 2)]))
    with torch.no_grad():
        model.head.bias.zero_()
        spread = model.patch_logits(image[None])[0].std(dim=0)
        model.head.weight.mul_(2 / spread[:, None])
        model.head.bias.sub_(model(image[None])[0])
    return model


def shifts_of(patch_size: int, steps: int) -> list[tuple[int, int]]:
    """All (dy, dx), dy first: the multiples of patch_size / steps that lie in [-patch_size / 2, patch_size / 2)."""
    stride = patch_size // steps
    axis = [d for d in range(-patch_size, patch_size) if d % stride == 0 and -patch_size / 2 <= d < patch_size / 2]
    return list(itertools.product(axis, axis))


def moved(plane: Tensor, dy: int, dx: int) -> Tensor:
    """(..., S, S) -> what lies dy further down and dx further right, zeros from outside."""
    size = plane.shape[-1]
    result = torch.zeros_like(plane)
    for y in range(max(0, -dy), min(size, size - dy)):
        result[..., y, max(0, -dx) : min(size, size - dx)] = plane[..., y + dy, max(0, dx) : min(size, size + dx)]
    return result


def placed(per_patch: Tensor, patch_size: int, dy: int, dx: int) -> Tensor:
    """(P, C) of one shift's patches -> (C, S, S) in the film: every patch's square filled, then moved back."""
    k = round(len(per_patch) ** 0.5)
    squares = torch.zeros(per_patch.shape[1], k * patch_size, k * patch_size, dtype=torch.float64)
    for place, values in enumerate(per_patch):
        top, left = patch_size * (place // k), patch_size * (place % k)
        squares[:, top : top + patch_size, left : left + patch_size] = values[:, None, None]
    return moved(squares, -dy, -dx)


@pytest.fixture(scope="module", params=[1, 2, 4, 8])
def shift_by_shift(request, model, image) -> tuple[int, list[tuple[int, int]], list[Tensor]]:
    """Steps, the shifts, and for each the patch logits (P, C) of the film moved by it."""
    shifts = shifts_of(model.patch_size, request.param)
    with torch.no_grad():
        films = [moved(image, *shift)[None] for shift in shifts]
        return request.param, shifts, [model.patch_logits(film)[0].double() for film in films]


def slow_maps(per_shift: list[Tensor], shifts: list[tuple[int, int]], patch_size: int, protocol: str) -> Tensor:
    """Sum of all shifts' maps over the number of shifts, or of those that cover the pixel."""
    total = sum(placed(values, patch_size, *shift) for values, shift in zip(per_shift, shifts, strict=True))
    if protocol == "published":
        return total / len(shifts)
    return total / sum(placed(torch.ones_like(per_shift[0]), patch_size, *shift) for shift in shifts)


def by_own_probability(per_shift: list[Tensor]) -> list[Tensor]:
    return [logits * torch.sigmoid(logits.mean(dim=0)) for logits in per_shift]


def published_slip(per_shift: list[Tensor]) -> list[Tensor]:
    """In batches of 4, (B, P, C) * (B, 1, 1, C) makes (B, B, P, C), of which the first entries stand for the shifts."""
    products = []
    for start in range(0, len(per_shift), 4):
        logits = torch.stack(per_shift[start : start + 4])  # (B, P, C)
        probability = torch.sigmoid(logits.mean(dim=1))[:, None, None, :]  # (B, 1, 1, C)
        products.append(logits * probability)  # (B, B, P, C)
    return list(torch.cat(products).flatten(0, 1)[: len(per_shift)])


@pytest.mark.parametrize("protocol", ["published", "corrected"])
def test_raw_and_scaled_equal_the_sum_over_shifts(model, image, shift_by_shift, protocol):
    steps, shifts, per_shift = shift_by_shift
    assert len(shifts) == len(per_shift) == steps**2
    ours = patch_maps(model, image, steps_per_patch=steps, protocol=protocol, batch_size=2)
    scaling = published_slip if protocol == "published" else by_own_probability
    for method, values in (("raw", per_shift), ("scaled", scaling(per_shift))):
        expected = slow_maps(values, shifts, model.patch_size, protocol)
        assert ours[method].shape == expected.shape == (5, 96, 96)
        assert (ours[method] - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_the_protocols_differ_where_the_design_says(model, image):
    """The tests above would pass on two equal protocols, were the slow maps equal too."""
    published, corrected = (
        patch_maps(model, image, steps_per_patch=4, protocol=protocol, batch_size=2)
        for protocol in ("published", "corrected")
    )
    assert torch.allclose(published["raw"][:, 16:72, 16:72], corrected["raw"][:, 16:72, 16:72], rtol=1e-5, atol=1e-6)
    assert (published["raw"][:, :8] - corrected["raw"][:, :8]).abs().max() > 0.1, "borders"
    assert (published["scaled"] - corrected["scaled"])[:, 16:72, 16:72].abs().max() > 0.1, "the slip"
