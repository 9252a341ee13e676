import re

import numpy as np
import pandas as pd
import pytest

from cxr.files import InputError
from cxr.heat_maps import HeatMap
from cxr.labels import CHEXPERT
from cxr.masks import GroundTruth, encode_mask
from evaluation.film_statistics import bootstrap, of_films, paired_differences, summarise, write_results
from evaluation.localizing import localization
from evaluation.localizing.localization import human_hits, score_maps

TASKS = CHEXPERT.task_names
A, B, C, D = (f"patient{number}_study1_view1_frontal" for number in (1, 2, 3, 4))


class Maps:
    def __init__(self, *heat_maps):
        self.heat_maps = {(heat_map.image_id, heat_map.task): heat_map for heat_map in heat_maps}
        self.entries = sorted(self.heat_maps)

    def load(self, image_id, task):
        return self.heat_maps[image_id, task]


def heat_map(image_id, task, values, probability=0.5):
    values = np.asarray(values, dtype=np.float32)
    return HeatMap(image_id, task, values, probability, 1, values.shape[::-1])


def ground_truth(**films):
    """image id -> task -> mask; the other tasks are empty."""
    empty = np.zeros((2, 3))
    return GroundTruth(
        {film: {task: encode_mask(masks.get(task, empty)) for task in TASKS} for film, masks in films.items()}
    )


@pytest.fixture
def scores():
    """By hand, maps of 2 x 3 pixels, threshold 0.5 everywhere. A: maps and masks; B: masks only; C: maps only."""
    truth = ground_truth(
        **{
            A: {"Edema": np.array([[1, 1, 0], [0, 0, 0]]), "Cardiomegaly": np.array([[0, 0, 0], [0, 0, 1]])},
            B: {"Edema": np.ones((2, 3))},
        }
    )
    source = Maps(
        heat_map(A, "Edema", [[0, 8, 9], [7, 1, 1]]),  # 3 pixels above, 1 of them inside; maximum outside
        heat_map(A, "Cardiomegaly", [[0, 1, 2], [2, 3, 3]]),  # 4 above, 1 inside; the first maximum is outside
        heat_map(A, "Atelectasis", [[0, 1, 2], [2, 3, 3]]),  # nothing inside
        heat_map(A, "Pneumothorax", np.ones((2, 3))),  # constant
        heat_map(A, "No Finding", [[0, 1, 2], [2, 3, 3]]),
        heat_map(C, "Edema", [[0, 1, 2], [2, 3, 3]]),
        heat_map(C, "Pneumothorax", np.ones((2, 3))),
    )
    return score_maps(source, truth, thresholds=dict.fromkeys(TASKS, 0.5))


def expected(films, **cells):
    table = pd.DataFrame(np.nan, index=films, columns=list(TASKS))
    for name, value in cells.items():
        film, task = name.split("_")
        table.loc[{"A": A, "B": B, "C": C}[film], task] = value
    return table


def test_iou_by_hand(scores):
    true_positives = expected([A, B], A_Edema=1 / 4, A_Cardiomegaly=1 / 4)
    pd.testing.assert_frame_equal(scores.iou(true_pos_only=True), true_positives)
    everything = expected([A, B, C], A_Edema=1 / 4, A_Cardiomegaly=1 / 4, A_Atelectasis=0.0, B_Edema=0.0, C_Edema=0.0)
    pd.testing.assert_frame_equal(scores.iou(true_pos_only=False), everything)


def test_hits_by_hand(scores):
    pd.testing.assert_frame_equal(scores.hits(), expected([A], A_Edema=0.0, A_Cardiomegaly=0.0))


def test_the_maximum_inside_is_a_hit():
    truth = ground_truth(**{A: {"Edema": np.array([[0, 0, 0], [0, 1, 1]])}})
    scores = score_maps(Maps(heat_map(A, "Edema", [[0, 1, 2], [2, 3, 3]])), truth, masks=False)
    assert scores.hits().loc[A, "Edema"] == 1.0
    with pytest.raises(ValueError):
        scores.iou(true_pos_only=True)


def test_a_probability_below_the_cutoff_empties_the_mask():
    truth = ground_truth(**{film: {"Edema": np.array([[1, 1, 0], [0, 0, 0]])} for film in (A, B)})
    values = [[9, 8, 0], [0, 0, 0]]
    source = Maps(heat_map(A, "Edema", values, 0.3), heat_map(B, "Edema", values, 0.4))
    scores = score_maps(source, truth, thresholds=dict.fromkeys(TASKS, 0.5), cutoffs=dict.fromkeys(TASKS, 0.4))
    assert scores.iou(true_pos_only=False)["Edema"].tolist() == [0.0, 1.0]
    assert np.array_equal(scores.iou(true_pos_only=True)["Edema"], [np.nan, 1.0], equal_nan=True)
    assert scores.hits()["Edema"].tolist() == [1.0, 1.0]


