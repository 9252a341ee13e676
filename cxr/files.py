"""Text files in and out: written whole or not at all, and errors that name file, line and column."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd


class InputError(ValueError):
    """A user's mistake, in one line that names file, line and column and says what to do. Scripts exit with 2."""


def place(path: Path | str, line: int | None = None, column: str | None = None) -> str:
    """Where a mistake stands, for the start of a message: `train.csv, line 5, Path`. Lines count from 1."""
    parts = [str(path), *([f"line {line}"] if line is not None else []), *([column] if column is not None else [])]
    return printable(", ".join(parts))


def printable(text: str) -> str:
    """The text on one line: line ends, escape sequences and whatever else a terminal would obey, written as `\\x1b`."""
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)


def quoted(value: object) -> str:
    """A value out of a file, for a message: at most 60 characters of it, and of a container no more than its kind.

    `repr` is not for values from files: nested ones can take for ever, long numbers raise.
    """
    if isinstance(value, str):
        text = printable(value[:60])
        return f"'{text}...'" if len(value) > 60 else f"'{text}'"
    if value is None or isinstance(value, (bool, float)):
        return str(value)
    if isinstance(value, int):
        return str(value) if value.bit_length() < 200 else f"a number of {value.bit_length()} bits"
    return f"a {type(value).__name__}"


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """Yields a temporary path beside `target`; on success it is flushed to disk and renamed over `target`.

    A reader therefore sees the old file or the whole new one, whenever the process dies. On an exception the temporary
    file is removed and `target` stays as it was.
    """
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".tmp")
    os.close(handle)
    temporary = Path(name)
    try:
        with naming(target):
            yield temporary
            _flush(temporary)
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Tells the file to an OSError that does not say where: of a full disk, say."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(path)
        raise


def _flush(path: Path) -> None:
    with open(path, "rb") as handle:
        os.fsync(handle.fileno())


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_text(target: Path, text: str) -> None:
    """Writes UTF-8 with `\\n` line ends, atomically."""
    with replacing(target) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_json(target: Path, content: Any) -> None:
    """Writes indented UTF-8 json, atomically. NaN is refused (`null` says "undefined" in json)."""
    write_text(target, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Raises InputError with file and line when the file is missing or is not json."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (ValueError, RecursionError) as error:  # also of numbers of 5,000 digits, and of 10^5 brackets
        raise InputError(f"{path}: not a json file ({error})") from None


def write_csv(target: Path, table: pd.DataFrame) -> None:
    """One header line, `\\n`, floats with 9 significant digits, undefined values empty; atomically."""
    write_text(target, table.to_csv(index=False, float_format="%.9g", lineterminator="\n"))


def read_csv(path: Path, columns: Sequence[str] = ()) -> pd.DataFrame:
    """Reads a CSV file as strings, blanks as `""`, and checks that `columns` are there.

    Raises InputError when the file is missing, empty, not a CSV, or lacks a column.
    """
    path = Path(path)
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise InputError(f"{path}: a folder, where a CSV file was expected") from None
    except pd.errors.EmptyDataError:
        raise InputError(f"{path}: the file is empty; expected a header line and at least one row") from None
    except (pd.errors.ParserError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a readable CSV file ({error})") from None
    missing = [name for name in columns if name not in table.columns]
    if missing:
        found = ", ".join(table.columns)
        raise InputError(f"{path}: no column named {', '.join(repr(m) for m in missing)}; the header has: {found}")
    if table.empty:
        raise InputError(f"{path}: no rows below the header")
    return table


def csv_row(index: int) -> int:
    """The line of the file on which data row `index` (from 0) stands, the header being line 1."""
    return index + 2


def sha256(path: Path) -> str:
    """Hexadecimal sha256 of a file's bytes."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
