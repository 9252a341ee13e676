"""One writer per output folder: `with locked(folder)` in every script that writes into one.

The lock is `flock` on `<folder>/.lock`, which the system releases when the process dies, however it dies. It works
between the machines of an NFS mount where the server keeps locks (NFSv4; NFSv3 with lockd). Where the file system keeps
none, one line on stderr says so and the work goes on: do not start two jobs in one folder there.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from cxr.files import InputError, host, is_alive, naming, place, printable, remove_litter

NAME = ".lock"

_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL)
_PATIENCE = 10.0
"""Seconds to wait for the worker processes of a killed job, which share its lock until they notice."""

_held: dict[str, int] = {}


@contextmanager
def locked(folder: Path, depth: int | None = None) -> Iterator[None]:
    """Makes the folder, holds its lock, and removes the temporaries that dead processes left in it.

    A folder that it made and that is empty at the end, as of a run that was refused, is removed again.

    depth: levels of folders below it that the script writes into, all by default; 0 where the folder may be the
    current one, with anything below it. A process that holds the lock may take it again.
    Raises InputError, naming the other process, when one holds it.
    """
    folder = Path(folder)
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    with naming(folder):
        folder.mkdir(parents=True, exist_ok=True)
    key = os.path.realpath(folder)
    if _held.get(key) == os.getpid():
        yield
        return
    handle = _acquire(folder)
    _held[key] = os.getpid()
    try:
        remove_litter(folder, depth)
        yield
    finally:
        del _held[key]
        _release(handle, folder / NAME)
        _remove_empty(made)


def _acquire(folder: Path) -> int | None:
    """The open lock file; None where the file system keeps no locks. Raises InputError when another holds it."""
    deadline = time.monotonic() + _PATIENCE
    path = folder / NAME
    while True:
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        except FileNotFoundError:  # another process made the folder, found nothing to write, and removed it
            folder.mkdir(parents=True, exist_ok=True)
            continue
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = _read(handle)
            os.close(handle)
            if _may_live(holder) or time.monotonic() > deadline:
                raise InputError(_refusal(folder, holder)) from None
            time.sleep(0.05)
        except OSError as error:
            os.close(handle)
            if error.errno not in _NO_LOCKS:
                raise
            print(f"{place(folder)}: this file system keeps no locks; start one job at a time here", file=sys.stderr)
            return None
        else:
            if _is_still(handle, path):
                _sign(handle)
                return handle
            os.close(handle)  # released and removed between our opening and locking it


def _is_still(handle: int, path: Path) -> bool:
    try:
        there = os.stat(path, follow_symlinks=False)
    except FileNotFoundError:
        return False
    ours = os.fstat(handle)
    return (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino)


def _sign(handle: int) -> None:
    content = json.dumps({"host": host(), "pid": os.getpid(), "command": shlex.join(sys.orig_argv)[:1000]})
    os.ftruncate(handle, 0)
    os.pwrite(handle, content.encode(errors="replace"), 0)


def _read(handle: int) -> dict[str, object]:
    """The text that the holder wrote; empty when it has not yet."""
    try:
        content = json.loads(os.pread(handle, 4096, 0))
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def _may_live(holder: dict[str, object]) -> bool:
    """False only for a process of this machine that is gone: its workers hold the lock for a moment longer."""
    pid = holder.get("pid")
    if not holder or holder.get("host") != host() or not isinstance(pid, int):
        return bool(holder)
    return is_alive(pid)


def _refusal(folder: Path, holder: dict[str, object]) -> str:
    pid, where, command = holder.get("pid", "?"), holder.get("host", "?"), str(holder.get("command", "?"))
    who = printable(f"process {pid} on {where} ({command[:200]})")
    return f"{place(folder)}: {who} is writing into this folder; wait for its end, or choose another folder"


def _release(handle: int | None, path: Path) -> None:
    """Removes the file while it is locked, so that nobody locks one that is about to go, and lets go for all copies."""
    if handle is None:
        return
    if _is_still(handle, path):
        path.unlink(missing_ok=True)
    fcntl.flock(handle, fcntl.LOCK_UN)
    os.close(handle)


def _remove_empty(folders: Sequence[Path]) -> None:
    """Removes folders from the innermost out, until one is not empty or not there."""
    with suppress(OSError):
        for folder in folders:
            folder.rmdir()
