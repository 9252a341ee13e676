"""Numbers, winners and escaping of the report's tables."""

import math

import numpy as np
import pandas as pd
import pytest

from cxr.labels import CHEXPERT
from cxr.tables import write_csv
from reporting.format import Block, Cell, Table, interval, number, plain, ranked, to_latex, to_markdown, write_table
from reporting.paper import read_paper
from reporting.reading import read_results
from reporting.tables.label_tables import comparison_table, table1_per_label
from reporting.tables.localization_tables import table2, table3
from reporting.tables.paper_tables import table1
from tests.reporting.result_files import write_measure

PAPER = read_paper()


def set_values(path, changes):
    """Overwrites `value` in a classification_test.csv: (label, metric) -> value; NaN leaves the cell empty."""
    table = pd.read_csv(path)
    for (label, metric), value in changes.items():
        table.loc[(table["label"] == label) & (table["metric"] == metric), ["value", "ci_low", "ci_high"]] = value
    write_csv(path, table)


def rows_of(table, block=0):
    return {row[0].text: row[1:] for row in table.blocks[block].rows}


class TestFormat:
    def test_number(self):
        assert [number(x) for x in (0.9065, -0.0004, -0.0006, 1.0, math.nan)] == [
            "0.906",
            "0.000",
            "-0.001",
            "1.000",
            "–",
        ]

    def test_interval(self):
        assert interval(0.9, 0.85, 0.951) == "0.900 (0.850–0.951)"
        assert interval(-0.01, -0.02, -0.001) == "-0.010 (-0.020 to -0.001)"
        assert interval(0.9, math.nan, math.nan) == "0.900"
        assert interval(math.nan, 0.1, 0.2) == "–"

    @pytest.mark.parametrize(
        ("values", "bold", "underlined"),
        [
            ((0.3, 0.1, 0.2), [0], [2]),
            ((0.3001, 0.3004, 0.2), [0, 1], [2]),  # equal as shown
            ((0.5, 0.5), [], []),
            ((0.5, math.nan), [], []),
            ((math.nan, 0.1, 0.2), [2], [1]),
            ((math.nan, math.nan), [], []),
            ((0.0, 0.0, 0.1), [2], [0, 1]),
        ],
    )
    def test_ranked(self, values, bold, underlined):
        cells = ranked(values, second=True)
        assert [place for place, cell in enumerate(cells) if cell.bold] == bold
        assert [place for place, cell in enumerate(cells) if cell.underlined] == underlined
        assert not any(cell.underlined for cell in ranked(values))

    def test_names_stay_themselves_in_markdown_and_latex(self, tmp_path):
        name = r"50% <b>A|B</b> & C_1 #2 \x {y} ~z^ *w* &lt;"
        table = Table(
            "t", "T", name, ("Label", "x"), (Block(name, (plain(name, "-0.5"),)),), (name,), pd.DataFrame([[1]])
        )
        markdown, latex = to_markdown(table), to_latex(table)
        row = next(line for line in markdown.splitlines() if line.startswith("| 50%"))
        unescaped_bars = [i for i, c in enumerate(row) if c == "|" and row[i - 1] != "\\"]
        assert len(unescaped_bars) == 3
        assert r"\<b\>A\|B\</b\> & C\_1 #2 \\x {y} \~z^ \*w\* \&lt;" in row
        escaped = (
            r"50\% \textless{}b\textgreater{}A\textbar{}B\textless{}/b\textgreater{} \& C\_1 \#2 \textbackslash{}x "
            r"\{y\} \textasciitilde{}z\textasciicircum{} *w* \&lt;"
        )
        assert latex.count(escaped) == 4  # caption, heading, row, note
        assert rf"{escaped} & $-$0.5 \\" in latex

    def test_latex_row_that_starts_with_a_star_or_bracket_is_not_read_as_an_argument(self):
        table = Table("t", "T", "", ("*", "x"), (Block("", (plain("[a]", "1"),)),), (), pd.DataFrame())
        assert r"{*} & x \\" in to_latex(table) and r"{[}a] & 1 \\" in to_latex(table)

    def test_marks(self):
        cells = (Cell("a"), Cell("1", bold=True), Cell("2", underlined=True))
        table = Table("t", "T", "", ("n", "b", "u"), (Block("", (cells,)),), (), pd.DataFrame())
        assert "| a     | **1** | <u>2</u> |" in to_markdown(table).replace("  |", " |").replace("| a ", "| a     ")
        assert r"a & \textbf{1} & \underline{2} \\" in to_latex(table)

    def test_three_files(self, tmp_path):
        data = pd.DataFrame({"x": [0.123456789123, math.nan]})
        paths = write_table(Table("t", "T", "c", ("x",), (), (), data), tmp_path)
        assert [path.name for path in paths] == ["t.csv", "t.md", "t.tex"]
        assert paths[0].read_text() == 'x\n0.123456789\n""\n'


