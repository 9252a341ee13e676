"""The predictions file: a probability and a true label for every film and label."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cxr.files import InputError, number_in, place, quoted
from cxr.labels import CHEXPERT, LabelSet, positions
from cxr.paths import check_film_ids, film_id, patient_of
from cxr.tables import check_unique, line_of, read_csv, write_csv

_PROBABILITY, _LABEL = "prob ", "label "
_DEVIATION, _MAP_LOGIT = "sd ", "map "
_IDENTITY = {"ids": "Film", "patients": "Patient"}


@dataclass(frozen=True)
class Predictions:
    """N films and C labels: predicted probabilities and the truth.

    paths: N paths, each once. probabilities: (N, C) float64 in [0, 1]. labels: (N, C) float64, 0, 1, or NaN where a
    film is not labelled. ids, patients: of the films, patients empty where unknown; by default what the paths say.
    Raises InputError for a value outside its range (a diverged network gives NaN), ValueError for shapes that disagree.
    """

    paths: tuple[str, ...]
    probabilities: np.ndarray
    labels: np.ndarray
    label_set: LabelSet
    ids: tuple[str, ...] = ()
    patients: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "ids", self.ids or tuple(map(film_id, self.paths)))
        object.__setattr__(self, "patients", self.patients or tuple(map(patient_of, self.paths)))
        shape = (len(self.paths), len(self.label_set))
        if self.probabilities.shape != shape or self.labels.shape != shape:
            raise ValueError(f"expected {shape}, got {self.probabilities.shape} and {self.labels.shape}")
        bad = np.argwhere(~_is_probability(self.probabilities) | ~_is_label(self.labels))
        if len(bad):
            film, label = bad[0]
            raise InputError(
                f"{self.paths[film]}, {self.names[label]}: probability {self.probabilities[film, label]:g} and "
                f"label {self.labels[film, label]:g}; a probability must be in [0, 1], a label 0 or 1"
            )

    @property
    def names(self) -> tuple[str, ...]:
        """The labels' names."""
        return self.label_set.names

    def restrict(self, names: Sequence[str], source: str = "predictions") -> Predictions:
        """The predictions of some labels, in the order of `names`. Raises InputError for one that is not there."""
        columns = positions(names, self.names, source)
        kept: dict[str, Any] = {"probabilities": self.probabilities[:, columns], "labels": self.labels[:, columns]}
        return replace(self, **kept, label_set=self.label_set.restrict(names))


def write_predictions(path: Path, predictions: Predictions) -> None:
    """Writes `Path`, `prob <Label>` and `label <Label>`, 9 significant digits; a film that is not labelled has a blank.

    `Film` and `Patient` are written where the paths do not say them.
    Read the file back before computing anything from it: then a table can be recomputed from the file to the last bit.
    """
    columns = _identity_columns(predictions)
    columns |= {f"{_PROBABILITY}{name}": predictions.probabilities[:, i] for i, name in enumerate(predictions.names)}
    columns |= {f"{_LABEL}{name}": _as_text(predictions.labels[:, i]) for i, name in enumerate(predictions.names)}
    write_csv(path, pd.DataFrame(columns))


def _identity_columns(predictions: Predictions) -> dict[str, Sequence[str] | np.ndarray]:
    columns: dict[str, Sequence[str] | np.ndarray] = {"Path": predictions.paths}
    for name, known, derive in (("Film", predictions.ids, film_id), ("Patient", predictions.patients, patient_of)):
        if known != tuple(map(derive, predictions.paths)):
            columns[name] = known
    return columns


def write_map_predictions(path: Path, predictions: Predictions, deviations: np.ndarray, maps: np.ndarray) -> None:
    """Writes a predictions file with two more columns per label: `sd <Label>` and `map <Label>`, logits (N, C).

    predictions: of the mean over all shifts of the patch grid; deviations: the standard deviation over the shifts;
    maps: the mean of the fine map.
    """
    columns = _identity_columns(predictions)
    for kind, values in ((_PROBABILITY, predictions.probabilities), (_DEVIATION, deviations), (_MAP_LOGIT, maps)):
        columns |= {f"{kind}{name}": values[:, i] for i, name in enumerate(predictions.names)}
    columns |= {f"{_LABEL}{name}": _as_text(predictions.labels[:, i]) for i, name in enumerate(predictions.names)}
    write_csv(path, pd.DataFrame(columns))


def read_deviations(path: Path, names: Sequence[str]) -> np.ndarray:
    """(N, C) logits: the `sd <Label>` columns of a file of map predictions, in its rows' order.

    Raises InputError for a missing column and a value that is not a number from 0 on.
    """
    columns = [f"{_DEVIATION}{name}" for name in names]
    table = read_csv(path, columns)
    values = np.column_stack([_numbers(path, table[column]) for column in columns])
    _refuse(path, table, columns, ~(values >= 0) | np.isinf(values), "a standard deviation is a number from 0 on")
    return values


def _as_text(labels: np.ndarray) -> list[str]:
    return ["" if np.isnan(label) else str(int(label)) for label in labels]


