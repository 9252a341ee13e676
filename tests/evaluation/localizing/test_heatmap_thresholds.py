import dataclasses
import os

import numpy as np
import pandas as pd
import pytest
import torch

from cxr.files import InputError
from cxr.heat_maps import HeatMap
from cxr.labels import CHEXPERT
from cxr.masks import GroundTruth, encode_mask
from evaluation.localizing import heatmap_thresholds
from evaluation.localizing import miou_curves as curves_module
from evaluation.localizing.heatmap_thresholds import exact_search, ternary_search, tune
from evaluation.localizing.miou_curves import STEPS, iou_curves, miou_curves, miou_curves_of_both
from evaluation.localizing.scored_tasks import unscored_tasks

TASKS = CHEXPERT.task_names


class Maps:
    """Heat maps in memory."""

    def __init__(self, heat_maps):
        self.heat_maps = {(heat_map.image_id, heat_map.task): heat_map for heat_map in heat_maps}
        self.entries = sorted(self.heat_maps)

    def load(self, image_id, task):
        return self.heat_maps[image_id, task]


def random_case(seed):
    """Films of different, non-square sizes; empty masks, constant and binary maps; one film without ground truth."""
    rng = np.random.default_rng(seed)
    truth, maps = {}, []
    for film in range(5):
        image_id = f"patient{film}_study1_view1_frontal"
        height, width = (int(side) for side in rng.integers(20, 60, 2))
        codes = {}
        for task in TASKS:
            mask = np.zeros((height, width), dtype=bool)
            if rng.random() < 0.6:
                y, x = rng.integers(0, height - 8), rng.integers(0, width - 8)
                mask[y : y + rng.integers(3, 20), x : x + rng.integers(3, 20)] = True
            values = rng.random(tuple(rng.integers(2, 24, 2)), dtype=np.float32) * 2 - 0.5
            kind = rng.integers(0, 6)
            if kind == 0:
                values[:] = values[0, 0]
            elif kind == 1:
                values = np.round(values)
            maps.append(HeatMap(image_id, task, values, 0.5, int(mask.any()), (width, height)))
            codes[task] = encode_mask(mask)
        if film != seed % 5:
            truth[image_id] = codes
    return Maps(maps), GroundTruth(truth)


@pytest.mark.parametrize("seed", range(10))
def test_every_random_case_holds_what_is_hard(seed):
    source, truth = random_case(seed)
    maps = [source.load(*key) for key in source.entries]
    with_truth = [heat_map for heat_map in maps if heat_map.image_id in truth]
    assert len({heat_map.image_id for heat_map in maps}) - len(truth.image_ids) == 1
    assert any(heat_map.film_size[0] != heat_map.film_size[1] for heat_map in with_truth)
    areas = {truth.area(heat_map.image_id, heat_map.task) for heat_map in with_truth if np.ptp(heat_map.map) == 0}
    assert 0 in areas and max(areas) > 0, "constant maps, with and without a mask"
    assert any(truth.area(heat_map.image_id, heat_map.task) == 0 for heat_map in with_truth if np.ptp(heat_map.map))


def stretched(heat_map):
    width, height = heat_map.film_size
    plane = torch.from_numpy(heat_map.map)[None, None]
    resized = torch.nn.functional.interpolate(plane, size=(height, width), mode="bilinear", align_corners=False)
    shifted = resized.squeeze() - resized.min()
    return shifted.div(shifted.max()).numpy()


