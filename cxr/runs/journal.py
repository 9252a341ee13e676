"""Journals of a stage at work: a file per process that names each result as soon as it is written.

A killed stage goes on with what its journals hold. A journal begins with the fingerprint of what the stage is made
from, and then has a line of JSON, [path below the folder, state], for each file.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path

from cxr.files import write_text
from cxr.runs.fingerprints import FileState


class Journals:
    """The journals of one stage in a results folder. rank: of the process, which writes its own and reads all.

    Those of another fingerprint count as empty.
    """

    def __init__(self, folder: Path, stage: str, fingerprint: str, rank: int = 0) -> None:
        self._folder, self._start, self._fingerprint = folder, _start_of(stage), fingerprint
        self._own = folder / f"{self._start}{rank}.journal"
        self._begun = False

    def add(self, states: Mapping[str, FileState]) -> None:
        """Notes files, path below the folder -> state."""
        self._begin()
        with open(self._own, "a", encoding="ascii") as handle:
            handle.write("".join(json.dumps([name, str(state)]) + "\n" for name, state in states.items()))

    def _begin(self) -> None:
        """Makes this process's journal begin with the fingerprint and end with a whole line."""
        if self._begun:
            return
        kept = self._lines(self._own) if self._own.is_file() else []
        write_text(self._own, "".join(line + "\n" for line in kept or [self._fingerprint]))
        self._begun = True

    def read(self) -> dict[str, FileState]:
        """All that processes of this stage noted, of an earlier run or beside this one; damaged lines are left out."""
        entries = (_parsed(line) for journal in self._all() for line in self._lines(journal)[1:])
        return {name: state for name, state in entries if state is not None}

    def remove(self) -> None:
        """Deletes the journals of all processes."""
        for journal in self._all():
            journal.unlink(missing_ok=True)

    def _all(self) -> list[Path]:
        return sorted(path for path in self._folder.glob(".run.*.journal") if path.name.startswith(self._start))

    def _lines(self, journal: Path) -> list[str]:
        """The whole lines of a journal, the fingerprint first; none of a journal of another fingerprint."""
        lines = journal.read_text(encoding="ascii", errors="replace").split("\n")[:-1]
        return lines if lines[:1] == [self._fingerprint] else []


def _start_of(stage: str) -> str:
    """Start of the names of a stage's journals; a stage may be called anything."""
    return f".run.{re.sub(r'[^A-Za-z0-9_+-]', '-', stage)[:80]}.{hashlib.sha256(stage.encode()).hexdigest()[:8]}."


def _parsed(line: str) -> tuple[str, FileState | None]:
    try:
        name, text = json.loads(line)
    except (ValueError, TypeError, RecursionError):
        return "", None
    return (name, FileState.parsed(text)) if isinstance(name, str) else ("", None)