def read_predictions(path: Path, label_set: LabelSet | None = None) -> Predictions:
    """Reads a predictions file, columns by name in any order, further columns ignored.

    label_set: the labels wanted; None takes every label that has columns, in the file's order.
    Raises InputError with file, line and column for a missing or repeated column, a repeated path, a probability that
    is not a number in [0, 1], and a label other than 0, 1 and blank.
    """
    table = read_csv(path, ["Path"])
    label_set = label_set or _label_set(path, list(table.columns))
    probability_columns, label_columns = (
        [f"{kind}{name}" for name in label_set.names] for kind in (_PROBABILITY, _LABEL)
    )
    missing = [column for column in (*probability_columns, *label_columns) if column not in table.columns]
    if missing:
        raise InputError(f"{path}: no column named {', '.join(map(quoted, missing))}; every label needs both columns")
    _check_paths(path, table["Path"])
    probabilities = np.column_stack([_numbers(path, table[column]) for column in probability_columns])
    labels = np.column_stack([_numbers(path, table[column], blank=np.nan) for column in label_columns])
    _refuse(path, table, probability_columns, ~_is_probability(probabilities), "a probability must be in [0, 1]")
    _refuse(path, table, label_columns, ~_is_label(labels), "a label must be 0, 1 or blank")
    given = {field: tuple(table[name]) for field, name in _IDENTITY.items() if name in table.columns}
    predictions = Predictions(tuple(table["Path"]), probabilities, labels, label_set, **given)
    lines = [line_of(table, row) for row in range(len(table))]
    if "Film" in table:
        check_film_ids(predictions.ids, lines, path, "Film")
    check_unique(predictions.ids, lines, path, "Film" if "Film" in table else "Path", "the film id")
    return predictions


def is_of(path: Path, films: Sequence[str], names: Sequence[str], labels: np.ndarray) -> bool:
    """Whether a predictions file is of just these films (paths), labels and true values (N, C), NaN not labelled.

    They are more than their table says: `dataset.json` chooses labels, and says what blanks mean.
    """
    try:
        saved = read_predictions(path)
    except InputError:
        return False
    if saved.paths != tuple(films) or set(saved.names) != set(names):
        return False
    return np.array_equal(saved.restrict(names).labels, labels, equal_nan=True)


def _label_set(path: Path, columns: Sequence[str]) -> LabelSet:
    """The labels that have a column of either kind, in the file's order; CheXpert's 14 in their own."""
    kinds = (_PROBABILITY, _LABEL)
    names = [column.removeprefix(kind) for kind in kinds for column in columns if column.startswith(kind)]
    if not names:
        raise InputError(f"{path}: no column named 'prob <Label>'; expected one, and 'label <Label>', for every label")
    try:
        return CHEXPERT if set(names) == set(CHEXPERT.names) else LabelSet.of(dict.fromkeys(names))
    except ValueError as error:
        raise InputError(f"{path}: {error}") from None


def _is_probability(values: np.ndarray) -> np.ndarray:
    return (values >= 0) & (values <= 1)  # False for NaN


def _is_label(values: np.ndarray) -> np.ndarray:
    return np.isin(values, (0, 1)) | np.isnan(values)


def _check_paths(path: Path, films: pd.Series) -> None:
    blank = np.flatnonzero(films.str.strip() == "")
    if len(blank):
        raise InputError(f"{place(path, line_of(films, blank[0]), 'Path')}: blank; every row needs its film's path")
    repeated = np.flatnonzero(films.duplicated())
    if len(repeated):
        second = repeated[0]
        first = int(np.flatnonzero(films == films[second])[0])
        where, other = place(path, line_of(films, second), "Path"), line_of(films, first)
        raise InputError(f"{where}: {quoted(films[second])} is also on line {other}; keep one row per film")


def _numbers(path: Path, column: pd.Series, blank: float | None = None) -> np.ndarray:
    """(N,) float64 of a column of text, each parsed by Python to the nearest double. blank: the value of a blank."""
    numbers = np.empty(len(column))
    for index, text in enumerate(column):
        if blank is not None and not text.strip():
            numbers[index] = blank
            continue
        where = place(path, line_of(column, index), str(column.name))
        try:
            numbers[index] = number_in(text)
        except ValueError:
            what = "blank" if not text.strip() else f"{quoted(text)} is not a number"
            raise InputError(f"{where}: {what}; fill in a number for every film") from None
        if np.isnan(numbers[index]):
            raise InputError(f"{where}: {quoted(text)}; fill in a number")
    return numbers


def _refuse(path: Path, table: pd.DataFrame, columns: Sequence[str], bad: np.ndarray, rule: str) -> None:
    """Raises InputError for the first True of `bad`, (N, C), row by row."""
    found = np.argwhere(bad)
    if len(found):
        row, column = found[0]
        text = table[columns[column]][row]
        raise InputError(f"{place(path, line_of(table, row), columns[column])}: {quoted(text)}; {rule}")