def test_maps_are_stretched_over_the_film():
    truth = ground_truth(**{A: {"Edema": np.array([[0, 0, 1], [0, 0, 1]])}})
    truth_of_edge = HeatMap(A, "Edema", np.array([[0, 1]], dtype=np.float32), 0.5, 1, (3, 2))
    scores = score_maps(Maps(truth_of_edge), truth, thresholds=dict.fromkeys(TASKS, 0.4))
    assert scores.iou(true_pos_only=True).loc[A, "Edema"] == 0.5  # columns 0, 0.5, 1


def test_processes_change_nothing():
    rng = np.random.default_rng(0)
    truth = ground_truth(**{f: {task: rng.random((2, 3)) < 0.5 for task in TASKS} for f in (A, B)})
    source = Maps(*(heat_map(film, task, rng.random((2, 3))) for film in (A, B, C) for task in TASKS))
    one, two = (score_maps(source, truth, workers=workers) for workers in (1, 2))
    pd.testing.assert_frame_equal(one.iou(true_pos_only=False), two.iou(true_pos_only=False), check_exact=True)
    pd.testing.assert_frame_equal(one.hits(), two.hits(), check_exact=True)


def test_another_film_size_is_told():
    wrong = Maps(heat_map(A, "Edema", np.eye(4)))
    with pytest.raises(InputError, match=f"{A}_Edema_map.pkl: its film is 4 x 4 .* it is 3 x 2"):
        score_maps(wrong, ground_truth(**{A: {}}))


def test_bootstrap_means_leave_undefined_films_out():
    rng = np.random.default_rng(0)
    films = pd.DataFrame(rng.random((9, 3)), columns=["a", "b", "c"]).mask(rng.random((9, 3)) < 0.4)
    films["c"] = np.nan
    resampled = bootstrap(films, of_films(len(films), resamples=300, seed=5))
    stream, at = np.random.default_rng(5), 0
    drawn = [stream.integers(0, 9, 9) for _ in range(300)]
    for at, rows in enumerate(drawn):
        for name in films:
            np.testing.assert_allclose(resampled[name][at], films[name].iloc[rows].mean(), rtol=1e-12)
    summary = summarise(resampled).set_index("name")
    assert list(summary.index) == ["a", "b", "c", "Mean"] and summary.loc["c"].isna().all()
    defined = resampled["a"].dropna()
    assert summary.loc["a", "lower"] == np.percentile(defined, 2.5)
    assert summary.loc["a", "upper"] == np.percentile(defined, 97.5)
    assert summary.loc["a", "mean"] == pytest.approx(defined.mean())
    assert summary.loc["Mean", "mean"] == pytest.approx(resampled[["a", "b"]].mean(axis=1).mean())


def test_paired_differences_against_a_loop():
    rng = np.random.default_rng(1)
    a = pd.DataFrame(rng.random((12, 2)), columns=["a", "b"])
    b = a * 0.8 + 0.02 * rng.random((12, 2))
    b.loc[3, "a"] = np.nan
    table = paired_differences(a, b, of_films(12, resamples=400, seed=2)).set_index("name")
    stream = np.random.default_rng(2)
    drawn = [stream.integers(0, 12, 12) for _ in range(400)]
    loop = pd.DataFrame([a.iloc[rows].mean() - b.iloc[rows].mean() for rows in drawn])
    loop["Mean"] = loop.mean(axis=1)
    assert list(table.index) == ["a", "b", "Mean"]
    np.testing.assert_allclose(table["lower"], loop.quantile(0.025), rtol=1e-10)
    np.testing.assert_allclose(table["upper"], loop.quantile(0.975), rtol=1e-10)
    np.testing.assert_allclose(table["difference"][:2], a.mean() - b.mean())
    assert table.loc["Mean", "difference"] == pytest.approx(table["difference"][:2].mean())
    assert (table["resamples"] == 400).all() and (table["lower"] > 0).all()  # paired: narrower than either's spread


def test_paired_differences_need_the_same_films():
    a = pd.DataFrame({"a": [0.1, 0.2]}, index=[A, B])
    with pytest.raises(InputError, match="same films"):
        paired_differences(a, a.set_axis([A, C]), of_films(2, resamples=10, seed=0))


def test_human_points():
    truth = ground_truth(
        **{
            A: {"Edema": np.array([[0, 0, 1], [0, 0, 0]]), "Atelectasis": np.array([[1, 0, 0], [0, 0, 0]])},
            B: {"Edema": np.array([[0, 0, 1], [0, 0, 0]])},
        }
    )
    points = {A: {"Edema": [[0, 1], [2.7, 0.9]], "Cardiomegaly": [[0, 0]]}, "unknown": {"Edema": [[9, 9]]}}
    hits = human_hits(points, truth)
    pd.testing.assert_frame_equal(hits, expected([A, B], A_Edema=1.0, A_Atelectasis=0.0, B_Edema=0.0))


