"""trainClassification.py around its training: options, the results it will write, and the final evaluation."""

import csv
import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

import cli
import evalClassification
import models.measured
import trainClassification
import training_options
from cxr.files import write_json
from cxr.tables import read_csv
from tests.films import write_film
from tests.training_runs import ROOT, arguments

OUT_OF_RANGE = """--lr nan|--lr inf|--lr 0|--lr -1|--epochs 0|--epochs 1.5|--batch-size 0|--batch-size -4
    --image-size 0|--image-size 100000|--patch-size 0|--patch-size 24|--patch-size 64|--fraction 0|--fraction 1.01
    --fraction nan|--accumulate 0|--accumulate 3|--worker-timeout -1|--worker-timeout 0|--worker-timeout 1e300|--seed -1
    --seed 4294967296|--workers -1|--workers 9999999|--keep-checkpoints 0|--checkpoint-minutes -1
    --checkpoint-minutes nan|--data |--data missing|--output |--results |--init x|--track x|--device gpu"""


@pytest.mark.parametrize("wrong", [words.strip(" \n") for words in OUT_OF_RANGE.replace("\n", "|").split("|")])
def test_options_out_of_range_are_refused_in_one_line_before_anything_is_read(wrong, tmp_path, capsys, monkeypatch):
    """The data folder is empty: reading it would be another error."""
    monkeypatch.setattr(cli, "pick_device", None)
    option, _, value = wrong.partition(" ")
    with pytest.raises(SystemExit) as caught:
        trainClassification.main(arguments(tmp_path, tmp_path / "run", option, value))
    assert caught.value.code == 2
    said = capsys.readouterr().err
    assert option in said and said.count("\n") == 1 and "Traceback" not in said
    assert list(tmp_path.iterdir()) == []


def test_help_and_mistakes_are_answered_before_torch_is_imported(tmp_path):
    """--help shows all options; of those, each decides about the weights or does not."""
    code = "import sys, trainClassification as t\ntry: t.main(sys.argv[1:])\nfinally: print('torch' in sys.modules)"
    for words, status in ((["--help"], 0), (["--data", "missing"], 2)):
        done = subprocess.run(
            [sys.executable, "-c", code, *words], cwd=ROOT, capture_output=True, text=True, timeout=60
        )
        assert (done.returncode, done.stdout.splitlines()[-1]) == (status, "False"), done.stderr
    done = subprocess.run([sys.executable, "-c", code, "--help"], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert all(word in done.stdout for word in ("--seed SEED", "(default: 0)", "recipe", "--on-bad-image {stop,skip}"))


@pytest.mark.parametrize("option", ["-wb", "-wb_name", "-evalOnly", "-loadPath", "-lrFactor", "-model", "-hpc"])
def test_published_options_that_are_gone_say_what_replaces_them(option, tmp_path, capsys):
    for value in ([], ["x"]):
        with pytest.raises(SystemExit) as caught:
            trainClassification.main([option, *value])
        assert caught.value.code == 2
        said = capsys.readouterr().err
        assert f"{option} of the published script is gone: " in said and said.count("\n") == 1


@pytest.mark.parametrize(
    ("given", "folder"),
    [
        (["-savePath", "MedicalPatchNet.pt"], "savedModels/MedicalPatchNet"),
        (["-savePath", "savedModels/latestEncoder.pt"], "savedModels/latestEncoder"),
        (["--output", "MedicalPatchNet"], "MedicalPatchNet"),
        (["--output", "/x/y.pt"], "/x/y"),
        ([], "savedModels/MedicalPatchNet"),
    ],
)
def test_weights_lie_where_the_evaluation_looks(given, folder, tmp_path):
    published = ["-bs", "8", "-ep", "2", "-lr", "1e-3", "-patchSize", "16", "-imgSize", "64", "-pr", "0"]
    args, recipe, settings = training_options.parse_args(["--data", str(tmp_path), *published, *given])
    assert args.output == Path(folder) and args.results == Path("results") / Path(folder).name
    assert (settings["patch_size"], settings["image_size"], recipe["batch_size"], recipe["epochs"]) == (16, 64, 8, 2)
    assert recipe.items() <= settings.items() and "patch_size" not in recipe and "workers" not in settings


@pytest.mark.parametrize("with_nan", [False, True])
def test_mean_auroc_is_scikit_learns_over_the_labels_where_it_is_defined(with_nan):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, (40, 5)).astype(np.float32)
    labels[:, 3] = 1  # undefined: no negative
    logits = torch.from_numpy(rng.normal(size=(40, 5)).round(1))
    if with_nan:
        labels[:7, 1] = np.nan
        labels[:, 4] = np.nan
    expected = []
    for column in (0, 1, 2) if with_nan else (0, 1, 2, 4):
        known = np.isfinite(labels[:, column])
        expected.append(roc_auc_score(labels[known, column], logits[known, column].numpy()))
    assert trainClassification._mean_auroc(logits, labels) == pytest.approx(np.mean(expected), rel=1e-12)
    assert math.isnan(trainClassification._mean_auroc(logits, np.ones((40, 5), np.float32)))


