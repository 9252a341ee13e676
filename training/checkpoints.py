"""Training states on disk: written aside, flushed, renamed, and sealed with a sha256 that shows they are whole.

A file is what `torch.save` writes, a zip archive, with the sha256 of everything before it as the archive's comment
(`unzip -z` shows it, and `torch.load(..., weights_only=True)` reads the file as it is).
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cxr.files import InputError, place, quoted, read_json, replacing

FINISHED = "training.json"
NEWEST = "training_state.pt"
_OLDER = re.compile(r"training_state\.(\d{9})\.pt")

_DIGEST_LENGTH = hashlib.sha256().digest_size * 2
_COMMENT_LENGTH = _DIGEST_LENGTH.to_bytes(2, "little")

_BEFORE = {"aggregation": "mean"}
"""Settings that runs of earlier versions lack, and what stands for them."""

START_OVER = "start over with --resume never"


class Checkpoints:
    """`training_state.pt` in a folder, and the ones before it as `training_state.<step>.pt`, `keep` in all."""

    def __init__(self, folder: Path, keep: int = 2) -> None:
        self.folder, self.keep = Path(folder), keep
        self.newest = self.folder / NEWEST
        self._step_of_newest: int | None = None

    def save(self, step: int, state: Mapping[str, Any]) -> None:
        """Saves a state that `torch.load(weights_only=True)` can read. At any moment a whole checkpoint is there.

        Raises OSError (disk full, no permission); the checkpoints before are then untouched. An older one that cannot
        be kept or deleted is a warning: the newest is what a run needs.
        """
        data = sealed({"step": step, **state})
        if self.keep > 1 and self._step_of_newest not in (None, step):
            self._keep_newest_as(self.folder / f"training_state.{self._step_of_newest:09d}.pt")
        with replacing(self.newest) as temporary:
            temporary.write_bytes(data)
        self._step_of_newest = step
        for path in self._older()[max(0, self.keep - 1) :]:
            _delete(path)

    def load(self) -> dict[str, Any] | None:
        """Loads the newest whole state; None without checkpoints. A damaged one is passed over with a warning.

        Raises InputError when there are checkpoints and none is whole.
        """
        found = [path for path in (self.newest, *self._older()) if path.is_file()]
        for path in found:
            state = unsealed(path.read_bytes())
            if isinstance(state, dict) and type(state.get("step")) is int:
                self._step_of_newest = state["step"] if path == self.newest else None
                return state
            reason = "its sha256 does not fit" if state is None else "it holds something else"
            print(f"warning: {place(path)}: damaged ({reason}); taking the one before", file=sys.stderr)
        if found:
            raise InputError(f"{place(self.folder)}: every training state is damaged; {START_OVER}")
        return None

    def clear(self) -> None:
        """Deletes all checkpoints; one that cannot be deleted is a warning."""
        for path in (self.newest, *self._older()):
            _delete(path)

    def start_over(self) -> None:
        """Deletes all checkpoints, and the record that the run is complete; the latter must not stay (OSError)."""
        (self.folder / FINISHED).unlink(missing_ok=True)
        self.clear()

    def _older(self) -> list[Path]:
        """Newest first."""
        return sorted((p for p in self.folder.glob("training_state.*.pt") if _OLDER.fullmatch(p.name)), reverse=True)

    def _keep_newest_as(self, path: Path) -> None:
        try:
            path.unlink(missing_ok=True)
            try:
                os.link(self.newest, path)
            except OSError:  # a file system without hard links
                with replacing(path) as temporary:
                    temporary.write_bytes(self.newest.read_bytes())
        except OSError as error:
            print(f"warning: {place(path)}: cannot be written ({error.strerror or error})", file=sys.stderr)


def _delete(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        print(f"warning: {place(path)}: cannot be deleted ({error.strerror or error})", file=sys.stderr)


def sealed(state: Any) -> bytes:
    """The archive of `torch.save`, with its sha256 as the archive's comment."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    archive = buffer.getvalue()
    if archive[-2:] != b"\0\0":
        raise RuntimeError("torch.save no longer writes a zip archive without a comment; a seal would damage it")
    digest = hashlib.sha256(archive[:-2]).hexdigest().encode()
    return archive[:-2] + _COMMENT_LENGTH + digest


def unsealed(data: bytes) -> Any:
    """The state in a checkpoint; None when a bit of it has changed or it cannot be read. Runs no code from it."""
    archive, seal = data[: -2 - _DIGEST_LENGTH], data[-2 - _DIGEST_LENGTH :]
    if _COMMENT_LENGTH + hashlib.sha256(archive).hexdigest().encode() != seal:
        return None
    try:
        return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception:  # whole, but not of torch: its reader raises whatever it stumbles over
        return None


