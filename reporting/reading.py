"""Columns of numbers out of result files, and the type of what stands in them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from chexpert.files import InputError, csv_row, read_csv


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
            raise InputError(f"{path}: line {csv_row(int(row))}, column {column!r}: {text!r} is not a number")
    return values
