"""Equivalence, calibration and subgroups in the report, from the files that evalClassification.py writes."""

import shutil

import numpy as np
import pandas as pd
import pytest

import evalClassification
import makeReport
from cxr.files import InputError
from cxr.labels import LabelSet
from cxr.predictions import Predictions, write_predictions
from reporting.format import interval, number
from reporting.reading import read_results
from reporting.tables.statistics_tables import statistics_tables

LABELS = LabelSet.of(("Edema", "Fracture", "Mass"))


def predictions(split, count, seed, noise):
    """Fracture is never positive; the same truth for every noise."""
    truth = np.random.default_rng(seed)
    labels = (truth.random((count, 3)) < 0.4).astype(float)
    labels[:, 1] = 0
    shared = truth.normal(size=labels.shape)
    logits = shared + 1.5 * labels + noise * np.random.default_rng(seed + 1).normal(size=labels.shape)
    paths = tuple(f"{split}/patient{i:05d}/study1/view1_frontal.jpg" for i in range(count))
    return Predictions(paths, 1 / (1 + np.exp(-logits)), labels, LABELS)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Two models with all tables of their predictions; half of the films are of women."""
    root = tmp_path_factory.mktemp("statistics")
    results, data = root / "results", root / "data"
    for name, noise in (("EfficientNetB0", 0.02), ("MedicalPatchNet", 0.0)):
        for split, count, seed in (("val", 120, 0), ("test", 240, 5)):
            write_predictions(results / name / f"predictions_{split}.csv", predictions(split, count, seed, noise))
    data.mkdir()
    test = predictions("test", 240, 5, 0)
    sexes = np.where(np.arange(240) % 5 < 3, "Male", "Female")
    facts = {"Path": test.paths, "Sex": sexes} | {name: test.labels[:, i] for i, name in enumerate(test.names)}
    pd.DataFrame(facts).to_csv(data / "test_labels.csv", index=False)
    for name in ("EfficientNetB0", "MedicalPatchNet"):
        other = ["--compare", str(results / "EfficientNetB0"), "--margin", "0.03"] if name == "MedicalPatchNet" else []
        arguments = ["--predictions", str(results / name), "--data", str(data), "--resamples", "100", *other]
        assert evalClassification.main(arguments) == 0
    return results


def tables_of(folder):
    return {table.name: table for table in statistics_tables(read_results(folder), "drawn films")}


def cells(table, first):
    """The texts of all rows that begin with a text."""
    return [[cell.text for cell in row] for block in table.blocks for row in block.rows if row[0].text == first]


def test_equivalence_shows_the_file(made):
    table = tables_of(made)["equivalence"]
    rows = pd.read_csv(made / "equivalence_MedicalPatchNet_vs_EfficientNetB0.csv").set_index("label")
    (found,) = cells(table, "Mass")
    row = rows.loc["Mass"]
    assert found[1] == interval(row.difference, row.ci90_low, row.ci90_high)
    assert found[2:4] == ["< 0.001", "< 0.001"] and found[4] == number(row.smallest_margin_equivalent)
    assert found[5] == "equivalent" and table.title == "Equivalence within 0.03"
    assert "MedicalPatchNet - EfficientNetB0" in table.caption and "(drawn films)" in table.caption
    assert "– undefined, 0 positives: fewer than 10: Fracture." in table.notes
    bold = {row[0].text: row[-1].bold for row in table.blocks[0].rows}
    assert bold["Mass"] and not bold["Fracture"]


def test_calibration_shows_the_files_of_each_model(made):
    table = tables_of(made)["calibration"]
    assert [block.heading for block in table.blocks] == ["MedicalPatchNet", "EfficientNetB0"]
    for name, found in zip(("MedicalPatchNet", "EfficientNetB0"), cells(table, "Mass"), strict=True):
        errors = pd.read_csv(made / name / "recalibration_test.csv").set_index(["label", "metric"])
        precision = pd.read_csv(made / name / "precision_recall_test.csv").set_index(["label", "metric"])
        keys = [(("Mass", metric), side) for metric in ("brier", "ece") for side in ("value_before", "value_after")]
        expected = [errors.loc[key] for key in keys]
        expected += [precision.loc[("Mass", metric), "value"] for metric in ("auprc", "prevalence")]
        assert found[1:] == [number(value) for value in expected]
    fracture = cells(table, "Fracture")[0]
    assert fracture[2] == fracture[4] == fracture[5] == fracture[6] == "–" and "–" not in (fracture[1], fracture[3])
    assert len(table.data) == 2 * 5


def test_subgroups_show_the_mean_of_each_group_and_its_difference(made):
    table = tables_of(made)["subgroups"]
    assert [block.heading for block in table.blocks] == ["Sex"] and len(table.columns) == 6
    (men,), (women,) = cells(table, "M"), cells(table, "F")
    assert (men[1], men[3], women[1]) == ("144", "–", "96")
    rows = pd.read_csv(made / "MedicalPatchNet/subgroups_test.csv")
    row = rows[(rows.group == "F") & (rows.label == "Mean (3)") & (rows.metric == "auroc")].iloc[0]
    assert women[2] == interval(row.value, row.ci_low, row.ci_high)
    assert women[3] == interval(row.difference, row.difference_low, row.difference_high)


def test_the_report_and_its_page_have_them(made, tmp_path):
    assert makeReport.main([str(made), "--output", str(tmp_path)]) == 0
    page = (tmp_path / "report.html").read_text()
    titles = {"equivalence": "Equivalence within 0.03", "calibration": "Calibration", "subgroups": "Subgroups"}
    for name, title in titles.items():
        assert (tmp_path / f"{name}.csv").is_file() and title in (tmp_path / f"{name}.md").read_text()
        assert title in page


def test_without_the_files_there_are_no_tables_and_nothing_is_missing(made, tmp_path):
    folder = shutil.copytree(made, tmp_path / "results")
    before = read_results(folder).missing
    for path in [*folder.glob("equivalence*"), *folder.glob("*/*_test.csv")]:
        if path.name.startswith(("equivalence", "subgroups", "recalibration", "precision_recall")):
            path.unlink()
    assert tables_of(folder) == {} and read_results(folder).missing == before


def test_the_baseline_may_stand_first(made, tmp_path):
    folder = shutil.copytree(made, tmp_path / "results")
    path = folder / "equivalence_MedicalPatchNet_vs_EfficientNetB0.csv"
    path.rename(folder / "equivalence_EfficientNetB0_vs_MedicalPatchNet.csv")
    assert "EfficientNetB0 - MedicalPatchNet" in tables_of(folder)["equivalence"].caption


@pytest.mark.parametrize(
    ("name", "column"),
    [
        ("equivalence_MedicalPatchNet_vs_EfficientNetB0.csv", "p_equivalent_holm"),
        ("MedicalPatchNet/subgroups_test.csv", "difference_low"),
        ("MedicalPatchNet/recalibration_test.csv", "value_after"),
        ("EfficientNetB0/precision_recall_test.csv", "value"),
    ],
)
def test_a_damaged_file_is_named_with_line_and_column(made, tmp_path, name, column):
    folder = shutil.copytree(made, tmp_path / "results")
    table = pd.read_csv(folder / name, dtype=str)
    table.loc[1, column] = "high"
    table.to_csv(folder / name, index=False)
    with pytest.raises(InputError, match=rf"line 3, {column}: 'high' is not a number"):
        read_results(folder)
