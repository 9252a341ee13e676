"""Occlusion in closed form against explicit forward passes of films with a filled patch."""

import itertools

import numpy as np
import pytest
import torch

from cxr.files import InputError
from models.patch_net import MedicalPatchNet
from saliency.audit.occlusion import (
    closed_form_drops,
    fill_logits,
    grey_of,
    occlusion_drops,
    patch_lines,
    signed_cam,
)
from saliency.evidence.evidence_values import evidence_values
from saliency.patch_maps import evidence_grid
from tests.saliency.toy_networks import ToyNetwork

PATCH, SIZE = 8, 32
SIDE = SIZE // PATCH


def image(seed: int = 0) -> torch.Tensor:
    return torch.rand(1, SIZE, SIZE, generator=torch.Generator().manual_seed(seed))


def filled(film: torch.Tensor, places, grey: float) -> torch.Tensor:
    """The film with some patches filled, by a loop over pixels' rows and columns."""
    film = film.clone()
    for place in places:
        row, column = divmod(place, SIDE)
        for y in range(row * PATCH, (row + 1) * PATCH):
            for x in range(column * PATCH, (column + 1) * PATCH):
                film[0, y, x] = grey
    return film


def logits(model, film: torch.Tensor) -> np.ndarray:
    with torch.no_grad():
        return model(film[None])[0].double().numpy()


def closed_form(model, film: torch.Tensor, grey: float) -> np.ndarray:
    """(C, k, k)"""
    patch_logits = evidence_grid(model, film, steps_per_patch=1, batch_size=1).numpy()
    fill = fill_logits(model, [grey])[0][:, None, None]
    return closed_form_drops(patch_logits / SIDE**2, fill, 1 / SIDE**2)


def patch_network(aggregation: str = "mean") -> MedicalPatchNet:
    torch.manual_seed(1)
    names = ("Edema", "Pneumonia", "Lung Opacity")
    model = MedicalPatchNet("timm/test_efficientnet", 32, 128, names, aggregation=aggregation).eval()
    for parameter in model.aggregation.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


