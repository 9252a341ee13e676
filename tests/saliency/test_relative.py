"""One film against the average film of its view: numbers, maps, coarser references, and whose reference it is."""

from functools import cache
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from cxr.files import InputError, sha256
from cxr.images import Crop
from cxr.labels import LabelSet
from saliency.contributions import Contributions
from saliency.film_maps import film_maps, gather_evidence
from saliency.patch_maps import evidence_grid
from saliency.reference import Reference, RunningMeans, Settings, reference_of, write_reference
from saliency.relative import compared, fitting_steps, relative_maps
from tests.saliency.toy_networks import ToyNetwork

PATCH, SIZE, STEPS = 8, 16, 4
LABELS = ToyNetwork(PATCH, SIZE).labels  # their tasks: the last one is Airspace Opacity
TASKS = ["Edema", "Pneumonia", "Airspace Opacity"]


def image(seed: int) -> torch.Tensor:
    return torch.rand(1, SIZE, SIZE, generator=torch.Generator().manual_seed(seed))


@cache
def reference(frontal: int = 12, lateral: int = 2, steps: int = STEPS) -> Reference:
    """Means over films of noise; without the network's second label."""
    network, rows = ToyNetwork(PATCH, SIZE), [0, 2]
    means = RunningMeans(Settings("a" * 64, PATCH, steps, SIZE), [TASKS[row] for row in rows])
    for seed in range(frontal + lateral):
        grid = evidence_grid(network, image(100 + seed), steps_per_patch=steps, batch_size=1)
        means.add("frontal" if seed < frontal else "lateral", grid[rows].numpy())
    return means.result("f" * 64)


def parts_of(seed: int = 0) -> Contributions:
    network, film = ToyNetwork(PATCH, SIZE), image(seed)
    with torch.no_grad():
        return Contributions.of(network, film, network(film[None])[0], Crop.centred(SIZE, SIZE))


@pytest.mark.parametrize(
    ("view", "chosen", "first", "last"),
    [("frontal", "frontal", 0, 12), ("lateral", "lateral", 12, 14), ("", "all", 0, 14)],
)
def test_a_logit_is_that_of_the_average_film_and_what_the_patches_add(view, chosen, first, last):
    parts = parts_of()
    found = compared(parts.values, reference(), TASKS, view)
    with torch.no_grad():
        films = [ToyNetwork(PATCH, SIZE)(image(100 + seed)[None])[0].numpy() for seed in range(first, last)]
    assert found.view == chosen and found.films == last - first
    for label in (0, 2):
        assert found.average[label] == pytest.approx(np.mean(films, axis=0)[label], abs=1e-5)
        assert found.average[label] + found.sums[label] == pytest.approx(parts.logits[label], abs=1e-5)
        shares = found.shares(label)
        assert shares.sum() == pytest.approx(1) and np.allclose(shares * found.sums[label], found.values[:, label])
    assert not found.has(1) and np.isnan(found.values[:, 1]).all() and found.has(0)


def test_what_a_film_is_not_compared_with_is_said():
    values = parts_of().values
    notes = {view: compared(values, reference(), TASKS, view).note for view in ("frontal", "lateral", "")}
    assert notes["frontal"] == ""
    assert notes["lateral"] == "the reference of lateral films is the mean of 2 only"
    assert notes[""] == "the film's view is not known: compared with the mean of all 14 reference films"
    without = compared(values, reference(lateral=0), TASKS, "lateral")
    assert (without.view, without.films) == ("all", 12)
    assert without.note == "no reference film is lateral: compared with the mean of all 12 reference films"


def test_the_average_film_itself_adds_nothing():
    own = reference(frontal=1, lateral=0)
    found = compared(parts_of(100).values, own, TASKS, "frontal")
    np.testing.assert_allclose(found.values[:, [0, 2]], 0, atol=1e-6)
    assert (compared(np.zeros((4, 3)), zero(), TASKS, "").shares(0) == 0).all()


def zero() -> Reference:
    means = RunningMeans(Settings("a" * 64, PATCH, STEPS, SIZE), TASKS)
    means.add("", np.zeros((3, 8, 8)))
    return means.result("")


