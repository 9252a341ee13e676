"""Reference grids and relative maps, against brute force over coalitions and against loops."""

import itertools
import json
import math

import numpy as np
import pytest
import torch
from PIL import Image

from cxr.files import InputError
from cxr.images import Crop
from saliency.evidence.evidence_folders import EvidenceFolder, heat_map_source
from saliency.export import HeatMapExport, export_film
from saliency.film_maps import Evidence, film_maps, gather_evidence, to_film_frame
from saliency.patch_maps import evidence_grid
from saliency.reference import ALL, Reference, RunningMeans, Settings, read_reference, write_reference
from saliency.reference_films import make_reference
from tests.saliency.toy_networks import ToyNetwork

PATCH, SIZE, STEPS = 8, 16, 4
TASK_OF = {"Lung Opacity": "Airspace Opacity", "Edema": "Edema"}
TASKS = tuple(TASK_OF.values())
WEIGHTS = "a" * 64
VIEWS = {f"film{i}": ("frontal", "frontal", "lateral", "")[i % 4] for i in range(12)}


def model(seed: int = 0) -> ToyNetwork:
    return ToyNetwork(PATCH, SIZE, seed)


def film(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (SIZE, SIZE + 5), dtype=np.uint8))


def image(seed: int) -> torch.Tensor:
    return torch.rand(1, SIZE, SIZE, generator=torch.Generator().manual_seed(seed))


def write_films(results, views=VIEWS, *, split="val", first=0, **changes) -> None:
    settings = {"tasks": TASK_OF, "steps_per_patch": STEPS, "weights": WEIGHTS, "methods": ("raw",)} | changes
    export = HeatMapExport(results, split, protocols=("corrected",), batch_size=1, pickles=False, **settings)
    truth = dict.fromkeys(settings["tasks"], 1.0)
    for index, (name, view) in enumerate(views.items()):
        export_film(export, model(), film(first + index), name, truth, view)


def grids(results, split, name) -> dict[str, np.ndarray]:
    with np.load(results / "evidence" / split / f"{name}.npz") as stored:
        return {task: stored[f"grid {task}"] for task in TASKS}


# ------------------------------------------------------------------------------------------------------ Shapley values


def shapley_by_coalitions(network: ToyNetwork, film: torch.Tensor, backgrounds: list[torch.Tensor]) -> np.ndarray:
    """(4, C): Shapley values of the 2 x 2 patches, from a forward pass of every coalition on every background.

    v(S): mean logit over the backgrounds of the image that shows the film in the patches S, the background elsewhere.
    """
    corners = [(slice(y, y + PATCH), slice(x, x + PATCH)) for y in (0, PATCH) for x in (0, PATCH)]
    value = {}
    for members in itertools.chain.from_iterable(itertools.combinations(range(4), k) for k in range(5)):
        logits = []
        for background in backgrounds:
            mixed = background.clone()
            for patch in members:
                mixed[0][corners[patch]] = film[0][corners[patch]]
            logits.append(network(mixed[None])[0].double())
        value[members] = torch.stack(logits).mean(0)
    assert len(value) == 16
    shapley = torch.zeros(4, len(network.labels), dtype=torch.float64)
    for patch in range(4):
        for members in value:
            if patch not in members:
                weight = math.factorial(len(members)) * math.factorial(3 - len(members)) / math.factorial(4)
                shapley[patch] += weight * (value[tuple(sorted((*members, patch)))] - value[members])
    return shapley.numpy()


@torch.no_grad()
def test_relative_evidence_is_the_shapley_value_of_every_patch():
    network = model().double()
    films = [image(seed).double() for seed in range(6)]
    settings = Settings(WEIGHTS, PATCH, 1, SIZE)
    means = RunningMeans(settings, network.labels)
    grid_of = [evidence_grid(network.float(), one.float(), steps_per_patch=1, batch_size=1) for one in films]
    for grid in grid_of[1:]:
        means.add("", grid.numpy())
    reference = means.result("")
    expected = shapley_by_coalitions(network.double(), films[0], films[1:])  # (4, C)
    for label, name in enumerate(network.labels):
        found = (grid_of[0][label].double().numpy() - reference.grid("", name)).reshape(4) / 4
        assert np.abs(found - expected[:, label]).max() < 1e-6
    assert np.abs(expected).max() > 0.05  # far above the tolerance: the films do differ


# --------------------------------------------------------------------------------------------------------------- maps


def evidence(grid: torch.Tensor, reference: torch.Tensor | None) -> Evidence:
    return Evidence(Crop.centred(21, 16), PATCH, STEPS, SIZE, grid, {}, reference)


def test_without_a_reference_value_relative_is_raw_to_the_last_bit():
    grid = torch.randn(3, 8, 8) * 5
    maps = film_maps(evidence(grid, torch.zeros(3, 8, 8)), ["raw", "relative"], "corrected")
    assert torch.equal(maps["raw"], maps["relative"]) and maps["raw"].std() > 0


