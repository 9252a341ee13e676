"""`run.json` of a results folder: facts about the run, and what every finished stage was made from."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cxr.files import InputError, read_json, write_json

NAME = "run.json"


class RunRecord:
    """Remembers stages, so that a script that is started again does only what is missing.

    writes: False for all but one of several processes that make the same results together.
    """

    def __init__(self, folder: Path, writes: bool = True) -> None:
        self.folder, self.writes = Path(folder), writes
        path = self.folder / NAME
        self.content: dict[str, Any] = read_json(path) if path.is_file() else {}

    def belongs_to(self, weights_sha256: str | None, option: str = "--output") -> None:
        """Raises InputError when the folder holds results of other weights: they must not be mixed.

        weights_sha256: None for weights that are yet to be made. option: what the script calls the folder.
        """
        known = self.content.get("weights", {}).get("sha256")
        if known not in (None, weights_sha256):
            raise InputError(f"{self.folder}: holds results of other weights; delete it or choose another {option}")

    def note(self, facts: Mapping[str, Any]) -> None:
        """Adds or replaces entries, and writes the file."""
        self.content |= facts
        if self.writes:
            write_json(self.folder / NAME, self.content)

    def is_done(self, stage: str, made_from: Mapping[str, Any], files: Iterable[Path]) -> bool:
        """Whether `stage` was finished from just these inputs and settings, and its files are still there."""
        done = self.content.get("stages", {}).get(stage, {})
        return done.get("made_from") == dict(made_from) and all(file.is_file() for file in files)

    def keep_apart(self, what: str, settings: Mapping[str, Any]) -> None:
        """Writes down how `what` is made, before the first file of it. Raises InputError when it was otherwise."""
        known = self.content.get("settings", {}).get(what, dict(settings))
        changed = [name for name in settings if known.get(name) != settings[name]]
        if changed:
            raise InputError(
                f"{self.folder}: its {what} were made with other settings ({', '.join(changed)}); "
                "delete it or choose another --output"
            )
        self.note({"settings": self.content.get("settings", {}) | {what: dict(settings)}})

    @contextmanager
    def stage(self, name: str, made_from: Mapping[str, Any]) -> Iterator[None]:
        """Records the stage and its seconds when the block ends without an exception."""
        started = time.monotonic()
        yield
        seconds = round(time.monotonic() - started, 2)
        stages = self.content.get("stages", {}) | {name: {"made_from": dict(made_from), "seconds": seconds}}
        self.note({"stages": stages})
