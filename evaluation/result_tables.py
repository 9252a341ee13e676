"""The statistics of a results folder: from its predictions of validation and test to thresholds, metrics and curves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from cxr.calibration_lines import Calibration, read_calibration, write_calibration
from cxr.files import InputError, place, quoted
from cxr.labels import LabelSet
from cxr.manifests.identity import film_identity
from cxr.manifests.table import read_table
from cxr.names import CALIBRATION, SPLITS, THRESHOLDS, predictions_file, table_file
from cxr.predictions import Predictions, read_predictions
from cxr.tables import write_csv
from cxr.thresholds import Thresholds, read_thresholds, write_thresholds
from evaluation.calibration import fit_calibration, recalibration_table
from evaluation.classification import calibration_points, classification_table, roc_points, youden_thresholds
from evaluation.decision_curves import decision_curves
from evaluation.precision_recall import precision_recall_table
from evaluation.subgroups import attributes_of, subgroup_table

KINDS = ("classification", "roc", "calibration", "precision_recall", "recalibration", "decision_curve")
"""Kinds of tables, one of each for every split."""

SIDE_RESAMPLES = 10_000
"""At most, for the tables beside `classification`: two digits of their intervals are settled in a tenth of the time."""


def saved_predictions(results: Path, start: str = "") -> dict[str, Path]:
    """Split -> its predictions file; start: empty, or `MAPS` for those of the fine maps.

    Raises InputError when the folder has none.
    """
    paths = {split: predictions_file(results, split, start) for split in SPLITS}
    saved = {split: path for split, path in paths.items() if path.is_file()}
    if not saved:
        names = " or ".join(path.name for path in paths.values())
        raise InputError(f"{place(results)}: no {names} in this folder")
    return saved


def table_files(results: Path, start: str = "") -> list[Path]:
    """Every file that `write_tables` makes of the predictions that are there."""
    splits = saved_predictions(results, start)
    tables = [table_file(results, f"{start}{kind}", split) for kind in KINDS for split in splits]
    return [results / f"{start}{THRESHOLDS}", results / f"{start}{CALIBRATION}", *tables]


def read_saved(results: Path, label_set: LabelSet | None, start: str = "") -> dict[str, Predictions]:
    """Split -> predictions.

    label_set: of the network that made them, whose groups and tasks a table of predictions does not say; it is left
    out of account where the file holds labels that it does not have. Raises InputError when validation and test are
    the same films.
    """
    saved = saved_predictions(results, start)
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
    results: Path, predictions: Mapping[str, Predictions], start: str = "", **resampling: Any
) -> tuple[dict[str, pd.DataFrame], Thresholds]:
    """Writes `thresholds.json`, `calibration.json` and the tables of every split, their names beginning with `start`.

    Returns split -> classification table, and the thresholds. resampling: resamples, seed and unit of
    `classification_table`; the other tables have at most SIDE_RESAMPLES resamples.
    """
    thresholds = _thresholds(results, predictions, start)
    calibration = _calibration(results, predictions, start)
    fewer = {**resampling, "resamples": min(resampling["resamples"], SIDE_RESAMPLES)}
    tables = {}
    for split, of_split in predictions.items():
        tables[split] = classification_table(of_split, thresholds, **resampling)
        made = {
            "classification": tables[split],
            "roc": roc_points(of_split),
            "calibration": calibration_points(of_split),
            "precision_recall": precision_recall_table(of_split, **fewer),
            "recalibration": recalibration_table(of_split, calibration, **fewer),
            "decision_curve": decision_curves(of_split, calibration),
        }
        for kind in KINDS:
            write_csv(table_file(results, f"{start}{kind}", split), made[kind])
    return tables, thresholds


def _thresholds(results: Path, predictions: Mapping[str, Predictions], start: str) -> Thresholds:
    """Youden thresholds of the validation films; without any, those that lie in the folder already."""
    path = results / f"{start}{THRESHOLDS}"
    if "val" not in predictions and path.is_file():
        return read_thresholds(path)
    if "val" in predictions:
        thresholds = youden_thresholds(predictions["val"])
    else:
        names = next(iter(predictions.values())).names
        thresholds = Thresholds(dict.fromkeys(names), dict.fromkeys(names, _no_validation(results, start)))
    write_thresholds(path, thresholds)
    return thresholds


def _calibration(results: Path, predictions: Mapping[str, Predictions], start: str) -> Calibration:
    """Lines fitted to the validation films; without any, those that lie in the folder already."""
    path = results / f"{start}{CALIBRATION}"
    if "val" not in predictions and path.is_file():
        return read_calibration(path)
    if "val" in predictions:
        calibration = fit_calibration(predictions["val"])
    else:
        names = next(iter(predictions.values())).names
        calibration = Calibration(dict.fromkeys(names), dict.fromkeys(names, _no_validation(results, start)))
    write_calibration(path, calibration)
    return calibration


def _no_validation(results: Path, start: str) -> str:
    return f"no {predictions_file(results, 'val', start).name} to take it from"


def film_groups(predictions: Predictions, table: Path) -> dict[str, tuple[str, ...]]:
    """Attribute -> group of each predicted film, from the sex, age and view that a table of films says.

    Films that the table lacks are in no group. Raises InputError when it has none of the films.
    """
    identity = film_identity(read_table(table), table).set_index("Path")
    if not identity.index.isin(predictions.paths).any():
        film = quoted(predictions.paths[0])
        raise InputError(f"{place(table)}: none of the predicted films, {film} the first, is in this table")
    facts = identity.reindex(list(predictions.paths))[["Sex", "Age", "View"]].fillna("")
    return attributes_of(*(list(facts[name]) for name in facts))


def write_subgroups(
    target: Path,
    predictions: Predictions,
    groups: Mapping[str, tuple[str, ...]],
    thresholds: Thresholds,
    *,
    resamples: int,
    seed: int,
) -> None:
    """Writes the table of `film_groups`, with at most SIDE_RESAMPLES resamples."""
    fewer = min(resamples, SIDE_RESAMPLES)
    write_csv(target, subgroup_table(predictions, thresholds, groups, resamples=fewer, seed=seed))
