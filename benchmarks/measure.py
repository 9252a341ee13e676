"""Shared by the benchmarks: seconds, memory, the machine's name, printing and writing of results."""

from __future__ import annotations

import json
import os
import platform
import shlex
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

import pandas as pd

from cxr.tables import write_csv

T = TypeVar("T")


class Timer:
    """Wall and CPU seconds since it was made; the latter say more on a machine that others use as well."""

    def __init__(self) -> None:
        self.start = time.perf_counter(), time.process_time()

    def seconds(self) -> dict[str, float]:
        return {"seconds": time.perf_counter() - self.start[0], "cpu_seconds": time.process_time() - self.start[1]}


def least(work: Callable[[], T], times: int) -> tuple[T, dict[str, float]]:
    """The last result of `work`, and the seconds of that run of `times` which took the least CPU seconds.

    Others on the machine only ever add to CPU seconds (caches, clocks): the least is nearest to the work's own.
    """
    runs = []
    for _ in range(times):
        timer = Timer()
        result = work()
        runs.append(timer.seconds())
    return result, min(runs, key=lambda run: run["cpu_seconds"])


def memory_mib(which: Literal["VmRSS", "VmHWM"]) -> float:
    """Memory of this process now (VmRSS), and its peak since the start (VmHWM)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(which)) / 1024


def machine(gpu: str = "no GPU used") -> str:
    """Cores and processor, as the system names them, and the GPU."""
    model = platform.processor() or platform.machine()
    if os.path.exists("/proc/cpuinfo"):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), model)
    return f"{os.cpu_count()}-core {model}, {gpu}"


def load() -> float:
    """Processes that want a core: where others do, wall seconds mean little."""
    return round(os.getloadavg()[0], 1)


def report(name: str, table: pd.DataFrame, out: Path, summary: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
    """Prints the table and, as the last line, summary and facts as json; writes the table, facts and command to `out`.

    name: of the benchmark's module.
    """
    print(table.to_string(index=False, na_rep="", float_format="{:.2f}".format))
    command = shlex.join(["python", "-m", f"benchmarks.{name}", *sys.argv[1:]])
    write_csv(out, table.assign(**facts, command=command))
    print(json.dumps({**summary, **facts}))
