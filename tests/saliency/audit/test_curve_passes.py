"""Deletion and insertion by forward passes: against loops, against the closed form, and which films are drawn."""

import json

import numpy as np
import pytest
import torch

from cxr.files import InputError
from cxr.names import CHANCE
from evaluation.audit.faithfulness import BEST, area_gains, by_map, closed_curves
from models.patch_net import MedicalPatchNet
from saliency.audit.curve_files import CurveFacts, FilmCurves, curve_file, read_curves, write_curves
from saliency.audit.curve_passes import drawn_films, explicit_curves, fill_counts, random_order
from saliency.audit.occlusion import closed_form_drops, fill_logits, grey_of
from saliency.patch_maps import evidence_grid
from tests.saliency.toy_networks import ToyNetwork

SIDE, SIZE = 4, 32


def image(seed: int = 0) -> torch.Tensor:
    return torch.rand(1, SIZE, SIZE, generator=torch.Generator().manual_seed(seed))


def logits(model, film: torch.Tensor, places, grey: float) -> np.ndarray:
    """Of the film with some squares filled, by a loop."""
    film, square = film.clone(), film.shape[-1] // SIDE
    for place in places:
        row, column = divmod(int(place), SIDE)
        film[0, row * square : (row + 1) * square, column * square : (column + 1) * square] = grey
    with torch.no_grad():
        return model(film[None])[0].double().numpy()


@pytest.mark.parametrize(("grey", "batch_size"), [(0.0, 3), (0.6, 64)])
def test_curves_are_those_of_one_forward_pass_after_the_other(grey, batch_size):
    model, film = ToyNetwork(SIZE, SIZE), image(1)
    orders = {"first": np.arange(16), "other": np.random.default_rng(0).permutation(16), "same": np.arange(16)}
    found = explicit_curves(model, film, orders, side=SIDE, grey=grey, batch_size=batch_size)
    whole = logits(model, film, [], grey)
    for key, order in orders.items():
        counts, deletion, insertion = found[key]
        assert counts[:, 0].tolist() == list(range(17))
        for count in range(17):
            np.testing.assert_allclose(deletion[count], logits(model, film, order[:count], grey) - whole, atol=1e-5)
            np.testing.assert_allclose(insertion[count], logits(model, film, order[count:], grey) - whole, atol=1e-5)
    assert np.ptp(found["first"][1], axis=0).min() > 0.01, "the changes must be large beside the tolerance"


