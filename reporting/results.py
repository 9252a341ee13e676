"""Reading of a results folder: what is there as typed values, what is missing as one line each.

A results folder holds one folder per model (`results/MedicalPatchNet`, `results/EfficientNetB0`). The patch model gives
the evidence maps and the baseline the CAMs, as in the paper.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from cxr.files import InputError, place, quoted, read_json
from cxr.labels import CHEXLOCALIZE_LABELS, LABELS, TASKS
from cxr.tables import line_of, read_csv

MEAN_OF: dict[str, tuple[str, ...]] = {"Mean (CheXlocalize 10)": CHEXLOCALIZE_LABELS, "Mean (14)": LABELS}
"""Row name of a mean -> the labels it is taken over (those of them that are defined)."""

LABEL_ORDER: tuple[str, ...] = (*sorted(CHEXLOCALIZE_LABELS), *sorted(set(LABELS) - set(CHEXLOCALIZE_LABELS)))
"""As in the paper's Figure 1: the labels of CheXlocalize, then the others, each by name."""

_BACKBONES = {"efficientnet_b0": "EfficientNet-B0", "efficientnet_v2_s": "EfficientNetV2-S"}
_ROC = ("fpr", "tpr")
_CALIBRATION = ("count", "mean_probability", "fraction_positive")
_COMPARISON = ("value_a", "value_b", "difference", "ci_low", "ci_high", "delong_p", "delong_p_holm")
_ROLES = {"patch": "patch model", "baseline": "baseline"}
_SIGNS_OF_A_MODEL = ("run.json", "predictions_test.csv", "classification_test.csv", "localization")


@dataclass(frozen=True)
class Scores:
    """`classification_test.csv`: estimates, and what the file notes on them, by (label, metric, rule)."""

    estimates: Mapping[tuple[str, str, str], Estimate]
    notes: Mapping[tuple[str, str, str], str]

    def get(self, label: str, metric: str, rule: str) -> Estimate:
        """Undefined where the file has no such row."""
        return self.estimates.get((label, metric, rule), Estimate())

    def undefined(self, mean: str, metric: str, rule: str) -> tuple[str, ...]:
        """The labels that the mean does not cover."""
        return tuple(label for label in MEAN_OF[mean] if math.isnan(self.get(label, metric, rule).value))


@dataclass(frozen=True)
class Model:
    """One model's folder; a part is None where its file is missing."""

    folder: Path
    name: str
    scores: Scores | None
    roc: pd.DataFrame | None
    calibration: pd.DataFrame | None


@dataclass(frozen=True)
class Results:
    """What a report shows. `localization` is keyed by (protocol, method, measure), `missing` told line by line."""

    folder: Path
    patch: Model | None
    baseline: Model | None
    localization: Mapping[tuple[str, str, str], Localization]
    comparison: pd.DataFrame | None
    missing: tuple[str, ...]

    @property
    def roles(self) -> dict[str, Model]:
        """`patch` and `baseline`, those that are there, in this order."""
        both = {"patch": self.patch, "baseline": self.baseline}
        return {role: model for role, model in both.items() if model is not None}

    @property
    def models(self) -> tuple[Model, ...]:
        """Those that are there, the patch model first."""
        return tuple(self.roles.values())

    @property
    def protocols(self) -> tuple[str, ...]:
        """Those of which something was scored."""
        return tuple(name for name in PROTOCOLS if any(key[0] == name for key in self.localization))

    def model_of(self, method: str) -> Model | None:
        """The model whose maps a method's are: evidence maps the patch model's, CAMs the baseline's."""
        return self.patch if method in PATCH_METHODS else self.baseline

    def scored(self, protocol: str, measure: str) -> dict[str, Localization]:
        """Method -> its scores, in the order of the paper's columns."""
        keys = {method: (protocol, method, measure) for method in METHODS}
        return {method: self.localization[key] for method, key in keys.items() if key in self.localization}


def read_paper() -> Any:
    """The paper's numbers with their source (`paper.json`), keyed by the names used here."""
    return read_json(Path(__file__).with_name("paper.json"))


def read_results(folder: Path) -> Results:
    """Reads everything that a report shows; what is missing becomes a line that names the command that makes it.

    Raises InputError when `folder` holds no results at all, or a file in it is damaged.
    """
    missing: list[str] = []
    found = _find_models(folder, missing)
    models = {role: _read_model(path, name, missing) for role, (path, name) in found.items()}
    folders = {role: path for role, (path, _) in found.items()}
    return Results(
        folder,
        patch=models.get("patch"),
        baseline=models.get("baseline"),
        localization=read_localization(folders, missing),
        comparison=_read_comparison(folders, missing),
        missing=tuple(missing),
    )


