"""evalClassification.py: calibration, precision-recall, decision curves, subgroups and equivalence of predictions."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score

import cli
import evalClassification
from cxr.calibration_lines import logit
from cxr.labels import LabelSet
from cxr.predictions import Predictions, read_predictions, write_predictions

LABELS = LabelSet.of(("Edema", "Nodule", "Fracture"))


def predictions(split, count, seed, shift=1.0):
    """Fracture is never positive; a fifth of Nodule is not labelled. Two films of each patient."""
    rng = np.random.default_rng(seed)
    labels = (rng.random((count, 3)) < 0.4).astype(float)
    labels[:, 2] = 0
    labels[rng.random(count) < 0.2, 1] = np.nan
    logits = 2 * rng.normal(size=labels.shape) + shift * (np.nan_to_num(labels) - 0.5)
    paths = tuple(f"{split}/patient{i // 2:05d}/study1/view{i % 2 + 1}_frontal.jpg" for i in range(count))
    return Predictions(paths, 1 / (1 + np.exp(-logits)), labels, LABELS)


@pytest.fixture
def folder(tmp_path):
    write_predictions(tmp_path / "a/predictions_val.csv", predictions("valid", 160, 0))
    write_predictions(tmp_path / "a/predictions_test.csv", predictions("test", 240, 1))
    return tmp_path / "a"


def run(*arguments):
    return cli.guarded(evalClassification.main, [str(argument) for argument in arguments])


def test_the_tables_beside_the_classification_table(folder, capsys):
    assert run("--predictions", folder, "--resamples", 60) == 0
    validation, test = (read_predictions(folder / f"predictions_{split}.csv") for split in ("val", "test"))
    line = json.loads((folder / "calibration.json").read_text())["Edema"]
    model = LogisticRegression(C=np.inf, tol=1e-10).fit(logit(validation.probabilities[:, :1]), validation.labels[:, 0])
    assert (line["slope"], line["intercept"]) == pytest.approx((model.coef_[0, 0], model.intercept_[0]), rel=1e-4)
    for split in ("val", "test"):
        table = pd.read_csv(folder / f"recalibration_{split}.csv").set_index(["label", "metric"])
        assert table.loc[("Edema", "brier"), "difference"] < 0  # logits twice too large
        assert table.loc[("Fracture", "brier"), "note"] == "no positives in validation"
        expected = [0 if label == "Fracture" else 60 for label, _ in table.index]
        assert table["resamples"].tolist() == expected
        assert len(pd.read_csv(folder / f"decision_curve_{split}.csv")) == 3 * 99
    table = pd.read_csv(folder / "precision_recall_test.csv").set_index(["label", "metric"])
    expected = average_precision_score(test.labels[:, 0], test.probabilities[:, 0])
    assert table.loc[("Edema", "auprc"), "value"] == pytest.approx(expected, abs=1e-8)
    capsys.readouterr()
    assert run("--predictions", folder, "--resamples", 60) == 0
    assert "complete" in capsys.readouterr().out
    (folder / "recalibration_test.csv").unlink()
    assert run("--predictions", folder, "--resamples", 60) == 0
    assert (folder / "recalibration_test.csv").is_file()


def test_a_calibration_that_lies_in_the_folder_serves_without_validation(folder):
    run("--predictions", folder, "--resamples", 0)
    other = folder.parent / "b"
    other.mkdir()
    for name in ("predictions_test.csv", "calibration.json"):
        shutil.copy(folder / name, other)
    run("--predictions", other, "--resamples", 0)
    assert pd.read_csv(other / "recalibration_test.csv").equals(pd.read_csv(folder / "recalibration_test.csv"))


def test_without_validation_nothing_is_calibrated_and_the_reason_stands_in_the_table(folder):
    (folder / "predictions_val.csv").unlink()
    run("--predictions", folder, "--resamples", 0)
    table = pd.read_csv(folder / "recalibration_test.csv")
    assert table["value_after"].isna().all()
    assert table.loc[0, "note"] == "no predictions_val.csv to take it from"


def test_a_damaged_calibration_is_one_line(folder, capsys):
    (folder / "predictions_val.csv").unlink()
    (folder / "calibration.json").write_text('{"Edema": {"slope": "steep", "intercept": 0}}')
    assert run("--predictions", folder, "--resamples", 0) == 2
    assert "calibration.json, Edema: 'steep' is not a finite number" in capsys.readouterr().err


def data_folder(folder, test, **columns):
    folder.mkdir()
    facts = {"Path": test.paths, **columns, **{name: test.labels[:, i] for i, name in enumerate(test.names)}}
    pd.DataFrame(facts).to_csv(folder / "test_labels.csv", index=False)
    return folder


def test_subgroups_of_a_table_that_knows_its_patients(folder, tmp_path, capsys):
    test = read_predictions(folder / "predictions_test.csv")
    sexes = np.where(np.arange(240) // 2 % 3 == 0, "Female", "Male")
    data = data_folder(tmp_path / "data", test, Sex=sexes, Age=np.arange(240) // 3 + 20)
    assert run("--predictions", folder, "--data", data, "--resamples", 40) == 0
    assert "subgroups_test.csv: by sex, age" in capsys.readouterr().out
    table = pd.read_csv(folder / "subgroups_test.csv")
    assert set(table.attribute) == {"Sex", "Age"} and not (folder / "subgroups_val.csv").exists()
    row = table[(table.group == "F") & (table.label == "Edema") & (table.metric == "auroc")].iloc[0]
    wins = [
        (p > q) + 0.5 * (p == q)
        for p in test.probabilities[(sexes == "Female") & (test.labels[:, 0] == 1), 0]
        for q in test.probabilities[(sexes == "Female") & (test.labels[:, 0] == 0), 0]
    ]
    assert row.value == pytest.approx(np.mean(wins), abs=1e-8)
    assert (row.reference, row.films, row.resample_unit, row.resamples) == ("M", 80, "patient", 40)
    assert run("--predictions", folder, "--data", data, "--resamples", 40) == 0
    assert "by sex" not in capsys.readouterr().out


def test_subgroups_need_a_table_of_the_same_films(folder, tmp_path, capsys):
    other = predictions("elsewhere", 240, 1)
    assert run("--predictions", folder, "--data", data_folder(tmp_path / "data", other), "--resamples", 0) == 2
    assert "none of the predicted films" in capsys.readouterr().err
    same = data_folder(tmp_path / "plain", read_predictions(folder / "predictions_test.csv"))
    assert run("--predictions", folder, "--data", same, "--resamples", 0) == 0
    assert "hence no subgroups_test.csv" in capsys.readouterr().out
    assert not (folder / "subgroups_test.csv").exists()


def test_equivalence_within_a_margin(folder, capsys):
    a = read_predictions(folder / "predictions_test.csv")
    closeby = 1 / (1 + np.exp(-logit(a.probabilities) - 0.02 * np.random.default_rng(0).normal(size=a.labels.shape)))
    other = folder.parent / "b"
    write_predictions(other / "predictions_val.csv", predictions("valid", 160, 0))
    write_predictions(other / "predictions_test.csv", Predictions(a.paths, closeby, a.labels, LABELS))
    run("--predictions", other, "--resamples", 0)
    arguments = ("--predictions", folder, "--compare", other, "--resamples", 200, "--resample-unit", "patient")
    assert run(*arguments) == 0 and not (folder.parent / "equivalence_a_vs_b.csv").exists()
    capsys.readouterr()
    assert run(*arguments, "--margin", 0.02) == 0
    assert "AUROC within 0.02, labels and means: 4 equivalent, 1 undefined" in capsys.readouterr().out
    table = pd.read_csv(folder.parent / "equivalence_a_vs_b.csv").set_index("label")
    assert table.loc["Edema", "method"] == "DeLong over patients"
    assert table.loc["Fracture", "note"] == "0 positives: fewer than 10"
    comparison = pd.read_csv(folder.parent / "comparison_a_vs_b.csv")
    differences = comparison[comparison.metric == "auroc"].set_index("label")["difference"]
    np.testing.assert_allclose(table["difference"], differences[table.index], atol=1e-8)


def test_a_comparison_with_a_folder_without_tables_is_one_line(folder, capsys):
    other = folder.parent / "b"
    other.mkdir()
    assert run("--predictions", folder, "--compare", other, "--resamples", 0, "--margin", 0.1) == 2
    assert capsys.readouterr().err.startswith(f"error: {other / 'predictions_test.csv'}: no such file")
    shutil.copy(folder / "predictions_test.csv", other)
    assert run("--predictions", folder, "--compare", other, "--resamples", 0, "--margin", 0.1) == 2
    assert capsys.readouterr().err.startswith(f"error: {other / 'thresholds.json'}: no such file")


@pytest.mark.parametrize("margin", ["0", "-0.1", "0.6", "nan", "small"])
def test_bad_margins_are_refused(folder, margin, capsys):
    with pytest.raises(SystemExit) as stopped:
        run("--predictions", folder, "--compare", folder, f"--margin={margin}")
    assert stopped.value.code == 2 and "--margin" in capsys.readouterr().err


def test_a_margin_without_a_comparison_is_refused(folder, capsys):
    with pytest.raises(SystemExit):
        run("--predictions", folder, "--margin", "0.02")
    assert "--margin needs --compare" in capsys.readouterr().err
