"""Reports of other label sets, other methods and films that are not labelled: nothing is left out, nothing invented."""

import json
import math
import shutil

import numpy as np
import pandas as pd
import pytest

import makeReport
from cxr import names
from cxr.files import InputError, read_json, write_json
from cxr.labels import CHEXPERT, LabelSet
from cxr.names import Method
from cxr.predictions import Predictions
from cxr.tables import write_csv
from reporting.label_words import marked, means, means_caption, ordered
from reporting.page.case_list import read_case_list
from reporting.page.private import command_without_paths, without_paths
from reporting.page.tables import localization_tables
from reporting.paper import read_paper
from reporting.pictures.case_grid import choose_cases
from reporting.reading import read_results
from reporting.summary import summary
from reporting.tables.label_tables import table1_per_label
from reporting.tables.localization_tables import table2, table3
from reporting.tables.paper_tables import table1
from tests.reporting.result_files import write_measure

PAPER = read_paper()
IOUS = "localization/published/raw/iou_results_per_cxr.csv"
FOREIGN = ("Masse | Rundherd", "Erguss", "Stauung & Ödem")


def relabelled(folder, names):
    """The results folder with other labels in the place of CheXpert's; CheXpert's labels beyond these are dropped."""
    new = dict(zip(sorted(CHEXPERT.tasks), names, strict=False))
    tasks = {CHEXPERT.tasks[old]: label for old, label in new.items()}
    for path in folder.glob("*/*_test.csv"):
        table = pd.read_csv(path)
        if "label" in table:
            write_csv(path, table[table["label"].isin(new)].assign(label=table["label"].map(new)))
        else:
            kept = {"Path": "Path"} | {
                f"{kind} {old}": f"{kind} {new[old]}" for old in new for kind in ("prob", "label")
            }
            write_csv(path, table[list(kept)].rename(columns=kept))
    for path in folder.rglob("*_results_per_cxr.csv"):
        table = pd.read_csv(path)
        write_csv(path, table[[c for c in table if c in tasks or c == "img_id"]].rename(columns=tasks))
    for path in folder.rglob("*_summary_results.csv"):
        path.unlink()
    return folder


def rows_of(table, block=0):
    return {row[0].text: [cell.text for cell in row[1:]] for row in table.blocks[block].rows}


class TestForeignLabels:
    def test_a_whole_report_of_three(self, folder):
        relabelled(folder, FOREIGN)
        assert makeReport.main([str(folder), "--dataset-name", "drei"]) == 0
        report = folder / "report"
        per_label = pd.read_csv(report / "table1_per_label.csv")
        assert set(per_label["Label"]) == {*FOREIGN, "Mean (3)"}
        scores = pd.read_csv(folder / "MedicalPatchNet/classification_test.csv")
        aurocs = scores[scores["metric"] == "auroc"]["value"]
        mean = pd.read_csv(report / "table1.csv").set_index("Model").loc["MedicalPatchNet", "AUROC (All)"]
        assert mean == pytest.approx(aurocs.mean(), rel=1e-8)
        table = pd.read_csv(report / "table2_corrected.csv").set_index("Pathology")
        hits = pd.read_csv(folder / "MedicalPatchNet/localization/corrected/raw/hitmiss_results_per_cxr.csv")
        for label in FOREIGN:
            assert table.loc[label, "MedicalPatchNet (Raw)"] == pytest.approx(hits[label].mean(), rel=1e-8)
        assert "three pathologies" in (report / "table3_published.md").read_text()
        assert "Paper" not in (report / "table2_published.md").read_text()
        assert r"Masse \| Rundherd" in (report / "table1_per_label.md").read_text()
        page = (report / "report.html").read_text()
        assert "Stauung &amp; Ödem, positive" not in page and "Stauung &amp; Ödem" in page

    def test_the_list_has_the_file_s_labels(self, folder):
        cases = read_case_list(read_results(relabelled(folder, FOREIGN)))
        assert cases.labels.names == FOREIGN and cases.truth.shape == (60, 3)
        table = pd.read_csv(folder / "EfficientNetB0/predictions_test.csv")
        np.testing.assert_allclose(cases.probabilities["EfficientNet-B0"][:, 1], table["prob Erguss"])

    def test_the_record_s_groups_and_tasks(self, folder):
        relabelled(folder, FOREIGN)
        for path in folder.glob("*/run.json"):
            label_set = LabelSet(FOREIGN, {"Lunge": FOREIGN[1:]}, {"Erguss": "Pleuraerguss"})
            write_json(path, read_json(path) | {"label_set": label_set.to_json()})
        results = read_results(folder)
        assert list(means(results.labels)) == ["Mean (Lunge 2)", "Mean (3)"]
        assert ordered(results.labels) == ("Erguss", "Stauung & Ödem", "Masse | Rundherd")
        assert marked("Erguss", results.labels) == "Erguss (*)"
        assert means_caption(results.labels) == "Means over the 2 labels of Lunge (*) and over all 3 labels (All)"

    def test_part_of_chexpert_is_not_compared_with_the_paper_s_means(self, folder):
        kept = sorted(CHEXPERT.tasks)[:3]
        results = read_results(relabelled(folder, kept))
        table = table1(results, PAPER)
        assert len(table.blocks) == 1
        rows = rows_of(table1_per_label(results, PAPER))
        assert [label.removesuffix(" (*)") for label in rows] == [*kept, "Mean (3)"]
        assert rows[kept[0]][-2] == f"{PAPER.auroc('patch', kept[0]):.3f}" and rows["Mean (3)"][-2] == "–"