class TestTable1:
    def test_winner_difference_and_paper(self, folder):
        ten = "Mean (CheXlocalize 10)"
        set_values(
            folder / "MedicalPatchNet/classification_test.csv", {(ten, "auroc"): 0.90749, (ten, "accuracy"): 0.7}
        )
        set_values(folder / "EfficientNetB0/classification_test.csv", {(ten, "auroc"): 0.90651, (ten, "accuracy"): 0.6})
        table = table1(read_results(folder), PAPER)
        ours, theirs = rows_of(table, 0), rows_of(table, 1)
        assert list(ours) == ["MedicalPatchNet", "EfficientNet-B0", "Difference"]
        assert ours["MedicalPatchNet"][0].text == "0.907" and not ours["MedicalPatchNet"][0].bold
        assert ours["Difference"][0].text == "0.001"  # 0.00098, though both models show 0.907
        assert ours["MedicalPatchNet"][2] == Cell("0.700", bold=True) and ours["EfficientNet-B0"][2] == Cell("0.600")
        assert [cell.text for cell in theirs["Paper: Difference"]] == (
            "-0.001 -0.009 0.013 0.005 -0.009 -0.035 0.015 0.007".split()
        )
        bold = [[cell.bold for cell in theirs[f"Paper: {name}"]] for name in ("MedicalPatchNet", "EfficientNetV2-S")]
        assert bold[0] == [False, False, True, True, False, False, True, True]  # as the paper prints them
        assert bold[1] == [not mark for mark in bold[0]]

    def test_columns_and_csv(self, folder):
        table = table1(read_results(folder), PAPER, "synthetic films")
        assert table.columns[:3] == ("Model", "AUROC (*)", "AUROC (All)") and table.columns[-1] == "Specificity (All)"
        assert "test films (synthetic films)" in table.caption
        source = pd.read_csv(folder / "MedicalPatchNet/classification_test.csv").set_index(["label", "metric"])
        row = table.data.set_index("Model").loc["MedicalPatchNet"]
        assert row["Sensitivity (All)"] == source.loc[("Mean (14)", "sensitivity"), "value"]
        assert row["AUROC (*) ci_low"] == source.loc[("Mean (CheXlocalize 10)", "auroc"), "ci_low"]
        assert table.data.set_index("Model").loc["Paper: EfficientNetV2-S", "AUROC (All)"] == 0.911

    def test_means_that_cover_fewer_labels_say_so(self, folder):
        set_values(folder / "EfficientNetB0/classification_test.csv", {("Fracture", "auroc"): math.nan})
        notes = table1(read_results(folder), PAPER).notes
        expected = "MedicalPatchNet, EfficientNet-B0: AUROC (All) taken over 13 of 14 labels; undefined"
        assert [note for note in notes if "13 of 14" in note and note.startswith(expected) and "Fracture" in note]
        assert not any("of 10 labels" in note for note in notes)

    def test_one_model_alone_has_no_winner_and_no_difference(self, folder):
        (folder / "EfficientNetB0" / "classification_test.csv").unlink()
        table = table1(read_results(folder), PAPER)
        assert list(rows_of(table)) == ["MedicalPatchNet"]
        assert not any(cell.bold for cell in rows_of(table)["MedicalPatchNet"])


class TestPerLabel:
    def test_intervals_winner_and_reason(self, folder):
        changes = {("Edema", "auroc"): 0.8, ("Fracture", "auroc"): math.nan}
        for name, value in (("MedicalPatchNet", 0.8), ("EfficientNetB0", 0.7)):
            path = folder / name / "classification_test.csv"
            set_values(path, changes | {("Edema", "auroc"): value})
            frame = pd.read_csv(path)
            frame["note"] = np.where((frame["label"] == "Fracture") & (frame["metric"] == "auroc"), "no positives", "")
            write_csv(path, frame)
        table = table1_per_label(read_results(folder), PAPER)
        auroc = rows_of(table)
        assert [cell.text for cell in auroc["Edema (*)"]] == [
            "0.800 (0.800–0.800)", "0.700 (0.700–0.700)", "0.100", "0.922", "0.911",
        ]  # fmt: skip
        assert auroc["Edema (*)"][0].bold and not auroc["Edema (*)"][1].bold
        assert [cell.text for cell in auroc["Fracture"]] == ["–", "–", "–", "0.832", "0.839"]
        assert "– AUROC undefined, no positives: Fracture." in table.notes
        assert [block.heading for block in table.blocks] == ["AUROC", "Accuracy", "Sensitivity", "Specificity"]
        assert len(table.data) == 4 * (len(CHEXPERT.names) + 2)


