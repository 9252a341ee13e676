import gc
import math
import weakref

import pytest
import torch
from torch import nn

from models.checkpoint import build_model
from saliency.evidence.folded_network import FoldedNetwork, folded_network
from saliency.evidence.shift_grid import ShiftGrid
from saliency.patch_maps import evidence_grid, logits_to_unit, maps_from_grid, patch_maps
from tests.networks import calibrate
from tests.saliency.toy_networks import ToyNetwork


def test_each_entry_of_the_grid_is_the_logits_of_one_zero_padded_patch():
    model, image = ToyNetwork(patch_size=8, image_size=24), torch.rand(1, 24, 24)
    grid = evidence_grid(model, image, steps_per_patch=4, batch_size=1)
    assert grid.shape == (3, 12, 12) and grid.dtype == torch.float32 and not grid.requires_grad
    starts = range(-4, 20, 2)  # from half a patch before the film on, by 8 / 4 pixels
    for row, top in enumerate(starts):
        for column, left in enumerate(starts):
            patch = torch.zeros(1, 1, 8, 8)
            for y in range(8):
                for x in range(8):
                    if 0 <= top + y < 24 and 0 <= left + x < 24:
                        patch[0, 0, y, x] = image[0, top + y, left + x]
            expected = model.head(model.features(patch).mean(dim=(2, 3)))[0]
            assert torch.allclose(grid[:, row, column], expected, rtol=1e-5, atol=1e-5)


class BrightnessNetwork(nn.Module):
    """Logits: the patch's mean brightness times 4, and minus that."""

    patch_size, image_size, labels = 4, 8, ("bright", "dark")

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Identity()
        self.head = nn.Linear(1, 2)
        self.head.weight.data = torch.tensor([[4.0], [-4.0]])
        self.head.bias.data = torch.zeros(2)


def test_maps_of_a_film_with_one_bright_pixel_by_hand():
    """With 2 steps, patches start at -2, 0, 2, 4 (rows, columns). The pixel (1, 5) lies in patches from rows -2 and 0
    and from columns 2 and 4; each of these four has a mean of 1/16, so a logit of 1/4."""
    image = torch.zeros(1, 8, 8)
    image[0, 1, 5] = 1
    published = patch_maps(BrightnessNetwork(), image, steps_per_patch=2, protocol="published", batch_size=1)["raw"]
    corrected = patch_maps(BrightnessNetwork(), image, steps_per_patch=2, protocol="corrected", batch_size=1)["raw"]
    rows = torch.tensor([2.0, 2, 1, 1, 0, 0, 0, 0])  # lit patches over each row: those from -2 and 0
    columns = torch.tensor([0.0, 0, 1, 1, 2, 2, 1, 1])
    lit = rows.outer(columns)
    covering = torch.tensor([2.0, 2, 2, 2, 2, 2, 1, 1])  # no patch starts at 6
    assert torch.allclose(published[0], lit / 4 / 4, atol=1e-7)
    assert torch.allclose(corrected[0], lit / 4 / covering.outer(covering), atol=1e-7)
    assert torch.equal(published[1], -published[0])


def test_scaled_multiplies_by_the_probability_that_each_shift_gives_the_film():
    image = torch.rand(1, 8, 8)
    maps = patch_maps(BrightnessNetwork(), image, steps_per_patch=1, protocol="corrected", batch_size=1)
    film_logit = 4 * image.mean().item()
    assert torch.allclose(maps["scaled"][0], maps["raw"][0] / (1 + math.exp(-film_logit)), atol=1e-6)
    assert torch.allclose(maps["scaled"][1], maps["raw"][1] / (1 + math.exp(film_logit)), atol=1e-6)


def test_a_constant_grid_stays_constant_only_where_borders_are_corrected():
    grid = torch.full((2, 16, 16), 3.0)
    settings = {"patch_size": 8, "steps_per_patch": 4, "image_size": 32}
    assert torch.allclose(maps_from_grid(grid, protocol="corrected", **settings)["raw"], torch.tensor(3.0))
    faded = maps_from_grid(grid, protocol="published", **settings)["raw"]
    assert torch.allclose(faded[:, 4:28, 4:28], torch.tensor(3.0))
    assert torch.allclose(faded[0, 0, :], faded[0, 12, :] * 0.75)  # three of four rows of patches reach the first pixel