@pytest.mark.parametrize("fill", ["black", "mean", "0.7"])
def test_the_closed_form_is_what_forward_passes_give(fill):
    model, film = ToyNetwork(PATCH, SIZE), image()
    grey = grey_of(fill, float(film.mean()))
    drops = closed_form(model, film, grey)
    whole = logits(model, film)
    for place in range(SIDE**2):
        explicit = whole - logits(model, filled(film, [place], grey))
        np.testing.assert_allclose(drops[:, place // SIDE, place % SIDE], explicit, atol=1e-5)
    assert np.abs(drops).max() > 0.01, "the effects must be large beside the tolerance"


def test_effects_add_up_over_patches_that_are_filled_together():
    model, film = ToyNetwork(PATCH, SIZE, seed=3), image(3)
    drops = closed_form(model, film, 0.0).reshape(3, -1)
    for places in ([0, 5], [1, 2, 3, 9], list(range(SIDE**2))):
        explicit = logits(model, film) - logits(model, filled(film, places, 0.0))
        np.testing.assert_allclose(drops[:, places].sum(axis=1), explicit, atol=1e-5)


def test_a_network_with_a_weight_per_place_has_its_own_factors():
    model = patch_network("position")
    film = torch.rand(1, 128, 128, generator=torch.Generator().manual_seed(5))
    grid = evidence_values(model, evidence_grid(model, film, steps_per_patch=1, batch_size=1), 1).numpy()
    factors, offsets = (of.reshape(3, 4, 4) for of in patch_lines(model))
    drops = closed_form_drops(grid / 16, fill_logits(model, [0.0])[0][:, None, None], factors, offsets)
    whole = logits(model, film)
    for place in (0, 3, 6, 15):
        dark = film.clone()
        row, column = divmod(place, 4)
        dark[0, row * 32 : (row + 1) * 32, column * 32 : (column + 1) * 32] = 0
        np.testing.assert_allclose(drops[:, row, column], whole - logits(model, dark), atol=1e-5)
    assert np.ptp(factors, axis=(1, 2)).min() > 0.01 and np.abs(offsets).min() > 1e-4


@pytest.mark.parametrize("name", ["gate", "noisy_or", "attention", "logsumexp"])
def test_other_aggregations_are_refused_by_name(name):
    model = MedicalPatchNet("timm/test_efficientnet", 32, 128, ("Edema",), aggregation=name)
    with pytest.raises(InputError, match=f"^the contribution of a filled patch .*linear.* aggregates with '{name}'$"):
        patch_lines(model)


def test_forward_passes_of_any_network_on_the_same_squares():
    """A whole-film network, against a loop; several batch sizes give the same."""
    model, film = ToyNetwork(SIZE, SIZE), image(7)
    whole, drops = occlusion_drops(model, film, side=SIDE, grey=0.25, batch_size=5)
    np.testing.assert_allclose(whole, logits(model, film), atol=1e-6)
    for place in range(SIDE**2):
        explicit = whole - logits(model, filled(film, [place], 0.25))
        np.testing.assert_allclose(drops[:, place // SIDE, place % SIDE], explicit, atol=1e-5)
    np.testing.assert_allclose(occlusion_drops(model, film, side=SIDE, grey=0.25, batch_size=64)[1], drops, atol=1e-5)


def test_forward_passes_of_a_patch_network_give_the_closed_form():
    model, film = ToyNetwork(PATCH, SIZE), image(8)
    _, drops = occlusion_drops(model, film, side=SIDE, grey=0.5, batch_size=16)
    np.testing.assert_allclose(drops, closed_form(model, film, 0.5), atol=1e-5)


def test_the_signed_cam_sums_to_the_logit():
    model, film = ToyNetwork(SIZE, SIZE), image(9)
    cam = signed_cam(model, film)
    bias = model.head.bias.detach().numpy()
    np.testing.assert_allclose(cam.mean(axis=(1, 2)) + bias, logits(model, film), atol=1e-5)
    assert (cam < 0).any() and (cam > 0).any()


def test_the_network_stays_as_it_was():
    model = ToyNetwork(PATCH, SIZE).train()
    occlusion_drops(model, image(), side=SIDE, grey=0.0, batch_size=16)
    fill_logits(model, [0.0])
    assert all(module.training for module in model.modules())


@pytest.mark.parametrize("fill", ["-0.1", "1.01", "nan", "inf", "white", "", "0,5"])
def test_a_fill_that_is_no_grey_value_is_refused(fill):
    with pytest.raises(InputError, match=r"black, mean, or a grey value from 0 to 1"):
        grey_of(fill, 0.5)


@pytest.mark.parametrize("grey", [-0.01, 1.5, float("nan")])
def test_a_grey_outside_its_range_is_refused(grey):
    model = ToyNetwork(PATCH, SIZE)
    with pytest.raises(InputError, match=r"outside \[0, 1\]"):
        fill_logits(model, [0.5, grey])
    with pytest.raises(InputError, match="is not a grey value from 0 to 1"):
        occlusion_drops(model, image(), side=SIDE, grey=grey, batch_size=4)


def test_squares_that_do_not_fill_the_image_are_refused():
    with pytest.raises(ValueError, match="5 squares a side"):
        occlusion_drops(ToyNetwork(PATCH, SIZE), image(), side=5, grey=0.0, batch_size=4)


def test_a_hand_set_network_of_which_one_patch_matters():
    """Its features are the grey of a patch above 0.9; all but one patch are darker."""
    model = ToyNetwork(PATCH, SIZE)
    model.features = torch.nn.Sequential(torch.nn.Conv2d(1, 1, 1), torch.nn.ReLU())
    model.head = torch.nn.Linear(1, 3)
    with torch.no_grad():
        model.features[0].weight.fill_(1)
        model.features[0].bias.fill_(-0.9)
        model.head.weight.copy_(torch.tensor([[160.0], [0.0], [-16.0]]))
        model.head.bias.copy_(torch.tensor([1.0, 2.0, 3.0]))
    film = torch.full((1, SIZE, SIZE), 0.5)
    film[0, PATCH : 2 * PATCH, 2 * PATCH : 3 * PATCH] = 1.0
    drops = closed_form(model, film, 0.0)
    expected = np.zeros((3, SIDE, SIDE))
    expected[0, 1, 2], expected[2, 1, 2] = 1.0, -0.1  # 160 * 0.1 / 16 patches, and -16 * 0.1 / 16
    np.testing.assert_allclose(drops, expected, atol=1e-6)


def test_a_grid_of_films_has_the_patches_of_its_films():
    """The grid pointing game: a network for films of twice the size, with the same weights."""
    model = ToyNetwork(PATCH, SIZE)
    films = [image(seed) for seed in range(4)]
    composite = torch.cat([torch.cat(films[:2], dim=2), torch.cat(films[2:], dim=2)], dim=1)  # (1, 64, 64)
    model.image_size = 2 * SIZE
    of_grid = evidence_grid(model, composite, steps_per_patch=1, batch_size=1)  # (C, 8, 8)
    with torch.no_grad():
        np.testing.assert_allclose(of_grid.mean(dim=(1, 2)), model(composite[None])[0], atol=1e-5)
    model.image_size = SIZE
    for number, (row, column) in enumerate(itertools.product((0, 1), (0, 1))):
        own = evidence_grid(model, films[number], steps_per_patch=1, batch_size=1)
        cell = of_grid[:, row * SIDE : (row + 1) * SIDE, column * SIDE : (column + 1) * SIDE]
        np.testing.assert_allclose(cell, own, atol=1e-5)
