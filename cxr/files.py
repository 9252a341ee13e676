"""Files in and out: written whole or not at all, read with errors that name file and line; one writer per folder.

CSV files are in `cxr.tables`; `locked` is in `cxr.runs.folder_lock`.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import secrets
import socket
import time
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar, overload

T = TypeVar("T")


class InputError(ValueError):
    """A user's mistake, in one line that names file, line and column and says what to do. Scripts exit with 2."""


def place(path: Path | str, line: int | None = None, column: str | None = None) -> str:
    """Where a mistake stands, for the start of a message: `train.csv, line 5, Path`. Lines count from 1."""
    parts = [str(path), *([f"line {line}"] if line is not None else []), *([column] if column is not None else [])]
    return printable(", ".join(parts))


def printable(text: str) -> str:
    """The text on one line: line ends, escape sequences and whatever else a terminal would obey, written as `\\x1b`."""
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)


def composed(name: str) -> str:
    """The name with accents written in one way, so that two programs' spellings of it are equal (Unicode's NFC)."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def number_in(text: str) -> float:
    """The number that a cell of a table holds; also `inf` and `nan`. Raises ValueError for anything else.

    Python itself would also read `0_5`, which is a damaged number everywhere else.
    """
    if "_" in text:
        raise ValueError(text)
    return float(text)


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


# -------------------------------------------------------------------------------------------------------- writing


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """Yields a temporary path beside `target`; on success it is flushed to disk and renamed over `target`.

    A reader therefore sees the old file or the whole new one, whenever the process dies. On an exception the temporary
    file is removed and `target` stays as it was. The temporary file is new (O_EXCL), so nothing is written through a
    symbolic link; a `target` that is one is replaced, not followed. Its name says which process it belongs to, for
    `remove_litter`.
    """
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(_temporary_name(target.name))
    try:
        with naming(target):
            os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW, 0o666))
            yield temporary
            flush(temporary)
            os.replace(temporary, target)
            flush(target.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Adds the file name to an OSError that lacks one (a full disk, for example)."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(path)
        raise


def flush(path: Path) -> None:
    """Brings a file's content, or the names in a folder, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


_TEMPORARY = re.compile(r"\..*\.(?P<host>[A-Za-z0-9-]*)_(?P<pid>\d+)_[0-9a-f]{8}\.tmp")
_OLDER_TEMPORARY = re.compile(r"\..+\.[a-z0-9_]{8}\.tmp")  # written before November 2026, without a process
_DAY = 24 * 3600
_CLOCKS = 10.0
"""Seconds that the clocks of a machine and of its file server may differ."""


def host() -> str:
    """This machine's name, as the names of temporary files and locks hold it: letters, digits and `-`."""
    return re.sub(r"[^A-Za-z0-9-]", "-", socket.gethostname())[:32]


def _temporary_name(name: str) -> str:
    start = name.encode(errors="surrogateescape")[:120].decode(errors="ignore")  # a name has at most 255 bytes
    return f".{start}.{host()}_{os.getpid()}_{secrets.token_hex(4)}.tmp"


def is_alive(pid: int, before: float = math.inf) -> bool:
    """Whether a process of this machine has the number and started before that time (seconds of `time.time`).

    A dead one that nobody has waited for yet counts as dead: in a container that can take for ever.
    """
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    try:
        facts = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:  # no such file system, or it has just ended
        return True
    return facts[0] not in "ZX" and _start(float(facts[19])) < before


def _start(ticks: float) -> float:
    """Time of a moment that /proc gives in ticks since the machine started."""
    since = ticks / os.sysconf("SC_CLK_TCK")
    return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + since


def is_litter(path: Path) -> bool:
    """Whether a file is a temporary of `replacing` that no living process of this machine writes.

    One of another machine counts after a day, for it cannot be seen whether its process lives.
    """
    found = _TEMPORARY.fullmatch(path.name)
    if not found and not _OLDER_TEMPORARY.fullmatch(path.name):
        return False
    try:
        written = path.lstat().st_mtime
    except FileNotFoundError:
        return False
    if found and found["host"] == host():  # numbers are used again, in containers at every start
        return not is_alive(int(found["pid"]), before=written + _CLOCKS)
    return time.time() - written > _DAY


