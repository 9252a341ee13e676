"""Columns of the tables of many releases -> those of a manifest: ids, view, sex, age in years, label values."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import numpy as np
import pandas as pd

from cxr.files import InputError, place, quoted
from cxr.manifests.splits import SPLITS
from cxr.tables import line_of

IDENTITY = ("Path", "Film", "Patient", "Study", "View", "Sex", "Age", "Split")
"""The columns of films.csv before the labels."""

Values = TypeVar("Values", pd.Series, pd.DataFrame)


def film_table(
    table: pd.DataFrame,
    labels: pd.DataFrame,
    *,
    path: pd.Series,
    film: pd.Series,
    patient: pd.Series | str = "",
    study: pd.Series | str = "",
    view: pd.Series | str = "",
    sex: pd.Series | str = "",
    age: pd.Series | str = "",
    split: pd.Series | str = "",
) -> pd.DataFrame:
    """One row per row of `table`: IDENTITY as strings, then the labels as float32 (1, 0, -1, NaN: not labelled).

    The index of the result is (file, line): where each film stands in the release's table.
    """
    identity = dict(zip(IDENTITY, (path, film, patient, study, view, sex, age, split), strict=True))
    lines = [line_of(table, int(row)) for row in table.index]
    columns = {name: pd.Series(values, index=table.index, dtype="str") for name, values in identity.items()}
    for name in ("Path", "Film", "Patient", "Study"):
        columns[name] = columns[name].str.strip()
    films = pd.concat([pd.DataFrame(columns), labels.astype(np.float32)], axis=1)
    films.index = pd.MultiIndex.from_product([[table.attrs["file"]], lines], names=["file", "line"])
    return films


def label_names(films: pd.DataFrame) -> list[str]:
    """The labels of a film table, in order."""
    return [name for name in films.columns if name not in IDENTITY]


_LABEL_VALUES = {"0": 0.0, "0.0": 0.0, "1": 1.0, "1.0": 1.0, "-1": -1.0, "-1.0": -1.0, "": np.nan}


def label_values(table: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """Columns of `1.0`, `0.0`, `-1.0` and blanks -> float32 with NaN. Raises InputError with line and column."""
    return pd.DataFrame({name: translated(table, name, _label_value).astype(np.float32) for name in names})


def _label_value(text: str) -> float:
    try:
        return _LABEL_VALUES[text.strip()]
    except KeyError:
        raise ValueError("expected 1.0, 0.0, -1.0 (uncertain) or nothing") from None


def translated(table: pd.DataFrame, column: str, value: Callable[[str], object]) -> pd.Series:
    """A column with each of its distinct values translated once. Raises InputError with file, line and column."""
    codes, distinct = pd.factorize(table[column])
    results = []
    for code, text in enumerate(distinct):
        try:
            results.append(value(text))
        except ValueError as error:
            line = line_of(table, int(table.index[np.argmax(codes == code)]))
            raise InputError(f"{place(table.attrs['file'], line, column)}: {quoted(text)}: {error}") from None
    return pd.Series(pd.Series(results).to_numpy()[codes], index=table.index)


def listed(
    table: pd.DataFrame, column: str, names_in: Callable[[str], Iterable[str]], names: Sequence[str] = ()
) -> pd.DataFrame:
    """A column of lists of labels -> (N, C) float32, 1 where a label is listed, else 0.

    names_in: a cell's text -> its labels; a ValueError becomes an InputError with the line. names: the labels, of which
    every listed one must be; by default all that occur, in alphabetical order.
    """

    def known(text: str) -> tuple[str, ...]:
        found = tuple(names_in(text))
        unknown = [name for name in found if names and name not in names]
        if unknown:
            raise ValueError(f"{quoted(unknown[0])} is not one of its {len(names)} labels; is it another release?")
        return found

    codes, distinct = pd.factorize(translated(table, column, known))
    names = names or sorted({name for cell in distinct for name in cell})
    position = {name: number for number, name in enumerate(names)}
    values = np.zeros((len(distinct), len(names)), dtype=np.float32)
    for row, cell in enumerate(distinct):
        values[row, [position[name] for name in cell]] = 1
    return pd.DataFrame(values[codes], index=table.index, columns=list(names))  # (N, C)


def joined(table: pd.DataFrame, other: pd.DataFrame, keys: Sequence[str], values: Values) -> Values:
    """Rows of `values` (aligned with `other`) for the rows of `table`, matched by `keys`; NaN where there is no match.

    Raises InputError, naming both lines, when `other` lists a key twice.
    """
    index = pd.MultiIndex.from_frame(other[list(keys)])
    twice = index.duplicated()
    if twice.any():
        second = int(np.argmax(twice))
        first = int(np.argmax(index == index[second]))
        lines = [line_of(other, int(other.index[row])) for row in (second, first)]
        where = place(other.attrs["file"], lines[0], " ".join(keys))
        raise InputError(f"{where}: {quoted(other[keys[-1]].iloc[second])} is in line {lines[1]} too; keep one of them")
    rows = index.get_indexer(pd.MultiIndex.from_frame(table[list(keys)]))  # (N,), -1: none
    return values.reset_index(drop=True).reindex(rows).set_axis(table.index)


_VIEWS = {
    "POSTEROANTERIOR": "PA",
    "ANTEROPOSTERIOR": "AP",
    "AP_HORIZONTAL": "AP",  # supine
    "LATERAL": "L",
    "LL": "L",
    "RL": "L",
    "UNK": "",
    "EXCLUDE": "",
    "NAN": "",
    "NONE": "",
}


def views(column: pd.Series) -> pd.Series:
    """PA, AP, L, a release's own word for rarer ones, blank where unknown."""
    words = column.str.strip().str.upper()
    return words.map({word: _VIEWS.get(word, word if _WORD.fullmatch(word) else "") for word in words.unique()})


