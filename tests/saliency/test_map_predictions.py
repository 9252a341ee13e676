"""The numbers that maps decompose, against loops over shifts and pixels."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from cxr.labels import LabelSet
from cxr.manifests.films import Films
from cxr.predictions import read_deviations, read_predictions
from cxr.runs.run_record import RunRecord
from saliency.export import HeatMapExport, export_film
from saliency.map_certificates import Largest
from saliency.map_predictions import MapNumbers, inside_weights, logits_of, mean_of_map, shift_logits
from saliency.patch_maps import ShiftGrid, evidence_grid
from saliency.recorded_stages import make_map_predictions, make_recorded_reference
from tests.saliency.toy_networks import ToyNetwork

PATCH, SIZE, STEPS = 8, 16, 4
SHIFTS = ShiftGrid(PATCH, STEPS, SIZE)
WEIGHTS = "a" * 64
TASK_OF = {"Lung Opacity": "Airspace Opacity", "Edema": "Edema"}


def grids(seed=0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(2, SHIFTS.n, SHIFTS.n)).astype(np.float32)


def logits_of_shifted_films(network: ToyNetwork, image: torch.Tensor, shifts: ShiftGrid) -> np.ndarray:
    """(C, steps * steps): whole forward passes of the film, shifted over a black ground, one after the other."""
    padded = torch.nn.functional.pad(image, (PATCH,) * 4)
    found = []
    for dy in range(shifts.steps):
        for dx in range(shifts.steps):
            top, left = (PATCH + (d - shifts.lead) * shifts.stride for d in (dy, dx))
            with torch.no_grad():
                found.append(network(padded[None, :, top : top + SIZE, left : left + SIZE])[0].numpy())
    return np.array(found).T


def test_the_numbers_are_those_of_forward_passes_of_shifted_films():
    network = ToyNetwork(PATCH, SIZE)
    image = torch.rand(1, SIZE, SIZE, generator=torch.Generator().manual_seed(3))
    grid = evidence_grid(network, image, steps_per_patch=STEPS, batch_size=1).numpy()
    expected = logits_of_shifted_films(network, image, SHIFTS)
    np.testing.assert_allclose(shift_logits(grid, SHIFTS), expected, atol=1e-4)
    numbers = MapNumbers.of(grid, SHIFTS)
    np.testing.assert_allclose(numbers.mean, expected.mean(axis=1), atol=1e-4)
    np.testing.assert_allclose(numbers.deviation, expected.std(axis=1), atol=1e-4)
    with torch.no_grad():
        np.testing.assert_allclose(numbers.unshifted, network(image[None])[0].numpy(), atol=1e-4)
    assert numbers.deviation.min() > 0.01 and np.abs(numbers.mean - numbers.unshifted).max() > 0.01


@pytest.mark.parametrize(("patch", "steps", "size"), [(8, 4, 16), (8, 1, 16), (6, 3, 18), (8, 8, 32), (7, 7, 14)])
def test_the_mean_of_a_map_is_that_of_its_patches_by_their_part_inside(patch, steps, size):
    shifts = ShiftGrid(patch, steps, size)
    values = np.random.default_rng(1).normal(size=(1, shifts.n, shifts.n)).astype(np.float32)
    total, cover, inside = np.zeros((size, size)), np.zeros((size, size)), np.zeros((shifts.n, shifts.n))
    for (row, column), value in np.ndenumerate(values[0]):
        top, left = ((start - shifts.lead) * shifts.stride for start in (row, column))
        covered = slice(max(0, top), top + patch), slice(max(0, left), left + patch)
        total[covered] += value
        cover[covered] += 1
        inside[row, column] = np.ones((size, size))[covered].size
    numbers = MapNumbers.of(values, shifts)
    np.testing.assert_allclose(numbers.inside, (values[0] * inside).sum() / inside.sum(), atol=1e-9)
    np.testing.assert_allclose(mean_of_map(values, shifts), (total / cover * cover).sum() / cover.sum(), atol=1e-6)
    np.testing.assert_allclose(mean_of_map(values, shifts), numbers.inside, atol=1e-6)
    area, covering = inside_weights(shifts)
    np.testing.assert_array_equal(np.outer(area, area) * shifts.stride**2, inside)
    pixels = np.repeat(covering, shifts.stride)
    np.testing.assert_array_equal(np.outer(pixels, pixels), cover)


def test_without_shifts_all_numbers_are_the_prediction():
    shifts = ShiftGrid(PATCH, 1, SIZE)
    values = grids()[:, :2, :2]
    numbers = MapNumbers.of(values, shifts)
    assert np.array_equal(numbers.mean, numbers.unshifted) and (numbers.deviation == 0).all()
    np.testing.assert_allclose(numbers.inside, numbers.unshifted, atol=1e-12)


def test_the_largest_error_leaves_out_what_says_no_logit():
    largest = Largest()
    largest.add(np.array([np.nan, -0.25]))
    largest.add(np.array([np.nan, np.nan]))
    assert largest.to_json() == {"films": 2, "max_error": 0.25}
    np.testing.assert_array_equal(np.isnan(logits_of(np.array([0.0, 1.0, 0.5]))), [True, True, False])


@pytest.fixture
def results(tmp_path):
    """Evidence of three validation and two test films as evalClassification.py records it, and the films."""
    record, films = RunRecord(tmp_path), {}
    for split, names in (("val", ("a", "b", "c")), ("test", ("d", "e"))):
        export = HeatMapExport(
            tmp_path, split, ("raw", "relative"), ("corrected",), TASK_OF, STEPS, 1, pickles=False, weights=WEIGHTS
        )
        with record.stage(f"heat_maps_{split}", inputs={}, options={}, outputs=[]) as stage:
            for name in names:
                pixels = np.random.default_rng(ord(name)).integers(0, 256, (SIZE, SIZE), dtype=np.uint8)
                view = "lateral" if name == "e" else "frontal"
                film, truth = Image.fromarray(pixels), dict.fromkeys(TASK_OF, 1.0)
                export_film(export, ToyNetwork(PATCH, SIZE), film, name, truth, view)
                stage.wrote(export.evidence_path(name))
        table = tmp_path / f"{split}.csv"
        table.write_text(split)
        blank = ("",) * len(names)
        films[split] = Films(
            table, LabelSet(tuple(TASK_OF), {}, TASK_OF), tuple(f"{name}.png" for name in names), names,
            *(blank,) * 5, tuple(range(len(names))), (table,) * len(names), np.array([[1, np.nan]] * len(names)),
        )  # fmt: skip
    return record, films


def test_a_results_folder_says_what_its_maps_predict_and_how_exactly(results):
    record, films = results
    lines = make_recorded_reference(record, {split: of.ids for split, of in films.items()})
    unseen = "1 test films of view lateral: no validation film of that view; their relative maps"
    assert any(line.startswith(unseen) for line in lines)
    assert any(line.startswith("warning: the reference of frontal is the mean of 3 films") for line in lines)
    assert record.content["reference"]["compared_with_all_views"] == {"val": {}, "test": {"lateral": 1}}
    record.note({"certificates": {"test": {"complete": True}}})  # that another stage measured
    for split, of in films.items():
        make_map_predictions(record, split, of, TASK_OF)
        found = read_predictions(record.folder / f"map_predictions_{split}.csv")
        deviations = read_deviations(record.folder / f"map_predictions_{split}.csv", found.names)
        maps = pd.read_csv(record.folder / f"map_predictions_{split}.csv")
        assert found.paths == of.paths and np.isnan(found.labels[:, 1]).all() and (found.labels[:, 0] == 1).all()
        for row, name in enumerate(of.ids):
            with np.load(record.folder / "evidence" / split / f"{name}.npz") as stored:
                values = np.stack([stored[f"grid {task}"] for task in TASK_OF.values()])
            numbers = MapNumbers.of(values, SHIFTS)
            np.testing.assert_allclose(found.probabilities[row], 1 / (1 + np.exp(-numbers.mean)), rtol=1e-8)
            np.testing.assert_allclose(deviations[row], numbers.deviation, rtol=1e-8)
            np.testing.assert_allclose([maps[f"map {label}"][row] for label in TASK_OF], numbers.inside, rtol=1e-8)
    certificates = json.loads((record.folder / "run.json").read_text())["certificates"]
    assert certificates["test"]["complete"] is True
    for split, count in (("val", 3), ("test", 2)):
        for name in ("unshifted_additivity", "fine_additivity", "shapley_identity"):
            assert certificates[split][name]["films"] == count
            assert 0 < certificates[split][name]["max_error"] < 1e-4
        assert certificates[split]["fine_additivity"]["largest_border_effect"] > 0.01
    assert make_map_predictions(record, "val", films["val"], TASK_OF) == [
        f"{record.folder / 'map_predictions_val.csv'}: complete"
    ]


def test_certificates_see_evidence_that_does_not_add_up(results):
    record, films = results
    path = record.folder / "evidence/val/a.npz"
    with np.load(path) as stored:
        arrays = dict(stored)
    arrays["grid Edema"] = arrays["grid Edema"] + np.float32(0.5)
    np.savez(path, **arrays)
    make_recorded_reference(record, {"val": films["val"].ids})
    make_map_predictions(record, "val", films["val"], TASK_OF)
    measured = RunRecord(record.folder).content["certificates"]["val"]
    assert measured["unshifted_additivity"]["max_error"] == pytest.approx(0.5, abs=1e-4)
    assert measured["shapley_identity"]["max_error"] == pytest.approx(0.5 * 2 / 3, abs=1e-4)  # the reference moved, too
    assert measured["fine_additivity"]["max_error"] < 1e-4