def _find_models(folder: Path, missing: list[str]) -> dict[str, tuple[Path, str]]:
    """Role (`patch`, `baseline`) -> folder and name to show. A second model of a role is left out, and said so."""
    if any((folder / sign).exists() for sign in _SIGNS_OF_A_MODEL):
        raise InputError(f"{folder}: this is one model's folder; give the folder above it")
    found: dict[str, tuple[Path, str]] = {}
    for path in sorted({file.parent for sign in _SIGNS_OF_A_MODEL for file in folder.glob(f"*/{sign}")}):
        role, name = _identify(path)
        if role in found:
            missing.append(f"{path}: left out, because {found[role][0].name} is already shown as the {_ROLES[role]}")
        else:
            found[role] = path, name
    if not found:
        raise InputError(f"{folder}: no model's results in it; make them with ./runEval.sh")
    missing += [
        f"{folder}: no {_ROLES[role]}; make its results with ./runEval.sh" for role in _ROLES if role not in found
    ]
    if len({name for _, name in found.values()}) < len(found):  # names are what tables tell models apart by
        found = {role: (path, path.name) for role, (path, _) in found.items()}
    return {role: found[role] for role in _ROLES if role in found}


def _identify(folder: Path) -> tuple[str, str]:
    """(role, name to show), from the model recorded in `run.json`; without one, from the folder's name."""
    facts = read_json(folder / "run.json") if (folder / "run.json").exists() else {}
    model = facts.get("model") if isinstance(facts, dict) else None
    if not isinstance(model, dict) or not {"patch_size", "image_size"} <= model.keys():
        return ("patch" if "patch" in folder.name.lower() else "baseline"), folder.name
    if model["patch_size"] != model["image_size"]:
        return "patch", folder.name
    return "baseline", _BACKBONES.get(str(model.get("backbone")), folder.name)


def _read_model(folder: Path, name: str, missing: list[str]) -> Model:
    scores, roc, calibration = (
        folder / "classification_test.csv",
        folder / "roc_test.csv",
        folder / "calibration_test.csv",
    )
    absent = [path.name for path in (scores, roc, calibration) if not path.exists()]
    if absent:
        predicted = (folder / "predictions_test.csv").exists()
        command = f"python evalClassification.py --predictions {folder}" if predicted else "./runEval.sh"
        missing.append(f"{folder}: no {', '.join(absent)}; made by {command}")
    return Model(
        folder,
        name,
        _read_scores(scores) if scores.exists() else None,
        read_numbers(roc, _ROC) if roc.exists() else None,
        read_numbers(calibration, _CALIBRATION) if calibration.exists() else None,
    )


def _read_scores(path: Path) -> Scores:
    columns = ("value", "ci_low", "ci_high")
    table = read_numbers(path, columns, text=("label", "metric", "rule"))
    keys = list(zip(table["label"], table["metric"], table["rule"], strict=True))
    estimates = {key: Estimate(*row) for key, row in zip(keys, table[list(columns)].to_numpy(), strict=True)}
    notes = table["note"] if "note" in table else [""] * len(keys)
    return Scores(estimates, dict(zip(keys, notes, strict=True)))


def _read_comparison(folders: Mapping[str, Path], missing: list[str]) -> pd.DataFrame | None:
    """Differences patch model - baseline, from `comparison_<a>_vs_<b>.csv` in either order of the two."""
    if len(folders) < 2:
        return None
    patch, baseline = folders["patch"], folders["baseline"]
    for first, second in ((patch, baseline), (baseline, patch)):
        path = first.with_name(f"comparison_{first.name}_vs_{second.name}.csv")
        if path.exists():
            table = read_numbers(path, _COMPARISON, text=("label", "metric", "rule"))
            return table if first == patch else _turned(table)
    command = f"python evalClassification.py --predictions {patch} --compare {baseline}"
    missing.append(f"{patch.parent}: no comparison of the two models; made by {command}")
    return None


def _turned(table: pd.DataFrame) -> pd.DataFrame:
    """b - a out of a - b."""
    turned = table.rename(columns={"value_a": "value_b", "value_b": "value_a"})
    return turned.assign(difference=-table["difference"], ci_low=-table["ci_high"], ci_high=-table["ci_low"])


METHODS: dict[str, str] = {
    "scaled": "MedicalPatchNet (Scaled)",
    "raw": "MedicalPatchNet (Raw)",
    "gradcam": "Grad-CAM",
    "gradcam++": "Grad-CAM++",
    "eigencam": "Eigen-CAM",
}
"""Folder name -> name in the paper, in the order of its Tables 2 and 3."""

