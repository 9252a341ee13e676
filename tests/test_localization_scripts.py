import json
import os
import pickle

import numpy as np
import pandas as pd
import pytest
import torch

import cli
import evalLocalization
import tune_heatmap_threshold_opt
from cxr.heat_maps import heat_map_name, write_heat_map
from cxr.labels import CHEXPERT
from cxr.masks import encode_mask

TASKS = CHEXPERT.task_names
FILMS = [f"patient{number}_study1_view1_frontal" for number in range(1, 7)]


@pytest.fixture
def study(tmp_path):
    """Six small films; a map is noise, a little higher inside the mask. The last task has no mask anywhere."""
    rng = np.random.default_rng(0)
    truth = {}
    for image_id in FILMS:
        truth[image_id] = {}
        for task in TASKS:
            mask = np.zeros((24, 20), dtype=bool)
            if task != TASKS[-1]:
                y, x = rng.integers(0, 14, 2)
                mask[y : y + 8, x : x + 6] = True
            truth[image_id][task] = encode_mask(mask)
            write_heat_map(
                tmp_path / "maps" / heat_map_name(image_id, task),
                map=0.02 * mask + rng.random(mask.shape),
                probability=0.5,
                task=task,
                ground_truth=int(mask.any()),
                film_size=(20, 24),
                film_pixels=mask,
            )
    (tmp_path / "gt.json").write_text(json.dumps(truth))
    return tmp_path


def options(study, *more):
    return ["--map_dir", str(study / "maps"), "--gt_path", str(study / "gt.json"), "--workers", "1", *more]


def tune(study, *more):
    return tune_heatmap_threshold_opt.main(options(study, "--save_dir", str(study / "tuned"), *more))


def test_tune_then_score(study, capsys):
    assert tune(study) == 0
    said = capsys.readouterr().out
    assert f"no film to tune on, threshold left at 0.5: {TASKS[-1]}" in said
    tuned = pd.read_csv(study / "tuned" / "tuning_results.csv").set_index("task")["threshold"]
    assert list(tuned.index) == list(TASKS) and tuned[TASKS[-1]] == 0.5
    assert (study / "tuned" / "miou_curve.png").read_bytes().startswith(b"\x89PNG")

    arguments = ["--metric", "iou", "--threshold_path", str(study / "tuned" / "tuning_results.csv")]
    assert evalLocalization.main(options(study, *arguments, "--save_dir", str(study / "iou"))) == 0
    per_film = pd.read_csv(study / "iou" / "iou_results_per_cxr.csv")
    assert list(per_film.columns) == [*TASKS, "img_id"] and list(per_film["img_id"]) == FILMS
    curve = pd.read_csv(study / "tuned" / "miou_curve.csv").set_index("threshold")
    for task in TASKS[:-1]:
        assert per_film[task].mean() == pytest.approx(curve.loc[tuned[task], task], rel=1e-8)
    assert per_film[TASKS[-1]].isna().all()
    bootstrap = pd.read_csv(study / "iou" / "iou_bootstrap_results_per_cxr.csv")
    assert list(bootstrap.columns) == list(TASKS) and len(bootstrap) == 1000
    summary = pd.read_csv(study / "iou" / "iou_summary_results.csv").set_index("name")
    assert list(summary.columns) == ["lower", "mean", "upper"] and list(summary.index) == [*TASKS, "Mean"]
    ordered = summary.dropna()
    assert ((ordered["lower"] <= ordered["mean"]) & (ordered["mean"] <= ordered["upper"])).all() and len(ordered) == 10


def test_exact_is_at_least_ternary(study, capsys):
    mious = {}
    for search in ("exact", "ternary"):
        assert tune(study, "--search", search, "--true_pos_only", "False") == 0
        tuned = pd.read_csv(study / "tuned" / "tuning_results.csv").set_index("task")["threshold"]
        curve = pd.read_csv(study / "tuned" / "miou_curve.csv").set_index("threshold")
        mious[search] = pd.Series({task: curve.loc[tuned[task], task] for task in TASKS})
    assert (mious["exact"] >= mious["ternary"]).all() and (mious["exact"] > mious["ternary"]).any()
    assert mious["exact"][TASKS[-1]] == 0  # no mask anywhere: every predicted one is wrong


def test_same_seed_same_bytes(study, capsys):
    for folder, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        more = ("--metric", "hitmiss", "--seed", seed, "--resamples", "50", "--save_dir", str(study / folder))
        assert evalLocalization.main(options(study, *more)) == 0
    names = ["hitmiss_results_per_cxr.csv", "hitmiss_bootstrap_results_per_cxr.csv", "hitmiss_summary_results.csv"]
    a, b, c = ([(study / folder / name).read_bytes() for name in names] for folder in "abc")
    assert a == b and a[0] == c[0] and a[1] != c[1]


