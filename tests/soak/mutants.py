"""Mutants of a file, and what reading one comes to.

Mutants are read in a forked process with limits on seconds and memory, so that a crash of the interpreter is seen.
"""

from __future__ import annotations

import faulthandler
import json
import os
import random
import resource
import shutil
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import cli
from cxr.files import write_json
from tests.soak.formats import FORMATS

SECONDS, MEMORY = 20, 3 * 2**30  # beyond what the process holds already

NEXT_LINE = " \u23ce "


def mutant(data: bytes, rng: random.Random) -> bytes:
    """One to four changes: bits, bytes, a number blown up, a piece cut out, doubled or overwritten, the end cut off."""
    changed = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        if not changed:
            break
        at, length = _position(len(changed), rng), rng.randint(1, 16)
        kind = rng.randrange(7)
        if kind == 0:
            changed[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            changed[at] = rng.choice(b'\x00\xff\x7f\n,"{[0-9')
        elif kind == 2:
            changed[at : at + 4] = b"\xff\xff\xff\x7f"
        elif kind == 3:
            del changed[at : at + length]
        elif kind == 4:
            changed[at:at] = changed[at : at + length] * rng.choice((1, 2, 1000))
        elif kind == 5:
            changed[at:at] = rng.choice((b"[" * 10_000, b"9" * 5000, b"NaN", b"1e999", b"\xef\xbb\xbf", b"\x1b[2J"))
        else:
            del changed[at:]
    return bytes(changed)


def _position(size: int, rng: random.Random) -> int:
    """Anywhere; of a large file two times in three near its ends, where headers and directories stand."""
    near = rng.choice((0, max(size - 4096, 0), None)) if size > 8192 else None
    return rng.randrange(size) if near is None else near + rng.randrange(4096)


def outcomes(read: Callable[[Path], object], prepare: Callable[[int], Path], count: int) -> list[str]:
    """`read`, `refused: <line>`, or what went wrong, for each of the files `prepare(0)`, ..., `prepare(count - 1)`.

    They are read in a forked process, and after one that ends it the others in the next process.
    """
    said: list[str] = []
    while len(said) < count:
        receiving, sending = os.pipe()
        child = os.fork()
        if not child:
            _read_and_exit(read, prepare, range(len(said), count), sending)
        os.close(sending)
        with os.fdopen(receiving) as pipe:
            lines = [json.loads(line) for line in pipe if line.endswith("\n")]
        said += lines
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status):
            said.append(f"died of {signal.Signals(os.WTERMSIG(status)).name}")
        elif len(said) < count:
            raise RuntimeError(f"the process that reads ended with {status}")
    return said


def outcome(read: Callable[[Path], object], path: Path) -> str:
    return outcomes(read, lambda _: path, 1)[0]


def _read_and_exit(
    read: Callable[[Path], object], prepare: Callable[[int], Path], numbers: range, sending: int
) -> None:
    held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (held + MEMORY, held + MEMORY))
    faulthandler.disable()
    try:
        with os.fdopen(sending, "w") as pipe:
            for number in numbers:
                path = prepare(number)
                signal.alarm(SECONDS)
                said = _said(read, path)
                signal.alarm(0)
                print(json.dumps(said[:20_000]), file=pipe, flush=True)
    finally:
        os._exit(0)


def _said(read: Callable[[Path], object], path: Path) -> str:
    with open(path.parent.with_name(f"{path.parent.name}.errors"), "w+") as out:
        sys.stdout = sys.stderr = out
        try:
            code = cli.guarded(lambda _: (read(path), 0)[1])
            out.seek(0)
            lines = [line for line in out.read().splitlines() if not line.startswith("warning: ")]
            return "read" if code == 0 else f"refused: {NEXT_LINE.join(lines)}"
        except BaseException:
            return "traceback: " + traceback.format_exc()


def soak(name: str, folder: Path, chexpert: Path, mutants: int) -> None:
    """Reads the good file and so many mutants of it; writes the outcome of each into `said.json`.

    For a process of its own that has not computed anything yet: what torch's threads hold does not survive a fork.
    """
    write, read = FORMATS[name]
    good_folder, work = folder / "good", folder / "work"
    good_folder.mkdir()
    writing = outcome(lambda path: path.write_text(str(write(good_folder, chexpert))), folder / "path")
    if writing != "read":
        write_json(folder / "said.json", [writing])
        return
    good = Path((folder / "path").read_text())
    data = good.read_bytes()

    def prepare(number: int) -> Path:
        shutil.rmtree(work, ignore_errors=True)
        shutil.copytree(good_folder, work)
        path = work / good.relative_to(good_folder)
        if number:
            path.write_bytes(mutant(data, random.Random(f"13 {name} {number}")))
        return path

    write_json(folder / "said.json", outcomes(read, prepare, mutants + 1))


def is_one_line(said: str) -> bool:
    """Whether a file was refused in one short printable line, before memory ran out."""
    plain = said.isprintable() and NEXT_LINE not in said and len(said) < 2000
    return plain and said.startswith("refused: error: ") and "out of memory" not in said