def test_models_of_different_labels_are_compared_over_those_of_both(folder):
    relabelled(folder, FOREIGN)
    for name in ("classification", "roc", "calibration"):
        path = folder / "EfficientNetB0" / f"{name}_test.csv"
        table = pd.read_csv(path)
        write_csv(path, table[table["label"] != "Erguss"])
    path = folder / "EfficientNetB0/predictions_test.csv"
    pd.read_csv(path).drop(columns=["prob Erguss", "label Erguss"]).to_csv(path, index=False)
    results = read_results(folder)
    assert results.labels.names == FOREIGN
    scores = pd.read_csv(folder / "MedicalPatchNet/classification_test.csv").set_index(["label", "metric"])["value"]
    common = [scores[label, "auroc"] for label in FOREIGN if label != "Erguss"]
    estimate = results.estimate(results.patch, "Mean (3)", "auroc", "-")
    assert estimate.value == pytest.approx(np.mean(common)) and math.isnan(estimate.low)
    assert any(
        "taken over 2 of 3 labels" in note and note.endswith(": Erguss.") for note in table1(results, PAPER).notes
    )
    assert np.isnan(read_case_list(results).probabilities["EfficientNet-B0"][:, 1]).all()


def test_mean_of_fewer_labels_does_not_win(folder):
    """The baseline would win by leaving out the label on which it is bad."""
    path = folder / "EfficientNetB0/classification_test.csv"
    table = pd.read_csv(path)
    worst = table[(table["metric"] == "accuracy") & ~table["label"].str.startswith("Mean")].nsmallest(1, "value")
    table.loc[worst.index, ["value", "ci_low", "ci_high"]] = np.nan
    accuracies = table[(table["metric"] == "accuracy") & table["label"].isin(CHEXPERT.names)]["value"]
    table.loc[(table["metric"] == "accuracy") & (table["label"] == "Mean (14)"), "value"] = accuracies.mean()
    write_csv(path, table)
    results = read_results(folder)
    label = worst["label"].item()
    for model in results.models:
        values = [model.scores.get(name, "accuracy", "youden").value for name in CHEXPERT.names if name != label]
        assert results.estimate(model, "Mean (14)", "accuracy", "youden").value == pytest.approx(np.mean(values))
    own = results.estimate(results.baseline, "Mean (14)", "auroc", "-")
    assert own == results.baseline.scores.get("Mean (14)", "auroc", "-")  # the file's own, with its interval


