"""Evidence grids of every aggregation against films that are shifted one by one, and the maps made of them."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from cxr.files import InputError
from cxr.images import Crop
from models.patch_net import MedicalPatchNet
from saliency.evidence.evidence_values import evidence_values
from saliency.film_maps import film_maps, gather_evidence, methods_that_hold
from saliency.patch_maps import ShiftGrid, evidence_grid, patch_maps
from tests.saliency.test_certificates import EXPECTED, PATCH, SIDE, films, network

STEPS = 4
STRIDE = PATCH // STEPS
K = SIDE // PATCH
LINEAR = [name for name, (_, _, linear) in EXPECTED.items() if linear]


def shifted(film: Tensor, down: int, right: int) -> Tensor:
    """The film (1, S, S) as seen by a patch grid that lies so many pixels further down and right, zeros beyond it."""
    padded = F.pad(film, (PATCH, PATCH, PATCH, PATCH))
    return padded[:, PATCH + down : PATCH + down + SIDE, PATCH + right : PATCH + right + SIDE]


def grid_of(made: MedicalPatchNet, film: Tensor) -> Tensor:
    return evidence_values(made, evidence_grid(made, film, steps_per_patch=STEPS, batch_size=4), STEPS)


def at(made: MedicalPatchNet, weights: Tensor, row: float, column: float) -> float:
    """A weight (k, k) between patch centres, by the four around it."""
    row, column = (min(max(place, 0.0), K - 1.0) for place in (row, column))
    total = 0.0
    for r in range(K):
        for c in range(K):
            total += max(0.0, 1 - abs(row - r)) * max(0.0, 1 - abs(column - c)) * weights[r, c].item()
    return total


@pytest.mark.parametrize("name", EXPECTED)
def test_values_are_the_contributions_of_films_shifted_one_by_one(name):
    made, film = network(name), films()[0]
    values = grid_of(made, film)
    for row_shift in range(-2, 2):
        for column_shift in range(-2, 2):
            image = shifted(film, row_shift * STRIDE, column_shift * STRIDE)[None]
            with torch.no_grad():
                logits = made.patch_logits(image)[0]  # (P, C)
                expected = K * K * made.contributions(image)[0]  # (P, C)
            for p in range(K * K):
                r, c = divmod(p, K)
                if name == "position":
                    place = (r + row_shift / STEPS, c + column_shift / STEPS)
                    for label in range(4):
                        weight = K * K * at(made, made.aggregation.weights[label], *place)
                        expected[p, label] = logits[p, label] * weight + made.aggregation.offset[label]
                found = values[:, r * STEPS + row_shift + 2, c * STEPS + column_shift + 2]
                torch.testing.assert_close(found, expected[p], rtol=1e-4, atol=1e-5)


def test_the_mean_s_values_are_the_patch_logits_themselves():
    made, film = network("mean"), films()[0]
    grid = evidence_grid(made, film, steps_per_patch=STEPS, batch_size=4)
    assert evidence_values(made, grid, STEPS) is grid


@pytest.mark.parametrize("name", EXPECTED)
def test_the_unshifted_values_average_to_the_logit_of_complete_aggregations(name):
    made, film = network(name), films()[0]
    of_patches = torch.stack([ShiftGrid(PATCH, STEPS, SIDE).unshifted(values) for values in grid_of(made, film)])
    with torch.no_grad():
        total = made.aggregation.link(of_patches.mean(dim=(1, 2))[None])
        torch.testing.assert_close(total, made(film[None]), rtol=1e-4, atol=1e-5)


def test_weights_between_two_patches_are_their_mean():
    made = network("position")
    with torch.no_grad():
        made.aggregation.deviation.zero_()
        made.aggregation.deviation[:, :, 1] = 2.0
        made.aggregation.offset.zero_()
    ones = torch.ones(4, SIDE // STRIDE, SIDE // STRIDE)
    row = evidence_values(made, ones, STEPS)[0, 5]  # starts -2, -1, 0, 1, 2, ... quarters of a patch
    torch.testing.assert_close(row, torch.tensor([1, 1, 1, 1.5, 2, 2.5, 3, 2.5, 2, 1.5, 1, 1]), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", EXPECTED)
def test_maps_of_every_aggregation_are_those_of_its_values(name):
    """Pixel by pixel: the mean of the values of the patches that cover it."""
    made, film = network(name), films()[0]
    maps = patch_maps(made, film, steps_per_patch=STEPS, protocol="corrected", batch_size=4)
    assert set(maps) == ({"raw", "scaled"} if name in LINEAR else {"raw"})
    values = grid_of(made, film).double()
    n = SIDE // STRIDE
    for y, x in ((0, 0), (5, 20), (24, 24), (47, 3)):
        covering = [
            (i, j)
            for i in range(n)
            for j in range(n)
            if 0 <= y - (i - 2) * STRIDE < PATCH and 0 <= x - (j - 2) * STRIDE < PATCH
        ]
        expected = sum(values[:, i, j] for i, j in covering) / len(covering)
        torch.testing.assert_close(maps["raw"][:, y, x].double(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", EXPECTED)
def test_methods_that_need_linearity_are_refused_by_name(name):
    made, film = network(name), films()[0]
    crop = Crop.centred(SIDE, SIDE)
    settings = {"steps_per_patch": 2, "batch_size": 4}
    raw = gather_evidence(made, film, crop, methods=["raw"], **settings)
    assert film_maps(raw, ["raw"], "corrected")["raw"].shape == (4, SIDE, SIDE)
    assert methods_that_hold(made, ["scaled", "raw", "relative"]) == (
        ("scaled", "raw", "relative") if name in LINEAR else ("raw",)
    )
    for method, words in (("scaled", "the probability in scaled"), ("relative", "the Shapley value in relative")):
        if name in LINEAR:
            assert gather_evidence(made, film, crop, methods=[method], **settings).grid is not None
        else:
            with pytest.raises(InputError, match=f"{words} maps holds for linear .*; this network aggregates .*{name}"):
                gather_evidence(made, film, crop, methods=[method], **settings)


def test_relative_values_of_position_weights_are_shapley_values_against_other_films():
    """By the definition: the mean over all orders of adding patches of the film to those of every background film."""
    from itertools import permutations

    made = network("position", patch_size=24, image_size=48)
    size = made.image_size
    rng = torch.Generator().manual_seed(1)
    film, *background = torch.rand(3, 1, size, size, generator=rng)
    settings = {"steps_per_patch": 1, "batch_size": 4}
    values = [evidence_values(made, evidence_grid(made, image, **settings), 1) for image in (film, *background)]
    relative = (values[0] - torch.stack(values[1:]).mean(dim=0)).flatten(1) / 4  # (C, P)
    with torch.no_grad():
        patch_logits = made.patch_logits(torch.stack([film, *background]))  # (3, P, C)
        shapley = torch.zeros(4, 4)  # (P, C)
        orders = list(permutations(range(4)))
        for other in patch_logits[1:]:
            for order in orders:
                mixed = other.clone()
                for p in order:
                    before = made.aggregation(mixed[None])[0]
                    mixed[p] = patch_logits[0, p]
                    shapley[p] += (made.aggregation(mixed[None])[0] - before) / (2 * len(orders))
    torch.testing.assert_close(relative.T, shapley, rtol=1e-4, atol=1e-5)
