"""A GPU in one call of less than 9 minutes: training, maps, resuming to the last bit, memory.

    python -m benchmarks.bench_gpu
    python -m benchmarks.bench_gpu --device cpu --backbones timm/test_efficientnet --image-size 64 --patch-size 32 \\
        --batches 2 --steps 1 --out /tmp/quick.csv

Training runs on a batch that stays on the device: eager, compiled, and compiled into CUDA graphs, which training itself
does not use. Maps are the evidence of one film with the folded network in single precision as in use; in bfloat16, with
the mean error in percent of the range; and compiled into CUDA graphs. Resuming is two steps, a state, and two steps of
a fresh network, against four steps.

A case that would not end in time is left out with the reason; one that takes longer than its share is stopped. The
table is written after every case; one that cannot be stopped ends the program at the deadline with what there is.
Results go to $OUT where that is set.
"""

from __future__ import annotations

import argparse
import faulthandler
import gc
import json
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import torch

import cli
from benchmarks.gpu.cases import COMPILED, EAGER, GRAPHS, MAPS, RESUME, TRAINING, Case
from benchmarks.gpu.measures import MEASURES
from benchmarks.measure import load, machine, report
from cxr.tables import write_csv

NAME = "bench_gpu"

ENDING = 15.0
"""Seconds that are kept for the last writing, and after which a case that does not stop is ended with the program."""

SECONDS = {EAGER: 30.0, COMPILED: 150.0, GRAPHS: 150.0}
"""A case is begun when so much of the time is left, and stopped after twice as much."""


def main(argv: Sequence[str] | None = None) -> int:
    args = _parse(argv)
    deadline = time.monotonic() + 60 * args.minutes - ENDING
    rows: list[dict[str, Any]] = []
    with ended_after(60 * args.minutes):
        for case in cases(args.backbones, args.batches):
            rows.append(case._asdict() | measured(case, args, deadline))
            write_csv(args.out, pd.DataFrame(rows))
            print(json.dumps(rows[-1]), flush=True)
    on_gpu = args.device == "cuda"
    facts = {"machine": machine(torch.cuda.get_device_name()) if on_gpu else machine(), "load": load()}
    facts |= {"image_size": args.image_size, "torch": torch.__version__}
    report(NAME, pd.DataFrame(rows), args.out, summary(rows), facts)
    return 0


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = cli.parser(__doc__.splitlines()[0], f"python -m benchmarks.{NAME}")
    add = parser.add_argument
    add("--backbones", nargs="+", default=["efficientnet_b0", "efficientnet_v2_s"], help="of the networks")
    add("--batches", type=cli.whole_number(1, 1024), nargs="+", default=[16, 64], help="films per step")
    add("--steps", type=cli.whole_number(1, 1000), default=20, help="timed per training")
    add("--image-size", type=cli.whole_number(1, 4096), default=512, help="of the network")
    add("--patch-size", type=cli.whole_number(1, 4096), default=64, help="of the network")
    add("--minutes", type=cli.number(0, 60, above=True), default=8.5, help="what does not fit is left out")
    folder = Path(os.environ.get("OUT") or "benchmarks/results")
    add("--out", type=cli.path, default=folder / f"{NAME}.csv", help="result file")
    cli.add_device(parser)
    args = parser.parse_args(argv)
    args.device = cli.pick_device(args.device)
    return args


def cases(backbones: Sequence[str], batches: Sequence[int]) -> list[Case]:
    """The quick and important ones first: what is compiled may not all fit."""
    found = [Case(TRAINING, name, batch, EAGER) for name in backbones for batch in batches]
    found += [Case(MAPS, name, stride, "fp32") for name in backbones for stride in (3, 1)]
    found += [Case(RESUME, name, batches[0], EAGER) for name in backbones]
    found += [Case(MAPS, name, 3, "bf16") for name in backbones]
    found += [Case(TRAINING, name, batch, COMPILED) for batch in batches for name in backbones]
    found += [Case(RESUME, name, batches[0], COMPILED) for name in backbones]
    found += [
        Case(what, name, size, GRAPHS) for name in backbones for what, size in ((TRAINING, batches[0]), (MAPS, 3))
    ]
    return found


def measured(case: Case, args: argparse.Namespace, deadline: float) -> dict[str, Any]:
    """The numbers of a case, or a `note` that says why there are none."""
    needed, left = SECONDS.get(case.mode, SECONDS[EAGER]), deadline - time.monotonic()
    if left < needed:
        return {"note": f"left out: {max(0, left):.0f} s left, {needed:.0f} s may be needed"}
    _free(args.device)
    started = time.monotonic()
    try:
        with at_most(min(left, 2 * needed)):
            numbers = MEASURES[case.what](case, args)
    except TimeoutError:
        return {"note": f"stopped after {time.monotonic() - started:.0f} s"}
    except Exception as error:  # a case that a machine cannot run must not cost the others
        return {"note": f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"[:200]}
    if args.device == "cuda":
        numbers["peak_gib"] = torch.cuda.max_memory_allocated() / 2**30
    return numbers | {"case_seconds": time.monotonic() - started}


def _free(device: str) -> None:
    torch._dynamo.reset()
    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


@contextmanager
def ended_after(seconds: float) -> Iterator[None]:
    """Ends the program, by a thread that needs no interpreter, when what is within it takes longer."""
    faulthandler.dump_traceback_later(seconds, exit=True, file=sys.__stderr__)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Raises TimeoutError in what takes longer."""

    def stop(number: int, frame: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def summary(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """{case: its main number}: films/s, seconds per film, or whether a resumed run has the same bits; and the notes."""
    found: dict[str, Any] = {"notes": {}}
    for row in rows:
        name = ", ".join(str(row[part]) for part in Case._fields)
        if row.get("note"):
            found["notes"][name] = row["note"]
            continue
        value = next(row[column] for column in ("films_per_s", "seconds_per_film", "same_bits") if column in row)
        found[name] = value if isinstance(value, bool) else round(value, 4)
    return found


if __name__ == "__main__":
    cli.run(main)
