"""Fingerprints of what a stage reads and writes: sha256 of tables and results, size and time of films."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cxr.files import InputError, place, sha256


def films_fingerprint(files: Sequence[Path], root: Path) -> dict[str, Any]:
    """Number of films, and one digest over path below `root`, size and modification time (ns) of their files.

    Cheap (one `stat` per file), and changed by every ordinary way of replacing a film. Arrays of packed films count
    once each. Raises InputError when a film is missing.
    """
    digest = hashlib.sha256()
    for file in dict.fromkeys(files):
        try:
            facts = os.stat(file)
        except FileNotFoundError:
            raise InputError(f"{place(file)}: no such film") from None
        line = f"{os.path.relpath(file, root)}\0{facts.st_size}\0{facts.st_mtime_ns}\n"
        digest.update(line.encode(errors="surrogateescape"))
    return {"count": len(files), "size_and_time": digest.hexdigest()}


def file_fingerprint(path: Path) -> dict[str, str]:
    """Name and sha256 of a table or a weights file. Raises InputError when it is missing."""
    try:
        return {"name": Path(path).name, "sha256": sha256(path)}
    except FileNotFoundError:
        raise InputError(f"{place(path)}: no such file") from None


@dataclass(frozen=True)
class FileState:
    """A result file as it was written: sha256 of its content; size, modification and change time (ns).

    Size and times are what makes a second look cheap: the change time moves with every write and cannot be set back,
    so while all three are the same, so is the content. Else the content is hashed again.
    """

    sha256: str
    stat: tuple[int, int, int]

    @classmethod
    def of(cls, path: Path) -> FileState:
        """Raises OSError when the file is missing."""
        stat = _stat(path)  # before the content: a write in between then shows
        return cls(sha256(path), stat)

    @classmethod
    def parsed(cls, text: object) -> FileState | None:
        """From its text in a record; None for anything else."""
        parts = text.split(" ") if isinstance(text, str) else []
        if len(parts) != 4 or len(parts[0]) != 64 or not all(part.isdecimal() and len(part) < 25 for part in parts[1:]):
            return None
        size, modified, changed = map(int, parts[1:])
        return cls(parts[0], (size, modified, changed))

    def __str__(self) -> str:
        return " ".join((self.sha256, *map(str, self.stat)))

    def now(self, path: Path) -> FileState | None:
        """The file's state now, if its content is still the same; None when it is missing or another."""
        try:
            stat = _stat(path)
            if stat == self.stat:
                return self
            return FileState(self.sha256, stat) if stat[0] == self.stat[0] and sha256(path) == self.sha256 else None
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return None


def _stat(path: Path) -> tuple[int, int, int]:
    facts = os.stat(path)
    return facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns


def combined(states: Iterable[tuple[str, FileState]]) -> str:
    """One digest over names and contents of files, in any order."""
    lines = sorted(f"{name}\0{state.sha256}\n" for name, state in states)
    return hashlib.sha256("".join(lines).encode(errors="surrogateescape")).hexdigest()