class SlowCase:
    """The mean IoU at one threshold, map by map, as the published search computes it."""

    def __init__(self, source, truth, task, true_pos_only):
        keys = [key for key in source.entries if key[1] == task]
        self.true_pos_only = true_pos_only
        self.maps = [
            (stretched(source.load(*key)), truth.mask(*key)) if key[0] in truth else (None, None) for key in keys
        ]

    def miou(self, threshold):
        ious = np.array([self.iou(threshold, values, mask) for values, mask in self.maps])
        return np.nan if np.isnan(ious).all() else np.nanmean(ious)

    def iou(self, threshold, values, mask):
        if values is None:
            return np.nan
        predicted = values > threshold
        if self.true_pos_only and not (predicted.any() and mask.any()):
            return np.nan
        union = np.sum(predicted | mask)
        return np.sum(predicted & mask) / union if union else np.nan

    def published_search(self):
        best, step = 0.5, 0.25
        for _ in range(10):
            tried = [(self.miou(t), t) for t in (best - step, best, best + step)]
            tried = [pair for pair in tried if not np.isnan(pair[0])]
            if not tried:
                break
            best = sorted(tried, key=lambda pair: pair[0])[-1][1]
            step /= 2
        return best


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("true_pos_only", [True, False])
def test_searches_against_the_slow_way(seed, true_pos_only):
    source, truth = random_case(seed)
    curves = miou_curves(source, truth, true_pos_only=true_pos_only)
    exact = dict(tune(curves, "exact")[["task", "threshold"]].values)
    ternary = dict(tune(curves, "ternary")[["task", "threshold"]].values)
    some = np.random.default_rng(seed).integers(0, STEPS, 20)
    defined = 0
    for task in TASKS:
        slow = SlowCase(source, truth, task, true_pos_only)
        assert np.array_equal(curves[task][some], [slow.miou(k / STEPS) for k in some], equal_nan=True)  # to the bit
        assert ternary[task] == slow.published_search()
        if not np.isnan(curves[task]).all():
            defined += 1
            assert slow.miou(exact[task]) >= slow.miou(ternary[task])
            assert slow.miou(exact[task]) == max(slow.miou(k / STEPS) for k in [*some, int(exact[task] * STEPS)])
    assert defined >= 7


