"""`run.json` of a results folder: facts about the run, and for every stage what it was made from and what it wrote.

A stage holds `inputs` (fingerprints of everything that was read), `options`, the number of files `expected` and `done`,
`outputs` (path below the folder -> sha256, size, times), the command and its seconds. It is complete while
inputs and options are the same and every output still has the content that was written. Each file is noted in a journal
beside `run.json` as soon as it is written, so that a killed stage goes on with what is missing, and only what was made
from the same inputs is kept.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cxr.files import InputError, place, quoted, read_json, write_json
from cxr.names import RUN_RECORD
from cxr.runs.fingerprints import FileState, combined
from cxr.runs.folder_lock import locked
from cxr.runs.journal import Journals

NAME = RUN_RECORD

IDENTITY = ("backbone", "patch_size", "image_size", "labels", "aggregation")
"""Entries of a model's facts in which two networks differ although their weights are one file."""


class RunRecord:
    """The record of one results folder. rank: of several processes that make results together, the first (0) writes."""

    def __init__(self, folder: Path, rank: int = 0) -> None:
        """Raises InputError when `run.json` is damaged."""
        self.folder, self.rank = Path(folder), rank
        self.content = self._read()

    def _read(self) -> dict[str, Any]:
        path = self.folder / NAME
        return read_json(path) if path.is_file() else {}

    def _part(self, name: str) -> dict[str, Any]:
        part = self.content.get(name)
        return part if isinstance(part, dict) else {}

    def _entry(self, stage: str) -> dict[str, Any]:
        entry = self._part("stages").get(stage)
        return entry if isinstance(entry, dict) else {}

    def _update(self, facts: Mapping[str, Any], stages: Mapping[str, Any]) -> None:
        """Merges into what `run.json` holds now, under the folder's lock."""
        if self.rank:
            self.content |= dict(facts)
            return
        with locked(self.folder):
            self.content = self._read() | dict(facts)
            if stages:
                self.content["stages"] = self._part("stages") | dict(stages)
            write_json(self.folder / NAME, self.content)

    def note(self, facts: Mapping[str, Any]) -> None:
        """Adds or replaces facts about the run as a whole."""
        self._update(facts, {})

    def belongs_to(
        self, weights_sha256: str | None, model: Mapping[str, Any] | None = None, option: str = "--output"
    ) -> None:
        """Raises InputError when the folder holds results of another network: they must not be mixed.

        weights_sha256: None for weights that are yet to be made. model: its facts; those of IDENTITY are compared.
        option: the name of the option that chooses the folder.
        """
        way_out = f"delete it or choose another {option}"
        known = self._part("weights").get("sha256")
        if known not in (None, weights_sha256):
            raise InputError(f"{place(self.folder)}: holds results of other weights; {way_out}")
        of_folder = self._part("model")
        for name in IDENTITY if model is not None else ():
            ours = (model or {}).get(name)
            if name in of_folder and ours is not None and _plain(ours) != of_folder[name]:
                values = "other " + name if isinstance(ours, (list, tuple)) else f"{name} {quoted(of_folder[name])}"
                raise InputError(
                    f"{place(self.folder)}: holds results of these weights as another network ({values}); {way_out}"
                )

    def is_complete(
        self, stage: str, *, inputs: Mapping[str, Any], options: Mapping[str, Any], outputs: Iterable[Path]
    ) -> bool:
        """Whether `stage` was finished from just these inputs and options, and all `outputs` hold what it wrote."""
        entry = self._entry(stage)
        if entry.get("fingerprint") != _fingerprint(inputs, options) or entry.get("done") != entry.get("expected"):
            return False
        return Stage(self, stage, inputs, options).holds(*outputs)

    def unfinished(self, start: str = "") -> list[str]:
        """Names of the stages, of those that begin with `start`, that were begun and not finished."""
        names = [name for name in self._part("stages") if name.startswith(start)]
        return [name for name in names if self._entry(name).get("done") != self._entry(name).get("expected")]

    def inputs(self, stage: str) -> dict[str, Any]:
        """The recorded inputs of a stage; empty where they are not known."""
        inputs = self._entry(stage).get("inputs")
        return inputs if isinstance(inputs, dict) else {}

    def options(self, stage: str) -> dict[str, Any]:
        """The recorded options of a stage; empty where they are not known."""
        options = self._entry(stage).get("options")
        return options if isinstance(options, dict) else {}

    def outputs(self, stage: str) -> dict[str, FileState]:
        """Path below the folder -> state, of the files that a stage wrote."""
        outputs = self._entry(stage).get("outputs")
        states = {name: FileState.parsed(text) for name, text in outputs.items()} if isinstance(outputs, dict) else {}
        return {name: state for name, state in states.items() if state is not None}

    def outputs_fingerprint(self, stage: str) -> str:
        """One digest over all that a stage wrote, as an input of stages that read it."""
        return combined(self.outputs(stage).items())

    def require_whole(self, stage: str, what: str, way_out: str) -> None:
        """Raises InputError when a stage was begun and not finished, or a file that it wrote is missing or changed.

        what, way_out: for the message. A folder without such a stage passes: its files are somebody else's.
        """
        if stage in self.unfinished():
            raise InputError(f"{place(self.folder)}: its {what} are not complete; {way_out}")
        outputs = self.outputs(stage)
        broken = [name for name, state in outputs.items() if state.now(self.folder / name) is None]
        if broken:
            count = f"{len(broken)} of {len(outputs)} files, {quoted(broken[0])} the first"
            raise InputError(f"{place(self.folder)}: its {what} are missing or changed ({count}); {way_out}")

    def changed(self, endings: Sequence[str]) -> list[str]:
        """Files with these endings that stages wrote, as paths below the folder, and that now hold something else."""
        states = {name: state for stage in self._part("stages") for name, state in self.outputs(stage).items()}
        there = [name for name in states if name.endswith(tuple(endings)) and (self.folder / name).is_file()]
        return sorted(name for name in there if states[name].now(self.folder / name) is None)

    def check_unchanged(self, path: Path) -> None:
        """Raises InputError when a stage wrote `path`, and it now holds something else. Unrecorded files pass."""
        name = os.path.relpath(path, self.folder)
        for stage in self._part("stages"):
            state = self.outputs(stage).get(name)
            if state is not None and Path(path).is_file() and state.now(path) is None:
                raise InputError(
                    f"{place(path)}: changed since it was made ({NAME}, {quoted(stage)}); "
                    "delete it and make it again, or take a folder without that record"
                )

    def check_options(self, stage: str, options: Mapping[str, Any], what: str) -> None:
        """Raises InputError when `what` was made with other options and making it again would throw hours away."""
        known, wanted = self._entry(stage).get("options"), _plain(options)
        if not isinstance(known, dict):
            return
        changed = [name for name in {**wanted, **known} if known.get(name) != wanted.get(name)]
        if changed:
            values = (f"{name}: {_value(known, name)}, now {_value(wanted, name)}" for name in changed)
            raise InputError(
                f"{place(self.folder)}: its {what} were made with other settings ({'; '.join(values)}); "
                "give the same again, delete the folder, or choose another --output"
            )

    def _remove_stale(self, stage: str, fingerprint: str) -> None:
        """Removes what the stage wrote from other inputs, unless it lies outside the folder or was changed since."""
        if self._entry(stage).get("fingerprint") == fingerprint:
            return
        for name, state in self.outputs(stage).items():
            inside = not os.path.isabs(name) and ".." not in Path(name).parts
            if inside and state.now(self.folder / name) is not None:
                (self.folder / name).unlink()

    @contextmanager
    def stage(
        self, name: str, *, inputs: Mapping[str, Any], options: Mapping[str, Any], outputs: Iterable[Path]
    ) -> Iterator[Stage]:
        """Yields a Stage, and records it with its seconds when the block ends without an exception.

        inputs, options: of plain json values. outputs: the files of this run; those that an earlier run made from the
        same inputs and options stay in the record beside them. Several processes that work together enter together,
        and wait for each other before the first one leaves.
        """
        started = time.monotonic()
        wanted = list(dict.fromkeys(Path(path) for path in outputs))
        stage = Stage(self, name, inputs, options)
        earlier = stage.seconds
        if self.rank == 0:
            self._remove_stale(name, stage.fingerprint)
            self._update({}, {name: stage.entry(wanted, earlier, finished=False)})
        yield stage
        if self.rank == 0:
            stage.take_up_journals()
            seconds = round(earlier + time.monotonic() - started, 2)
            self._update(stage.facts_beside(self._read()), {name: stage.entry(wanted, seconds, finished=True)})
            stage.journals.remove()


