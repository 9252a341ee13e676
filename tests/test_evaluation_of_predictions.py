"""evalClassification.py --predictions: every table again, from the saved predictions alone."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest

import cli
import evalClassification
from cxr.labels import CHEXPERT
from cxr.predictions import Predictions, write_predictions

LABELS = CHEXPERT.names


def predictions(count, seed, shift=1.0):
    rng = np.random.default_rng(seed)
    labels = (rng.random((count, len(LABELS))) < 0.4).astype(np.int8)
    probabilities = 1 / (1 + np.exp(-(rng.normal(size=labels.shape) + shift * (labels - 0.5))))
    paths = tuple(f"test/patient{i:05d}/study1/view1_frontal.jpg" for i in range(count))
    return Predictions(paths, probabilities, labels, CHEXPERT)


@pytest.fixture
def folder(tmp_path):
    write_predictions(tmp_path / "a/predictions_val.csv", predictions(60, 0))
    write_predictions(tmp_path / "a/predictions_test.csv", predictions(80, 1))
    return tmp_path / "a"


def run(*arguments):
    return cli.guarded(evalClassification.main, [str(argument) for argument in arguments])


def test_all_tables_and_nothing_done_twice(folder, capsys):
    assert run("--predictions", folder, "--resamples", 200) == 0
    names = {path.name for path in folder.iterdir()}
    assert {"thresholds.json", "run.json", "classification_val.csv", "classification_test.csv"} <= names
    assert {"roc_val.csv", "roc_test.csv", "calibration_val.csv", "calibration_test.csv"} <= names
    table = pd.read_csv(folder / "classification_test.csv")
    assert set(table["label"]) == {*LABELS, "Mean (14)", "Mean (CheXlocalize 10)"}
    assert (table["resamples"] == 200).mean() > 0.9
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    capsys.readouterr()
    assert run("--predictions", folder, "--resamples", 200) == 0
    assert "complete" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before


def test_same_seed_same_bytes_and_another_number_of_resamples_is_another_table(folder, tmp_path):
    run("--predictions", folder, "--resamples", 200)
    first = (folder / "classification_test.csv").read_bytes()
    shutil.copytree(folder, tmp_path / "b")
    for made in ("run.json", "classification_test.csv"):
        (tmp_path / "b" / made).unlink()
    run("--predictions", tmp_path / "b", "--resamples", 200)
    assert (tmp_path / "b/classification_test.csv").read_bytes() == first
    run("--predictions", tmp_path / "b", "--resamples", 300)
    assert (tmp_path / "b/classification_test.csv").read_bytes() != first


def test_a_users_own_test_predictions_without_validation(folder, capsys):
    (folder / "predictions_val.csv").unlink()
    assert run("--predictions", folder, "--resamples", 0) == 0
    assert "no Youden threshold (no predictions_val.csv to take it from)" in capsys.readouterr().out
    table = pd.read_csv(folder / "classification_test.csv")
    assert table.loc[table["rule"] == "youden", "value"].isna().all()
    assert table.loc[table["rule"] == "0.5", "value"].notna().any()
    entry = json.loads((folder / "thresholds.json").read_text())["Edema"]
    assert entry["threshold"] is None
    assert entry["reason"]


def test_comparison_of_two_folders(folder, capsys):
    other = folder.parent / "b"
    write_predictions(other / "predictions_val.csv", predictions(60, 0))
    better = predictions(80, 1, shift=2.0)
    write_predictions(other / "predictions_test.csv", better)
    assert run("--predictions", other, "--resamples", 100) == 0
    assert run("--predictions", folder, "--resamples", 100, "--compare", other) == 0
    table = pd.read_csv(folder.parent / "comparison_a_vs_b.csv")
    auroc = table[(table["label"] == "Mean (14)") & (table["metric"] == "auroc")]
    assert auroc["difference"].item() < 0
    write_predictions(other / "predictions_test.csv", predictions(79, 1))
    run("--predictions", other, "--resamples", 0)
    assert run("--predictions", folder, "--resamples", 100, "--compare", other) == 2
    assert "patient00079" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--predictions", "nowhere"], "--predictions nowhere: no such folder"),
        ([], "one of the arguments"),
        (["--weights", "hf://a/b"], "--weights needs --data"),
        (["--weights", "w.pt", "--data", "nowhere"], "no such file"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(arguments, message, capsys):
    try:
        code = run(*arguments)
    except SystemExit as stopped:
        code = stopped.code
    assert code == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
