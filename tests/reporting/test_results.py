"""What is read from a results folder, and what is said to be missing."""

import math

import numpy as np
import pandas as pd
import pytest

from cxr.files import InputError, write_json
from cxr.labels import CHEXPERT
from cxr.names import METHODS
from cxr.tables import write_csv
from reporting.label_words import ordered
from reporting.localization_results import HIT_RATE, MIOU_ALL, MIOU_TP
from reporting.paper import read_paper
from reporting.reading import read_results
from tests.reporting.result_files import MODEL, write_measure

IN_PAPER = [name for name, method in METHODS.items() if method.in_paper]


def test_complete_folder_misses_only_the_comparison(folder):
    results = read_results(folder)
    assert [line for line in results.missing if "comparison" not in line] == []
    assert (results.patch.name, results.baseline.name) == ("MedicalPatchNet", "EfficientNet-B0")
    assert results.protocols == ("corrected", "published")
    assert list(results.scored("published", HIT_RATE)) == IN_PAPER


def test_roles_come_from_the_recorded_sizes_and_names_from_the_backbone(folder):
    (folder / "MedicalPatchNet").rename(folder / "A")
    (folder / "EfficientNetB0").rename(folder / "PatchyB0")
    write_json(folder / "PatchyB0" / "run.json", {"model": MODEL["EfficientNetB0"] | {"backbone": "efficientnet_v2_s"}})
    results = read_results(folder)
    assert (results.patch.folder.name, results.baseline.folder.name) == ("A", "PatchyB0")
    assert results.baseline.name == "EfficientNetV2-S"


def test_models_of_one_name_go_by_their_folders(folder):
    (folder / "MedicalPatchNet").rename(folder / "EfficientNet-B0")
    results = read_results(folder)
    assert (results.patch.name, results.baseline.name) == ("EfficientNet-B0", "EfficientNetB0")


def test_without_run_json_the_folder_s_name_decides(folder):
    for name in MODEL:
        (folder / name / "run.json").unlink()
    results = read_results(folder)
    assert (results.patch.name, results.baseline.name) == ("MedicalPatchNet", "EfficientNetB0")


def test_a_second_patch_model_is_left_out_and_said_so(folder):
    write_json(folder / "Other" / "run.json", {"model": MODEL["MedicalPatchNet"]})
    results = read_results(folder)
    assert results.patch.name == "MedicalPatchNet"
    assert any("Other: left out" in line and "MedicalPatchNet" in line for line in results.missing)


def test_task_value_is_the_mean_of_the_defined_films_and_bounds_come_from_the_summary(folder):
    place = folder / "MedicalPatchNet" / "localization" / "corrected" / "raw"
    films = pd.DataFrame({task: [1.0, 0.0, 0.0, np.nan] for task in CHEXPERT.task_names})
    films["Edema"] = np.nan
    films["Pneumothorax"] = [1.0, np.nan, 1.0, np.nan]
    write_measure(place, "hitmiss", films)
    raw = read_results(folder).scored("corrected", HIT_RATE)["raw"]
    assert raw.tasks["Atelectasis"].value == pytest.approx(1 / 3)
    assert raw.tasks["Pneumothorax"].value == 1 and raw.films["Pneumothorax"] == 2
    assert math.isnan(raw.tasks["Edema"].value) and raw.films["Edema"] == 0 and len(raw.covered) == 9
    assert raw.mean.value == pytest.approx((8 / 3 + 8 * 0 + 1) / 9)
    summary = pd.read_csv(place / "hitmiss_summary_results.csv", index_col="name")
    assert raw.tasks["Atelectasis"].low == pytest.approx(summary.loc["Atelectasis", "lower"])
    assert (raw.mean.low, raw.mean.high) == pytest.approx(tuple(summary.loc["Mean", ["lower", "upper"]]))


def test_iou_of_all_cases_and_of_true_positives_are_not_mixed_up(folder):
    results = read_results(folder)
    for method in IN_PAPER:
        everything, true_positives = (results.scored("published", m)[method] for m in (MIOU_ALL, MIOU_TP))
        assert everything.mean.value == pytest.approx(true_positives.mean.value / 2, rel=1e-6)