def test_human_points(study, capsys):
    (study / "points.json").write_text(json.dumps({FILMS[0]: {"Edema": [[0, 0]]}}))
    arguments = ["--metric", "hitmiss", "--human_points_path", str(study / "points.json")]
    gt = ["--gt_path", str(study / "gt.json"), "--save_dir", str(study / "human")]
    assert evalLocalization.main([*arguments, *gt]) == 0
    hits = pd.read_csv(study / "human" / "hitmiss_humanbenchmark_results_per_cxr.csv")
    assert list(hits["img_id"]) == FILMS and hits["Edema"].sum() == 0 and hits[TASKS[-1]].isna().all()


class Deadly:
    """Makes a folder when it is unpickled by anything but an allow-list."""

    def __init__(self, canary):
        self.canary = canary

    def __reduce__(self):
        return os.mkdir, (str(self.canary),)


def rewrite(path, **changes):
    path.write_bytes(pickle.dumps(pickle.loads(path.read_bytes()) | changes))


HOSTILE = {
    "a call in the pickle": (lambda path: rewrite(path, gt=Deadly(path.parents[1] / "canary")), "nothing run: it asks"),
    "a truncated pickle": (lambda path: path.write_bytes(path.read_bytes()[:500]), "not a readable heat map"),
    "a map of wrong shape": (lambda path: rewrite(path, map=torch.rand(2, 3)), "map has shape (2, 3)"),
    "an unknown task": (
        lambda path: path.rename(path.with_name(f"{FILMS[2]}_Spleen_map.pkl")),
        "unknown task 'Spleen'",
    ),
    "another film size": (lambda path: rewrite(path, cxr_dims=(21, 24)), "its film is 21 x 24"),
}


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize("kind", HOSTILE)
@pytest.mark.parametrize("script", [tune_heatmap_threshold_opt, evalLocalization])
def test_a_hostile_map_is_one_line_and_exit_code_2(study, capsys, script, kind, workers):
    metric = ["--metric", "iou"] if script is evalLocalization else []
    damage, words = HOSTILE[kind]
    damage(study / "maps" / heat_map_name(FILMS[2], "Edema"))
    arguments = options(study, *metric, "--save_dir", str(study / "out"), "--workers", workers)
    assert cli.guarded(script.main, arguments) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and f"{FILMS[2]}_" in said and words in said and "Traceback" not in said
    assert not (study / "out").exists() and not (study / "canary").exists()


def test_the_deadly_map_is_deadly_elsewhere(study):
    path = study / "maps" / heat_map_name(FILMS[2], "Edema")
    rewrite(path, gt=Deadly(study / "canary"))
    pickle.loads(path.read_bytes())
    assert (study / "canary").exists()


@pytest.mark.parametrize("script", [tune_heatmap_threshold_opt, evalLocalization])
def test_ground_truth_of_another_size_is_one_line_and_exit_code_2(study, capsys, script):
    metric = ["--metric", "iou"] if script is evalLocalization else []
    truth = json.loads((study / "gt.json").read_text())
    truth[FILMS[3]] = {task: encode_mask(np.ones((24, 22), dtype=bool)) for task in TASKS}
    (study / "gt.json").write_text(json.dumps(truth))
    assert cli.guarded(script.main, options(study, *metric, "--save_dir", str(study / "out"))) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and FILMS[3] in said and "20 x 24" in said and "22 x 24" in said
    assert not (study / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--metric", "iou", "--human_points_path", "p.json", "--gt_path", "gt.json"], "points have no IoU"),
        (["--metric", "iou", "--map_dir", "m", "--gt_path", "gt.json", "--resamples", "0"], "--resamples: '0' is not"),
        (["--metric", "iou", "--map_dir", "m", "--gt_path", "gt.json"], "gt.json: no such file"),
        ([], "give results folders and --chexlocalize, or --metric"),
        (["results/a"], "whole results folders need --chexlocalize"),
        (["results/a", "--chexlocalize", "c", "--map_dir", "m"], "--map_dir is for one folder of maps"),
        (["--metric", "iou", "--gt_path", "gt.json"], "either --map_dir or --human_points_path"),
        (["results/a", "--chexlocalize", "c"], "c/CheXlocalize/gt_segmentations_val.json: no such file"),
    ],
)
def test_wrong_options(tmp_path, monkeypatch, capsys, arguments, words):
    monkeypatch.chdir(tmp_path)
    try:
        code = cli.guarded(evalLocalization.main, arguments)
    except SystemExit as stopped:
        code = stopped.code
    assert code == 2
    said = capsys.readouterr().err
    assert words in said and said.count("\n") == 1


@pytest.mark.parametrize("script", [tune_heatmap_threshold_opt, evalLocalization])
def test_help_shows_examples(capsys, script):
    with pytest.raises(SystemExit) as stop:
        script.main(["--help"])
    assert stop.value.code == 0 and "python " in capsys.readouterr().out