def test_means_of_localization_are_over_the_tasks_of_all_methods(folder):
    """Grad-CAM would win by leaving out the tasks on which it is bad: 0.667 over three against 0.600 over five."""
    scores = {"gradcam": [0.5, 0.7, 0.8, np.nan, np.nan], "raw": [0.6, 0.8, 0.9, 0.4, 0.3]}
    tasks = ["Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Lung Lesion"]
    for name, model in (("MedicalPatchNet", "raw"), ("EfficientNetB0", "gradcam")):
        shutil.rmtree(folder / name / "localization/published")
        for method in (folder / name / "localization/corrected").iterdir():
            if method.name != model:
                shutil.rmtree(method)
            else:
                films = pd.DataFrame({task: [value] * 2 for task, value in zip(tasks, scores[model], strict=True)})
                write_measure(method, "iou", films)
                write_measure(method / "tp_fp_fn", "iou", films)
                write_measure(method, "hitmiss", films.round())
    results = read_results(folder)
    assert results.shared_tasks("corrected", "TP only") == set(tasks[:3])
    means = results.localization_means("corrected", "TP only")
    assert means["raw"].value == pytest.approx(0.7667, abs=1e-4) and math.isnan(means["raw"].low)
    assert means["gradcam"] == pytest.approx((0.6667,) * 3, abs=1e-4)
    table = table3(results, "corrected", PAPER)
    row = {column: cell for column, cell in zip(table.columns, rows_of_cells(table, "TP only"), strict=True)}
    assert row["MedicalPatchNet (Raw)"].bold and row["Grad-CAM"].text == "0.667" and not row["Grad-CAM"].bold
    assert any("Means over the 3 of 5 pathologies" in note for note in table.notes)
    (shown,) = localization_tables(results)
    of_mean = [row for row in shown.blocks[2].rows if row[0].text == "Mean"][0]
    assert [cell.text for cell in of_mean[1:]] == ["0.767", "0.667 (0.667–0.667)"]
    assert "TP only: means over the 3 of 5 pathologies that every method defines." in shown.notes
    said = " ".join(summary(results).split())
    assert "Means over the tasks that every method defines: 3 of 5 (hit rate)" in said
    assert "3 of 5 (mIoU (TP only))" in said


def rows_of_cells(table, name):
    return next(row for row in table.blocks[0].rows if row[0].text == name)


class TestMethods:
    @pytest.fixture
    def occlusion(self, monkeypatch):
        monkeypatch.setitem(names.METHODS, "occlusion", Method("occlusion", "Occlusion", "patch", True, in_paper=False))

    def test_a_method_that_the_paper_lacks_is_a_column_with_dashes_in_the_paper_s_rows(self, folder, occlusion):
        place = folder / "MedicalPatchNet/localization/published"
        shutil.copytree(place / "raw", place / "occlusion")
        results = read_results(folder)
        table = table2(results, "published", PAPER)
        column = table.columns.index("Occlusion †") - 1
        raw = table.columns.index("MedicalPatchNet (Raw)") - 1
        assert all(row[column] == row[raw] for row in rows_of(table).values())
        assert {row[column] for row in rows_of(table, 1).values()} == {"–"}
        assert "† not in the paper." in table.notes
        assert makeReport.main([str(folder)]) == 0
        assert "Occlusion †" in (folder / "report/table3_published.md").read_text()
        content = (folder / "report/report.html").read_text()
        assert '"occlusion":{"name":"Occlusion","signed":true,"model":0}' in content

    def test_a_known_method_that_was_not_scored_is_not_missed_unless_the_paper_has_it(self, folder, occlusion):
        results = read_results(folder)
        assert not any("occlusion" in line for line in results.missing) and "occlusion" not in results.methods

    def test_folders_that_nobody_knows_are_said_to_be_left_out(self, folder):
        place = folder / "MedicalPatchNet/localization/published"
        shutil.copytree(place / "raw", place / "lime")
        shutil.copytree(place / "raw", place / "gradcam")
        shutil.copytree(place, place.with_name("other"))
        lines = [line for line in read_results(folder).missing if "left out" in line]
        assert lines == [
            f"{place.with_name('other')}: left out; the protocols are corrected, published",
            f"{place / 'gradcam'}: left out; Grad-CAM explains the baseline",
            f"{place / 'lime'}: left out; cxr/names.py has no method of this name",
        ]


