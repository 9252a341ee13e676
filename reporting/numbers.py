"""Numbers out of result files: a statistic with its interval, and columns that are checked when they are read."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from cxr.files import InputError, place, quoted
from cxr.tables import line_of, read_csv


class Estimate(NamedTuple):
    """A statistic and its 95% interval; NaN where undefined."""

    value: float = math.nan
    low: float = math.nan
    high: float = math.nan


def read_numbers(
    path: Path,
    columns: Sequence[str],
    text: Sequence[str] = ("label",),
    *,
    low: float = -1e9,
    high: float = 1e9,
    may_be_empty: bool = False,
) -> pd.DataFrame:
    """The file with `columns` as float64, blanks as NaN; the columns `text` must be there too.

    Raises InputError with line and column for a value that is not a number in [low, high].
    """
    table = read_csv(path, [*text, *columns], may_be_empty=may_be_empty)
    for column in columns:
        table[column] = to_numbers(path, table[column], low=low, high=high)
    return table


def to_numbers(path: Path, column: pd.Series, *, low: float, high: float) -> pd.Series:
    """A column of text as float64, blanks as NaN. Raises InputError with line and column outside [low, high]."""
    values = pd.to_numeric(column, errors="coerce").astype(float)
    blank = column.str.strip().str.lower().isin(("", "nan"))
    bad = np.flatnonzero(~blank & ~values.between(low, high))  # NaN is between nothing
    if len(bad):
        row = int(bad[0])
        text, where = quoted(column.iloc[row]), place(path, line_of(column, row), str(column.name))
        if math.isnan(values.iloc[row]):
            raise InputError(f"{where}: {text} is not a number; delete the file and make it again")
        raise InputError(f"{where}: {text} is not in [{low:g}, {high:g}]; delete the file and make it again")
    return values
