"""Every control against a second, slow implementation: loops over pixels and films, torch only to stretch maps."""

from functools import cache, partial

import numpy as np
import pandas as pd
import pytest
import torch

from cxr.files import InputError
from cxr.tables import write_csv
from evaluation.localizing.control_tables import MethodCells, baseline_rows, cell_table
from evaluation.localizing.controls import OF_METHOD, OF_NO_METHOD, score_with_controls, without_method
from evaluation.localizing.localization import score_maps
from evaluation.localizing.location_prior import SIDE, LocationPrior
from evaluation.localizing.miou_curves import miou_curves_and_more, miou_curves_of_both
from evaluation.localizing.with_prior import (
    FLOORS,
    FilmPriors,
    floor_hits,
    floor_table,
    posterior_map,
    read_floor,
    with_prior,
)
from tests.evaluation.control_films import TASKS, NoiseMaps, outlined_films

VALIDATION = outlined_films("ABCDEFGH", seed=1)
TEST = outlined_films("abcdefghz", seed=2, alone="z")
PRIOR = LocationPrior.of(VALIDATION)
THRESHOLDS = [{"Edema": 0.6, "Mass": 0.4}, {"Edema": 0.5, "Mass": 0.5}]


def stretched(plane, size):
    tensor = torch.tensor(np.asarray(plane, np.float32))[None, None]
    return torch.nn.functional.interpolate(tensor, size=tuple(size), mode="bilinear")[0, 0].numpy()


@cache
def slow_cells(film, task):
    """(SIDE, SIDE): share of each cell inside a validation mask, whose sides need not be multiples of SIDE."""
    mask = VALIDATION.truth.mask(film, task)
    ends = [[(int(k * side / SIDE), int(np.ceil((k + 1) * side / SIDE))) for k in range(SIDE)] for side in mask.shape]
    return np.array([[mask[top:bottom, left:right].mean() for left, right in ends[1]] for top, bottom in ends[0]])


def slow_prior(film, films, task):
    """Mean of the validation masks of the view, the film's own patient left out."""
    total, count = np.zeros((SIDE, SIDE)), 0
    for other in VALIDATION.truth.image_ids:
        own = film in VALIDATION.truth and VALIDATION.patient(other) == films.patient(film)
        if not own and (films.view(film) == "lateral" or VALIDATION.view(other) == films.view(film)):
            total, count = total + slow_cells(other, task), count + 1
    return total / count


@pytest.fixture(scope="module")
def slow_priors():
    keys = [(film, task, films) for films in (VALIDATION, TEST) for film in films.truth.image_ids for task in TASKS]
    return {(film, task): slow_prior(film, films, task) for film, task, films in keys}


def slow_hit(plane, mask):
    resized = stretched(plane, mask.shape)
    best = max((resized[y, x], -y, -x) for y in range(mask.shape[0]) for x in range(mask.shape[1]))
    return float(mask[-best[1], -best[2]])


def slow_product(plane, prior, floor):
    over = stretched(prior, plane.shape)
    return np.array([[(plane[y, x] - plane.min()) * (over[y, x] + np.float32(floor)) for x in range(plane.shape[1])]
                     for y in range(plane.shape[0])], np.float32)  # fmt: skip


def slow_iou(plane, mask, threshold):
    resized = stretched(plane, mask.shape)
    predicted = (resized - resized.min()) / (resized.max() - resized.min()) > np.float32(threshold)
    return (predicted & mask).sum() / (predicted | mask).sum()


def test_a_method_s_controls_against_loops(slow_priors):
    maps = NoiseMaps(TEST)
    own, _, cells = score_with_controls(maps, TEST, PRIOR, thresholds=THRESHOLDS, floor=0.05, seed=3, workers=1)
    assert set(maps.reads.values()) == {1}  # each map is read once for all of it
    assert len(cells) == sum(TEST.truth.area(*key) > 0 for key in maps.entries) > 10
    for scores, thresholds in zip(own, THRESHOLDS, strict=True):
        alone = score_maps(maps, TEST.truth, thresholds=thresholds)
        pd.testing.assert_frame_equal(scores.iou(true_pos_only=False), alone.iou(true_pos_only=False))
    for row in cells.to_dict(orient="records"):
        film, task, mask = row["img_id"], row["task"], TEST.truth.mask(row["img_id"], row["task"])
        plane, prior = maps.maps[film, task].map, slow_priors[film, task]
        assert row["with_prior_hit"] == slow_hit(slow_product(plane, prior, 0.05), mask)
        if film == "z":
            assert row["shuffled_from"] == "" and np.isnan([row[name] for name in OF_METHOD[1:]]).all()
            continue
        donor = row["shuffled_from"]
        assert TEST.truth.area(donor, task) and TEST.view(donor) == TEST.view(film)
        assert TEST.patient(donor) != TEST.patient(film)
        other = maps.maps[donor, task].map
        assert row["shuffled_hit"] == slow_hit(other, mask)
        assert row["shuffled_iou"] == pytest.approx(slow_iou(other, mask, THRESHOLDS[0][task]), abs=1e-12)
        assert row["shuffled_with_prior_hit"] == slow_hit(slow_product(other, prior, 0.05), mask)


def test_processes_change_no_control():
    one, two = (
        score_with_controls(
            NoiseMaps(TEST), TEST, PRIOR, thresholds=THRESHOLDS, floor=0.1, seed=0, workers=workers
        ).cells
        for workers in (1, 2)
    )
    pd.testing.assert_frame_equal(one, two, check_exact=True)


