"""Checkpoints of a run: written aside, flushed, renamed, and known by their sha256 to be whole.

A file is what `torch.save` writes, a zip archive, with the sha256 of everything before it as the archive's comment
(`unzip -z` shows it, and `torch.load(..., weights_only=True)` reads the file as it is).
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import sys
from pathlib import Path
from typing import Any

import torch

from cxr.files import InputError, replacing

NEWEST = "training_state.pt"
_OLDER = re.compile(r"training_state\.(\d{9})\.pt")

_DIGEST_LENGTH = hashlib.sha256().digest_size * 2
_COMMENT_LENGTH = _DIGEST_LENGTH.to_bytes(2, "little")


class Checkpoints:
    """`training_state.pt` in a folder, and the ones before it as `training_state.<step>.pt`, `keep` in all."""

    def __init__(self, folder: Path, keep: int = 2) -> None:
        self.folder, self.keep = Path(folder), keep
        self.newest = self.folder / NEWEST
        self._step_of_newest: int | None = None

    def save(self, step: int, content: dict[str, Any]) -> None:
        """Saves what `torch.load(weights_only=True)` can read again. At any moment a whole checkpoint is there.

        Raises OSError (disk full, no permission); the checkpoints before are then untouched.
        """
        data = sealed({"step": step, **content})
        if self._step_of_newest not in (None, step):
            self._keep_newest_as(self.folder / f"training_state.{self._step_of_newest:09d}.pt")
        with replacing(self.newest) as temporary:
            temporary.write_bytes(data)
        _flush_folder(self.folder)
        self._step_of_newest = step
        for path in self._older()[max(0, self.keep - 1) :]:
            path.unlink(missing_ok=True)

    def load(self) -> dict[str, Any] | None:
        """The newest whole checkpoint; None when there never was one. A damaged one is passed over with a warning.

        Raises InputError when there are checkpoints and none is whole.
        """
        self._remove_leftovers()
        found = [path for path in (self.newest, *self._older()) if path.is_file()]
        for path in found:
            content = unsealed(path.read_bytes())
            if content is not None:
                self._step_of_newest = content["step"] if path == self.newest else None
                return content
            print(f"warning: {path}: damaged (its sha256 does not fit); taking the one before", file=sys.stderr)
        if found:
            raise InputError(f"{self.folder}: every training state is damaged; start over with --resume never")
        return None

    def clear(self) -> None:
        """Removes all checkpoints, for a run that starts over."""
        self._remove_leftovers()
        for path in (self.newest, *self._older()):
            path.unlink(missing_ok=True)

    def _remove_leftovers(self) -> None:
        """What a run that was killed had half written: checkpoints, weights and tables."""
        for folder in (self.folder, self.folder / "best"):
            for leftover in folder.glob(".*.tmp"):
                leftover.unlink(missing_ok=True)

    def _older(self) -> list[Path]:
        """Newest first."""
        return sorted((p for p in self.folder.glob("training_state.*.pt") if _OLDER.fullmatch(p.name)), reverse=True)

    def _keep_newest_as(self, path: Path) -> None:
        path.unlink(missing_ok=True)
        try:
            os.link(self.newest, path)
        except OSError:  # a file system without hard links
            with replacing(path) as temporary:
                temporary.write_bytes(self.newest.read_bytes())


def sealed(content: dict[str, Any]) -> bytes:
    """What `torch.save` writes, with its sha256 as the archive's comment."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    archive = buffer.getvalue()
    if archive[-2:] != b"\0\0":
        raise RuntimeError("torch.save no longer writes a zip archive without a comment; a seal would damage it")
    digest = hashlib.sha256(archive[:-2]).hexdigest().encode()
    return archive[:-2] + _COMMENT_LENGTH + digest


def unsealed(data: bytes) -> dict[str, Any] | None:
    """The content of a checkpoint; None when a single bit of it has changed. Runs no code from it."""
    archive, seal = data[: -2 - _DIGEST_LENGTH], data[-2 - _DIGEST_LENGTH :]
    if _COMMENT_LENGTH + hashlib.sha256(archive).hexdigest().encode() != seal:
        return None
    return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
