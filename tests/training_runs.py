"""Runs of trainClassification.py, or another script, in processes that can be killed, started within milliseconds.

A server process imports everything once and is forked for every run; `rank` and `world` make several runs one job.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import resource
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

import cli
import evalClassification  # noqa: F401
import trainClassification  # noqa: F401
import training.checkpoints
import training.trainer
from training.checkpoints import unsealed
from training.distributed import ProcessGroup, process_group
from training.engine import Stepper
from training.loader import TrainingSet
from training.trainer import Trainer

ROOT = Path(__file__).resolve().parents[1]
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["tests.training_runs"])
SECONDS = 120
DISK = 50_000


@dataclass(frozen=True)
class Death:
    """Where a run kills itself with SIGKILL, sends itself another `signal`, or meets another `fate`.

    when: `step` (before the step of that number), `updated` (after it), `read` (when film `number` is read in epoch 2),
    `weights kept` (at the end of epoch `number`, before its checkpoint), or within the `number`th writing of a
    checkpoint: `half written`, `before rename`, `after rename`.
    fate: `full disk` (no file can grow beyond DISK bytes any more), `worker dies`, `hangs` (for ten minutes).
    """

    when: str
    number: int
    signal: int = signal.SIGKILL
    fate: str = ""

    def strike(self) -> None:
        if self.fate == "full disk":
            resource.setrlimit(resource.RLIMIT_FSIZE, (DISK, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
        elif self.fate == "worker dies":
            multiprocessing.active_children()[0].kill()
        elif self.fate == "hangs":
            time.sleep(600)
        else:
            os.kill(os.getpid(), self.signal)


@dataclass
class Job:
    """A command in `world` processes, each in its own of `folders` where these are given; `wait` gives exit codes."""

    arguments: list[str]
    log: Path
    world: int = 1
    death: Death | None = None
    dying_rank: int = 0
    script: str = "trainClassification"
    folders: list[Path] = field(default_factory=list)
    processes: list[Any] = field(default_factory=list)

    def start(self) -> Job:
        os.environ["PYTHONPATH"] = str(ROOT)  # for the server
        port = _free_port() if self.world > 1 else 0
        for rank in range(self.world):
            several = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": self.world, "MASTER_ADDR": "127.0.0.1"}
            environment = {name: str(value) for name, value in (several | {"MASTER_PORT": port}).items()}
            environment = environment if self.world > 1 else {}
            death = self.death if rank == self.dying_rank else None
            folder = self.folders[rank] if self.folders else Path.cwd()
            work = (self.script, self.arguments, environment, folder, self.log.with_suffix(f".{rank}"), death)
            process = SERVER.Process(target=_run, args=work, daemon=False)
            process.start()
            self.processes.append(process)
        return self

    def wait(self, seconds: float = SECONDS) -> list[int]:
        for process in self.processes:
            process.join(seconds)
            if process.is_alive():
                process.kill()
                raise TimeoutError(f"rank {self.processes.index(process)} still runs; it said: {self.said()}")
        return [process.exitcode for process in self.processes]

    def said(self, rank: int = 0) -> str:
        log = self.log.with_suffix(f".{rank}")
        return log.read_text() if log.is_file() else ""


def run(arguments: list[str], log: Path, **options: Any) -> Job:
    """Starts a job and waits for its end."""
    job = Job(arguments, log, **options).start()
    job.wait()
    return job


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def _run(
    script: str, arguments: list[str], environment: dict[str, str], folder: Path, log: Path, death: Death | None
) -> None:
    os.environ.update(environment)
    os.chdir(folder)
    multiprocessing.set_start_method(None, force=True)  # the film readers' as in a script, not this process's own
    torch.set_num_threads(1)
    with open(log, "w", buffering=1) as out:
        os.dup2(out.fileno(), 1)
        os.dup2(out.fileno(), 2)
        sys.stdout, sys.stderr = out, out
        if death is not None:
            _arrange(death)
        code = cli.guarded(importlib.import_module(script).main, arguments)
        sys.exit(code)  # which waits for worker processes, as the end of a script does


def _arrange(death: Death) -> None:
    at = {"read": _at_film, "step": _at_step, "updated": _at_step, "weights kept": _at_epoch}
    at.get(death.when, _at_writing)(death)


def _at_film(death: Death) -> None:
    read = TrainingSet.__getitem__

    def dying_read(self: TrainingSet, key: tuple[int, int]) -> Any:
        if key == (2, death.number):
            death.strike()
        return read(self, key)

    TrainingSet.__getitem__ = dying_read


def _at_step(death: Death) -> None:
    step = Stepper.step

    def dying_step(self: Stepper, batches: Any) -> None:
        if (death.when, death.number) == ("step", self.steps + 1):
            death.strike()
        step(self, batches)
        if (death.when, death.number) == ("updated", self.steps):
            death.strike()

    Stepper.step = dying_step


def _at_epoch(death: Death) -> None:
    write_weights, count = Trainer._write_weights, 0

    def dying_write_weights(self: Trainer) -> None:
        nonlocal count
        count += 1
        write_weights(self)
        if count == death.number:
            death.strike()

    Trainer._write_weights = dying_write_weights


def _at_writing(death: Death) -> None:
    replacing, count = training.checkpoints.replacing, 0

    def dying_replacing(target: Path) -> Any:
        nonlocal count
        count += 1
        return _Dying(replacing(target), death) if count == death.number else replacing(target)

    training.checkpoints.replacing = dying_replacing


class _Dying:
    """Around `replacing`."""

    def __init__(self, inner: Any, death: Death) -> None:
        self.inner, self.death = inner, death

    def __enter__(self) -> Any:
        self.path = self.inner.__enter__()
        return self

    def write_bytes(self, data: bytes) -> None:
        self.path.write_bytes(data[: len(data) // 2] if self.death.when == "half written" else data)
        if self.death.when != "after rename":
            self.death.strike()

    def __exit__(self, *error: Any) -> None:
        self.inner.__exit__(*error)
        self.death.strike()


def state(folder: Path) -> dict[str, Any]:
    """The training state that a run left."""
    content = unsealed((folder / training.checkpoints.NEWEST).read_bytes())
    assert content is not None
    return content


def assert_same(one: Any, other: Any, where: str = "") -> None:
    """Equal to the last bit, all tensors by torch.equal, whatever the nesting."""
    assert type(one) is type(other), where
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other) or (one.isnan() & other.isnan() | (one == other)).all(), where
    elif isinstance(one, dict):
        assert list(one) == list(other), where
        for name in one:
            assert_same(one[name], other[name], f"{where}/{name}")
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other), where
        for number, (a, b) in enumerate(zip(one, other, strict=True)):
            assert_same(a, b, f"{where}/{number}")
    else:
        assert one == other, where


def assert_same_run(one: Path, other: Path) -> None:
    """The same weights, optimiser, schedule, place, history, and files, of two output folders."""
    assert_same(state(one), state(other))
    for name in ("model.safetensors", "best/model.safetensors", "history_steps.csv", "history_epochs.csv"):
        assert (one / name).read_bytes() == (other / name).read_bytes(), name
    lines, others = ([line for line in (folder / "history.jsonl").read_text().splitlines() if "films_per" not in line]
                     for folder in (one, other))  # fmt: skip
    assert lines == others


def arguments(data: Path, output: Path, *more: str) -> list[str]:
    """A run of 18 steps on `tiny_chexpert` that takes a second."""
    network = ["--backbone", "timm/test_efficientnet", "--init", "random", "--image-size", "32", "--patch-size", "16"]
    schedule = ["--epochs", "3", "--batch-size", "2", "--lr", "1e-3", "--seed", "5", "--device", "cpu"]
    return [
        "--data",
        str(data),
        "--output",
        str(output),
        *network,
        *schedule,
        "--workers",
        "0",
        "--no-evaluation",
        *more,
    ]


def together(function: Callable[[ProcessGroup], Any], world: int, folder: Path) -> list[Any]:
    """What a function of a test module gives in each of `world` processes that know each other."""
    os.environ["PYTHONPATH"] = str(ROOT)
    port = _free_port()
    files = [folder / f"result{rank}.pt" for rank in range(world)]
    processes = [SERVER.Process(target=_call, args=(function, rank, world, port, files[rank])) for rank in range(world)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(SECONDS)
        assert process.exitcode == 0, process
    return [torch.load(file, weights_only=True) for file in files]


def _call(function: Callable[[ProcessGroup], Any], rank: int, world: int, port: int, file: Path) -> None:
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    with process_group("cpu") as group:
        torch.save(function(group), file)