class Stage:
    """One stage at work: which files hold, which were written, and facts to be recorded with them."""

    def __init__(self, record: RunRecord, name: str, inputs: Mapping[str, Any], options: Mapping[str, Any]) -> None:
        self.folder = record.folder
        self.inputs, self.options = _plain(inputs), _plain(options)
        self.fingerprint = _fingerprint(inputs, options)
        entry = record._entry(name)
        same = entry.get("fingerprint") == self.fingerprint
        self._states = record.outputs(name) if same else {}
        self._facts: dict[str, Any] = {}
        seconds = entry.get("seconds") if same and name in record.unfinished() else None
        self.seconds = float(seconds) if isinstance(seconds, (int, float)) else 0.0
        self.journals = Journals(record.folder, name, self.fingerprint, record.rank)
        self.take_up_journals()

    def holds(self, *paths: Path) -> bool:
        """Whether all files are there with the content that was written from these inputs and options."""
        return all(self._holds(path) for path in paths)

    def _holds(self, path: Path) -> bool:
        name = self._relative(path)
        state = self._states.get(name)
        now = state.now(path) if state is not None else None
        if now is None:
            return False
        self._states[name] = now
        return True

    def wrote(self, *paths: Path) -> None:
        """Notes files that were just written, at once and for good."""
        states = {self._relative(path): FileState.of(path) for path in paths}
        self.journals.add(states)
        self._states |= states

    def note(self, facts: Mapping[str, Any]) -> None:
        """Facts about the run that are written together with the stage; a dict adds to the dict of that name."""
        self._facts |= _plain(facts)

    def facts_beside(self, content: Mapping[str, Any]) -> dict[str, Any]:
        """The noted facts, dicts merged with those that `content` holds under their name."""
        known = {name: content[name] for name in self._facts if isinstance(content.get(name), dict)}
        return {
            name: known[name] | value if name in known and isinstance(value, dict) else value
            for name, value in self._facts.items()
        }

    def entry(self, wanted: Iterable[Path], seconds: float, finished: bool) -> dict[str, Any]:
        """As `run.json` keeps it. A stage that has just begun is not done, even when all its files are there."""
        paths = list(wanted)
        done = sum(self.holds(path) for path in paths)
        others = {name: state for name, state in self._states.items() if state.now(self.folder / name) is not None}
        return {
            "command": shlex.join(sys.orig_argv),
            "fingerprint": self.fingerprint,
            "inputs": self.inputs,
            "options": self.options,
            "expected": len(paths),
            "done": done if finished else None,
            "seconds": seconds,
            "outputs": {name: str(state) for name, state in sorted(others.items())},
        }

    def take_up_journals(self) -> None:
        """Takes up what processes of this stage wrote, of an earlier run or beside this one."""
        self._states |= self.journals.read()

    def _relative(self, path: Path) -> str:
        return os.path.relpath(path, self.folder)


def _value(options: Mapping[str, Any], name: str) -> str:
    return quoted(options[name]) if name in options else "none"


def _plain(value: Any) -> Any:
    """As json gives it back."""
    return json.loads(json.dumps(value))


def _fingerprint(inputs: Mapping[str, Any], options: Mapping[str, Any]) -> str:
    content = json.dumps([inputs, options], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()