def test_the_published_slip_uses_the_first_quarter_of_the_shifts_only():
    """Entry i shows the patches of shift 4 * (i div 16) + i mod 4: with 16 shifts, of the first four alone."""
    shifts = ShiftGrid(patch_size=8, steps=4, image_size=16)
    settings = {"patch_size": 8, "steps_per_patch": 4, "image_size": 16, "protocol": "published"}
    patches = torch.randn(16, 2, 2)
    changed = patches.clone()
    changed[4:] = 99.0
    maps, other = (maps_from_grid(shifts.from_shifts(p)[None], **settings) for p in (patches, changed))
    assert torch.equal(maps["scaled"], other["scaled"])
    assert not torch.equal(maps["raw"], other["raw"])


@pytest.mark.parametrize(("patch_size", "steps"), [(8, 4), (9, 3), (12, 12), (6, 1)])
def test_by_shift_takes_every_nth_patch_and_comes_back(patch_size, steps):
    shifts = ShiftGrid(patch_size, steps, 3 * patch_size)
    grid = torch.arange(float(shifts.n**2)).reshape(shifts.n, shifts.n)
    patches = shifts.by_shift(grid)
    assert torch.equal(patches[1 % steps**2], grid[0::steps, 1 % steps :: steps])
    assert torch.equal(shifts.from_shifts(patches), grid)