class TestLocalizationTables:
    def put(self, folder, name, method, hits):
        """hits: task -> list of 1, 0, NaN; the other tasks are never hit."""
        films = pd.DataFrame({task: hits.get(task, [0.0, 0.0, 0.0, 0.0]) for task in CHEXPERT.task_names}, dtype=float)
        write_measure(folder / name / "localization/corrected" / method, "hitmiss", films)

    def test_values_marks_and_mean(self, folder):
        self.put(folder, "MedicalPatchNet", "scaled", {"Airspace Opacity": [1, 1, 0, math.nan]})
        self.put(folder, "MedicalPatchNet", "raw", {"Airspace Opacity": [1, 1, 1, math.nan], "Edema": [1, 0, 0, 0]})
        for method in ("gradcam", "gradcam++", "eigencam"):
            self.put(folder, "EfficientNetB0", method, {"Airspace Opacity": [1, 0, 0, math.nan]})
        results = read_results(folder)
        table = table2(results, "corrected", PAPER)
        ours = rows_of(table)
        assert list(ours)[4:8] == ["Enlarged Card.", "Lung Lesion", "Lung Opacity", "Pleural Effusion"]
        assert ours["Lung Opacity"] == (
            Cell("0.667", underlined=True), Cell("1.000", bold=True), Cell("0.333"), Cell("0.333"), Cell("0.333"),
        )  # fmt: skip
        assert not any(cell.bold or cell.underlined for cell in ours["Cardiomegaly"])  # all 0
        assert [cell.text for cell in ours["Mean"]] == ["0.067", "0.125", "0.033", "0.033", "0.033"]
        row = table.data.set_index("Pathology").loc["Lung Opacity"]
        assert row["MedicalPatchNet (Raw)"] == 1 and row["Paper: Eigen-CAM"] == 0.376 and row["Grad-CAM lower"] == 0

    def test_the_paper_s_marks_are_recomputed_as_it_prints_them(self, folder):
        theirs = rows_of(table2(read_results(folder), "published", PAPER), 1)
        best = [next(place for place, cell in enumerate(row) if cell.bold) for row in theirs.values()]
        second = [next(place for place, cell in enumerate(row) if cell.underlined) for row in theirs.values()]
        assert best == [0, 0, 0, 2, 0, 1, 0, 0, 1, 1, 1]
        assert second == [2, 2, 2, 0, 2, 4, 2, 1, 0, 0, 0]

    def test_task_without_films_and_unequal_films_are_explained(self, folder):
        self.put(folder, "MedicalPatchNet", "raw", {"Edema": [math.nan] * 4})
        table = table2(read_results(folder), "corrected", PAPER)
        assert rows_of(table)["Edema"][1] == Cell("–")
        notes = "\n".join(table.notes)
        assert "MedicalPatchNet (Raw): no film to score for Edema." in notes
        assert "Means over the 9 of 10 pathologies that every method defines" in notes
        assert "Edema: the methods were scored on different numbers of films" in notes

    def test_a_method_that_was_not_scored_is_a_column_of_dashes(self, folder):
        (folder / "EfficientNetB0/localization/corrected/eigencam/hitmiss_results_per_cxr.csv").unlink()
        table = table2(read_results(folder), "corrected", PAPER)
        assert {row[4].text for row in rows_of(table).values()} == {"–"}
        assert "– not scored: Eigen-CAM." in table.notes

    def test_table3_rows_are_means_over_tasks_of_task_means(self, folder):
        ious = pd.DataFrame({task: [0.2, 0.4, math.nan] for task in CHEXPERT.task_names})
        ious["Edema"] = [0.9, math.nan, math.nan]
        place = folder / "MedicalPatchNet/localization/published/raw"
        write_measure(place, "iou", ious)
        write_measure(place / "tp_fp_fn", "iou", ious / 10)
        table = table3(read_results(folder), "published", PAPER)
        assert rows_of(table)["TP only"][1].text == "0.360" and rows_of(table)["TP, FP, FN"][1].text == "0.036"
        assert [cell.text for cell in rows_of(table, 1)["TP only"]] == ["0.168", "0.164", "0.227", "0.238", "0.215"]


def test_comparison_marks_what_holds_after_correction(folder):
    rows = []
    for label, p, holm in (("Edema", 0.0004, 0.004), ("Lung Opacity", 0.02, 0.2), ("Mean (14)", math.nan, math.nan)):
        row = {"label": label, "metric": "auroc", "rule": "-", "value_a": 0.9, "value_b": 0.85, "difference": 0.05}
        rows.append(row | {"ci_low": 0.01, "ci_high": 0.09, "delong_p": p, "delong_p_holm": holm})
    rows.append(rows[0] | {"metric": "f1", "rule": "youden"})
    write_csv(folder / "comparison_MedicalPatchNet_vs_EfficientNetB0.csv", pd.DataFrame(rows))
    found = rows_of(comparison_table(read_results(folder)))
    assert list(found) == ["Edema (*)", "Lung Opacity (*)", "Mean (14)"]
    assert [cell.text for cell in found["Edema (*)"]] == ["0.900", "0.850", "0.050 (0.010–0.090)", "< 0.001", "0.004"]
    assert found["Edema (*)"][2].bold and not found["Lung Opacity (*)"][2].bold
    assert [cell.text for cell in found["Mean (14)"]][3:] == ["–", "–"]