def misfit(
    state: Mapping[str, Any], own: Mapping[str, Any], parameters: Sequence[Tensor], epochs: int, steps_per_epoch: int
) -> str:
    """Why a run cannot continue from `state`; "" when it can. A seal shows that a file is whole, not what it is.

    own: the state of the run, which has not started. parameters: of its optimiser.
    """
    if state.keys() != own.keys() | {"step"}:
        return "other entries than those of a training state"
    step, epoch, in_epoch = (state[name] for name in ("step", "epoch", "steps_in_epoch"))
    if not (type(step) is type(epoch) is type(in_epoch) is int):
        return "step, epoch and steps_in_epoch are not whole numbers"
    if not (1 <= epoch <= epochs + 1 and 0 <= in_epoch <= steps_per_epoch):
        return f"step {quoted(in_epoch)} of epoch {quoted(epoch)}, with {steps_per_epoch} steps in {epochs} epochs"
    if step != (epoch - 1) * steps_per_epoch + in_epoch:
        return f"step {quoted(step)} in epoch {epoch}"
    if not _is_table(state["unreadable"], int, str):
        return "the kind of unreadable"
    rows = {"steps": step, "epochs": epoch - 1}
    expected = {name: own[name] for name in ("weights", "scheduler", "scaler")} | {
        "optimizer": own["optimizer"] | {"state": _moments(state["optimizer"], parameters)},
        "history": {name: table.new_empty(rows[name], table.shape[1]) for name, table in own["history"].items()},
    }
    reason = _difference({name: state[name] for name in expected}, expected, "the state")
    if not reason and state["scheduler"]["last_epoch"] != step:
        return "the schedule is at another step"
    return reason


def _moments(optimizer: object, parameters: Sequence[Tensor]) -> dict[int, dict[str, Tensor]]:
    """AdamW's moments as they should be, for the parameters that a saved optimiser has some of."""
    saved = optimizer.get("state") if isinstance(optimizer, Mapping) else {}
    known = [index for index in range(len(parameters)) if isinstance(saved, Mapping) and index in saved]
    step = torch.tensor(0.0)
    return {i: {"step": step, "exp_avg": parameters[i], "exp_avg_sq": parameters[i]} for i in known}


def _is_table(value: object, key: type, entry: type) -> bool:
    return isinstance(value, dict) and all(type(k) is key and type(v) is entry for k, v in value.items())


def _difference(value: object, like: object, name: str) -> str:
    """Names the first entry that has another kind, shape or set of keys than `like`; "" when there is none."""
    if isinstance(like, Mapping):
        if not isinstance(value, Mapping) or value.keys() != like.keys():
            return f"the entries of {name}"
        return next(filter(None, (_difference(value[key], like[key], str(key)) for key in like)), "")
    if isinstance(like, (list, tuple)):
        if not isinstance(value, type(like)) or len(value) != len(like):
            return f"the kind of {name}"
        return next(filter(None, (_difference(one, other, name) for one, other in zip(value, like, strict=True))), "")
    if isinstance(like, Tensor):
        if not isinstance(value, Tensor) or (value.layout, value.device.type) != (like.layout, "cpu"):
            return f"the kind of {name}"
        return "" if (value.shape, value.dtype) == (like.shape, like.dtype) else f"the shape or type of {name}"
    return "" if type(value) is type(like) else f"the kind of {name}"


def is_finished(folder: Path, settings: Mapping[str, Any]) -> bool:
    """Whether a run with these settings is complete in `folder`. Raises InputError when one with others is."""
    path = folder / FINISHED
    if not path.is_file():
        return False
    refuse_other_settings(path, read_json(path).get("settings"), settings)
    return True


def refuse_other_settings(path: Path, known: object, settings: Mapping[str, Any]) -> None:
    """Raises InputError, naming what changed, when the run in `path` was made with other `settings`."""
    if not isinstance(known, Mapping):
        raise InputError(f"{place(path)}: the settings are {quoted(known)}, not a table of names; {START_OVER}")
    known = _BEFORE | dict(known)
    changed = [_change(name, known.get(name), own) for name, own in settings.items() if not _same(known.get(name), own)]
    if changed:
        ways = "give its own, another --output, or --resume never"
        raise InputError(f"{place(path)}: belongs to a run with different settings ({', '.join(changed)}); {ways}")


def _same(known: object, own: object) -> bool:
    """Whether a value out of a file is this one of ours, which is plain, or a list of plain ones."""
    if isinstance(own, list):
        return isinstance(known, list) and len(known) == len(own) and all(map(_same, known, own))
    return type(known) is type(own) and known == own


def _change(name: str, was: object, now: object) -> str:
    option = {"parts_per_step": "--accumulate x processes"}.get(name, name)
    plain = (str, int, float, bool, type(None))
    if isinstance(was, plain) and isinstance(now, plain):
        return f"{option} was {quoted(was)} and is {quoted(now)}"
    return f"{option} is another one"