_WORD = re.compile(r"[A-Z][A-Z0-9 _-]{0,31}")


_SEXES = {"M": "M", "MALE": "M", "F": "F", "FEMALE": "F"}


def sexes(column: pd.Series) -> pd.Series:
    """M, F, blank where unknown."""
    return column.map({word: _SEXES.get(word.strip().upper(), "") for word in column.unique()})


_AGE = re.compile(r"\s*(\d{1,6})(?:\.\d*|-\d+)?\s*([YMWD]?|or more)\s*", re.IGNORECASE)
_UNITS_A_YEAR = {"": 1.0, "y": 1.0, "or more": 1.0, "m": 12.0, "w": 52.18, "d": 365.25}
_OLDEST = 120


def years(column: pd.Series, unit: str = "") -> pd.Series:
    """Whole years from `57`, `058Y`, `011M`, `85 or more`, `45-50`; blank where unknown, or above 120 (NIH has 414).

    unit: of numbers that come without one, as DICOM writes it (`D`: days).
    """
    return column.map({text: _years(text, unit) for text in column.unique()})


def _years(text: str, unit: str) -> str:
    found = _AGE.fullmatch(text)
    if found is None:
        return ""
    age = int(found[1]) / _UNITS_A_YEAR[(found[2] or unit).lower()]
    return str(int(age)) if age <= _OLDEST else ""


_SPLIT_NAMES = {"train": "train", "val": "val", "valid": "val", "validate": "val", "validation": "val", "test": "test"}


def splits(table: pd.DataFrame, column: str) -> pd.Series:
    """train, val, test from the words that releases use; blank stays blank. Raises InputError for another word."""
    return translated(table, column, _split)


def joined_splits(table: pd.DataFrame, other: pd.DataFrame, keys: Sequence[str], column: str) -> pd.Series:
    """The splits of the films of `table` as `column` of `other` has them; blank where it has none.

    Raises InputError, beside those of `joined` and `splits`, for a split of which `table` has no film.
    """
    named = splits(other, column)
    found = joined(table, other, keys, named).fillna("")
    for split in SPLITS:
        if (named == split).any() and not (found == split).any():
            where = place(other.attrs["file"], column=column)
            raise InputError(f"{where}: no film of {table.attrs['file']} is in its split {split}")
    return found


def _split(text: str) -> str:
    word = text.strip().lower()
    if word and word not in _SPLIT_NAMES:
        raise ValueError("not a split; expected train, val or test")
    return _SPLIT_NAMES.get(word, "")


def stems(column: pd.Series) -> pd.Series:
    """File names without their endings."""
    return column.str.replace(r"\.[A-Za-z]+$", "", regex=True)