def test_the_picture_s_rules_take_the_commonest_labels_where_the_paper_s_are_not():
    labels = LabelSet.of(("A", "B"))
    truth = np.array([[1, np.nan], [0, 1], [np.nan, 1], [0, 0]], float)  # B has more positives
    probability = np.array([[0.9, 0.9], [0.2, 0.4], [0.99, 0.7], [0.1, 0.3]])
    predictions = Predictions(tuple("wxyz"), probability, truth, labels)
    chosen = choose_cases(predictions, labels, {(film, task) for film in "wxyz" for task in "AB"})
    assert [(rule.task, str(rule), film) for rule, film in chosen] == [
        ("B", "highest p, positives", "y"),
        ("B", "lowest p, negatives", "z"),
        ("A", "highest p, positives", "w"),
    ]


def test_films_that_are_not_labelled_have_no_outcome(folder):
    for path in folder.glob("*/predictions_test.csv"):
        table = pd.read_csv(path)
        table["label Edema"] = table["label Edema"].astype(object)
        table.loc[0, "label Edema"] = ""
        table.to_csv(path, index=False)
    cases = read_case_list(read_results(folder))
    edema = CHEXPERT.index("Edema")
    assert math.isnan(cases.truth[0, edema]) and cases.outcome(0, edema) == ""
    assert json.loads(json.dumps(cases.content()))["truth"][0][edema] == "?"


@pytest.mark.parametrize(("name", "change", "reason"), [
    ("roc_test.csv", {"fpr": "1.5"}, r"fpr: '1\.5' is not in \[0, 1\]"),
    ("calibration_test.csv", {"count": "-3"}, r"count: '-3' is not in"),
    ("classification_test.csv", {"value": "1e999"}, "value: '1e999' is not in"),
    (IOUS, {"Edema": "\x1b[31m"}, r"Edema: '\\x1b\[31m' is not a number"),
    (IOUS, {"img_id": "patient64742_study1_view1_frontal"}, "is there twice"),
])  # fmt: skip
def test_damaged_files_are_one_line(folder, name, change, reason):
    path = folder / "MedicalPatchNet" / name
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    table.loc[0, list(change)] = list(change.values())
    table.to_csv(path, index=False)
    with pytest.raises(InputError, match=reason) as caught:
        read_results(folder)
    assert "\n" not in str(caught.value) and "\x1b" not in str(caught.value)


@pytest.mark.parametrize("record", [
    {"model": []}, {"model": {"patch_size": [], "image_size": {}}},
    {"model": {"patch_size": 512, "image_size": 512, "backbone": ["x"]}},
    {"versions": {"a": []}, "command": {"a": 1}, "seed": 10**90, "data": {"test": {"films": [], "positives": 3}}},
    {"additivity": {"test": {"max_error": True}}, "stages": {"a\x1b": {"seconds": "1"}, "b": 3}},
])  # fmt: skip
def test_odd_records_are_reported_all_the_same(folder, record):
    write_json(folder / "MedicalPatchNet/run.json", record)
    assert makeReport.main([str(folder)]) == 0


@pytest.mark.parametrize("text", ["[]", "3", "null", '{"a": Infinity}', '{"label_set": {"names": 3}}', "[" * 10**5])
def test_records_of_another_kind_are_one_line(folder, text):
    (folder / "MedicalPatchNet/run.json").write_text(text)
    with pytest.raises(InputError, match=r"run\.json") as caught:
        read_results(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("text", "shown"), [
    ("/home/alice/a/b.csv: missing; made by ./runEval.sh", "b.csv: missing; made by ./runEval.sh"),
    ("~alice/x, C:\\Users\\alice\\w.pt and ../../alice/w", "x, w.pt and w"),
    ("/home/alice, /Users/alice/", "~, ~"),
    ("raw/miou_curve.png, gradcam++/miou_curve.png, TP/FP", "raw/miou_curve.png, gradcam++/miou_curve.png, TP/FP"),
])  # fmt: skip
def test_paths_that_hold_user_names_are_cut(text, shown):
    assert without_paths(text) == shown


def test_a_command_keeps_what_is_relative():
    command = "/home/alice/bin/python makeReport.py --data '/home/alice/my films/x' --output=/home/alice demo/results"
    assert command_without_paths(command) == "python makeReport.py --data x '--output=~' demo/results"
    assert command_without_paths("python 'a b'  c") == "python 'a b'  c"
