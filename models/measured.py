"""Measured results of an evaluation, written into the description of the weights that it measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cxr.calibration_lines import read_calibration
from cxr.files import InputError, place, quoted, read_json, sha256
from cxr.names import CALIBRATION, POSTERIOR, RUN_RECORD, THRESHOLDS
from cxr.tables import read_csv
from cxr.thresholds import read_thresholds
from models.card import Details, standard_details
from models.weights_folder import config_entries, read_config, weights_file, write_description

_METRICS = {("auroc", "-"): "AUROC", ("sensitivity", "youden"): "sensitivity", ("specificity", "youden"): "specificity"}


def describe(folder: Path, results: Path) -> None:
    """Adds what `results` measured to `config.json` and the model card of the weights in `folder`.

    Raises InputError when `folder` holds no weights, or `results` no measurement, or those of other weights or labels.
    """
    if not folder.is_dir():
        raise InputError(f"{place(folder)}: no such folder; a .pt carries no description: convert it first")
    arguments = read_config(folder)
    weights = weights_file(folder)
    if not weights.is_file():
        raise InputError(f"{place(weights)}: no such file of weights")
    if measured_weights(results) not in (None, sha256(weights)):
        raise InputError(f"{place(results)}: measured with other weights than those in {place(folder)}")
    measured = measured_details(results)
    for name in ("thresholds", "calibration"):
        unknown = [label for label in measured.get(name, {}) if label not in arguments["labels"]]
        if unknown:
            raise InputError(f"{place(results)}: has {name} of {quoted(unknown[0])}, which the weights do not have")
    details = standard_details() | arguments.pop("details") | measured
    write_description(folder, config_entries(**arguments), details)


def measured_details(results: Path) -> Details:
    """`thresholds`, `calibration`, `classification`, `localization` and `certificates` of a results folder, if there.

    Raises InputError when nothing was measured, or a file is not what the evaluation writes.
    """
    found: Details = {}
    if (path := results / THRESHOLDS).is_file():
        found["thresholds"] = dict(read_thresholds(path))
    if (path := results / CALIBRATION).is_file():
        lines = read_calibration(path).lines
        found["calibration"] = {label: asdict(line) for label, line in lines.items() if line is not None}
    if (path := results / "classification_test.csv").is_file():
        found["classification"] = [
            {"label": row["label"], "metric": _METRICS[row["metric"], row["rule"]]}
            | _numbers(path, row, value="value", ci_low="ci_low", ci_high="ci_high")
            for row in _rows(path, "label", "metric", "rule", "value", "ci_low", "ci_high")
            if (row["metric"], row["rule"]) in _METRICS
        ]
    found["localization"] = [
        {"measure": "/".join([*path.parent.relative_to(results / "localization").parts, path.name.partition("_")[0]])}
        | _numbers(path, row, value="mean", ci_low="lower", ci_high="upper")
        for path in sorted((results / "localization").rglob("*_summary_results.csv"))
        for row in _rows(path, "name", "lower", "mean", "upper")
        if row["name"] == "Mean" and POSTERIOR not in path.parts  # which is no map of the network
    ]
    if not any(found.values()):
        raise InputError(f"{place(results)}: no {THRESHOLDS}, classification_test.csv or localization/ in this folder")
    record = read_json(results / RUN_RECORD) if (results / RUN_RECORD).is_file() else {}
    return found | _certificates(record)


def _certificates(record: Mapping[str, Any]) -> Details:
    """Those of the test films, else of validation, where the network has patches and they were measured."""
    of_splits, model = record.get("certificates"), record.get("model")
    if not isinstance(of_splits, dict) or not isinstance(model, dict):
        return {}
    measured = of_splits.get("test", of_splits.get("val"))
    has_patches = model.get("patch_size") != model.get("image_size")
    return {"certificates": measured} if has_patches and isinstance(measured, dict) else {}


def measured_weights(results: Path) -> str | None:
    """The sha256 of the weights that a results folder was measured with; None where it does not say."""
    path = results / RUN_RECORD
    if not path.is_file():  # of predictions that were made elsewhere
        return None
    weights = read_json(path).get("weights", {})
    if not isinstance(weights, dict):
        raise InputError(f"{place(path)}: not the record that evalClassification.py writes")
    return str(weights["sha256"]) if "sha256" in weights else None


def _rows(path: Path, *columns: str) -> list[dict[str, str]]:
    rows: list[dict[str, str]] = read_csv(path, columns).to_dict("records")
    return rows


def _numbers(path: Path, row: Mapping[str, str], **columns: str) -> dict[str, float | None]:
    """The row's numbers under new names; None for a blank, where the value is undefined."""
    numbers: dict[str, float | None] = {}
    for name, column in columns.items():
        text = row[column]
        try:
            numbers[name] = float(text) if text else None
        except ValueError:
            raise InputError(f"{place(path, column=column)}: {quoted(text)} is not a number") from None
    return numbers
