"""The estimate of a stride's error: exact for a parabola's ends, and near the error itself for a network's evidence."""

import numpy as np
import pytest
import torch

from saliency.evidence.pixel_grid import PixelGrid
from saliency.evidence.shift_grid import ShiftGrid
from saliency.evidence.stride_error import stride_errors
from saliency.patch_maps import evidence_grid, maps_from_grid
from tests.saliency.toy_networks import ToyNetwork

PATCH, SIZE = 16, 64
SHIFTS = ShiftGrid(PATCH, PATCH, SIZE)
SETTINGS = {"patch_size": PATCH, "steps_per_patch": PATCH, "image_size": SIZE, "protocol": "corrected"}


def error_of(full: torch.Tensor, sampled: torch.Tensor, stride: int) -> np.ndarray:
    """(C,) mean error of the maps in percent of their range, by the full maps."""
    exact, found = (maps_from_grid(full, **SETTINGS)["raw"], maps_from_grid(sampled, **SETTINGS, stride=stride)["raw"])
    spread = found.amax(dim=(1, 2)) - found.amin(dim=(1, 2))
    return (100 * (found - exact).abs().mean(dim=(1, 2)) / spread).numpy()


def test_a_smooth_grid_s_error_is_estimated_to_a_few_percent():
    """The second differences of a parabola are the same everywhere, as Richardson's rule supposes."""
    place = torch.arange(SIZE, dtype=torch.float64)
    full = ((place[:, None] / 9) ** 2 + (place[None] / 7) ** 2)[None]
    for stride in (2, 3, 5):
        pixels = PixelGrid(SHIFTS, stride)
        sampled = full[:, pixels.starts][:, :, pixels.starts]
        assert stride_errors(sampled, pixels).numpy() == pytest.approx(error_of(full, sampled, stride), rel=0.12)


def test_a_plane_has_no_error_and_a_constant_no_range():
    pixels = PixelGrid(SHIFTS, 3)
    starts = pixels.starts.double()
    plane, constant = starts[:, None] - 2 * starts[None], torch.full((pixels.m, pixels.m), 4.0, dtype=torch.float64)
    errors = stride_errors(torch.stack([plane, constant]), pixels)
    assert errors[0] < 1e-12 and errors[1].isnan()


@pytest.mark.parametrize("stride", [3, 5])
def test_the_estimate_of_a_network_is_of_the_error_s_size(stride):
    """Of odd strides: those that share a divisor with the network's own stride, here 4, see one phase of it only."""
    torch.manual_seed(1)
    image = torch.nn.functional.interpolate(torch.rand(1, 1, 9, 9), (SIZE, SIZE), mode="bicubic")[0].clamp(0, 1)
    model = ToyNetwork(PATCH, SIZE)
    full, sampled = (
        evidence_grid(model, image, steps_per_patch=PATCH, batch_size=1, stride=each) for each in (1, stride)
    )
    ratio = stride_errors(sampled, PixelGrid(SHIFTS, stride)).numpy() / error_of(full, sampled, stride)
    print(ratio)
    assert (ratio > 0.2).all() and (ratio < 5).all()


def test_every_start_has_no_error():
    assert stride_errors(torch.rand(1, SIZE, SIZE), PixelGrid(SHIFTS)).item() == 0