def test_the_mean_film_is_neutral_everywhere():
    grid = torch.randn(2, 8, 8) * 5
    assert (film_maps(evidence(grid, grid.clone()), ["relative"], "corrected")["relative"] == 0.5).all()


def test_a_constant_added_to_every_logit_changes_nothing():
    grid, reference = torch.randint(-9, 9, (2, 2, 8, 8)).float()  # whole numbers: the sums are exact
    before = film_maps(evidence(grid, reference), ["relative"], "corrected")["relative"]
    after = film_maps(evidence(grid + 64, reference + 64), ["relative"], "corrected")["relative"]
    assert torch.equal(before, after)


def test_other_maps_do_not_depend_on_the_reference():
    grid = torch.randn(2, 8, 8)
    for protocol in ("corrected", "published"):
        with_one, without = (film_maps(evidence(grid, r), ["raw", "scaled"], protocol) for r in (grid * 3, None))
        assert all(torch.equal(with_one[method], without[method]) for method in ("raw", "scaled"))


def test_relative_maps_are_refused_where_they_do_not_exist():
    grid = torch.randn(1, 8, 8)
    with pytest.raises(InputError, match="no relative maps of the published protocol"):
        film_maps(evidence(grid, grid), ["relative"], "published")
    with pytest.raises(ValueError, match="no reference"):
        film_maps(evidence(grid, None), ["relative"], "corrected")
    network = model()
    network.aggregation = type("Max", (), {"name": "max", "linear": False})()
    settings = {"methods": ["relative"], "steps_per_patch": 1, "batch_size": 1}
    with pytest.raises(InputError, match=r"Shapley.*'max'"):
        gather_evidence(network, image(0), Crop.centred(16, 16), **settings)


# ------------------------------------------------------------------------------------------------------- the reference


def test_means_per_view_are_those_of_a_loop(tmp_path):
    write_films(tmp_path)
    reference = make_reference(tmp_path, validation=VIEWS)
    assert reference.counts == {"all": 12, "frontal": 6, "lateral": 3}
    for view, members in (("frontal", "frontal"), ("lateral", "lateral"), ("", None), ("oblique", None)):
        for task in TASKS:
            chosen = [grids(tmp_path, "val", n)[task] for n, v in VIEWS.items() if members is None or v == members]
            expected = np.mean(np.array(chosen, np.float64), axis=0)
            np.testing.assert_allclose(reference.grid(view, task), expected, rtol=0, atol=1e-6)
    assert reference.view_for("oblique") == ALL and reference.view_for("lateral") == "lateral"
    assert [w.split(";")[0] for w in reference.warnings] == [
        "the reference of frontal is the mean of 6 films",
        "the reference of lateral is the mean of 3 films",
    ]


def test_relative_maps_of_a_results_folder_follow_from_its_files(tmp_path):
    write_films(tmp_path)
    write_films(tmp_path, {"test1": "lateral", "test2": ""}, split="test", first=50)
    folder = tmp_path / "evidence" / "test"
    assert all(method != "relative" for _, method in EvidenceFolder.kinds(folder))
    with pytest.raises(InputError, match=r"reference\.npz: no such file"):
        heat_map_source(tmp_path, "corrected", "test", "relative", TASKS)
    with pytest.raises(InputError, match="no relative maps of the published protocol"):
        heat_map_source(tmp_path, "published", "test", "relative", TASKS)
    reference = make_reference(tmp_path, validation=VIEWS, test=["test1", "test2"])
    kinds = EvidenceFolder.kinds(folder)
    assert ("corrected", "relative") in kinds and ("published", "relative") not in kinds
    source = heat_map_source(tmp_path, "corrected", "test", "relative", TASKS)
    assert source.entries == [(name, task) for name in ("test1", "test2") for task in TASKS]
    for name, view in (("test1", "lateral"), ("test2", "")):
        for task in TASKS:
            difference = grids(tmp_path, "test", name)[task].astype(float) - reference.grid(view, task)
            shown = source.load(name, task).map  # (16, 21), of a film 21 pixels wide
            total, covering = np.zeros((2, SIZE, SIZE))
            for (row, column), value in np.ndenumerate(difference):
                top, left = ((start - 2) * PATCH // STEPS for start in (row, column))
                covered = slice(max(0, top), top + PATCH), slice(max(0, left), left + PATCH)
                total[covered] += value
                covering[covered] += 1
            crop = torch.from_numpy((total / covering / 400 + 0.5).astype(np.float32))[None]
            expected = to_film_frame(crop, Crop.centred(SIZE + 5, SIZE), "corrected")[0]
            np.testing.assert_allclose(shown, expected, rtol=0, atol=1e-6)


def test_a_reference_is_read_as_it_was_written(tmp_path):
    write_films(tmp_path)
    made = make_reference(tmp_path, validation=VIEWS)
    read = read_reference(tmp_path / "reference.npz")
    assert (read.settings, read.tasks, read.counts, read.films) == (made.settings, made.tasks, made.counts, made.films)
    assert all(np.array_equal(read.grids[key], made.grids[key]) for key in made.grids)
    assert len(read.films) == 64 and b"film3" not in (tmp_path / "reference.npz").read_bytes()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"test": ["film3"]}, "film3.npz: a test film"),
        ({"validation": [name for name in VIEWS if name != "film5"]}, "film5.npz: not a validation film"),
        ({"validation": [*VIEWS, "absent"]}, "no evidence of 1 validation films, such as 'absent'"),
    ],
)
def test_only_validation_films_make_a_reference(tmp_path, change, reason):
    write_films(tmp_path)
    with pytest.raises(InputError, match=reason):
        make_reference(tmp_path, **({"validation": VIEWS} | change))
    assert not (tmp_path / "reference.npz").exists()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"weights": "b" * 64}, "weights 'bbb"),
        ({"steps_per_patch": 2}, "steps per patch 2, not 4"),
        ({"tasks": {"Edema": "Edema"}}, "tasks 'Edema', not 'Airspace Opacity', 'Edema'"),
    ],
)
def test_evidence_of_other_networks_or_settings_is_not_mixed(tmp_path, changes, reason):
    write_films(tmp_path, {"film0": "frontal"})
    write_films(tmp_path, {"film1": "frontal"}, **changes)
    with pytest.raises(InputError, match=reason):
        make_reference(tmp_path, validation=["film0", "film1"])


