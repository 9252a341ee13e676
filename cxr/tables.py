"""CSV files: one header line, UTF-8; read as strings with the true line of every row, written safe for spreadsheets.

A cell that a spreadsheet would run as a formula (`=`, `+`, `-`, `@`, tab or line end first, numbers excepted) is
written with `'` before it, which reading takes off again.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import re
import zipfile
import zlib
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice, takewhile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cxr.files import InputError, composed, decoded, place, printable, quoted, read_bytes, write_text

LARGEST_UNPACKED = 2**31
"""Bytes of a table, unpacked."""

_FORMULA = re.compile(r"'*[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
_HARMLESS = re.compile(r"-((\d+\.?\d*|\.\d+)([eE][-+]?\d+)?)?")  # a number; a lone dash, which is a text everywhere


def write_csv(target: Path, table: pd.DataFrame) -> None:
    """One header line, `\\n`, floats with 9 significant digits, undefined values empty; atomically.

    Texts, headers included, are written so that no spreadsheet runs them.
    """
    texts = table.select_dtypes(include=["object", "string"])
    safe = table.assign(**{name: texts[name].map(_defused) for name in texts.columns})
    safe.columns = pd.Index([_defused(name) for name in table.columns])
    carriage = any("\r" in value for name in texts.columns for value in texts[name] if isinstance(value, str))
    quoting = csv.QUOTE_ALL if carriage else csv.QUOTE_MINIMAL  # which forgets to quote a lone carriage return
    write_text(target, safe.to_csv(index=False, float_format="%.9g", lineterminator="\n", quoting=quoting))


def _defused(value: Any) -> Any:
    if isinstance(value, str) and _FORMULA.match(value) and not _HARMLESS.fullmatch(value):
        return f"'{value}"
    return value


def _restored(text: str) -> str:
    return text[1:] if text.startswith("'") and _FORMULA.match(text) else text


def read_csv(path: Path, columns: Sequence[str] = (), *, may_be_empty: bool = False) -> pd.DataFrame:
    """Reads a CSV file (also as `.csv.gz`, or alone in a `.zip`) as strings, and checks that `columns` are there.

    Blanks around names and values are taken off; rows without any value and columns without a name are left out.
    `line_of` gives the line of a row in the file.

    Raises InputError, with the line where there is one, for a file that is missing, empty or not CSV (another separator
    or encoding, a quote that does not close, NUL bytes, a row with more or fewer fields than the header), for a missing
    or repeated column, and, unless `may_be_empty`, for a table without rows.
    """
    path = Path(path)
    rows = _Rows(path, _text_bytes(path))
    reading = iter(rows)
    cells = _Cells(composed(_cleaned(name)) for name in next(reading, []))
    wrong = cells.add_all(reading)
    if not rows.lines:
        raise InputError(f"{place(path)}: the file is empty; expected a header line and at least one row")
    _check_header(path, rows.lines.pop(0), cells.header, columns)
    if wrong is not None:
        raise InputError(f"{place(path, rows.lines[cells.count])}: {_wrong_length(wrong, cells.header)}")
    if not cells.count and not may_be_empty:
        raise InputError(f"{place(path)}: no rows below the header")
    table = cells.to_table()
    table.attrs["lines"] = _Lines(rows.lines)
    return table


def line_of(table: pd.DataFrame | pd.Series, row: int) -> int:
    """The line of the file on which a row of a table from `read_csv` starts; row: its index, from 0.

    Of a table that was not read from a file, the line that it would have without blank lines.
    """
    lines = table.attrs.get("lines")
    return lines.numbers[row] if isinstance(lines, _Lines) else row + 2


def lines_of(table: pd.DataFrame) -> np.ndarray:
    """(N,) int64: the line of each row of a table, as `line_of` gives it for one that was read whole."""
    lines = table.attrs.get("lines")
    return np.array(lines.numbers) if isinstance(lines, _Lines) else np.arange(2, len(table) + 2)


def each_text(values: pd.Series, function: Callable[[str], str]) -> pd.Series:
    """The function's value for every cell of a column, computed and kept once per distinct text."""
    codes, texts = pd.factorize(values)
    made = np.array([function(text) for text in texts], dtype=object)
    return pd.Series(made[codes], index=values.index, name=values.name, dtype="str")