@pytest.fixture
def evaluated(monkeypatch):
    """Arguments of every final evaluation, none of which is made."""
    calls = []
    monkeypatch.setattr(evalClassification, "main", lambda argv: calls.append(argv) or 0)
    monkeypatch.setattr(models.measured, "describe", lambda weights, results: None)
    return calls


def train(data, root, *more):
    """The exit code of a run in `root`, to be evaluated into `root/results`."""
    command = arguments(data, root / "run", "--epochs", "1", "--results", str(root / "results"), *more)
    command.remove("--no-evaluation")
    return cli.guarded(trainClassification.main, command)


def test_the_evaluation_gets_the_options_of_the_training(evaluated, tiny_chexpert, tmp_path):
    assert train(tiny_chexpert, tmp_path) == 0
    (argv,) = evaluated
    args = evalClassification._parse(argv)
    assert (args.weights, args.output) == (str(tmp_path / "run"), tmp_path / "results")
    assert (args.data, args.device, args.heatmaps) == (tiny_chexpert, "cpu", ["none"])
    assert (args.seed, args.workers, args.batch_size) == (5, 0, 2)


def test_old_results_are_told_before_a_training_and_not_after_it(evaluated, tiny_chexpert, tmp_path, capsys):
    write_json(tmp_path / "results/run.json", {"weights": {"sha256": "0" * 64}})
    said = f"error: {tmp_path / 'results'}: holds results of other weights; delete it or choose another --results\n"
    assert train(tiny_chexpert, tmp_path) == 2
    assert capsys.readouterr().err.endswith(said)
    assert not (tmp_path / "run/training_state.pt").exists()
    assert train(tiny_chexpert, tmp_path, "--no-evaluation") == 0

    assert train(tiny_chexpert, tmp_path) == 0  # complete: its results may be there
    made = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")}
    assert train(tiny_chexpert, tmp_path, "--resume", "never") == 2
    assert capsys.readouterr().err.endswith(said)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")} == made
    assert len(evaluated) == 1


def test_a_manifest_of_other_labels_trains(tmp_path):
    """Three labels, blanks that are not labelled, splits and patients in columns; one film has no label at all."""
    names = ("Nodule", "Effusion, left", "Calcification")
    rng = np.random.default_rng(0)
    rows = [["file_name", "Patient", "Split", *names]]
    for i in range(18):
        write_film(tmp_path / f"data/images/{i}.png", 48, 40, seed=i)
        labels = [str(value) for value in rng.choice(["0", "1", ""], 3)] if i else ["", "", ""]
        rows.append([f"images/{i}.png", f"p{i // 2}", "val" if i >= 12 else "train", *labels])
    with open(tmp_path / "data/films.csv", "w", newline="") as file:
        csv.writer(file).writerows(rows)
    assert cli.guarded(trainClassification.main, arguments(tmp_path / "data", tmp_path / "run")) == 0
    assert len(read_csv(tmp_path / "run/history_steps.csv")) == 3 * 6  # 12 films in steps of 2
    assert json.loads((tmp_path / "run/config.json").read_text())["labels"] == list(names)
    settings = json.loads((tmp_path / "run/training.json").read_text())["settings"]
    assert (settings["label_set"], settings["labels"]) == (list(names), "films.csv")
    losses = read_csv(tmp_path / "run/history_steps.csv")["loss"].astype(float)
    assert np.isfinite(losses).all() and (losses > 0).all()
