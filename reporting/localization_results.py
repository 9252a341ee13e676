"""Reading of hit rates and IoU from a results folder: CheXlocalize's three files per method and metric."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from chexpert.labels import TASKS
from reporting.reading import Estimate, read_numbers

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