def check_unique(
    values: Iterable[str], lines: Iterable[int], table: Path, column: str, what: str, *, names_files: bool = False
) -> None:
    """Raises InputError, naming both lines, when two rows have one value. Blank values do not count.

    names_files: values that files are named after also count as one where a file system without upper and lower case,
    or one that writes accents in another way, takes them for one name.
    """
    values = list(values)
    keys = list(map(file_name_key, values)) if names_files else values
    if len(set(keys)) == len(keys):
        return
    first: dict[str, tuple[str, int]] = {}
    for key, value, line in zip(keys, values, lines, strict=True):
        if value and key in first:
            other, other_line = first[key]
            reason = f"{what} {quoted(value)} is also that of line {other_line}"
            if value != other:
                reason = f"{what} {quoted(value)} is {quoted(other)}, of line {other_line}, to some file systems"
            raise InputError(f"{place(table, line, column)}: {reason}; remove or rename one of the two")
        first[key] = (value, line)


def file_name_key(name: str) -> str:
    """Equal for names that some file system takes for one."""
    return name.lower() if name.isascii() else composed(name).casefold()


def _content(path: Path) -> bytes:
    """The file's bytes; of a `.gz`, and of a `.zip` that holds one file, what is packed in it."""
    data = read_bytes(path)
    try:
        if path.suffix == ".gz":
            data = gzip.open(io.BytesIO(data)).read(LARGEST_UNPACKED + 1)
        elif path.suffix == ".zip":
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                names = archive.namelist()
                if len(names) != 1:
                    raise InputError(f"{place(path)}: holds {len(names)} files; expected one CSV file")
                data = archive.open(names[0]).read(LARGEST_UNPACKED + 1)
    except (OSError, EOFError, RuntimeError, NotImplementedError, zlib.error, zipfile.BadZipFile) as error:
        raise InputError(f"{place(path)}: damaged ({printable(str(error))}); download it again") from None
    if len(data) > LARGEST_UNPACKED:
        raise InputError(f"{place(path)}: larger than {LARGEST_UNPACKED} bytes")
    return data


def _text_bytes(path: Path) -> bytes:
    """The file's bytes without a byte-order mark. Raises InputError where they are not UTF-8, or hold NUL bytes."""
    data = _content(path)
    if not data.isascii():
        decoded(path, data, "CSV")
    if b"\0" in data:
        line = data.count(b"\n", 0, data.index(b"\0")) + 1
        raise InputError(f"{place(path, line)}: not a readable CSV file: NUL bytes; is it damaged, or a binary file?")
    return data.removeprefix(codecs.BOM_UTF8)


class _Rows:
    """The rows of a file that hold a value, decoded as they are read; `lines`: where those read so far start."""

    def __init__(self, path: Path, data: bytes) -> None:
        self._path, self._data = path, data
        self.lines = array("q")

    def __iter__(self) -> Iterator[list[str]]:
        reader = csv.reader(io.TextIOWrapper(io.BytesIO(self._data), encoding="utf-8", newline=""), strict=True)
        start = 1
        try:
            for row in reader:
                if row and (row[0].strip() or any(map(str.strip, row))):
                    self.lines.append(start)
                    yield row
                start = reader.line_num + 1
        except csv.Error as error:
            what = "a quote that does not close" if "unexpected end" in str(error) else str(error)
            raise InputError(f"{place(self._path, start)}: not a readable CSV file: {what}") from None