def test_exact_beats_the_published_search_where_the_curve_has_two_peaks():
    curve = np.zeros(STEPS)
    curve[STEPS // 10] = 0.9
    curve[STEPS // 2 : STEPS * 3 // 4] = 0.3
    assert exact_search(curve) == (STEPS // 10) / STEPS
    assert curve[int(ternary_search(curve) * STEPS)] == 0.3


def test_every_threshold_of_values_that_lie_on_and_beside_thresholds():
    rng = np.random.default_rng(0)
    on = (rng.integers(0, STEPS + 1, 4000) / STEPS).astype(np.float32)
    beside = np.concatenate([np.nextafter(on, np.float32(1)), np.nextafter(on, np.float32(0))])
    tiny = np.array([0, 1, 1e-45, 1e-30, 1 - 2**-24], dtype=np.float32)
    values = np.concatenate([on, beside, tiny, rng.random(4000, dtype=np.float32)])
    counts = curves_module._pixels_above(values, np.float32(0), np.float32(1))
    ascending = np.sort(values)
    expected = len(values) - np.searchsorted(ascending, (np.arange(STEPS) / STEPS).astype(np.float32), side="right")
    assert np.array_equal(counts, expected)


@pytest.mark.parametrize("length", [1, 7, 8, 200])
def test_mean_over_maps_is_numpys_to_the_last_bit(length):
    rng = np.random.default_rng(length)
    curves = [rng.random(STEPS) if rng.random() < 0.7 else rng.choice([0.0, np.nan]) for _ in range(length - 1)]
    curves.append(rng.random(STEPS))
    mean = curves_module._mean_over_maps(curves)
    for k in rng.integers(0, STEPS, 50):
        column = [curve[k] if isinstance(curve, np.ndarray) else curve for curve in curves]
        assert mean[k] == np.nanmean(np.array(column))


def test_result_does_not_depend_on_the_number_of_processes():
    source, truth = random_case(3)
    one, two = (miou_curves(source, truth, true_pos_only=False, workers=workers) for workers in (1, 2))
    assert all(np.array_equal(one[task], two[task], equal_nan=True) for task in TASKS)


class Deadly(Maps):
    parent = os.getpid()

    def load(self, image_id, task):
        if os.getpid() != self.parent:
            os._exit(9)
        return super().load(image_id, task)


def test_a_worker_that_dies_is_told():
    source, truth = random_case(0)
    with pytest.raises(OSError, match="a worker process died"):
        miou_curves(Deadly(source.heat_maps.values()), truth, true_pos_only=True, workers=2)


def test_ties():
    curve = np.zeros(STEPS)
    curve[[10, 100, 101, 102, 103, 104, 40000, 40001, 40002, 40003, 40004]] = 0.5
    assert exact_search(curve) == 102 / STEPS  # the middle of the first of the longest runs
    assert exact_search(np.zeros(STEPS)) == 0.5
    assert ternary_search(np.zeros(STEPS)) == 1 - 2**-11  # the published search always takes the largest of equals


def test_a_task_that_is_never_defined_keeps_the_start():
    for search in ("exact", "ternary"):
        row = tune({"Edema": np.full(STEPS, np.nan)}, search).iloc[0]
        assert row["threshold"] == 0.5 and np.isnan(row["miou"])


def test_another_film_size_is_told():
    source, truth = random_case(1)
    key = next(key for key in source.entries if key[0] in truth)
    old = source.heat_maps[key]
    source.heat_maps[key] = HeatMap(*key, old.map, 0.5, 1, (old.film_size[0] + 1, old.film_size[1]))
    with pytest.raises(InputError, match=rf"{key[0]}.*its film is {old.film_size[0] + 1} x {old.film_size[1]} "):
        miou_curves(source, truth, true_pos_only=True)


def test_a_task_without_maps_is_undefined_and_the_others_stay():
    source, truth = random_case(1)
    partial = Maps(heat_map for key, heat_map in source.heat_maps.items() if key[1] != "Edema")
    whole, some = (miou_curves(maps, truth, true_pos_only=True) for maps in (source, partial))
    assert list(some) == list(TASKS) and np.isnan(some["Edema"]).all()
    assert all(np.array_equal(some[task], whole[task], equal_nan=True) for task in TASKS if task != "Edema")
    tuned = tune(some).set_index("task")
    assert tuned.loc["Edema", "threshold"] == 0.5 and np.isnan(tuned.loc["Edema", "miou"])
    assert unscored_tasks(partial, truth) == {"Edema": "no heat map"}


def test_both_countings_at_once_are_each_alone():
    for seed in range(4):
        source, truth = random_case(seed)
        for both, true_pos_only in zip(miou_curves_of_both(source, truth), (True, False), strict=True):
            alone = miou_curves(source, truth, true_pos_only=true_pos_only)
            assert list(both) == list(alone)
            assert all(np.array_equal(both[task], alone[task], equal_nan=True) for task in TASKS)


def test_a_film_where_a_task_was_not_looked_for_counts_nowhere():
    """Films and tasks of another data set; the second film has no entry of `Mass`, the third an empty one."""
    rng = np.random.default_rng(5)
    mask = np.zeros((24, 20), dtype=bool)
    mask[4:12, 6:16] = True
    films = {name: HeatMap(name, "Mass", rng.random((6, 5), dtype=np.float32), 0.5, 1, (20, 24)) for name in "ABC"}
    entries = {
        "A": {"Mass": encode_mask(mask)},
        "B": {"Nodule": encode_mask(mask)},
        "C": {"Mass": encode_mask(~mask & mask)},
    }
    truth = GroundTruth(entries)
    source = Maps(films.values())
    only_a = Maps([films["A"]])
    assert np.array_equal(
        miou_curves(source, truth, true_pos_only=True)["Mass"],
        miou_curves(only_a, truth, true_pos_only=True)["Mass"],
    )
    a = iou_curves(films["A"], truth).all_cases
    assert np.array_equal(miou_curves(source, truth, true_pos_only=False)["Mass"], a / 2)  # C: 0; B: undefined
    assert np.isnan(miou_curves(source, truth, true_pos_only=False)["Nodule"]).all()
    assert unscored_tasks(source, truth) == {"Nodule": "no heat map"}


def test_maps_that_cannot_be_scored_are_refused():
    source, truth = random_case(1)
    foreign = GroundTruth({"other": {task: encode_mask(np.zeros((3, 3))) for task in TASKS}})
    with pytest.raises(InputError, match="none of its films has a heat map"):
        miou_curves(source, foreign, true_pos_only=True)
    with pytest.raises(InputError, match="its tasks are 'Mass'; the heat maps are of 'Airspace Opacity', "):
        miou_curves(source, GroundTruth({"other": {"Mass": encode_mask(np.eye(2))}}), true_pos_only=True)
    (key, some), *_ = source.heat_maps.items()
    misnamed = Maps([*source.heat_maps.values(), dataclasses.replace(some, task="Lung Opacity")])
    with pytest.raises(InputError, match="unknown task 'Lung Opacity'; ground truth calls it Airspace Opacity"):
        miou_curves(misnamed, truth, true_pos_only=True)


def test_reasons_of_tasks_that_are_not_scored():
    source, truth = random_case(0)
    film, other = truth.image_ids[:2]
    empty = {"size": list(truth.size(film)), "boxes": []}
    some = GroundTruth(
        {film: {"Edema": empty, "Mass": empty}, other: {"Cardiomegaly": empty | {"size": list(truth.size(other))}}}
    )
    maps = Maps(h for (image_id, task), h in source.heat_maps.items() if (image_id, task) != (other, "Cardiomegaly"))
    reasons = unscored_tasks(maps, some)
    assert reasons.pop("Cardiomegaly") == "no film with both a heat map and ground truth"
    assert (reasons.pop("Edema"), reasons.pop("Mass")) == ("outlined in no film", "no heat map")
    assert reasons == dict.fromkeys(set(TASKS) - {"Edema", "Cardiomegaly"}, "not in the ground truth")


def test_tables_made_of_boxes_say_so(tmp_path):
    curves = {task: np.linspace(0, 1, STEPS) for task in ("Mass", "Nodule")}
    heatmap_thresholds.write_tuning(tmp_path, curves, tune(curves), {"Mass": "box", "Nodule": "mask"})
    assert list(pd.read_csv(tmp_path / "tuning_results.csv")["kind"]) == ["box", "mask"]
    assert list(heatmap_thresholds.read_thresholds(tmp_path / "tuning_results.csv", ["Nodule"])) == ["Nodule"]


def test_written_thresholds_are_read_back_exactly(tmp_path):
    rng = np.random.default_rng(0)
    curves = {task: rng.random(STEPS) for task in TASKS}
    tuned = tune(curves)
    heatmap_thresholds.write_tuning(tmp_path, curves, tuned)
    read = heatmap_thresholds.read_thresholds(tmp_path / "tuning_results.csv", TASKS)
    assert list(read) == list(TASKS)
    assert all(curves[task][int(read[task] * STEPS)] == curves[task].max() for task in TASKS)
    assert list(pd.read_csv(tmp_path / "tuning_results.csv").columns) == ["threshold", "task"]
    curve = pd.read_csv(tmp_path / "miou_curve.csv").set_index("threshold")
    assert list(curve.columns) == list(TASKS) and 512 <= len(curve) <= 522 and curve.index.is_monotonic_increasing
    assert all(curve.loc[read[task], task] == pytest.approx(curves[task].max(), rel=1e-8) for task in TASKS)


def test_cutoff_is_the_first_of_the_largest_miou(tmp_path):
    rows = [f"{cutoff},{miou},{task}" for task in TASKS for cutoff, miou in [(0.1, 0.2), (0.3, 0.5), (0.6, 0.5)]]
    (tmp_path / "p.csv").write_text("\n".join(["prob_threshold,mIoU,task", *rows]))
    assert heatmap_thresholds.read_probability_cutoffs(tmp_path / "p.csv", TASKS) == dict.fromkeys(TASKS, 0.3)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (["0.5,Edema", "0.4,Edema"], "line 3, task: a second threshold of 'Edema'"),
        (["high,Edema"], "line 2, threshold: 'high' is not a finite number"),
        (["nan,Edema"], "line 2, threshold: 'nan' is not a finite number"),
        (["0.5,Edema"], "no row of 'Airspace Opacity'"),
    ],
)
def test_mistakes_in_a_threshold_file(tmp_path, rows, words):
    path = tmp_path / "tuning_results.csv"
    path.write_text("\n".join(["threshold,task", *rows]))
    with pytest.raises(InputError) as error:
        heatmap_thresholds.read_thresholds(path, TASKS)
    assert words in str(error.value) and str(path) in str(error.value)
