"""Runs of the project's scripts that can be killed at any moment, started within milliseconds.

A server process imports everything once and is forked for every run.
"""

from __future__ import annotations

import hashlib
import importlib
import multiprocessing
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import cli
from preprocessing.phantom import film
from preprocessing.phantom.canvas import Canvas

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = (
    "preprocessing.makeDemoDataset", "preprocessing.preProcCheXpert", "preprocessing.makeManifest",
    "preprocessing.preProcFilms",
    "trainClassification", "fitAggregation", "convertWeights", "evalClassification", "evalLocalization",
    "evalFaithfulness", "tune_heatmap_threshold_opt", "predictImage", "makeReport",
)  # fmt: skip
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["tests.soak.runner", "tests.soak.mutants"])
SECONDS = 120
os.environ["PYTHONPATH"] = str(ROOT)  # for the server

for _name in SCRIPTS:
    importlib.import_module(_name)


@dataclass
class Run:
    """A script at work in a process of its own; its words go to `log`."""

    script: str
    arguments: list[str]
    log: Path

    def start(self) -> Run:
        self.process: Any = SERVER.Process(target=_run, args=(self.script, self.arguments, self.log))
        self.process.start()
        return self

    def wait(self, seconds: float = SECONDS) -> int:
        """The exit code; a run that hangs is killed and raises TimeoutError."""
        self.process.join(seconds)
        if self.process.is_alive():
            self.process.kill()
            raise TimeoutError(f"{self.script} still runs; it said: {self.said()}")
        return self.process.exitcode

    def kill(self) -> list[int]:
        """SIGKILL for the process alone; returns the processes below it that were alive then."""
        below = descendants(self.process.pid)
        self.process.kill()
        self.process.join()
        return below

    def said(self) -> str:
        return self.log.read_text() if self.log.is_file() else ""


def _draw_small_films() -> None:
    """Films of 100 to 140 pixels in this process: how large they are makes no difference to what is lost."""

    def small(width: int, height: int, scale: float, centre: tuple[float, float], tilt: float) -> Canvas:
        return Canvas(width // 7, height // 7, scale / 7, (centre[0] / 7, centre[1] / 7), tilt)

    film.Canvas = small  # type: ignore[assignment, misc]


def _run(script: str, arguments: list[str], log: Path) -> None:
    _draw_small_films()
    multiprocessing.set_start_method(None, force=True)  # as in a script, not this process's own
    torch.set_num_threads(1)
    with open(log, "w", buffering=1) as out:
        os.dup2(out.fileno(), 1)
        os.dup2(out.fileno(), 2)
        sys.stdout, sys.stderr = out, out
        sys.exit(cli.guarded(importlib.import_module(script).main, arguments))


def descendants(pid: int) -> list[int]:
    """Processes below a process, by /proc."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and (state := _state(int(entry.name))):
            parents[int(entry.name)] = state[1]
    found, last = [], {pid}
    while last:
        last = {child for child, parent in parents.items() if parent in last}
        found += last
    return found


def is_running(pid: int) -> bool:
    state = _state(pid)
    return state is not None and state[0] not in "ZX"


def _state(pid: int) -> tuple[str, int] | None:
    try:
        kind, parent = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:2]
    except (OSError, ValueError):
        return None
    return kind, int(parent)


def still_running(pids: list[int], seconds: float) -> list[int]:
    """Those that have not ended after so many seconds."""
    deadline = time.monotonic() + seconds
    while (left := [pid for pid in pids if is_running(pid)]) and time.monotonic() < deadline:
        time.sleep(0.05)
    return left


def hidden_files(folder: Path) -> list[str]:
    """Temporaries, journals and locks; other files of this project have no names that begin with a dot."""
    return [str(path.relative_to(folder)) for path in folder.rglob(".*") if path.is_file()]


def content(folder: Path, ignored: tuple[str, ...] = ()) -> dict[str, str]:
    """Path below the folder -> sha256 of every file; of those that hold times, only that they are there."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        str(path.relative_to(folder)): "" if path.name in ignored else hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }
