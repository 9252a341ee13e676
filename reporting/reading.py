"""Reading of a results folder: what is there becomes `Results`, what is missing one line each."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from cxr.files import InputError, printable, quoted, read_json, sha256
from cxr.labels import LabelSet
from cxr.names import RUN_RECORD, comparison_file, faithfulness_folder, predictions_file, table_file
from cxr.predictions import Predictions, read_predictions
from cxr.runs.run_record import RunRecord
from reporting.control_results import read_controls
from reporting.localization_results import read_localization
from reporting.numbers import Estimate, read_numbers
from reporting.results import Model, Results, Scores

_BACKBONES = {"efficientnet_b0": "EfficientNet-B0", "efficientnet_v2_s": "EfficientNetV2-S"}
_ROLES = {"patch": "patch model", "baseline": "baseline"}
_SIGNS_OF_A_MODEL = (RUN_RECORD, "predictions_test.csv", "classification_test.csv", "localization")
_IN_UNIT = ("auroc", "accuracy", "sensitivity", "specificity")
"""The metrics that tables and figures show; all lie in [0, 1]."""


def read_results(folder: Path) -> Results:
    """Reads everything that a report shows; what is missing becomes a line that names the command that makes it.

    Raises InputError when `folder` holds no results at all, or a file in it is damaged.
    """
    missing: list[str] = []
    found = _find_models(folder, missing)
    models = {role: _read_model(path, name, missing) for role, (path, name) in found.items()}
    folders = {role: path for role, (path, _) in found.items()}
    missing += [line for path in folders.values() for line in _changed_lines(path)]
    return Results(
        folder,
        patch=models.get("patch"),
        baseline=models.get("baseline"),
        localization=read_localization(folders, missing),
        controls=read_controls(folders),
        comparison=_read_comparison(folders, missing),
        missing=tuple(missing),
        **_read_equivalence(folders, models),
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
        found = {role: (path, printable(path.name)) for role, (path, _) in found.items()}
    return {role: found[role] for role in _ROLES if role in found}


def _identify(folder: Path) -> tuple[str, str]:
    """(role, name to show), from the model recorded in `run.json`; without one, from the folder's name."""
    model, name = _record(folder).get("model"), printable(folder.name)
    if not isinstance(model, dict) or not all(type(model.get(size)) is int for size in ("patch_size", "image_size")):
        return ("patch" if "patch" in folder.name.lower() else "baseline"), name
    if model["patch_size"] != model["image_size"]:
        return "patch", name
    return "baseline", _backbone_name(model.get("backbone")) or name


def _backbone_name(backbone: Any) -> str:
    """As the paper prints it, without the library's prefix; empty for what is not a name."""
    if not isinstance(backbone, str):
        return ""
    return _BACKBONES.get(backbone, printable(backbone.removeprefix("timm/").strip()[:40]))


def _record(folder: Path) -> dict[str, Any]:
    path = folder / RUN_RECORD
    content = read_json(path) if path.exists() else {}
    return content if isinstance(content, dict) else {}


def _changed_lines(folder: Path) -> list[str]:
    """A line on tables that are no longer those that the record says: numbers of other tables follow from what was."""
    names = RunRecord(folder).changed((".csv", ".json"))
    if not names:
        return []
    first = ", ".join(map(quoted, names[:3])) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    return [f"{folder}: {first} changed since made ({RUN_RECORD}), so tables may not fit together; delete, run again"]


def _read_model(folder: Path, name: str, missing: list[str]) -> Model:
    predicted, paths = predictions_file(folder, "test"), _tables(folder)
    absent = [path.name for path in paths.values() if not path.exists()]
    if absent:
        command = f"python evalClassification.py --predictions {folder}" if predicted.exists() else "./runEval.sh"
        missing.append(f"{folder}: no {', '.join(absent)}; made by {command}")
    record = _record(folder)
    predictions = read_predictions(predicted) if predicted.exists() else None
    scores = _read_scores(paths["classification"]) if paths["classification"].exists() else None
    return Model(
        folder,
        name,
        record,
        _label_set(record, predictions, scores, folder),
        predictions,
        scores,
        _read_roc(paths["roc"]) if paths["roc"].exists() else None,
        _read_calibration(paths["calibration"]) if paths["calibration"].exists() else None,
        *(_read_optional(table_file(folder, kind, "test"), *columns) for kind, columns in _OPTIONAL.items()),
        *(_read_optional(faithfulness_folder(folder) / name, *columns) for name, columns in _AUDIT.items()),
    )


_OPTIONAL = {
    "recalibration": (("label", "metric"), ("value_before", "value_after")),
    "precision_recall": (("label", "metric"), ("value",)),
    "subgroups": (
        ("attribute", "group", "label", "metric", "rule"),
        ("films", "value", "ci_low", "ci_high", "difference", "difference_low", "difference_high"),
    ),
}
"""Kind of a table that a folder may lack -> its columns of text and of numbers; in the order of the fields of Model."""


_ESTIMATE = ("value", "ci_low", "ci_high")
_AUDIT = {
    "faithfulness_test.csv": (("label", "metric", "method", "fill", "note"), _ESTIMATE),
    "pairs.csv": (("label", "metric", "method", "note"), _ESTIMATE),
}
"""File of the audit -> its columns of text and of numbers; the last fields of Model."""


