"""Tables of films as text: CSV files with the true line of every row, or parquet."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from cxr.files import InputError, place
from cxr.tables import no_column, read_csv


def read_table(table: Path) -> pd.DataFrame:
    """A table's cells as text, with the column `Path` (or `file_name`, which is renamed). Raises InputError."""
    if table.suffix == ".parquet":
        content = _read_parquet(table)
    else:
        content = read_csv(table)
    if "Path" not in content.columns and "file_name" in content.columns:
        content = content.rename(columns={"file_name": "Path"})
    if "Path" not in content.columns:
        raise InputError(
            f"{place(table)}: {no_column(['Path', 'file_name'], list(content.columns))}; one of them is needed"
        )
    return content


def _read_parquet(table: Path) -> pd.DataFrame:
    try:
        content = pd.read_parquet(table)
    except ImportError:
        raise InputError(
            f"{place(table)}: parquet needs pyarrow; pip install pyarrow, or save it as films.csv"
        ) from None
    except Exception as error:  # whatever a damaged file makes of pyarrow
        raise InputError(f"{place(table)}: not a readable parquet file ({type(error).__name__})") from None
    return content.astype(object).where(content.notna(), "").astype(str)