@pytest.mark.parametrize("changes", [{"weights": "b" * 64}, {"weights": ""}, {"steps_per_patch": 8}])
def test_a_reference_of_another_network_or_setting_is_refused(tmp_path, changes):
    write_films(tmp_path)
    make_reference(tmp_path, validation=VIEWS)
    write_films(tmp_path, {"other": "frontal"}, split="test", **changes)
    source = heat_map_source(tmp_path, "corrected", "test", "relative", TASKS)
    with pytest.raises(InputError, match=r"other\.npz: evidence of another network or setting than reference\.npz"):
        source.load("other", "Edema")


def test_a_task_without_reference_is_refused(tmp_path):
    write_films(tmp_path)
    make_reference(tmp_path, validation=VIEWS)
    write_films(tmp_path, {"other": ""}, split="test", tasks={"Pneumonia": "Pneumonia"})
    source = heat_map_source(tmp_path, "corrected", "test", "relative", ["Pneumonia"])
    with pytest.raises(InputError, match="no reference of 'Pneumonia'; it has 'Airspace Opacity', 'Edema'"):
        source.load("other", "Pneumonia")


def reference_of_two() -> Reference:
    means = RunningMeans(Settings(WEIGHTS, PATCH, STEPS, SIZE), TASKS)
    means.add("frontal", [np.ones((8, 8)), np.zeros((8, 8))])
    means.add("frontal", [np.full((8, 8), 3.0), np.zeros((8, 8))])
    return means.result("f" * 64)


def test_a_mean_is_a_mean():
    assert (reference_of_two().grid("frontal", TASKS[0]) == 2).all()
    with pytest.raises(InputError, match="no validation films"):
        RunningMeans(Settings(WEIGHTS, PATCH, STEPS, SIZE), TASKS).result("")


@pytest.mark.parametrize(
    "change",
    [
        {"patch_size": 7},
        {"patch_size": "8"},
        {"steps_per_patch": True},
        {"image_size": 10**30},
        {"tasks": []},
        {"tasks": ["Edema", "Fracture"]},
        {"counts": {"frontal": 2}},
        {"counts": {"all": -1}},
        {"counts": [1]},
        {"films": None, "image_size": 32},
    ],
)
def test_references_that_do_not_fit_together_are_refused(tmp_path, change):
    path = tmp_path / "reference.npz"
    write_reference(path, reference_of_two())
    with np.load(path) as stored:
        arrays = dict(stored)
    arrays["facts"] = np.array(json.dumps(json.loads(str(arrays["facts"])) | change))
    np.savez(path, **arrays)
    with pytest.raises(InputError, match=r"reference\.npz: not a reference") as refused:
        read_reference(path)
    assert "\n" not in str(refused.value)


def test_damaged_references_are_refused_whatever_byte_is_lost(tmp_path):
    path = tmp_path / "reference.npz"
    write_reference(path, reference_of_two())
    whole = path.read_bytes()
    for length in range(0, len(whole), 97):
        path.write_bytes(whole[:length])
        with pytest.raises(InputError, match=r"reference\.npz"):
            read_reference(path)
    path.write_bytes(whole)
    with np.load(path) as stored:
        arrays = dict(stored)
    arrays["all Edema"] = np.full((8, 8), np.nan, np.float32)
    np.savez(path, **arrays)
    with pytest.raises(InputError, match="expected finite float32 grids"):
        read_reference(path)
