import pytest
import torch
from torch import nn

from benchmarks.published.maps import package_cam
from cxr.files import InputError
from cxr.images import Crop
from models.checkpoint import build_model
from saliency.cam import CAMS, cam_grids, class_activation_maps, upsample
from saliency.film_maps import film_maps, gather_evidence
from tests.networks import calibrate
from tests.saliency.toy_networks import ToyNetwork

LABELS = ("a", "b", "c")


def random_network(backbone: str, patch_size: int, image_size: int) -> nn.Module:
    torch.manual_seed(3)
    model = build_model(backbone, patch_size=patch_size, image_size=image_size, labels=LABELS)
    calibrate(model, torch.rand(4, 1, image_size, image_size))
    return model


def package_maps(model: nn.Module, layer: nn.Module, image: torch.Tensor) -> dict[str, torch.Tensor]:
    """Class by class, as the published code calls the package; of Eigen-CAM, the same for all, one."""
    pytest.importorskip("pytorch_grad_cam")
    labels = {"eigencam": [0]}
    return {method: package_cam(model, layer, image, method, labels.get(method, range(len(LABELS)))) for method in CAMS}


@pytest.mark.parametrize("backbone", ["efficientnet_b0", "efficientnet_v2_s"])
def test_the_baseline_gets_the_maps_of_the_package(backbone):
    model, image = random_network(backbone, 160, 160), torch.rand(1, 1, 160, 160)
    expected = package_maps(model, model.features[-1], image)
    ours = class_activation_maps(model, image, methods=list(CAMS))
    for method in ("gradcam", "gradcam++"):
        assert ours[method].shape == (3, 160, 160)
        assert (ours[method] - expected[method]).abs().max() <= 1e-3
        assert expected[method].amax() > 0.99, "a map of zeros compares nothing"
    assert (ours["eigencam"] - expected["eigencam"]).abs().max() <= 1e-3  # numpy gives both the same sign


class Tiled(nn.Module):
    """The patch network with its tiled feature map as a layer that hooks can see."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.tiled = model, nn.Identity()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.model.head(self.tiled(self.model.feature_map(images)).mean(dim=(2, 3)))


def test_a_patch_network_gets_the_maps_of_the_package_on_its_tiled_feature_map():
    model, image = random_network("efficientnet_b0", 64, 192), torch.rand(1, 1, 192, 192)
    wrapped = Tiled(model)
    expected = package_maps(wrapped, wrapped.tiled, image)
    ours = class_activation_maps(model, image, methods=list(CAMS))
    for method in CAMS:
        assert (ours[method] - expected[method]).abs().max() <= 1e-3


class TwoChannels(nn.Module):
    """Feature map: the film and its negative. Label 0 likes the first, label 1 the second, label 2 neither."""

    patch_size = image_size = 2
    labels = LABELS

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(2, 3)
        self.head.weight.data = torch.tensor([[4.0, 0], [0, 4], [-4, -4]])

    def feature_map(self, images: torch.Tensor) -> torch.Tensor:
        return torch.cat([images, 1 - images], dim=1)


def test_grad_cams_of_a_two_pixel_wide_film_by_hand():
    film = torch.tensor([[[0.0, 0.25], [0.5, 1.0]]])
    for method in ("gradcam", "gradcam++"):
        grids = cam_grids(TwoChannels(), film, methods=[method])[method]
        assert torch.allclose(grids[0], film[0], atol=1e-5)
        assert torch.allclose(grids[1], 1 - film[0], atol=1e-5)
    everything_against = cam_grids(TwoChannels(), film, methods=["gradcam++"])["gradcam++"][2]
    assert torch.equal(everything_against, torch.zeros(2, 2)), "Grad-CAM++ leaves negative gradients out"


def test_eigen_cam_is_the_direction_of_most_variance_and_the_same_for_every_class():
    """The two channels run along (1, -1), so the projection is the film or its negative, cut at its mean."""
    film = torch.tensor([[[0.0, 0.25], [0.5, 1.0]]])
    grids = cam_grids(TwoChannels(), film, methods=["eigencam"])["eigencam"]
    centred = film[0] - film.mean()
    either = [(sign * centred).relu() for sign in (1, -1)]
    assert any(torch.allclose(grids[0], expected / expected.max(), atol=1e-5) for expected in either)
    assert torch.equal(grids[0], grids[1]) and torch.equal(grids[0], grids[2])


def test_upsampling_reaches_the_full_range_and_empty_maps_stay_empty():
    grid = torch.stack([torch.rand(4, 4), torch.zeros(4, 4)])
    maps = upsample(grid, 64)
    assert maps.shape == (2, 64, 64)
    assert maps[0].min() == 0 and maps[0].max() == pytest.approx(1, abs=1e-6)
    assert torch.equal(maps[1], torch.zeros(64, 64))


def test_modes_and_statistics_are_left_as_they_were():
    model = ToyNetwork(patch_size=8, image_size=16).train()
    model.features[2].eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    maps = class_activation_maps(model, torch.rand(1, 16, 16), methods=["gradcam"])
    assert not maps["gradcam"].requires_grad
    assert model.training and model.features[0].training and not model.features[2][1].training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_an_unknown_method_is_refused():
    with pytest.raises(ValueError, match=r"unknown method 'lime'; known are gradcam, gradcam\+\+, eigencam"):
        class_activation_maps(ToyNetwork(8, 16), torch.rand(1, 16, 16), methods=["gradcam", "lime"])


@pytest.mark.parametrize("aggregation", ["position", "gate", "noisy_or", "attention", "logsumexp"])
def test_closed_forms_are_refused_where_the_logit_is_not_the_mean_of_the_patches(aggregation):
    """With another aggregation the gradients differ from patch to patch; Eigen-CAM uses none and stays.

    Scaled maps need the logit to be the sum of the patches' values, which it is for position weights, too.
    """
    model = build_model("timm/test_efficientnet", patch_size=32, image_size=64, labels=LABELS, aggregation=aggregation)
    image, crop = torch.rand(1, 64, 64), Crop.centred(64, 64)
    settings = {"steps_per_patch": 2, "batch_size": 1}
    for method in ("gradcam", "gradcam++"):
        with pytest.raises(InputError, match=f"holds for the mean of patch logits; this network .* '{aggregation}'"):
            gather_evidence(model, image, crop, methods=[method], **settings)
    if aggregation == "position":
        assert gather_evidence(model, image, crop, methods=["scaled"], **settings).grid is not None
    else:
        with pytest.raises(InputError, match=f"holds for linear aggregations .*; this network .* '{aggregation}'"):
            gather_evidence(model, image, crop, methods=["scaled"], **settings)
    maps = film_maps(
        gather_evidence(model, image, crop, methods=["raw", "eigencam"], **settings), ["eigencam"], "corrected"
    )
    assert maps["eigencam"].shape == (3, 64, 64)