def evidence_of(seed: int, steps: int):
    settings = {"methods": ["raw"], "steps_per_patch": steps, "batch_size": 1}
    return gather_evidence(ToyNetwork(PATCH, SIZE), image(seed), Crop.centred(20, SIZE), **settings)


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_coarser_references_are_those_of_coarser_grids(steps):
    fine, coarse = reference().at_steps(steps), reference(steps=steps)
    assert fine.settings == coarse.settings and fine.grids.keys() == coarse.grids.keys()
    for key, grid in coarse.grids.items():
        np.testing.assert_allclose(fine.grids[key], grid, atol=1e-5)
    maps = relative_maps(evidence_of(0, steps), LABELS, TASKS, reference(), "frontal")
    assert list(maps) == ["Edema", "Lung Opacity"]
    evidence = evidence_of(0, steps)
    for row, label in ((0, "Edema"), (2, "Lung Opacity")):
        lowered = evidence.grid[row].double() - torch.from_numpy(coarse.grid("frontal", TASKS[row])).double()
        raw = film_maps(with_grid(evidence, lowered), ["raw"], "corrected")["raw"][0]
        np.testing.assert_allclose(maps[label], raw, atol=1e-6)


def with_grid(evidence, grid):
    return type(evidence)(evidence.crop, PATCH, evidence.steps_per_patch, SIZE, grid[None], {})


@pytest.mark.parametrize(("steps", "gap"), [(1, 2), (2, 2), (4, 2), (8, 1)])
def test_a_reference_of_a_stride_has_the_starts_that_it_took(steps, gap):
    means = RunningMeans(Settings("a" * 64, PATCH, PATCH, SIZE, stride=gap), TASKS)
    network = ToyNetwork(PATCH, SIZE)
    means.add("", evidence_grid(network, image(5), steps_per_patch=PATCH, stride=gap, batch_size=1).numpy())
    coarse = means.result("").at_steps(steps)
    expected = evidence_grid(network, image(5), steps_per_patch=steps, batch_size=1).numpy()
    np.testing.assert_allclose(np.stack([coarse.grid("", task) for task in TASKS]), expected, atol=1e-5)


def test_a_zero_reference_gives_raw_maps_to_the_last_bit():
    evidence = evidence_of(0, STEPS)
    raw = film_maps(evidence, ["raw"], "corrected")["raw"].numpy()
    maps = relative_maps(evidence, LABELS, TASKS, zero(), "")
    assert all(np.array_equal(maps[label], raw[row]) for row, label in enumerate(LABELS))


def test_steps_of_overlays_fit_the_reference():
    assert fitting_steps(None, None) == 8 and fitting_steps(None, 5) == 5
    assert fitting_steps(reference(), None) == 4 and fitting_steps(reference(), 2) == 2
    with pytest.raises(InputError, match=r"8 steps per patch do not divide the 4 of the weights' reference\.npz"):
        fitting_steps(reference(), 8)
    with pytest.raises(InputError, match="has 4 steps per patch, which 3 steps do not divide"):
        reference().at_steps(3)


def network(**changes) -> SimpleNamespace:
    label_set = LabelSet(LABELS, {}, dict(zip(LABELS, TASKS, strict=True)))
    return SimpleNamespace(**({"patch_size": PATCH, "image_size": SIZE, "label_set": label_set} | changes))


def saved(folder, **settings) -> tuple:
    """A reference and the file of weights that it belongs to."""
    weights = folder / "model.safetensors"
    weights.write_bytes(b"tensors")
    means = RunningMeans(
        Settings(
            **(
                {"weights": sha256(weights), "patch_size": PATCH, "steps_per_patch": STEPS, "image_size": SIZE}
                | settings
            )
        ),
        TASKS,
    )
    n = means.settings.image_size * means.settings.steps_per_patch // means.settings.patch_size
    means.add("frontal", np.ones((3, n, n)))
    write_reference(folder / "reference.npz", means.result(""))
    return folder / "reference.npz", weights


def test_the_reference_of_these_weights_is_taken(tmp_path):
    path, weights = saved(tmp_path)
    assert reference_of(path, network(), weights).counts == {"all": 1, "frontal": 1}
    assert reference_of(tmp_path / "absent.npz", network(), weights) is None


@pytest.mark.parametrize(
    ("of_file", "of_network", "reason"),
    [
        ({"weights": "b" * 64}, {}, "weights 'bbbb"),
        ({"patch_size": 4}, {}, "patch size 4, not 8"),
        ({"image_size": 32}, {}, "image size 32, not 16"),
        (
            {},
            {"label_set": LabelSet(("Edema", "Pneumonia", "Mass"))},
            "'Airspace Opacity' is not a label of the weights",
        ),
    ],
)
def test_a_reference_of_other_weights_sizes_or_labels_is_refused_in_one_line(tmp_path, of_file, of_network, reason):
    path, weights = saved(tmp_path, **of_file)
    with pytest.raises(InputError, match=reason) as refused:
        reference_of(path, network(**of_network), weights)
    assert "\n" not in str(refused.value) and "reference.npz: the reference of other weights" in str(refused.value)