@pytest.mark.parametrize(
    ("points", "shown"),
    [
        ([[3, 0]], "[3, 0]"),
        ([[0, -1]], "[0, -1]"),
        ([[0]], "[0]"),
        ([["a", "b"]], "['a', 'b']"),
        (5, "[5]"),
        ([[10**90, 0]], "[a number of 299 bits, 0]"),
        ([[0, 0, 0, 0]], "[0, 0, 0]"),
        ([[[0], 1]], "[a list, 1]"),
    ],
)
def test_a_point_outside_its_film(tmp_path, points, shown):
    path = tmp_path / "points.json"
    path.write_text(f'{{"{A}": {{"Edema": {points!r}}}}}'.replace("'", '"'))
    said = f"{path}, {A}, Edema: {shown} is not a point [x, y] of 3 x 2 pixels"
    with pytest.raises(InputError, match=f"^{re.escape(said)}$"):
        localization.read_human_points(path, ground_truth(**{A: {}}))


def test_tasks_of_another_data_set():
    """Boxes as regions; the second film was not looked at for `Mass`, and has maps all the same."""
    truth = GroundTruth(
        {
            "A": {
                "Mass": {"size": [2, 3], "kind": "box", "boxes": [[1, 0, 2, 2]]},
                "Nodule": encode_mask(np.zeros((2, 3))),
            },
            "B": {"Nodule": {"size": [2, 3], "boxes": [[0, 0, 1, 1]]}},
        }
    )
    rows = [[0, 8, 9], [7, 1, 1]]  # above 0.5: two pixels of the box, and one outside
    source = Maps(*(heat_map(film, task, rows) for film in "AB" for task in ("Mass", "Nodule", "No Finding")))
    scores = score_maps(source, truth, thresholds={"Mass": 0.5, "Nodule": 0.5})
    table = scores.iou(true_pos_only=False)
    assert list(table.columns) == ["Mass", "Nodule"]
    np.testing.assert_array_equal(table.to_numpy(), [[2 / 5, 0], [np.nan, 0]])
    np.testing.assert_array_equal(scores.iou(true_pos_only=True).to_numpy(), [[2 / 5, np.nan], [np.nan, 0]])
    np.testing.assert_array_equal(scores.hits().to_numpy(), [[1, np.nan], [np.nan, 0]])
    hits = human_hits({"A": {"Mass": [[0, 0]]}, "B": {"Mass": [[1, 1]], "Nodule": [[0.5, 0.5]]}}, truth)
    np.testing.assert_array_equal(hits.to_numpy(), [[0, np.nan], [np.nan, 1]])


def test_a_task_without_any_map_is_undefined(scores):
    lesion = ground_truth(**{A: {"Lung Lesion": np.ones((2, 3))}})
    table = score_maps(Maps(heat_map(A, "Edema", np.eye(2, 3))), lesion, masks=True).iou(true_pos_only=False)
    assert table["Lung Lesion"].isna().all() and table["Edema"].tolist() == [0]


def test_several_thresholds_at_once_are_each_alone(scores):
    rng = np.random.default_rng(3)
    truth = ground_truth(**{f: {task: rng.random((2, 3)) < 0.5 for task in TASKS} for f in (A, B)})
    source = Maps(*(heat_map(film, task, rng.random((2, 3))) for film in (A, B) for task in TASKS))
    several = [dict.fromkeys(TASKS, 0.3), dict.fromkeys(TASKS, 0.7), None]
    together = localization.score_maps_at(source, truth, thresholds=several)
    for thresholds, found in zip(several, together, strict=True):
        alone = score_maps(source, truth, thresholds=thresholds)
        assert found.maps == alone.maps


def test_summaries_made_of_boxes_say_so(tmp_path):
    per_film = pd.DataFrame({"Mass": [0.2, 0.4], "Nodule": [0.1, np.nan]}, index=["A", "B"])
    draws = of_films(2, resamples=5, seed=0)
    boxed = write_results(tmp_path, "iou", per_film, draws, kinds={"Mass": "box", "Nodule": "mask"})
    assert list(boxed["kind"]) == ["box", "mask", "box/mask"]
    plain = write_results(tmp_path, "iou", per_film, draws, kinds=dict.fromkeys(per_film, "mask"))
    assert list(plain.columns) == ["name", "lower", "mean", "upper"]
    pd.testing.assert_frame_equal(boxed[plain.columns], plain)
