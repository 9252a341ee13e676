"""The tables of a release on disk, read as strings and checked to be those that a source expects."""

from __future__ import annotations

import csv
import gzip
import io
import zipfile
import zlib
from pathlib import Path
from typing import IO, Any, cast

import pandas as pd

from cxr.files import InputError, place, quoted, read_json, read_utf8
from cxr.tables import check_separator
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
        table = _table(path, _read_csv(path), form)
    missing = [name for name in form.columns if name not in table.columns]
    if missing:
        raise InputError(
            f"{place(path)}: no column {', '.join(missing)}; is it the table of another release? "
            f"The header has {', '.join(map(quoted, table.columns[:12]))}"
        )
    table.attrs["file"] = str(path)
    return table


def _read_csv(path: Path) -> pd.DataFrame:
    """All lines of a file as they stand, the header first; a field that a line is short of is blank.

    Unlike `cxr.tables.read_csv` this takes what tables of others have: quotes within a value; gzip, or an archive of
    one file. Raises InputError for a damaged file, and for a line that is longer than the header.
    """
    try:
        return pd.read_csv(
            path, dtype=str, header=None, keep_default_na=False, encoding="utf-8-sig", skip_blank_lines=False
        )
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


def _table(path: Path, lines: pd.DataFrame, form: TableFile) -> pd.DataFrame:
    """The rows under their names; the index counts the lines below the header, of which blank ones are left out.

    Columns without a name are left out, as is the second of two columns of one name that nobody needs. Raises
    InputError for a needed name that is there twice, and for a row that is cut off within the columns that have names.
    """
    header = [form.renamed.get(name.strip(), name.strip()) for name in lines.iloc[0]]
    if len(header) == 1 and header[0] not in form.columns:
        check_separator(path, 1, header[0])
    twice = [name for name in form.columns if header.count(name) > 1]
    if twice:
        raise InputError(f"{place(path, 1)}: the column {quoted(twice[0])} is there twice; remove or rename one")
    first = [column for column, name in enumerate(header) if name and header.index(name) == column]
    table = lines.iloc[1:, first].set_axis([header[column] for column in first], axis=1).reset_index(drop=True)
    table = table.fillna("")
    table = table[(table != "").any(axis=1)]
    if table.empty:
        raise InputError(f"{place(path)}: no rows below the header")
    _check_lengths(path, max(first) + 1)
    return table


def _check_lengths(path: Path, fields: int) -> None:
    """Raises InputError, with the line, for a row of fewer fields: blanks at its end would pass for what it says."""
    with io.TextIOWrapper(_unpacked(path), encoding="utf-8-sig") as handle:
        reader = csv.reader(handle)
        try:
            for row in reader:
                if len(row) < fields and any(row):
                    reason = f"{len(row)} fields, where the header has {fields}; is the row cut off? Download it again"
                    raise InputError(f"{place(path, reader.line_num)}: {reason}")
        except csv.Error as error:
            raise InputError(f"{place(path, reader.line_num)}: not a readable CSV file: {error}") from None


def _unpacked(path: Path) -> IO[bytes]:
    """The content of a file, or of the one packed in a `.gz` or as the only file of a `.zip`."""
    if path.suffix == ".gz":
        return cast(IO[bytes], gzip.open(path))
    if path.suffix == ".zip":
        archive = zipfile.ZipFile(path)
        return archive.open(archive.namelist()[0])
    return open(path, "rb")


def _read_list(path: Path) -> pd.DataFrame:
    lines = read_utf8(path, "text").splitlines()
    return pd.DataFrame({"name": [line.strip() for line in lines]}, dtype=str)