def test_starts_are_the_published_shifts():
    """The published list: multiples of the stride below a patch, the upper half taken back by a patch, sorted."""
    for patch_size in (1, 2, 7, 8, 9, 12, 15, 64):
        for steps in (d for d in range(1, patch_size + 1) if patch_size % d == 0):
            half = patch_size // 2
            expected = sorted((patch_size // steps * x + half) % patch_size - half for x in range(steps))
            shifts = ShiftGrid(patch_size, steps, 2 * patch_size)
            assert [(a - shifts.lead) * shifts.stride for a in range(steps)] == expected


def test_labels_do_not_depend_on_each_other_to_the_last_bit():
    grid = torch.randn(5, 24, 24) * 30
    settings = {"patch_size": 8, "steps_per_patch": 8, "image_size": 24}
    for protocol in ("published", "corrected"):
        together = maps_from_grid(grid, protocol=protocol, **settings)
        for label in range(5):
            alone = maps_from_grid(grid[label : label + 1], protocol=protocol, **settings)
            assert all(torch.equal(alone[method][0], together[method][label]) for method in ("raw", "scaled"))


def test_batch_size_threads_and_progress_change_nothing(monkeypatch):
    model, image = ToyNetwork(patch_size=8, image_size=16), torch.rand(1, 1, 16, 16)
    monkeypatch.setattr("saliency.patch_maps._PIXELS_AT_ONCE", 5 * 64)  # 5 patches at once
    threads = torch.get_num_threads()
    done: list[int] = []
    try:
        torch.set_num_threads(1)
        single = evidence_grid(model, image, steps_per_patch=4, batch_size=3, progress=done.append)
        torch.set_num_threads(3)
        several = evidence_grid(model, image, steps_per_patch=4, batch_size=12)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(single, several)
    assert sum(done) == 64 and max(done) == 5


def test_patches_in_memory_are_bounded_by_the_batch_size(monkeypatch):
    sizes = []
    forward = FoldedNetwork.forward
    monkeypatch.setattr(FoldedNetwork, "forward", lambda self, x: (sizes.append(len(x)), forward(self, x))[1])
    evidence_grid(ToyNetwork(patch_size=8, image_size=16), torch.rand(1, 16, 16), steps_per_patch=8, batch_size=2)
    assert max(sizes) <= 2 * 4 and sum(sizes) == 256


def test_the_model_is_left_as_it_was():
    model = ToyNetwork(patch_size=8, image_size=16).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    evidence_grid(model, torch.rand(1, 16, 16), steps_per_patch=2, batch_size=1)
    assert model.training and model.features[0][1].training and model.head.weight.requires_grad
    assert list(model.state_dict()) == list(before)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_folding_changes_only_the_last_digits():
    model = ToyNetwork(patch_size=8, image_size=16)
    patches = torch.rand(7, 1, 8, 8)
    folded = FoldedNetwork(model)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    expected = model.head(model.features(patches).mean(dim=(2, 3)))
    assert torch.allclose(folded(patches), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("backbone", ["timm/test_efficientnet", "timm/tf_efficientnet_lite0"])
def test_every_batch_normalisation_of_timm_is_folded(backbone):
    """Its blocks are no sequences, and its normalisations end in an activation."""
    torch.manual_seed(0)
    model = build_model(backbone, patch_size=32, image_size=64, labels=["Edema"])
    patches = torch.rand(5, 1, 32, 32)
    calibrate(model, torch.rand(4, 1, 64, 64))
    folded = FoldedNetwork(model)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    with torch.inference_mode():
        expected = model.head(model.features(patches).mean(dim=(2, 3)))
        assert torch.allclose(folded(patches), expected, rtol=1e-4, atol=1e-5 * expected.abs().max().item())


class UsedTwice(nn.Module):
    """The output of the convolution is normalised, and used as it is, too."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4)
        self.norm.running_mean += 3

    def forward(self, patches):
        convolved = self.first(patches)
        return self.norm(convolved) + convolved


def test_what_is_used_twice_is_not_folded():
    model = ToyNetwork(patch_size=8, image_size=16)
    model.features, model.head = UsedTwice().eval(), nn.Linear(4, 3)
    patches = torch.rand(3, 1, 8, 8)
    expected = model.head(model.features(patches).mean(dim=(2, 3)))
    assert torch.allclose(FoldedNetwork(model)(patches), expected, atol=1e-6)


def test_a_layer_that_runs_twice_is_not_folded():
    model = ToyNetwork(patch_size=8, image_size=16)
    shared = nn.Conv2d(1, 1, 3, padding=1)
    first, second = nn.BatchNorm2d(1), nn.BatchNorm2d(1)
    second.running_mean += 2
    model.features, model.head = nn.Sequential(shared, first, shared, second).eval(), nn.Linear(1, 3)
    patches = torch.rand(3, 1, 8, 8)
    expected = model.head(model.features(patches).mean(dim=(2, 3)))
    assert torch.allclose(FoldedNetwork(model)(patches), expected, atol=1e-6)


def change_in_place(model):
    model.features[0][0].weight.data.mul_(1.5)  # leaves no trace in the tensor's version


def change_statistics(model):
    model.features[0][1].running_mean += 1


def change_head(model):
    model.head.bias.data = model.head.bias.data + 1


def change_activation(model):
    model.features[0][2] = nn.ReLU()


def load_other_weights(model):
    model.load_state_dict(ToyNetwork(patch_size=8, image_size=16, seed=1).state_dict())


@pytest.mark.parametrize(
    "change", [change_in_place, change_statistics, change_head, change_activation, load_other_weights]
)
def test_the_folded_network_is_kept_until_the_network_changes(change):
    model, image = ToyNetwork(patch_size=8, image_size=16), torch.rand(1, 16, 16)
    settings = {"steps_per_patch": 2, "batch_size": 1}
    before = evidence_grid(model, image, **settings)
    kept = folded_network(model)
    assert torch.equal(evidence_grid(model, image, **settings), before) and folded_network(model) is kept
    with torch.no_grad():
        change(model)
    after = evidence_grid(model, image, **settings)
    assert folded_network(model) is not kept and not torch.allclose(after, before)
    patch = image[None, :, :8, :8]
    assert torch.allclose(after[:, 1, 1], model.head(model.features(patch).mean(dim=(2, 3)))[0], rtol=1e-4, atol=1e-4)


def test_the_folded_network_goes_with_the_network():
    model = ToyNetwork(patch_size=8, image_size=16)
    gone = weakref.ref(folded_network(model))
    del model
    gc.collect()
    assert gone() is None


def test_unit_range_is_the_published_one():
    logits = torch.tensor([-1000.0, -200, -10, 0, 50, 200, 1e6])
    assert torch.allclose(logits_to_unit(logits), torch.tensor([0, 0, 0.475, 0.5, 0.625, 1, 1]))


@pytest.mark.parametrize("steps", [0, 3, 16, -1])
def test_steps_that_do_not_divide_the_patch_are_refused_with_those_that_do(steps):
    model = ToyNetwork(patch_size=8, image_size=16)
    with pytest.raises(ValueError, match="possible are 1, 2, 4, 8$"):
        patch_maps(model, torch.rand(1, 16, 16), steps_per_patch=steps, protocol="corrected", batch_size=1)


def test_images_grids_and_protocols_that_do_not_fit_are_refused():
    model = ToyNetwork(patch_size=8, image_size=16)
    with pytest.raises(ValueError, match=r"expected an image \(1, 16, 16\), got \(1, 24, 24\)"):
        evidence_grid(model, torch.rand(1, 24, 24), steps_per_patch=1, batch_size=1)
    with pytest.raises(ValueError, match=r"expected an evidence grid \(C, 4, 4\)"):
        maps_from_grid(torch.rand(3, 2, 2), patch_size=8, steps_per_patch=2, protocol="corrected", image_size=16)
    with pytest.raises(ValueError, match="unknown protocol 'exact'"):
        patch_maps(model, torch.rand(1, 16, 16), steps_per_patch=1, protocol="exact", batch_size=1)