def test_missing_parts_are_named_with_the_command_that_makes_them(folder):
    patch, baseline = folder / "MedicalPatchNet", folder / "EfficientNetB0"
    (patch / "roc_test.csv").unlink()
    (baseline / "classification_test.csv").unlink()
    (baseline / "predictions_test.csv").unlink()
    (patch / "localization/corrected/raw/hitmiss_results_per_cxr.csv").unlink()
    (baseline / "localization/published/gradcam/tp_fp_fn/iou_results_per_cxr.csv").unlink()
    results = read_results(folder)
    lines = "\n".join(results.missing)
    assert f"{patch}: no roc_test.csv; made by python evalClassification.py --predictions {patch}" in lines
    assert f"{baseline}: no classification_test.csv; made by ./runEval.sh" in lines
    assert "no hitmiss results (hit rate) of raw; made by python evalLocalization.py --metric hitmiss" in lines
    assert "of gradcam; made by python evalLocalization.py --metric iou --true_pos_only False" in lines
    assert "raw" not in results.scored("corrected", HIT_RATE) and "scaled" in results.scored("corrected", HIT_RATE)
    assert results.baseline.scores is None and results.patch.roc is None


def test_a_protocol_without_anything_is_one_line(folder):
    for name in MODEL:
        (folder / name / "localization" / "published").rename(folder / name / "elsewhere")
    results = read_results(folder)
    assert results.protocols == ("corrected",)
    assert sum("published" in line for line in results.missing) == 2


@pytest.mark.parametrize("reversed_order", [False, True])
def test_comparison_is_patch_model_minus_baseline_in_either_order(folder, reversed_order):
    row = {"label": "Edema", "metric": "auroc", "rule": "-", "value_a": 0.9, "value_b": 0.8, "difference": 0.1}
    row |= {"ci_low": 0.05, "ci_high": 0.2, "delong_p": 0.01, "delong_p_holm": 0.03}
    names = ("EfficientNetB0", "MedicalPatchNet") if reversed_order else ("MedicalPatchNet", "EfficientNetB0")
    write_csv(folder / f"comparison_{names[0]}_vs_{names[1]}.csv", pd.DataFrame([row]))
    found = read_results(folder).comparison.iloc[0]
    expected = (0.8, 0.9, -0.1, -0.2, -0.05) if reversed_order else (0.9, 0.8, 0.1, 0.05, 0.2)
    assert tuple(found[["value_a", "value_b", "difference", "ci_low", "ci_high"]]) == expected


def test_damaged_number_names_file_line_and_column(folder):
    path = folder / "MedicalPatchNet" / "classification_test.csv"
    lines = path.read_text().splitlines()
    lines[2] = lines[2].replace(lines[2].split(",")[4], "high")
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(InputError, match=r"classification_test.csv, line 3, value: 'high' is not a number"):
        read_results(folder)


def test_a_model_s_own_folder_and_an_empty_one_are_refused(folder, tmp_path):
    with pytest.raises(InputError, match="one model's folder; give the folder above"):
        read_results(folder / "MedicalPatchNet")
    with pytest.raises(InputError, match="no model's results in it"):
        read_results(tmp_path)


def test_label_order_is_the_figure_s():
    order = ordered(CHEXPERT)
    assert order[:10] == tuple(sorted(CHEXPERT.groups["CheXlocalize"])) and set(order) == set(CHEXPERT.names)
    assert order[10:] == ("Fracture", "No Finding", "Pleural Other", "Pneumonia")


class TestPaper:
    paper = read_paper().content

    @pytest.mark.parametrize("role", ["patch", "baseline"])
    def test_figure_1_averages_to_table_1(self, role):
        """The 14 numbers printed in Figure 1 and the two means of Table 1 are two readings of the same thing."""
        by_label = {label: values[role] for label, values in self.paper["figure1"].items()}
        assert set(by_label) == set(CHEXPERT.names)
        auroc = self.paper["table1"][role]["auroc"]
        assert np.mean(list(by_label.values())) == pytest.approx(auroc["Mean (14)"], abs=0.001)
        ten = np.mean([by_label[label] for label in CHEXPERT.groups["CheXlocalize"]])
        assert ten == pytest.approx(auroc["Mean (CheXlocalize 10)"], abs=0.001)

    def test_differences_are_those_of_the_models_up_to_rounding(self):
        table = self.paper["table1"]
        for metric, means in table["difference"].items():
            for mean, difference in means.items():
                assert difference == pytest.approx(
                    table["patch"][metric][mean] - table["baseline"][metric][mean], abs=0.0011
                )

    def test_table_2_means_are_those_of_its_rows(self):
        rows = self.paper["table2"]
        assert set(rows) == {*CHEXPERT.task_names, "Mean"}
        for method in IN_PAPER:
            assert np.mean([rows[task][method] for task in CHEXPERT.task_names]) == pytest.approx(
                rows["Mean"][method], abs=0.0006
            )