def _read_optional(path: Path, text: tuple[str, ...], numbers: tuple[str, ...]) -> pd.DataFrame | None:
    return read_numbers(path, numbers, text) if path.exists() else None


def _tables(folder: Path) -> dict[str, Path]:
    return {kind: table_file(folder, kind, "test") for kind in ("classification", "roc", "calibration")}


def _label_set(
    record: Mapping[str, Any], predictions: Predictions | None, scores: Scores | None, folder: Path
) -> LabelSet | None:
    """The labels of the predictions, else of the scores, with the groups and tasks of the record that knows them."""
    source = str(folder / RUN_RECORD)
    recorded = LabelSet.from_json(record["label_set"], f"{source}: label_set") if "label_set" in record else None
    names = predictions.names if predictions else scores.labels if scores else ()
    if recorded is not None and set(names) <= set(recorded.names):
        return recorded.restrict(names) if names else recorded
    if predictions is not None:
        return predictions.label_set
    try:
        return LabelSet.of(names) if names else None
    except ValueError as error:
        raise InputError(f"{_tables(folder)['classification']}: {error}") from None


def _read_scores(path: Path) -> Scores:
    columns = ("value", "ci_low", "ci_high")
    table = read_numbers(path, columns, text=("label", "metric", "rule"))
    keys = list(zip(table["label"], table["metric"], table["rule"], strict=True))
    estimates = {key: Estimate(*row) for key, row in zip(keys, table[list(columns)].to_numpy(), strict=True)}
    for (label, metric, _), estimate in estimates.items():
        if metric in _IN_UNIT and any(not 0 <= value <= 1 for value in estimate if not math.isnan(value)):
            raise InputError(f"{path}: {metric} of {quoted(label)} is not in [0, 1]; delete the file and make it again")
    notes = table["note"] if "note" in table else [""] * len(keys)
    return Scores(estimates, dict(zip(keys, notes, strict=True)))


def _read_roc(path: Path) -> pd.DataFrame:
    """No rows where no label has both positive and negative films."""
    return read_numbers(path, ("fpr", "tpr"), low=0, high=1, may_be_empty=True)


def _read_calibration(path: Path) -> pd.DataFrame:
    table = read_numbers(path, ("count",), low=0)
    shares = read_numbers(path, ("mean_probability", "fraction_positive"), low=0, high=1)
    return table.assign(**shares[["mean_probability", "fraction_positive"]], count=table["count"].fillna(0))


def _read_comparison(folders: Mapping[str, Path], missing: list[str]) -> pd.DataFrame | None:
    """Differences patch model - baseline, from `comparison_<a>_vs_<b>.csv` in either order of the two."""
    if len(folders) < 2:
        return None
    patch, baseline = folders["patch"], folders["baseline"]
    columns = ("value_a", "value_b", "difference", "ci_low", "ci_high", "delong_p", "delong_p_holm")
    for first, second in ((patch, baseline), (baseline, patch)):
        path = comparison_file(first, second)
        if path.exists():
            table = read_numbers(path, columns, text=("label", "metric", "rule"))
            if not _is_of_now(first, second):
                command = f"python evalClassification.py --predictions {first} --compare {second}"
                missing.append(f"{path}: compares earlier predictions or thresholds than are there now; {command}")
            return table if first == patch else _turned(table)
    command = f"python evalClassification.py --predictions {patch} --compare {baseline}"
    missing.append(f"{patch.parent}: no comparison of the two models; made by {command}")
    return None


def _is_of_now(first: Path, second: Path) -> bool:
    """Whether a comparison was made of what two folders hold now; yes where nothing is recorded."""
    recorded = RunRecord(first).inputs(f"comparison with {second.name}")
    read = {side: recorded.get(side) for side in "ab"}
    return all(
        file.is_file() and sha256(file) == digest
        for folder, files in zip((first, second), read.values(), strict=True)
        for name, digest in (files.items() if isinstance(files, dict) else ())
        for file in (folder / name,)
    )


def _read_equivalence(folders: Mapping[str, Path], models: Mapping[str, Model]) -> dict[str, Any]:
    """Table and names of the two models, from `equivalence_<a>_vs_<b>.csv` in the order in which it was asked for."""
    numbers = ("margin", "difference", "ci90_low", "ci90_high", "p_noninferior_holm", "p_equivalent_holm")
    for first, second in (("patch", "baseline"), ("baseline", "patch")) if len(folders) == 2 else ():
        path = comparison_file(folders[first], folders[second], "equivalence")
        if path.exists():
            table = read_numbers(path, (*numbers, "smallest_margin_equivalent"), ("label", "verdict", "note"))
            return {"equivalence": table, "equivalence_names": (models[first].name, models[second].name)}
    return {}


def _turned(table: pd.DataFrame) -> pd.DataFrame:
    """b - a out of a - b."""
    turned = table.rename(columns={"value_a": "value_b", "value_b": "value_a"})
    return turned.assign(difference=-table["difference"], ci_low=-table["ci_high"], ci_high=-table["ci_low"])
