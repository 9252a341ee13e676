"""The statistics of a results folder: from its predictions of validation and test to thresholds, metrics and curves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from cxr.files import InputError, place, quoted
from cxr.labels import LabelSet
from cxr.names import SPLITS, THRESHOLDS, predictions_file, table_file
from cxr.predictions import Predictions, read_predictions
from cxr.tables import write_csv
from cxr.thresholds import Thresholds, read_thresholds, write_thresholds
from evaluation.classification import calibration_points, classification_table, roc_points, youden_thresholds

KINDS = ("classification", "roc", "calibration")
"""Kinds of tables, one of each for every split."""


def saved_predictions(results: Path) -> dict[str, Path]:
    """Split -> its predictions file. Raises InputError when the folder has none."""
    paths = {split: predictions_file(results, split) for split in SPLITS}
    saved = {split: path for split, path in paths.items() if path.is_file()}
    if not saved:
        names = " or ".join(path.name for path in paths.values())
        raise InputError(f"{place(results)}: no {names} in this folder")
    return saved


def table_files(results: Path) -> list[Path]:
    """Every file that `write_tables` makes of the predictions that are there."""
    splits = saved_predictions(results)
    return [results / THRESHOLDS, *(table_file(results, kind, split) for kind in KINDS for split in splits)]


def read_saved(results: Path, label_set: LabelSet | None) -> dict[str, Predictions]:
    """Split -> predictions.

    label_set: of the network that made them, whose groups and tasks a table of predictions does not say; it is left
    out of account where the file holds labels that it does not have. Raises InputError when validation and test are
    the same films.
    """
    saved = saved_predictions(results)
    predictions = {split: with_groups(read_predictions(path), label_set) for split, path in saved.items()}
    if len(predictions) == 2:
        first, second = (set(of_split.ids) for of_split in predictions.values())
        if first == second:
            files = " and ".join(place(path) for path in saved.values())
            raise InputError(f"{files} hold the same films; thresholds are chosen on validation and tested on others")
    return predictions


def with_groups(predictions: Predictions, label_set: LabelSet | None) -> Predictions:
    """The predictions with the groups and tasks of `label_set`, where it has all their labels."""
    if label_set is None or not set(predictions.names) <= set(label_set.names):
        return predictions
    return replace(predictions, label_set=label_set.restrict(predictions.names))


def shared_patients(predictions: Mapping[str, Predictions]) -> str:
    """A warning when patients or films are in both validation and test, else an empty text."""
    if len(predictions) < 2:
        return ""
    first, second = predictions.values()
    for what, shared in (
        ("patients", set(first.patients) & set(second.patients) - {""}),
        ("films", set(first.ids) & set(second.ids)),
    ):
        if shared:
            splits = " and ".join(SPLITS[split] for split in predictions)
            return (
                f"{len(shared)} {what} are in both {splits}, such as {quoted(min(shared))}: "
                "the thresholds were not chosen apart from the test films"
            )
    return ""


def write_tables(
    results: Path, predictions: Mapping[str, Predictions], **resampling: Any
) -> tuple[dict[str, pd.DataFrame], Thresholds]:
    """Writes `thresholds.json` and the tables of every split; returns split -> classification table, and thresholds.

    resampling: resamples, seed and unit of `classification_table`.
    """
    thresholds = _thresholds(results, predictions)
    tables = {}
    for split, of_split in predictions.items():
        tables[split] = classification_table(of_split, thresholds, **resampling)
        write_csv(table_file(results, "classification", split), tables[split])
        write_csv(table_file(results, "roc", split), roc_points(of_split))
        write_csv(table_file(results, "calibration", split), calibration_points(of_split))
    return tables, thresholds


def _thresholds(results: Path, predictions: Mapping[str, Predictions]) -> Thresholds:
    """Youden thresholds of the validation films; without any, those that lie in the folder already."""
    path = results / THRESHOLDS
    if "val" not in predictions and path.is_file():
        return read_thresholds(path)
    if "val" in predictions:
        thresholds = youden_thresholds(predictions["val"])
    else:
        names = next(iter(predictions.values())).names
        reason = f"no {predictions_file(results, 'val').name} to take it from"
        thresholds = Thresholds(dict.fromkeys(names), dict.fromkeys(names, reason))
    write_thresholds(path, thresholds)
    return thresholds
