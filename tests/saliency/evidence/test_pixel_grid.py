"""Evidence at every few pixels: where it is computed, how it is filled, and all that follows from it."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from cxr.files import InputError
from cxr.images import Crop
from saliency.evidence.evidence_files import read_facts, read_grids
from saliency.evidence.evidence_folders import EvidenceFolder, heat_map_source
from saliency.evidence.pixel_grid import PixelGrid
from saliency.evidence.shift_grid import ShiftGrid
from saliency.export import HeatMapExport, export_film
from saliency.film_maps import film_maps, gather_evidence
from saliency.patch_maps import evidence_grid, logits_to_unit, maps_from_grid, patch_maps
from saliency.reference import RunningMeans, Settings, read_reference
from saliency.reference_films import make_reference
from saliency.relative import relative_maps
from tests.saliency.toy_networks import ToyNetwork

PATCH, SIZE = 8, 16
TASK_OF = {"Lung Opacity": "Airspace Opacity", "Edema": "Edema"}
TASKS = tuple(TASK_OF.values())
TRUTH = {"Lung Opacity": 1.0, "Edema": 0.0}


def image(seed: int = 1) -> torch.Tensor:
    return torch.rand(1, SIZE, SIZE, generator=torch.Generator().manual_seed(seed))


def film(seed: int = 1) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (20, 26), dtype=np.uint8))


def grid(stride: int, seed: int = 1) -> torch.Tensor:
    return evidence_grid(ToyNetwork(PATCH, SIZE), image(seed), steps_per_patch=PATCH, batch_size=1, stride=stride)


def export(results, split="val", **changes) -> HeatMapExport:
    settings = {"methods": ["raw", "scaled"], "protocols": ["corrected"], "tasks": TASK_OF, "steps_per_patch": PATCH}
    return HeatMapExport(results, split, **(settings | {"batch_size": 1, "pickles": False, "stride": 3} | changes))


@pytest.mark.parametrize("stride", range(1, PATCH + 1))
def test_the_logits_are_those_of_the_full_grid_at_every_nth_start_and_the_last(stride):
    full, sampled = grid(1), grid(stride)
    taken = sorted({*range(0, SIZE, stride), SIZE - 1})
    assert sampled.shape == (3, len(taken), len(taken))
    assert torch.allclose(sampled, full[:, taken][:, :, taken], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("stride", [2, 3, 5, 7])
def test_filled_as_numpy_interpolates_row_by_row_and_column_by_column(stride):
    pixels = PixelGrid(ShiftGrid(PATCH, PATCH, 24), stride)
    values = torch.randn(pixels.m, pixels.m, dtype=torch.float64)
    starts, place = pixels.starts.numpy(), np.arange(24)
    columns = np.stack([np.interp(place, starts, column) for column in values.numpy().T], axis=1)  # (24, m)
    expected = np.stack([np.interp(place, starts, row) for row in columns])  # (24, 24)
    found = pixels.fill(values)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12, atol=1e-12)
    assert torch.equal(found[pixels.starts][:, pixels.starts], values)


@pytest.mark.parametrize("stride", [2, 3, 5])
def test_every_second_start_fills_as_a_plane_and_as_its_own_samples(stride):
    pixels = PixelGrid(ShiftGrid(PATCH, PATCH, 24), stride)
    starts = pixels.starts.double()
    plane = 3 * starts[:, None] - 2 * starts[None] + 1  # linear: nothing is lost
    place = torch.arange(24, dtype=torch.float64)
    expected = 3 * place[:, None] - 2 * place[None] + 1
    assert torch.allclose(pixels.fill_from_every_second(plane), expected, atol=1e-9)
    noise = torch.randn(pixels.m, pixels.m, dtype=torch.float64)
    coarse = sorted({*range(0, pixels.m, 2), pixels.m - 1})
    found = pixels.fill_from_every_second(noise)
    kept = pixels.starts[coarse]
    assert torch.equal(found[kept][:, kept], noise[coarse][:, coarse])


def test_a_stride_of_one_is_the_full_grid_to_the_last_bit():
    model = ToyNetwork(PATCH, SIZE)
    settings = {"steps_per_patch": PATCH, "batch_size": 1}
    for protocol in ("corrected", "published"):
        steps = patch_maps(model, image(), protocol=protocol, **settings)
        strided = patch_maps(model, image(), protocol=protocol, **settings, stride=1)
        assert all(torch.equal(strided[method], steps[method]) for method in ("raw", "scaled"))


def test_a_map_of_a_stride_is_the_map_of_the_filled_grid():
    sampled = grid(3)
    pixels = PixelGrid(ShiftGrid(PATCH, PATCH, SIZE), 3)
    filled = torch.stack([pixels.fill(values) for values in sampled.double()])
    settings = {"patch_size": PATCH, "steps_per_patch": PATCH, "image_size": SIZE, "protocol": "corrected"}
    found, expected = maps_from_grid(sampled, **settings, stride=3), maps_from_grid(filled, **settings)
    assert all(torch.equal(found[method], expected[method]) for method in ("raw", "scaled"))


def test_strides_that_cannot_be_are_refused():
    model = ToyNetwork(PATCH, SIZE)
    with pytest.raises(ValueError, match="a stride of 9 px; possible are 1 to 8"):
        evidence_grid(model, image(), steps_per_patch=PATCH, batch_size=1, stride=9)
    with pytest.raises(ValueError, match="a stride of 3 px is taken of starts at every pixel; 4 steps leave some out"):
        evidence_grid(model, image(), steps_per_patch=4, batch_size=1, stride=3)
    with pytest.raises(InputError, match="published maps need every start, not every 3 px"):
        patch_maps(model, image(), steps_per_patch=PATCH, protocol="published", batch_size=1, stride=3)


# ------------------------------------------------------------------------------------------------------ evidence files


def test_a_file_gives_the_maps_and_the_exact_patch_logits(tmp_path):
    network = ToyNetwork(PATCH, SIZE)
    square = Image.fromarray((255 * image()[0]).round().to(torch.uint8).numpy())
    export_film(export(tmp_path), network, square, "a", TRUTH)
    folder = tmp_path / "evidence" / "val"
    facts, grids = read_grids(folder / "a.npz")
    assert (facts.stride, facts.steps_per_patch, facts.settings.stride) == (3, PATCH, 3)
    assert grids["Edema"].shape == (6, 6)
    pixels = torch.from_numpy(np.array(square)).float()[None] / 255
    evidence = gather_evidence(
        network, pixels, Crop.centred(SIZE, SIZE), methods=["raw"], steps_per_patch=PATCH, batch_size=1, stride=3
    )
    maps = film_maps(evidence, ["raw", "scaled"], "corrected")
    for method in ("raw", "scaled"):
        source = heat_map_source(tmp_path, "corrected", "val", method, TASKS)
        for task, output in (("Airspace Opacity", 2), ("Edema", 0)):
            assert np.array_equal(source.load("a", task).map, maps[method][output].numpy())
    logits = EvidenceFolder(folder, method="raw", protocol="corrected", tasks=TASKS).patch_logits("a", "Edema")
    patches = torch.stack([pixels[:, y : y + 8, x : x + 8] for y in (0, 8) for x in (0, 8)])
    expected = network.head(network.features(patches).mean(dim=(2, 3)))[:, 0].detach().numpy().reshape(2, 2)
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-5)


def test_published_maps_are_neither_offered_nor_made(tmp_path):
    network = ToyNetwork(PATCH, SIZE)
    export_film(export(tmp_path, methods=["raw", "gradcam"]), network, film(), "a", TRUTH)
    folder = tmp_path / "evidence" / "val"
    kinds = EvidenceFolder.kinds(folder)
    assert ("corrected", "raw") in kinds and ("published", "gradcam") in kinds and ("published", "raw") not in kinds
    with pytest.raises(InputError, match="^published maps need every start, not every 3 px"):
        EvidenceFolder(folder, method="raw", protocol="published", tasks=TASKS)
    mixed = EvidenceFolder(folder, method="raw", protocol="corrected", tasks=TASKS)
    mixed.protocol = "published"
    with pytest.raises(InputError, match="^published maps need every start, not every 3 px"):
        mixed.load("a", "Edema")
    with pytest.raises(InputError, match="published maps need every start"):
        export_film(export(tmp_path / "b", protocols=["published"], pickles=True), network, film(), "a", TRUTH)
    assert not list((tmp_path / "b").rglob("*.pkl"))


@pytest.mark.parametrize("second", [{"stride": 2}, {"stride": 1}, {"stride": 1, "steps_per_patch": 4}])
def test_another_stride_in_the_same_folder_is_refused(tmp_path, second):
    network = ToyNetwork(PATCH, SIZE)
    export_film(export(tmp_path), network, film(), "a", TRUTH)
    before = (tmp_path / "evidence/val/a.npz").read_bytes()
    with pytest.raises(InputError, match="evidence of another network or setting .*(stride 3, not|steps per patch 8)"):
        export_film(export(tmp_path, **second), network, film(), "a", TRUTH)
    assert (tmp_path / "evidence/val/a.npz").read_bytes() == before


def test_maps_of_the_network_without_a_grid_keep_the_stride_of_the_grid(tmp_path):
    network = ToyNetwork(PATCH, SIZE)
    export_film(export(tmp_path, methods=["raw"]), network, film(), "a", TRUTH)
    export_film(export(tmp_path, methods=["gradcam"], stride=1), network, film(), "a", TRUTH)
    path = tmp_path / "evidence/val/a.npz"
    assert read_facts(path).stride == 3
    export_film(export(tmp_path / "turned", methods=["gradcam"], stride=1), network, film(), "a", TRUTH)
    export_film(export(tmp_path / "turned", methods=["raw"]), network, film(), "a", TRUTH)
    assert (tmp_path / "turned/evidence/val/a.npz").read_bytes() == path.read_bytes()


def test_a_file_without_a_stride_is_as_it_was(tmp_path):
    """Nothing in it says stride, so that earlier programs read it, and the very bytes are those of before."""
    export_film(export(tmp_path, stride=1, steps_per_patch=4), ToyNetwork(PATCH, SIZE), film(), "a", TRUTH)
    with np.load(tmp_path / "evidence/val/a.npz") as content:
        assert "stride" not in str(content["facts"]) and not [name for name in content if name.startswith("patches")]


@pytest.mark.parametrize("stride", ["3", 0, -1, True, 2.5, 9, 10**9])
def test_a_stride_that_no_file_has_is_reported_in_one_line(tmp_path, stride):
    export_film(export(tmp_path), ToyNetwork(PATCH, SIZE), film(), "a", TRUTH)
    path = tmp_path / "evidence/val/a.npz"
    with np.load(path) as content:
        arrays = dict(content)
    facts = json.loads(str(arrays["facts"])) | {"stride": stride}
    np.savez(path, **arrays | {"facts": np.array(json.dumps(facts))})
    with pytest.raises(InputError, match=r"a\.npz: not an evidence file of this program .*delete it and run again"):
        EvidenceFolder(path.parent, method="raw", protocol="corrected", tasks=TASKS).load("a", "Edema")


def test_patches_of_another_size_are_reported_in_one_line(tmp_path):
    export_film(export(tmp_path), ToyNetwork(PATCH, SIZE), film(), "a", TRUTH)
    path = tmp_path / "evidence/val/a.npz"
    with np.load(path) as content:
        arrays = dict(content)
    np.savez(path, **arrays | {"patches Edema": np.zeros((3, 3), np.float32)})
    with pytest.raises(InputError, match=r"a\.npz: .*expected patches \(2, 2\), found \(3, 3\)"):
        EvidenceFolder(path.parent, method="raw", protocol="corrected", tasks=TASKS).patch_logits("a", "Edema")


# ------------------------------------------------------------------------------------------------------- relative maps


def test_relative_maps_are_the_difference_of_the_filled_grids(tmp_path):
    network = ToyNetwork(PATCH, SIZE)
    for name in ("a", "b", "c"):
        export_film(export(tmp_path), network, film(ord(name)), name, TRUTH, "frontal")
    square = film(9).crop((0, 0, SIZE, SIZE))  # its map is the crop's
    export_film(export(tmp_path, "test"), network, square, "d", TRUTH, "frontal")
    make_reference(tmp_path, validation={"a", "b", "c"}, test={"d"})
    reference = read_reference(tmp_path / "reference.npz")
    assert reference.settings.stride == 3
    pixels = PixelGrid(ShiftGrid(PATCH, PATCH, SIZE), 3)
    _, grids = read_grids(tmp_path / "evidence/test/d.npz")
    full = {"patch_size": PATCH, "steps_per_patch": PATCH, "image_size": SIZE, "protocol": "corrected"}
    of_film, of_mean = (
        maps_from_grid(pixels.fill(torch.from_numpy(one).double())[None], **full)["raw"]
        for one in (grids["Edema"], reference.grid("frontal", "Edema"))
    )
    relative = heat_map_source(tmp_path, "corrected", "test", "relative", TASKS).load("d", "Edema").map
    np.testing.assert_allclose(relative, logits_to_unit(of_film - of_mean)[0].numpy(), atol=1e-7)
    assert np.ptp(relative) > 1e-4


@pytest.mark.parametrize("of_reference", [1, 3])
def test_a_single_film_is_compared_at_its_own_starts(of_reference):
    """The reference of the weights may have more starts than the film's evidence."""
    network, stride = ToyNetwork(PATCH, SIZE), 3
    means = RunningMeans(Settings("", PATCH, PATCH, SIZE, of_reference), ["Edema"])
    for seed in (2, 3):
        means.add("", grid(of_reference, seed)[:1].numpy())
    of_film = gather_evidence(
        network, image(), Crop.centred(SIZE, SIZE), methods=["raw"], steps_per_patch=PATCH, batch_size=1, stride=stride
    )
    found = relative_maps(of_film, network.labels, network.labels, means.result(""), "")
    mean = (grid(stride, 2)[:1] + grid(stride, 3)[:1]).double() / 2
    expected = film_maps(replace(of_film, grid=of_film.grid[:1], reference=mean), ["relative"], "corrected")["relative"]
    difference = np.abs(found["Edema"] - expected[0].numpy()).max() / np.ptp(found["Edema"])
    assert list(found) == ["Edema"] and difference < 1e-3


def test_a_reference_of_another_stride_is_refused(tmp_path):
    network = ToyNetwork(PATCH, SIZE)
    export_film(export(tmp_path), network, film(), "a", TRUTH)
    make_reference(tmp_path, validation={"a"})
    export_film(export(tmp_path, "test", stride=2), network, film(9), "d", TRUTH)
    with pytest.raises(InputError, match="d.npz: evidence of another network or setting than reference.npz .stride 2"):
        heat_map_source(tmp_path, "corrected", "test", "relative", TASKS).load("d", "Edema")


def test_validation_films_of_two_strides_give_no_reference(tmp_path):
    network = ToyNetwork(PATCH, SIZE)
    export_film(export(tmp_path), network, film(), "a", TRUTH)
    export_film(export(tmp_path, stride=2), network, film(), "b", TRUTH)
    with pytest.raises(InputError, match=r"b\.npz: evidence of another network or setting \(stride 2, not 3\)"):
        make_reference(tmp_path, validation={"a", "b"})