def test_a_film_that_is_alone_in_its_view_has_no_shuffled_map_and_the_table_says_why():
    alone = outlined_films("z", seed=0, alone="z")
    cells = score_with_controls(NoiseMaps(alone), alone, PRIOR, thresholds=THRESHOLDS, floor=1, seed=0, workers=1).cells
    assert cells["shuffled_hit"].isna().all() and cells["with_prior_hit"].notna().all()
    tables = {name: cell_table(cells, name, ["z"], TASKS) for name in OF_METHOD}
    none = dict.fromkeys(OF_NO_METHOD, tables["with_prior_hit"])
    draws = lambda films: alone.resampling(films, resamples=5, seed=0, unit="film")  # noqa: E731
    rows = baseline_rows(none, {"raw": MethodCells({}, tables, 1)}, draws)
    shuffled = rows[(rows["control"] == "shuffled") & (rows["name"] == "Edema")]
    assert shuffled["value"].isna().all()
    assert set(shuffled["note"]) == {"no other outlined film of the view has a map"}


def slow_ternary(mean_iou):
    threshold, step = 0.5, 0.25
    for _ in range(10):
        tried = [threshold + step, threshold, threshold - step]
        threshold = max(tried, key=mean_iou)
        step /= 2
    return threshold


def test_prior_centre_and_chance_against_loops(slow_priors):
    table = without_method(PRIOR, TEST, search="ternary", workers=1)
    side = np.arange(SIDE + 1) / SIDE - 0.5
    middle = np.array([[1 - y * y - x * x for x in side] for y in side], np.float32)
    for task in TASKS:
        films = [film for film in VALIDATION.truth.image_ids if VALIDATION.truth.area(film, task)]
        masks = [VALIDATION.truth.mask(film, task) for film in films]
        of_validation = {"prior": [slow_priors[film, task] for film in films], "centre": [middle] * len(films)}
        tuned = {}
        for name, planes in of_validation.items():
            pairs = list(zip(planes, masks, strict=True))
            tuned[name] = slow_ternary(cache(lambda t, pairs=pairs: np.mean([slow_iou(*pair, t) for pair in pairs])))
        rows = table[table["task"] == task].to_dict(orient="records")
        assert [row["img_id"] for row in rows] == [f for f in TEST.truth.image_ids if TEST.truth.area(f, task)]
        for row in rows:
            film, mask = row["img_id"], TEST.truth.mask(row["img_id"], task)
            assert (
                row["chance"] == mask.mean() and row["patient"] == TEST.patient(film) and row["view"] == TEST.view(film)
            )
            for name, plane in (("prior", slow_priors[film, task]), ("centre", middle)):
                assert row[f"{name}_hit"] == slow_hit(plane, mask)
                assert row[f"{name}_iou"] == pytest.approx(slow_iou(plane, mask, tuned[name]), abs=1e-12)


def test_the_floor_is_the_best_on_validation_without_the_film_s_own_patient(slow_priors):
    maps = NoiseMaps(VALIDATION, seed=5)
    priors = FilmPriors(PRIOR, VALIDATION)
    *curves, hits = miou_curves_and_more(maps, VALIDATION.truth, partial(floor_hits, priors=priors))
    assert set(maps.reads.values()) == {1}
    plain = miou_curves_of_both(maps, VALIDATION.truth)
    for found, expected in zip(curves, plain, strict=True):
        for task in TASKS:
            np.testing.assert_array_equal(found[task], expected[task])
    rates = []
    for floor in FLOORS:
        by_task = []
        for task in TASKS:
            films = [film for film in VALIDATION.truth.image_ids if VALIDATION.truth.area(film, task)]
            of_task = []
            for film in films:
                mask = VALIDATION.truth.mask(film, task)
                product = slow_product(maps.maps[film, task].map, slow_priors[film, task], floor)
                y, x = np.unravel_index(product.argmax(), product.shape)
                of_task.append(mask[int((y + 0.5) * mask.shape[0] / 12), int((x + 0.5) * mask.shape[1] / 10)])
            by_task.append(np.mean(of_task))
        rates.append(np.mean(by_task))
    table = floor_table(hits)
    np.testing.assert_allclose(table["hit_rate"], rates, atol=1e-12)
    assert table["chosen"].tolist() == [int(place == int(np.argmax(rates))) for place in range(len(FLOORS))]
    assert len(set(rates)) > 1


def test_the_chosen_floor_is_read_back_and_damage_is_told(tmp_path):
    table = floor_table({("a", "Edema"): np.array([0, 1, 0, 0, 1, 0, 0, 0.0]), ("b", "Edema"): None})
    write_csv(tmp_path / "floor.csv", table)
    assert read_floor(tmp_path / "floor.csv") == FLOORS[1]
    assert floor_table({})["chosen"].tolist() == [1] + [0] * 7 and floor_table({})["hit_rate"].isna().all()
    for chosen in (0, 1):
        write_csv(tmp_path / "floor.csv", table.assign(chosen=chosen))
        with pytest.raises(InputError, match="floor.csv: no single floor"):
            read_floor(tmp_path / "floor.csv")


def test_the_posterior_is_the_map_times_the_prior_of_its_film(slow_priors):
    maps = NoiseMaps(TEST)
    for film, task in maps.entries:
        posterior = posterior_map(maps.maps[film, task], priors=FilmPriors(PRIOR, TEST), floor=0.02)
        expected = slow_product(maps.maps[film, task].map, slow_priors[film, task], 0.02)
        np.testing.assert_allclose(posterior.map, expected, atol=1e-6)
    even = with_prior(maps.maps["a", "Edema"], np.zeros((1, 1), np.float32), 0.5).map
    plane = maps.maps["a", "Edema"].map
    np.testing.assert_allclose(even, (plane - plane.min()) / 2, atol=1e-7)
