"""CheXlocalize's own numbers on its sample (two real films), computed by its own scripts with its own OpenCV."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cxr.heat_maps import HeatMapFolder, heat_map_name, write_heat_map
from cxr.labels import CHEXPERT
from cxr.masks import encode_mask, read_ground_truth
from evaluation.localizing.heatmap_thresholds import read_probability_cutoffs, read_thresholds
from evaluation.localizing.localization import score_map, score_maps
from evaluation.localizing.miou_curves import STEPS, iou_curves

TASKS = CHEXPERT.task_names
SAMPLE = Path(__file__).resolve().parents[2] / "shared" / "chexlocalize_sample"

pytestmark = pytest.mark.skipif(not SAMPLE.is_dir(), reason="CheXlocalize's sample is not beside the repository")


@pytest.fixture(scope="module")
def truth():
    return read_ground_truth(SAMPLE / "gt_segmentations_val.json")


@pytest.fixture(scope="module")
def source():
    return HeatMapFolder(SAMPLE / "gradcam_maps_val")


@pytest.fixture(scope="module")
def scores(source, truth):
    tuned = read_thresholds(SAMPLE / "tuning_results.csv", TASKS)
    return {"tuned": score_maps(source, truth, thresholds=tuned), "otsu": score_maps(source, truth)}


def assert_equals_file(per_film, name):
    expected = pd.read_csv(SAMPLE / "expected" / name).set_index("img_id")
    assert list(per_film.columns) == list(expected.columns) and list(per_film.index) == list(expected.index)
    np.testing.assert_allclose(per_film.to_numpy(), expected.to_numpy(), rtol=0, atol=1e-9, equal_nan=True)


@pytest.mark.parametrize("way", ["tuned", "otsu"])
@pytest.mark.parametrize("true_pos_only", [True, False])
def test_iou(scores, way, true_pos_only):
    assert_equals_file(scores[way].iou(true_pos_only=true_pos_only), f"iou_{way}_tp{true_pos_only}.csv")


@pytest.mark.parametrize("way", ["tuned", "otsu"])
def test_hits(scores, way):
    assert_equals_file(scores[way].hits(), "hitmiss.csv")


def test_maps_that_we_wrote_score_the_same(tmp_path, source, truth, scores):
    for image_id, task in source.entries:
        found = source.load(image_id, task)
        write_heat_map(
            tmp_path / heat_map_name(image_id, task),
            map=found.map,
            probability=found.probability,
            task=task,
            ground_truth=found.ground_truth,
            film_size=found.film_size,
            film_pixels=np.zeros((320, 320)),
        )
    tuned = read_thresholds(SAMPLE / "tuning_results.csv", TASKS)
    again = score_maps(HeatMapFolder(tmp_path), truth, thresholds=tuned)
    pd.testing.assert_frame_equal(
        again.iou(true_pos_only=False), scores["tuned"].iou(true_pos_only=False), check_exact=True
    )


def test_polygons_give_the_published_masks(truth):
    drawn = read_ground_truth(SAMPLE / "gt_annotations_val.json")
    published = json.loads((SAMPLE / "gt_segmentations_val.json").read_text())
    assert drawn.image_ids == truth.image_ids
    for image_id in truth.image_ids:
        for task in TASKS:
            assert np.array_equal(drawn.mask(image_id, task), truth.mask(image_id, task))
            assert encode_mask(truth.mask(image_id, task)) == published[image_id][task]


def test_probability_cutoffs_of_the_sample():
    cutoffs = read_probability_cutoffs(SAMPLE / "probability_tuning_results.csv", TASKS)
    table = pd.read_csv(SAMPLE / "probability_tuning_results.csv")
    best = table.loc[table.groupby("task")["mIoU"].idxmax()].set_index("task")["prob_threshold"]
    assert cutoffs == best.to_dict()


def test_a_point_of_the_curve_is_that_thresholds_iou(source, truth):
    heat_map = source.load("patient64541_study1_view1_frontal", "Cardiomegaly")
    curve = iou_curves(heat_map, truth).true_pos
    area = truth.area(heat_map.image_id, heat_map.task)
    for k in (1, 20000, 65000):
        (score,) = score_map(heat_map, truth, thresholds=[{heat_map.task: k / STEPS}], cutoffs=None, masks=True)
        assert curve[k] == score.intersection / (area + score.predicted - score.intersection)
