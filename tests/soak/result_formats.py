"""Files of results folders, reports and weights folders beside the weights: writers of good ones, and their readers."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch

import makeReport
from cxr.calibration_lines import Calibration, Line, read_calibration, write_calibration
from cxr.files import write_json
from cxr.labels import CHEXPERT
from cxr.names import RUN_RECORD
from cxr.runs.made_folder import made_as_a_whole
from cxr.runs.run_record import RunRecord
from cxr.tables import write_csv
from cxr.thresholds import Thresholds, write_thresholds
from models.checkpoint import build_model, save_model
from models.measured import describe
from reporting.film_predictions import earlier_results
from reporting.reading import read_results
from reporting.summary import summary
from saliency.reference import ALL, Reference, Settings, read_reference, write_reference
from tests.reporting.result_files import write_results
from training.checkpoints import FINISHED, is_finished
from training.history import JSONL_FILE, JsonLines

Writer = Callable[[Path, Path], Path]

SETTINGS = {"lr": 1e-3, "labels": ["a", "b"], "patch_size": 64, "csv": {"sha256": "0" * 64}, "compile": False}


def reference(folder: Path, _: Path) -> Path:
    grids = {(view, "Edema"): np.random.default_rng(0).random((4, 4), dtype=np.float32) for view in (ALL, "frontal")}
    settings = Settings("0" * 64, patch_size=32, steps_per_patch=2, image_size=64)
    write_reference(folder / "reference.npz", Reference(settings, ("Edema",), {ALL: 3, "frontal": 2}, "1" * 64, grids))
    return folder / "reference.npz"


def finished(folder: Path, _: Path) -> Path:
    write_json(folder / FINISHED, {"settings": SETTINGS, "best": {"epoch": 2, "valid_mean_auroc": 0.75}})
    return folder / FINISHED


def history(folder: Path, _: Path) -> Path:
    tracker = JsonLines(folder, 0, 0)
    for step in range(1, 7):
        tracker.step({"step": step, "epoch": 1, "loss": 0.5 / step, "learning_rate": 1e-3, "grad_norm": 1.0})
    tracker.close()
    return folder / JSONL_FILE


def read_history(path: Path) -> None:
    JsonLines(path.parent, steps=3, epochs=0).close()


def journal(folder: Path, _: Path) -> Path:
    for name in ("a.csv", "b.csv"):
        (folder / name).write_text("a\n1\n")
    record, outputs = RunRecord(folder), [folder / "a.csv", folder / "b.csv"]
    killed = record.stage("a", inputs={"x": 1}, options={}, outputs=outputs)
    killed.__enter__().wrote(*outputs)
    return next(folder.glob(".run.*.journal"))


def read_journal(path: Path) -> None:
    record, outputs = RunRecord(path.parent), [path.parent / "a.csv", path.parent / "b.csv"]
    with record.stage("a", inputs={"x": 1}, options={}, outputs=outputs) as stage:
        stage.wrote(*(output for output in outputs if not stage.holds(output)))
    assert record.is_complete("a", inputs={"x": 1}, options={}, outputs=outputs)


def calibration(folder: Path, _: Path) -> Path:
    lines = {"Edema": Line(1.25, -0.5), "Fracture": None}
    write_calibration(folder / "calibration.json", Calibration(lines, {"Fracture": "no positive film"}))
    return folder / "calibration.json"


def predicted(folder: Path, _: Path) -> Path:
    film = {"film": "a.png", "labels": [{"label": "Edema", "overlay": {"file": "overlays/a_Edema.png"}}]}
    (folder / "overlays").mkdir()
    (folder / "overlays/a_Edema.png").write_bytes(b"x")
    write_json(folder / "predictions.json", {"films": [film], "unreadable": [], "pictures": ["a_Edema.png"]})
    return folder / "predictions.json"


def listing(folder: Path, _: Path) -> Path:
    with made_as_a_whole(folder, "report.json") as making:
        (making / "table1.md").write_text("x")
    return folder / "report.json"


def read_listing(path: Path) -> None:
    with made_as_a_whole(path.parent, path.name) as making:
        (making / "table2.md").write_text("y")


PATCH, BASELINE = "MedicalPatchNet", "EfficientNetB0"
MEASURED = f"{PATCH}/localization/corrected/raw"
REPORTED = (
    f"{PATCH}/{RUN_RECORD}",
    *(f"{PATCH}/{kind}_test.csv" for kind in ("classification", "roc", "calibration", "predictions")),
    *(f"{PATCH}/{kind}_test.csv" for kind in ("recalibration", "precision_recall", "subgroups")),
    f"{MEASURED}/iou_results_per_cxr.csv",
    f"{MEASURED}/hitmiss_summary_results.csv",
    *(f"{kind}_{PATCH}_vs_{BASELINE}.csv" for kind in ("comparison", "equivalence")),
)
"""Files of a folder of results that makeReport.py reads."""


def reported(name: str) -> Writer:
    def write(folder: Path, _: Path) -> Path:
        write_results(folder, films=5)
        for path in folder.glob("*/localization/*/*"):  # a large folder is read 240 times
            if not path.match(MEASURED):
                shutil.rmtree(path)
        shutil.rmtree(folder / MEASURED / "tp_fp_fn")
        one = {"label": ["Edema"], "metric": ["auroc"], "rule": ["-"], "note": [""], "verdict": ["equivalent"]}
        columns = (
            "value value_before value_after ci_low ci_high difference difference_low difference_high value_a value_b"
        )
        columns += " delong_p delong_p_holm margin ci90_low ci90_high p_noninferior_holm p_equivalent_holm films"
        columns += " smallest_margin_equivalent"
        numbers = pd.DataFrame(one | dict.fromkeys(columns.split(), [0.25])).assign(attribute="sex", group="F")
        for path in REPORTED:
            if not (folder / path).exists():
                write_csv(folder / path, numbers)
        return folder / name

    return write


def read_reported(path: Path) -> None:
    folder = next(parent for parent in path.parents if (parent / BASELINE).is_dir())
    results = read_results(folder)
    makeReport._tables(results, "films")
    summary(results)


def described(name: str) -> Writer:
    """Weights, and what was measured with them in a results folder beside."""

    def write(folder: Path, _: Path) -> Path:
        torch.manual_seed(0)
        sizes = {"patch_size": 32, "image_size": 64}
        save_model(build_model("timm/test_efficientnet", **sizes, labels=CHEXPERT.names), folder / "weights")
        results = write_results(folder, films=5) / PATCH
        write_thresholds(results / "thresholds.json", Thresholds(dict.fromkeys(CHEXPERT.names, 0.25)))
        return results / name

    return write


def read_described(path: Path) -> None:
    folder = next(parent for parent in path.parents if (parent / "weights").is_dir())
    describe(folder / "weights", folder / PATCH)


FORMATS: dict[str, tuple[Writer, Callable[[Path], object]]] = {
    "reference": (reference, read_reference),
    "training.json": (finished, lambda path: is_finished(path.parent, SETTINGS)),
    "history": (history, read_history),
    "journal": (journal, read_journal),
    "calibration lines": (calibration, read_calibration),
    "predictions.json": (predicted, lambda path: earlier_results(path.parent)),
    "list of a report": (listing, read_listing),
    **{f"reported {name}": (reported(name), read_reported) for name in REPORTED},
    "measured scores": (described("classification_test.csv"), read_described),
    "measured localization": (described("localization/corrected/raw/iou_summary_results.csv"), read_described),
}