PATCH_METHODS = ("scaled", "raw")
PROTOCOLS = ("corrected", "published")

HIT_RATE = "hit rate"
MIOU_ALL = "TP, FP, FN"
MIOU_TP = "TP only"
_MEASURES = {HIT_RATE: ("hitmiss", ""), MIOU_ALL: ("iou", "tp_fp_fn"), MIOU_TP: ("iou", "")}
"""Measure -> CheXlocalize's file prefix and the folder below `localization/<protocol>/<method>`."""


@dataclass(frozen=True)
class Localization:
    """One measure of one method: its mean per task over the films on which it is defined, and over the tasks."""

    tasks: Mapping[str, Estimate]
    films: Mapping[str, int]
    mean: Estimate

    @property
    def covered(self) -> int:
        """Tasks that are defined and so enter the mean."""
        return sum(not math.isnan(estimate.value) for estimate in self.tasks.values())


def read_localization(folders: Mapping[str, Path], missing: list[str]) -> dict[tuple[str, str, str], Localization]:
    """Evidence maps from the patch model's folder, CAMs from the baseline's."""
    found: dict[tuple[str, str, str], Localization] = {}
    for role, folder in folders.items():
        methods = [method for method in METHODS if (method in PATCH_METHODS) == (role == "patch")]
        for protocol in PROTOCOLS:
            scored = {
                (protocol, method, measure): _read_measure(folder / "localization" / protocol / method, measure)
                for measure in _MEASURES
                for method in methods
            }
            found |= {key: item for key, item in scored.items() if item is not None}
            missing += _not_scored(folder / "localization" / protocol, [key for key in scored if key not in found])
    return found


def _not_scored(folder: Path, keys: Sequence[tuple[str, str, str]]) -> list[str]:
    """One line per measure, or a single one where the whole folder is missing."""
    if keys and not folder.is_dir():
        return [f"{folder}: nothing scored; made by ./runEval.sh"]
    lines = []
    for measure, (prefix, _) in _MEASURES.items():
        methods = ", ".join(method for _, method, missing in keys if missing == measure)
        if methods:
            option = "" if measure == HIT_RATE else f" --true_pos_only {measure == MIOU_TP}"
            command = f"python evalLocalization.py --metric {prefix}{option}"
            lines.append(f"{folder}: no {prefix} results ({measure}) of {methods}; made by {command} ...")
    return lines


def _read_measure(folder: Path, measure: str) -> Localization | None:
    """From CheXlocalize's files of one metric; None without the per-film one.

    The value of a task is the mean of its defined films; its interval, and that of the mean over the tasks, stand in
    the summary (CheXlocalize's own has no row for the mean: its interval is then undefined).
    """
    prefix, below = _MEASURES[measure]
    path = folder / below / f"{prefix}_results_per_cxr.csv"
    if not path.exists():
        return None
    films = read_numbers(path, TASKS, text=())
    bounds = _read_bounds(path.with_name(f"{prefix}_summary_results.csv"))
    means = films[list(TASKS)].mean()
    means["Mean"] = means.mean()
    tasks = {str(name): Estimate(value, *bounds.get(str(name), ())) for name, value in means.items()}
    mean = tasks.pop("Mean")
    return Localization(tasks, {task: int(films[task].count()) for task in TASKS}, mean)


def _read_bounds(path: Path) -> dict[str, tuple[float, float]]:
    if not path.exists():
        return {}
    table = read_numbers(path, ("lower", "upper"), text=("name",))
    return {name: (low, high) for name, low, high in zip(table["name"], table["lower"], table["upper"], strict=True)}


class Estimate(NamedTuple):
    """A statistic and its 95% interval; NaN where undefined."""

    value: float = math.nan
    low: float = math.nan
    high: float = math.nan


def read_numbers(path: Path, columns: Sequence[str], text: Sequence[str] = ("label",)) -> pd.DataFrame:
    """The file with `columns` as floats. Raises InputError with row and column where one is no number."""
    table = read_csv(path, [*text, *columns])
    for column in columns:
        table[column] = _floats(path, table, column)
    return table


def _floats(path: Path, table: pd.DataFrame, column: str) -> pd.Series:
    values = pd.to_numeric(table[column], errors="coerce").astype(float)
    for row in np.flatnonzero(values.isna()):
        text = table[column].iloc[row]
        if text.strip().lower() not in ("", "nan"):
            raise InputError(f"{place(path, line_of(table, int(row)), column)}: {quoted(text)} is not a number")
    return values
