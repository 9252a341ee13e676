"""makeReport.py: the files it leaves, what it prints, and what it says of missing parts."""

import shutil

import numpy as np
import pandas as pd
import pytest

import cli
import makeReport
from cxr.labels import LabelSet
from cxr.names import SPLITS, predictions_file
from cxr.predictions import Predictions, write_predictions
from evaluation.recorded_tables import make_comparison, make_statistics
from reporting.reading import read_results
from tests.reporting.result_files import METHODS, PROTOCOLS, write_results

RESAMPLING = {"resamples": 10, "seed": 0, "unit": "film"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Both models without some curves: pictures take most of the time, and one of each kind is enough."""
    folder = write_results(tmp_path_factory.mktemp("report") / "results", films=60, without_positives=("Fracture",))
    (folder / "MedicalPatchNet" / "calibration_test.csv").unlink()
    (folder / "EfficientNetB0" / "roc_test.csv").unlink()
    return folder


def test_both_models(folder, capsys):
    assert makeReport.main([str(folder), "--dataset-name", "50% <synthetic>"]) == 0
    report = folder / "report"
    tables = ["table1", "table1_per_label"]
    tables += [f"table{number}_{protocol}" for number in (2, 3) for protocol in ("corrected", "published")]
    pictures = ["figure1", "roc_MedicalPatchNet", "reliability_EfficientNetB0"]
    expected = {f"{name}.{ending}" for name in tables for ending in ("csv", "md", "tex")}
    expected |= {f"{name}.{ending}" for name in pictures for ending in ("png", "pdf")}
    assert {path.name for path in report.iterdir()} == expected | {"report.html", "report.json"}
    printed = capsys.readouterr().out
    lines = printed.splitlines()
    assert lines[-2:] == ["", f"Open {report / 'report.html'}"]
    shown = [line for line in lines[:-1] if str(folder) not in line]
    assert max(map(len, shown)) <= 100 and not [line for line in shown if "|" in line or "**" in line]
    row = pd.read_csv(report / "table1.csv").set_index("Model")["AUROC (All)"]
    expected = [f"{row[name]:.3f}" for name in ("MedicalPatchNet", "EfficientNet-B0")]
    (found,) = [line for line in lines if line.startswith("AUROC, all, 13 of 14 labels")]
    assert found.split()[-3:-1] == expected
    assert sum(line.startswith("Tables 2 and 3, ") for line in lines) == 2
    hits = pd.read_csv(report / "table2_published.csv").set_index("Pathology").loc["Mean", "Grad-CAM"]
    assert [line.split()[1] for line in lines if line.startswith("Grad-CAM ")][1] == f"{hits:.3f}"
    patch, baseline = folder / "MedicalPatchNet", folder / "EfficientNetB0"
    assert [line for line in printed.splitlines() if line.startswith("missing: ")] == [
        f"missing: {patch}: no calibration_test.csv; made by python evalClassification.py --predictions {patch}",
        f"missing: {baseline}: no roc_test.csv; made by python evalClassification.py --predictions {baseline}",
        f"missing: {folder}: no comparison of the two models; made by python evalClassification.py "
        f"--predictions {patch} --compare {baseline}",
        *(f"missing: {line}" for line in only_on_the_page(folder)),
    ]
    page = (report / "report.html").read_text()
    assert "50% &lt;synthetic&gt;" in page and page.count('<img src="data:image/png;base64,') == 3
    for name in (*tables, "localization_corrected", "localization_published"):
        assert f'<h3 id="{name}">' in page


def only_on_the_page(folder):
    """What `write_results` leaves out of a results folder: curves, thresholds, heat maps and masks."""
    for protocol in PROTOCOLS:
        for model, methods in METHODS.items():
            below = [f"{method}/{part}miou_curve.png" for method in methods for part in ("", "tp_fp_fn/")]
            command = "python evalLocalization.py RESULTS..."
            yield f"{folder / model}/localization/{protocol}: no {', '.join(below)}; made by {command}"
    for model in METHODS:
        command = f"python evalClassification.py --predictions {folder / model}"
        yield f"{folder / model}/thresholds.json: missing, so no outcomes; made by {command}"
    absent = "no evidence files (*.npz) in it; evalClassification.py --no-pickles writes them"
    for model in METHODS:
        yield f"maps of the cases: {folder / model}/evidence/test: {absent}"
    patches = folder / "MedicalPatchNet" / "evidence" / "test"
    yield f"contributions of the patches, which heat-map pickles do not hold: {patches}: {absent}"
    yield "outlines of the masks: give CheXlocalize's gt_segmentations_test.json as --gt-path"


def test_one_model_without_curves_and_maps(folder, tmp_path, capsys):
    source, target = folder / "MedicalPatchNet", tmp_path / "results" / "MedicalPatchNet"
    target.mkdir(parents=True)
    for name in ("run.json", "classification_test.csv"):
        (target / name).write_bytes((source / name).read_bytes())
    assert makeReport.main([str(tmp_path / "results"), "--output", str(tmp_path / "out"), "--figures"]) == 0
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {f"table1{part}.{ending}" for part in ("", "_per_label") for ending in ("csv", "md", "tex")} | {
        "figure1.png", "figure1.pdf", "report.html", "report.json",
    }  # fmt: skip
    missing = [line for line in capsys.readouterr().out.splitlines() if line.startswith("missing: ")]
    for part in ("no baseline", "no roc_test.csv", "localization/corrected: nothing scored", "heat maps", "no cases"):
        assert sum(part in line for line in missing) >= 1, part


def test_a_report_of_less_leaves_nothing_of_the_one_before(folder, tmp_path, capsys):
    """One model's results are gone: so are the tables and figures that need them; files of others stay."""
    results, out = tmp_path / "results", tmp_path / "out"
    shutil.copytree(folder, results, ignore=shutil.ignore_patterns("report", "published"))
    assert makeReport.main([str(results), "--output", str(out)]) == 0
    before = {path.name for path in out.iterdir()}
    (out / "notes.txt").write_text("mine")
    shutil.rmtree(results / "EfficientNetB0")
    (results / "MedicalPatchNet/roc_test.csv").unlink()
    assert makeReport.main([str(results), "--output", str(out)]) == 0
    assert makeReport.main([str(results), "--output", str(tmp_path / "fresh")]) == 0
    fresh = {path.name: path.read_bytes() for path in (tmp_path / "fresh").iterdir() if path.suffix != ".html"}
    assert {path.name: path.read_bytes() for path in out.iterdir() if path.suffix != ".html"} == fresh | {
        "notes.txt": b"mine"
    }
    assert before - fresh.keys() == {"report.html", *(f"{name}.{ending}" for ending in ("png", "pdf")
        for name in ("roc_MedicalPatchNet", "reliability_EfficientNetB0"))}  # fmt: skip


def test_nothing_at_all_is_one_line_and_exit_code_2(tmp_path, capsys):
    assert cli.guarded(makeReport.main, [str(tmp_path)]) == cli.EXIT_BAD_INPUT
    assert capsys.readouterr().err == f"error: {tmp_path}: no model's results in it; make them with ./runEval.sh\n"
    (tmp_path / "MedicalPatchNet").mkdir()
    (tmp_path / "MedicalPatchNet" / "run.json").write_text("{}")
    assert cli.guarded(makeReport.main, [str(tmp_path)]) == cli.EXIT_BAD_INPUT
    assert "nothing to report on yet" in capsys.readouterr().err


def test_tables_that_changed_since_they_were_made_are_named(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("patch", "base"):
        for split in SPLITS:
            truth, films = np.arange(20)[:, None] % 2.0, tuple(f"{split}{i}.png" for i in range(20))
            made = Predictions(films, rng.random((20, 1)), truth, LabelSet(("Edema",)))
            write_predictions(predictions_file(tmp_path / name, split), made)
        make_statistics(tmp_path / name, RESAMPLING)
    make_comparison(tmp_path / "patch", tmp_path / "base", RESAMPLING)
    told = [line for line in read_results(tmp_path).missing if "earlier predictions" in line or "changed since" in line]
    assert told == []
    table = predictions_file(tmp_path / "base", "test")
    table.write_text(table.read_text().replace("test0.png", "test99.png"))
    roc = tmp_path / "patch/roc_test.csv"
    roc.write_text(roc.read_text().replace("0,0", "0,0.0"))
    told = [line for line in read_results(tmp_path).missing if "earlier predictions" in line or "changed since" in line]
    assert told == [
        f"{tmp_path / 'patch'}: 'roc_test.csv' changed since made (run.json), so tables may not fit together; "
        "delete, run again",
        f"{tmp_path / 'comparison_patch_vs_base.csv'}: compares earlier predictions or thresholds than are there now; "
        f"python evalClassification.py --predictions {tmp_path / 'patch'} --compare {tmp_path / 'base'}",
    ]
