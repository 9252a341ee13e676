"""The evidence grid of a backbone without padding, in one pass, against every patch cut out and computed alone."""

import random

import pytest
import torch
import torch.nn.functional as F

from models.checkpoint import build_model
from models.patch_net import MedicalPatchNet
from saliency.evidence.dense_grid import is_dense
from saliency.patch_maps import ShiftGrid, evidence_grid
from tests.networks import calibrate

MOST = 200
"""Patches computed alone per case; of larger grids that many are drawn."""


def network(backbone: str, patch_size: int, image_size: int) -> tuple[MedicalPatchNet, torch.Tensor]:
    torch.manual_seed(0)
    coarse = F.interpolate(torch.rand(3, 1, 5, 5), (image_size, image_size), mode="bicubic")
    films = (0.7 * coarse + 0.3 * torch.rand_like(coarse)).clamp(0, 1)
    model = build_model(backbone, patch_size=patch_size, image_size=image_size, labels=["a", "b", "c"])
    calibrate(model, films)
    return model, films[:1]


def check_one_by_one(model: MedicalPatchNet, film: torch.Tensor, steps: int, stride: int = 1) -> None:
    """Patches are cut out of the zero-padded film and computed alone; those at the four corners always."""
    grid = evidence_grid(model, film, steps_per_patch=steps, stride=stride, batch_size=1)
    p, size = model.patch_size, model.image_size
    shifts = ShiftGrid(p, steps, size)
    starts = sorted({*range(0, shifts.n, stride), shifts.n - 1})
    assert grid.dtype == torch.float32 and grid.shape == (3, len(starts), len(starts))
    every = [(row, column) for row in range(len(starts)) for column in range(len(starts))]
    corners = [every[0], every[len(starts) - 1], every[-len(starts)], every[-1]]
    chosen = every if len(every) <= MOST else [*random.Random(0).sample(every, MOST), *corners]
    padded = F.pad(film[0, 0], (p, p, p, p))
    pixels = [[p + (starts[index] - shifts.lead) * shifts.stride for index in place] for place in chosen]
    patches = torch.stack([padded[y : y + p, x : x + p] for y, x in pixels]).unsqueeze(1)  # (N, 1, p, p)
    with torch.no_grad():
        expected = model.head(model.features(patches).mean(dim=(2, 3))).T  # (C, N)
    rows, columns = torch.tensor(chosen).T
    assert expected.std() > 0.05
    assert torch.allclose(grid[:, rows, columns], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("backbone", "patch_size", "image_size", "steps"),
    [
        *[("dense64", 64, 128, steps) for steps in (1, 2, 4, 8, 16, 32)],
        ("dense64", 64, 64, 64),  # a stride of 1
        *[("dense32", 32, 64, steps) for steps in (1, 2, 4, 8, 16, 32)],
        *[("dense32", 64, 64, steps) for steps in (1, 4, 8, 16)],  # several windows per patch
        *[("dense32", 48, 96, steps) for steps in (4, 16)],  # strides of 12 and 3
        ("dense32", 40, 40, 20),  # a stride of 2 in a single patch
    ],
)
def test_one_pass_gives_every_patch_as_cut_out_alone(backbone, patch_size, image_size, steps):
    model, film = network(backbone, patch_size, image_size)
    assert is_dense(model)
    check_one_by_one(model, film, steps)


@pytest.mark.parametrize("stride", [2, 3, 8, 12, 16])
def test_starts_some_pixels_apart_and_the_last_one(stride):
    model, film = network("dense32", 40, 80)
    check_one_by_one(model, film, 40, stride)


@pytest.mark.parametrize(("patch_size", "steps"), [(36, 4), (33, 1)])
def test_patches_that_no_whole_strides_fill_are_computed_alone(patch_size, steps):
    model, film = network("dense32", patch_size, 2 * patch_size)
    assert not is_dense(model)
    check_one_by_one(model, film, steps)


def test_padded_backbones_are_never_taken_for_dense():
    model, _ = network("timm/test_efficientnet", 32, 64)
    assert not is_dense(model)


def test_progress_counts_all_patches_and_the_model_is_left_as_it_was():
    model, film = network("dense32", 32, 64)
    model.train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    done: list[int] = []
    grid = evidence_grid(model, film[0], steps_per_patch=8, batch_size=1, progress=done.append)
    assert sum(done) == 16 * 16 == grid[0].numel() and not grid.requires_grad
    assert model.training and all(module.training for module in model.modules())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_the_number_of_threads_changes_no_bit():
    model, film = network("dense64", 64, 256)
    threads = torch.get_num_threads()
    try:
        grids = []
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            grids.append(evidence_grid(model, film, steps_per_patch=16, batch_size=1))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(grids[0], grids[1]) and torch.equal(grids[0], grids[2])


def test_an_image_of_another_size_is_refused():
    model, _ = network("dense32", 32, 64)
    with pytest.raises(ValueError, match=r"expected an image \(1, 64, 64\), got \(1, 96, 96\)"):
        evidence_grid(model, torch.rand(1, 96, 96), steps_per_patch=4, batch_size=1)