@pytest.mark.parametrize("fill", ["black", "mean"])
def test_closed_curves_of_stored_logits_are_those_of_forward_passes(fill):
    """Of a patch network with the mean; the best order besides, which gains more than 200 random ones."""
    model, film = ToyNetwork(SIZE // SIDE, SIZE, seed=2), image(2)
    grey = grey_of(fill, float(film.mean()))
    patch_logits = evidence_grid(model, film, steps_per_patch=1, batch_size=1).numpy()  # (C, 4, 4)
    drops = closed_form_drops(patch_logits / 16, fill_logits(model, [grey])[0][:, None, None], 1 / 16)
    rng = np.random.default_rng(0)
    for label in range(len(drops)):
        patches = {"own": patch_logits[label], "other": rng.normal(size=(SIDE, SIDE))}
        closed = closed_curves(patches, {fill: drops[label]})
        orders = {"own": by_map(patches["own"]), "other": by_map(patches["other"]), BEST: by_map(drops[label])}
        orders |= {number: rng.permutation(16) for number in range(200 if label == 0 else 0)}
        found = explicit_curves(model, film, orders, side=SIDE, grey=grey, batch_size=256)
        curves = {order: found[order][:, :, label] for order in orders}
        for order in ("own", "other", BEST):
            np.testing.assert_allclose(closed[order, fill], curves[order], atol=1e-5)
        gains = {order: np.array(area_gains(curve, closed[CHANCE, fill])) for order, curve in curves.items()}
        assert all((gains[BEST] >= gain - 1e-6).all() for gain in gains.values())
        np.testing.assert_allclose(gains["own"], gains[BEST], atol=1e-6)


@pytest.mark.parametrize("name", ["noisy_or", "attention"])
def test_curves_of_a_patch_network_whose_logit_is_not_linear(name):
    torch.manual_seed(0)
    model = MedicalPatchNet("timm/test_efficientnet", 32, 128, ("Edema", "Pneumonia"), aggregation=name).eval()
    film = torch.rand(1, 128, 128, generator=torch.Generator().manual_seed(2))
    order = np.random.default_rng(0).permutation(16)
    _, deletion, insertion = explicit_curves(model, film, {0: order}, side=SIDE, grey=0.2, batch_size=8)[0]
    whole = logits(model, film, [], 0.2)
    for count in (1, 7, 16):
        np.testing.assert_allclose(deletion[count], logits(model, film, order[:count], 0.2) - whole, atol=1e-5)
        np.testing.assert_allclose(insertion[count], logits(model, film, order[count:], 0.2) - whole, atol=1e-5)


def test_what_is_filled_alike_is_passed_once():
    model, passed = ToyNetwork(SIZE, SIZE), 0

    def counting(images: torch.Tensor) -> torch.Tensor:
        nonlocal passed
        passed += len(images)
        return ToyNetwork.forward(model, images)

    model.forward = counting  # type: ignore[method-assign]
    ascending, descending = np.arange(16), np.arange(16)[::-1]
    explicit_curves(model, image(), {0: ascending}, side=SIDE, grey=0.0, batch_size=4)
    assert passed == 32  # 17 of deletion and of insertion, of which two are the film itself and the filled one
    explicit_curves(model, image(), {0: ascending, 1: descending}, side=SIDE, grey=0.0, batch_size=4)
    assert passed == 64  # deletion from the end is insertion from the start


def test_of_many_patches_several_are_filled_at_once():
    assert fill_counts(4).tolist() == [0, 1, 2, 3, 4]
    assert fill_counts(64).tolist() == list(range(0, 65, 4))
    for patches in (17, 25, 49, 100):
        counts = fill_counts(patches)
        assert (counts[0], counts[-1], len(counts)) == (0, patches, 17) and (np.diff(counts) > 0).all()


def test_films_and_orders_are_drawn_by_hash():
    films = [f"film{number:02}" for number in range(30)]
    drawn = drawn_films(films, 10, seed=0)
    assert drawn == sorted(drawn) and len(drawn) == 10 and drawn != drawn_films(films, 10, seed=1)
    without = [film for film in films if film != drawn[3]]
    assert set(drawn) - {drawn[3]} < set(drawn_films(without, 10, seed=0)), "the others stay"
    assert drawn_films(films, 99, seed=0) == films and drawn_films(films, 0, seed=0) == []
    order = random_order("film00", 16, seed=0)
    assert sorted(order) == list(range(16)) and order.tolist() == random_order("film00", 16, seed=0).tolist()
    assert order.tolist() != random_order("film01", 16, seed=0).tolist()


@pytest.mark.parametrize("grey", [-0.1, 1.01, float("nan")])
def test_a_grey_outside_its_range_is_refused(grey):
    with pytest.raises(InputError, match="is not a grey value from 0 to 1"):
        explicit_curves(ToyNetwork(SIZE, SIZE), image(), {}, side=SIDE, grey=grey, batch_size=4)


def written(folder) -> FilmCurves:
    rng = np.random.default_rng(0)
    facts = CurveFacts("a" * 64, ["black", "0.5"], ["chance", "gradcam++"], ["Pleural Effusion", "Edema"])
    keys = [(m, f, t) for m in facts.methods for f in facts.fills for t in facts.tasks]
    film = FilmCurves(facts, {key: np.stack([np.arange(5), *rng.normal(size=(2, 5))]) for key in keys})
    write_curves(curve_file(folder, "film"), film)
    return film


def test_files_are_read_as_they_were_written(tmp_path):
    film = written(tmp_path)
    read = read_curves(curve_file(tmp_path, "film"))
    assert read.facts == film.facts and read.curves.keys() == film.curves.keys()
    for key, curve in film.curves.items():
        np.testing.assert_array_equal(read.curves[key], curve.astype(np.float32))
    assert set(read.of_task("Edema")) == {(m, f) for m in ("chance", "gradcam++") for f in ("black", "0.5")}
    assert read.of_task("Pneumonia") == {}


@pytest.mark.parametrize(
    "harm",
    [
        lambda arrays: arrays.pop("chance black Edema"),
        lambda arrays: arrays.update({"chance black Edema": np.zeros((2, 5), np.float32)}),
        lambda arrays: arrays.update({"chance black Edema": np.full((3, 5), np.nan, np.float32)}),
        lambda arrays: arrays["chance black Edema"].__setitem__((0, 2), 1),
        lambda arrays: arrays["chance black Edema"].__setitem__((0, 0), 1),
        lambda arrays: arrays.update(facts=np.array("[]")),
        lambda arrays: arrays.update(facts=np.array(json.dumps({"weights": 1}))),
        lambda arrays: arrays.pop("facts"),
    ],
)
def test_files_that_hold_something_else_are_refused_in_one_line(tmp_path, harm):
    written(tmp_path)
    path = curve_file(tmp_path, "film")
    arrays = dict(np.load(path))
    harm(arrays)
    np.savez(path, **arrays)
    with pytest.raises(InputError, match=r"^.*film\.npz.*: not a file of this audit .*; delete it and run again$"):
        read_curves(path)
