"""The predictions file: a probability and a true label for every film and label."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from cxr.files import InputError, csv_row, read_csv, write_csv
from cxr.labels import LABELS


@dataclass(frozen=True)
class Predictions:
    """What a model says about N films and what is true, the C labels in the project's order.

    paths: N paths, each once. probabilities: (N, C) float64 in [0, 1]. labels: (N, C) int8 in {0, 1}.
    Raises InputError for a value outside its range (a diverged model says NaN), ValueError for shapes that disagree.
    """

    paths: tuple[str, ...]
    probabilities: np.ndarray
    labels: np.ndarray
    names: tuple[str, ...] = LABELS

    def __post_init__(self) -> None:
        shape = (len(self.paths), len(self.names))
        if self.probabilities.shape != shape or self.labels.shape != shape:
            raise ValueError(f"expected {shape}, got {self.probabilities.shape} and {self.labels.shape}")
        bad = np.argwhere(~_is_probability(self.probabilities) | ~np.isin(self.labels, (0, 1)))
        if len(bad):
            film, label = bad[0]
            raise InputError(
                f"{self.paths[film]}, {self.names[label]}: probability {self.probabilities[film, label]:g} and label "
                f"{self.labels[film, label]:g}; a probability must be in [0, 1], a label 0 or 1"
            )


def write_predictions(path: Path, predictions: Predictions) -> None:
    """Writes `Path`, `prob <Label>` and `label <Label>`, 9 significant digits.

    Read the file back before computing anything from it: then a table can be recomputed from the file to the last bit.
    """
    columns: dict[str, Sequence[str] | np.ndarray] = {"Path": predictions.paths}
    columns |= {f"prob {name}": predictions.probabilities[:, i] for i, name in enumerate(predictions.names)}
    columns |= {f"label {name}": predictions.labels[:, i].astype(int) for i, name in enumerate(predictions.names)}
    write_csv(path, pd.DataFrame(columns))


def read_predictions(path: Path) -> Predictions:
    """Reads a predictions file, columns by name in any order, further columns ignored.

    Raises InputError with file, line and column for a missing column, a repeated path, a value that is blank or not a
    number, a probability outside [0, 1] and a label other than 0 and 1.
    """
    probability_columns = [f"prob {name}" for name in LABELS]
    label_columns = [f"label {name}" for name in LABELS]
    table = read_csv(path, ["Path", *probability_columns, *label_columns])
    _check_paths(path, table["Path"])
    probabilities = np.column_stack([_numbers(path, table[column]) for column in probability_columns])
    labels = np.column_stack([_numbers(path, table[column]) for column in label_columns])
    _refuse(path, table, probability_columns, ~_is_probability(probabilities), "a probability must lie in [0, 1]")
    _refuse(path, table, label_columns, ~np.isin(labels, (0, 1)), "a label must be 0 or 1")
    return Predictions(tuple(table["Path"]), probabilities, labels.astype(np.int8))


def _is_probability(values: np.ndarray) -> np.ndarray:
    return (values >= 0) & (values <= 1)  # False for NaN


def _check_paths(path: Path, films: pd.Series) -> None:
    blank = np.flatnonzero(films.str.strip() == "")
    if len(blank):
        raise InputError(f"{path}: line {csv_row(blank[0])}, column 'Path': blank; every row needs its film's path")
    repeated = np.flatnonzero(films.duplicated())
    if len(repeated):
        second = repeated[0]
        first = int(np.flatnonzero(films == films[second])[0])
        raise InputError(
            f"{path}: line {csv_row(second)}, column 'Path': {films[second]!r} is also on line {csv_row(first)}; "
            "keep one row per film"
        )


def _numbers(path: Path, column: pd.Series) -> np.ndarray:
    """(N,) float64 of a column of strings, each parsed by Python to the nearest double."""
    numbers = np.empty(len(column))
    for index, text in enumerate(column):
        try:
            numbers[index] = float(text)
        except ValueError:
            what = "blank" if not text.strip() else f"{text!r} is not a number"
            raise InputError(
                f"{path}: line {csv_row(index)}, column {column.name!r}: {what}; fill in a number for every film"
            ) from None
    return numbers


def _refuse(path: Path, table: pd.DataFrame, columns: Sequence[str], bad: np.ndarray, rule: str) -> None:
    """Raises InputError for the first True of `bad`, (N, C), row by row."""
    found = np.argwhere(bad)
    if len(found):
        row, column = found[0]
        text = table[columns[column]][row]
        raise InputError(f"{path}: line {csv_row(row)}, column {columns[column]!r}: {text!r}; {rule}")
