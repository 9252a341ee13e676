"""The tables of a release on disk, read as strings and checked to be those that a source expects."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import Any

import pandas as pd

from cxr.files import InputError, place, read_json, read_utf8
from preprocessing.manifests.source import Source, TableFile


def read_tables(source: Source, root: Path) -> tuple[dict[str, Any], list[Path]]:
    """Reads the tables of a release below `root`; returns them by key, and the files read.

    Raises InputError, in one line, for a missing table, a damaged one, and one that lacks columns.
    """
    if not root.is_dir():
        raise InputError(f"{place(root)}: no such folder; expected the one that holds {source.tables[0].names[0]}")
    tables: dict[str, Any] = {}
    files: list[Path] = []
    for form in source.tables:
        path = _present(form, root)
        if path is not None and form.key not in tables:
            tables[form.key] = read_table(path, form)
            files.append(path)
    for form in source.tables:
        if form.required and form.key not in tables:
            names = [name for other in source.tables if other.key == form.key for name in other.names]
            raise InputError(f"{place(root)}: no table {' or '.join(names)}; {source.title} needs it")
    return tables, files


def _present(form: TableFile, root: Path) -> Path | None:
    """The file of a table, which may be compressed as the releases and Kaggle have it."""
    names = (root / (name + ending) for name in form.names for ending in ("", ".gz", ".zip"))
    return next((path for path in names if path.is_file()), None)


def read_table(path: Path, form: TableFile) -> Any:
    """A CSV file as a DataFrame of strings with its path in `attrs["file"]`; a `.txt` list as column `name`; json."""
    if path.suffix == ".json":
        return read_json(path)
    if path.suffix == ".txt":
        table = _read_list(path)
    else:
        table = _read_csv(path)
        table.columns = [form.renamed.get(name.strip(), name.strip()) for name in table.columns]
    missing = [name for name in form.columns if name not in table.columns]
    if missing:
        raise InputError(
            f"{place(path)}: no column {', '.join(missing)}; is it the table of another release? "
            f"The header has {', '.join(map(str, table.columns[:12]))}"
        )
    table.attrs["file"] = str(path)
    return table


def _read_csv(path: Path) -> pd.DataFrame:
    """The cells as they stand; the index counts the lines below the header, of which blank ones are left out.

    Unlike `cxr.tables.read_csv` this takes what tables of others have: rows shorter than the header, names of columns
    that are blank or there twice, quotes within a value; and gzip, or an archive of one file.
    """
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig", skip_blank_lines=False)
    except pd.errors.EmptyDataError:
        raise InputError(f"{place(path)}: the file is empty; expected a header line and at least one row") from None
    except (EOFError, zlib.error, zipfile.BadZipFile) as error:
        raise InputError(f"{place(path)}: damaged ({error}); download it again") from None
    except UnicodeDecodeError:
        raise InputError(f"{place(path)}: not a readable CSV file: it is not UTF-8 text") from None
    except (
        OSError,
        ValueError,
        RuntimeError,
    ) as error:  # of gzip, pandas, a locked archive
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise InputError(f"{place(path)}: not a readable CSV file ({str(error).strip()})") from None
    if not isinstance(table.index, pd.RangeIndex):
        raise InputError(f"{place(path)}: rows have more fields than the header; the table is damaged")
    table = table.fillna("")  # fields that a row is short of
    table = table[(table != "").any(axis=1)]
    if table.empty:
        raise InputError(f"{place(path)}: no rows below the header")
    return table


def _read_list(path: Path) -> pd.DataFrame:
    lines = read_utf8(path, "text").splitlines()
    return pd.DataFrame({"name": [line.strip() for line in lines]}, dtype=str)