def remove_litter(folder: Path, depth: int | None = None) -> int:
    """Removes the temporaries that dead processes left in a folder; returns their number.

    depth: levels of folders below it that are looked at, all by default.
    """
    removed, start = 0, len(Path(folder).parts)
    for where, folders, names in os.walk(folder):
        if depth is not None and len(Path(where).parts) - start >= depth:
            folders.clear()
        for name in names:
            if name.startswith(".") and name.endswith(".tmp") and is_litter(path := Path(where, name)):
                path.unlink(missing_ok=True)
                removed += 1
    return removed


def write_text(target: Path, text: str) -> None:
    """Writes UTF-8 with `\\n` line ends, atomically; bytes of file names that are not UTF-8 as `\\udcff`."""
    with replacing(target) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace", newline="\n")


def write_json(target: Path, content: Any) -> None:
    """Writes indented UTF-8 json, atomically. NaN is refused (`null` says "undefined" in json)."""
    write_text(target, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


# -------------------------------------------------------------------------------------------------------- reading

_LONGEST_NUMBER = 100  # digits
_KIND_NAMES: dict[type, str] = {dict: "an object {...}", list: "a list [...]", str: "a string"}


def read_bytes(path: Path) -> bytes:
    """Reads a file. Raises InputError when there is no such file, or a folder of that name."""
    try:
        return Path(path).read_bytes()
    except FileNotFoundError:
        raise InputError(f"{place(path)}: no such file") from None
    except IsADirectoryError:
        raise InputError(f"{place(path)}: a folder, where a file was expected") from None


def read_utf8(path: Path, kind: str) -> str:
    """A text file with or without a byte-order mark. Raises InputError that names `kind` and the line."""
    return decoded(path, read_bytes(path), kind)


def decoded(path: Path, data: bytes, kind: str) -> str:
    """The text of a file's bytes; path and kind are for the message, as in `read_utf8`."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise InputError(f"{place(path)}: not a readable {kind} file: UTF-16 text; save it as UTF-8")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InputError(f"{place(path, line)}: not a readable {kind} file: not UTF-8 text; save it as UTF-8") from None


@overload
def read_json(path: Path) -> dict[str, Any]: ...
@overload
def read_json(path: Path, kind: type[T]) -> T: ...
def read_json(path: Path, kind: type[Any] = dict) -> Any:
    """Reads json whose outermost value is of `kind`.

    Raises InputError with file and line when the file is missing, is not json, repeats a key, or holds another kind of
    value, NaN, a number out of range or with more than 100 digits, or nesting deeper than Python's own limit.
    """
    try:
        content = json.loads(
            read_utf8(path, "json"),
            parse_constant=_no_number,
            parse_int=_whole,
            parse_float=_finite,
            object_pairs_hook=_once,
        )
    except json.JSONDecodeError as error:
        raise InputError(f"{place(path, error.lineno)}: not a json file ({error.msg})") from None
    except _Unusable as error:
        raise InputError(f"{place(path)}: not a json file of this project ({error})") from None
    except RecursionError:
        raise InputError(f"{place(path)}: not a json file of this project (nested too deeply)") from None
    if not isinstance(content, kind):
        expected = _KIND_NAMES.get(kind, kind.__name__)
        raise InputError(f"{place(path)}: holds {quoted(content)}; expected {expected}")
    return content


class _Unusable(Exception):
    pass


def _no_number(text: str) -> Any:
    raise _Unusable(f"{text} is not a number in json")


def _whole(text: str) -> int:
    if len(text) > _LONGEST_NUMBER:
        raise _Unusable(f"a number of {len(text)} digits")
    return int(text)


def _finite(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise _Unusable(f"the number {quoted(text)} is out of range")
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) != len(pairs):
        seen: set[str] = set()
        again = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise _Unusable(f"the key {quoted(again)} is there twice")
    return content


def sha256(path: Path) -> str:
    """Hexadecimal sha256 of a file's bytes."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
