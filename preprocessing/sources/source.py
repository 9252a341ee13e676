"""Description of a data set, and the reading of its tables with the checks that every set shares."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from cxr.files import InputError, place, read_csv, read_json
from cxr.labels import LabelSet

Tables = Mapping[str, Any]
"""Key of a `TableFile` -> its DataFrame of strings (blank: `""`), or the content of a json file. A key whose optional
file is absent is missing. `sizes`, where a source asks for it: film id -> (height, width) in pixels."""

Regions = dict[str, dict[str, dict[str, Any]]]
"""Film id -> task -> `{"size": [h, w], "kind": "box", "boxes": [[x, y, width, height], ...]}` or COCO's run-length code
`{"size": [h, w], "counts": string}`."""


PERCENTILE = {"rule": "percentile", "low": 0.5, "high": 99.5}
"""The grey rule of films whose stored values have no fixed range."""


@dataclass(frozen=True)
class TableFile:
    """One table of a release: the names it may have below the root, and the columns without which it is another's.

    Several `TableFile`s of one key are the forms that the table has in different releases; the first present is read.
    """

    key: str
    names: tuple[str, ...]
    columns: tuple[str, ...] = ()
    required: bool = True
    renamed: Mapping[str, str] = field(default_factory=dict)
    """A column's name in another release -> its name here."""


@dataclass(frozen=True)
class Source:
    """A data set: its tables, and the two functions that turn them into films and regions.

    films: tables -> one row per film as `columns.film_table` makes it. regions: tables -> outlines, by film and task.
    label_set: None where the labels are the columns of `films` and the tasks those that are outlined.
    blank: meaning of a blank label. grey: the rule by which stored values become grey values.
    """

    title: str
    tables: tuple[TableFile, ...]
    films: Callable[..., pd.DataFrame]
    regions: Callable[..., Regions] | None = None
    label_set: LabelSet | None = None
    blank: Literal["negative", "not labelled"] = "not labelled"
    grey: Mapping[str, Any] = field(default_factory=lambda: {"rule": "stored"})
    licence: str = ""
    sizes: bool = False
    """Whether boxes are in pixels of films whose size may stand in no table, only in the films themselves."""
    options: Mapping[str, int] = field(default_factory=dict)
    """Keyword arguments of `films` and `regions` that a user may give -> their defaults."""


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
    try:
        table = read_csv(path)
    except (EOFError, zlib.error, zipfile.BadZipFile) as error:
        raise InputError(f"{place(path)}: damaged ({error}); download it again") from None
    except InputError:
        raise
    except (OSError, ValueError) as error:  # of gzip, and of an archive that does not hold exactly one table
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise InputError(f"{place(path)}: not a readable table ({error})") from None
    if not isinstance(table.index, pd.RangeIndex):
        raise InputError(f"{place(path)}: rows have more fields than the header; the table is damaged")
    return table.fillna("")  # fields that a row is short of


def _read_list(path: Path) -> pd.DataFrame:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise InputError(f"{place(path)}: not a text file; expected one film's name a line") from None
    return pd.DataFrame({"name": [line.strip() for line in lines]}, dtype=str)