class _Cells:
    """The cells of a table, column by column; a text that stands in many cells of a column is kept once."""

    _BATCH = 128
    """Rows taken at a time: so few that Python's garbage collector does not start to look at them."""
    _MANY = 5000
    """Different texts after which a column is taken to repeat none."""

    def __init__(self, header: Iterable[str]) -> None:
        self.header = list(header)
        self.count = 0
        self._named = [column for column, name in enumerate(self.header) if name]
        self._cells: list[list[str]] = [[] for _ in self._named]
        self._texts = [_Texts() for _ in self._named]

    def add_all(self, rows: Iterator[list[str]]) -> list[str] | None:
        """Adds rows up to the first of another length than the header, which is returned.

        The rows behind that one are read all the same: a file that is not CSV at all is the greater fault.
        """
        wrong = None
        while batch := list(islice(rows, self._BATCH)):
            if wrong is None:
                good = list(takewhile(lambda row: len(row) == len(self.header), batch))
                self._add(good)
                wrong = list(map(_cleaned, batch[len(good)])) if len(good) < len(batch) else None
        return wrong

    def _add(self, rows: list[list[str]]) -> None:
        self.count += len(rows)
        columns = list(zip(*rows, strict=True)) or [()] * len(self.header)
        for cells, texts, column in zip(self._cells, self._texts, self._named, strict=True):
            cells.extend(map(texts.__getitem__, columns[column]))
            if len(texts) > self._MANY:
                texts.clear()

    def to_table(self) -> pd.DataFrame:
        """The columns that have a name. The cells are handed over one column at a time, so that none is there twice."""
        columns = {self.header[column]: pd.Series(self._cells.pop(0), dtype="str") for column in self._named}
        return pd.DataFrame(columns, copy=False)


class _Texts(dict[str, str]):
    """A cell as it stands in the file -> its text, made when it is first met."""

    def __missing__(self, value: str) -> str:
        text = self[value] = _cleaned(value)
        return text


def _cleaned(value: str) -> str:
    return _restored(value.strip())


class _Lines:
    """Line numbers of rows; pandas copies what is attached to a table with every operation, but not this."""

    def __init__(self, numbers: array[int]) -> None:
        self.numbers = numbers

    def __deepcopy__(self, memo: dict[int, Any]) -> _Lines:
        return self


def _check_header(path: Path, line: int, header: list[str], columns: Sequence[str]) -> None:
    if len(header) == 1 and header[0] not in columns:
        check_separator(path, line, header[0])
    names = [name for name in header if name]
    repeated = [name for name in dict.fromkeys(names) if names.count(name) > 1]
    if repeated:
        raise InputError(f"{place(path, line)}: the column {quoted(repeated[0])} is there twice; remove or rename one")
    missing = [name for name in columns if name not in names]
    if missing:
        raise InputError(f"{place(path)}: {no_column(missing, names)}")


def no_column(missing: Sequence[str], header: Sequence[str]) -> str:
    """Says which columns are missing, and what the header has: at most 40 names of it."""
    has = ", ".join(map(quoted, header[:40])) + (", ..." if len(header) > 40 else "")
    return f"no column named {', '.join(map(quoted, missing))}; the header has: {has}"


def check_separator(path: Path, line: int, header: str) -> None:
    """Raises InputError where a header that is one cell holds another separator than the comma."""
    for character, name in ((";", "semicolons"), ("\t", "tabs"), ("|", "bars")):
        if character in header:
            raise InputError(f"{place(path, line)}: separated by {name}; save it with commas")


def _wrong_length(row: list[str], header: list[str]) -> str:
    counts = f"{len(row)} fields, where the header has {len(header)}"
    if len(row) == len(header) + 1 and not row[-1]:
        return f"{counts}: a comma at the end of the row; remove it, or add one to the header"
    if len(row) > len(header):
        return f"{counts}; put a value that holds a comma into quotes"
    return f"{counts}; is the row cut off?"
