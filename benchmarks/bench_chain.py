"""The chain at CheXpert's size: CPU hours, GB and peak memory of every stage, extrapolated from a few films.

    python -m benchmarks.bench_chain
    python -m benchmarks.bench_chain --only tuning scoring --out /tmp/quick.csv

Every stage runs the project's own code in fresh processes of one thread: a few units (films, patches, resamples) and
more of them at the size of the real chain, and the few at half that size. The least CPU seconds of some repeats give
the seconds per unit (slope) and those that do not depend on their number; the exponents say how the seconds grow with
units and size: above 1 is worse than linear, and is then extrapolated as the power that was measured. Sizes are sides:
what costs as much per pixel has an exponent of 2. Memory is the largest resident set of the process (ru_maxrss), which
holds some 400 MiB of imports; it is constant unless the larger number of units takes more.

A row is written when its stage is done, and stages that are measured again replace their rows in the file.

Films are drawn (`chain_films`), the network is random; neither changes the seconds. Hours are of one core: divide by
the cores where a stage runs in several processes (all but bootstrap and report), or by what a GPU gains.
"""

from __future__ import annotations

import json
import os
import resource
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from math import log
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

import cli
from benchmarks.chain.stages import Sizes, Stage, stages
from benchmarks.measure import least, load, machine
from benchmarks.tables import NOISE
from cxr.tables import write_csv

CONSTANT_MIB = 16.0
"""More memory than this with more units is growth; less is what the allocator keeps in one run and not in another."""


SHOWN = ("stage", "unit", "ms_per_unit", "growth_exponent", "size_exponent", "cpu_hours", "gb", "peak_mib")


class Cost(NamedTuple):
    """cpu_seconds of the work, least of the repeats; peak_mib of the process; mb written."""

    cpu_seconds: float
    peak_mib: float
    mb: float


def main(argv: Sequence[str] | None = None) -> int:
    parser = cli.parser(__doc__.splitlines()[0], "python -m benchmarks.bench_chain")
    add = parser.add_argument
    add("--film-height", type=int, default=Sizes.film, help="of the films as stored, in pixels")
    add("--copy-size", type=int, default=Sizes.copy, help="side of the square copies")
    add("--image-size", type=int, default=Sizes.image, help="side of the network's films")
    add("--backbone", default=Sizes.backbone)
    add("--share", type=cli.number(0, 1, above=True), default=1.0, help="of the units otherwise measured")
    add("--repeats", type=cli.whole_number(1, 100), default=2, help="the least of so many is taken")
    add("--only", nargs="+", default=[""], metavar="WORD", help="stages with one of these words in their name")
    add("--out", type=Path, default=Path("benchmarks/results/bench_chain.csv"), help="result file")
    args = parser.parse_args(argv)

    sizes = Sizes(args.film_height, args.copy_size, args.image_size, args.backbone)
    known = [stage.name for stage in stages(sizes)]
    rows = {row["stage"]: row for row in kept(args.out)}
    for stage in stages(sizes):
        if any(word in stage.name for word in args.only):
            facts = {"repeats": args.repeats, "machine": machine(), "load_before": load()}
            rows[stage.name] = measured(fewer(stage, args.share), args.repeats) | facts
            write_csv(args.out, pd.DataFrame([rows[name] for name in known if name in rows]))
    table = pd.read_csv(args.out)
    print(table[list(SHOWN)].to_string(index=False, na_rep="", float_format="{:.3f}".format))
    print(json.dumps({"cpu_hours": table.set_index("stage")["cpu_hours"].round(3).to_dict()}))
    return 0


def kept(out: Path) -> list[dict[str, Any]]:
    """The rows of an earlier run, which stages that are measured now replace."""
    return pd.read_csv(out).to_dict("records") if out.is_file() else []


def fewer(stage: Stage, share: float) -> Stage:
    """The stage with a share of its units, at least 1, and as many times more of them in the larger number."""
    few, many = stage.counts
    scaled = max(round(few * share), 8 if few >= 8 else 1)
    return replace(stage, counts=(scaled, scaled * many // few))


def measured(stage: Stage, repeats: int) -> dict[str, Any]:
    """A row: the costs of few and many units, of few at half the size, and what follows for the whole chain."""
    few, many = (in_fresh_processes(stage, stage.size, count, repeats) for count in stage.counts)
    half = in_fresh_processes(stage, stage.size // 2, stage.counts[0], repeats) if stage.size else None
    return extrapolated(stage, few, many, half)


def in_fresh_processes(stage: Stage, size: int, count: int, repeats: int) -> Cost:
    """One process writes what the stage reads, another is measured; both are forked from one that has imported all."""
    context = get_context("forkserver")
    context.set_forkserver_preload(["benchmarks.chain.stages"])
    with tempfile.TemporaryDirectory() as folder:
        for task in (prepare, cost):
            with ProcessPoolExecutor(1, context) as fresh:
                found = fresh.submit(task, stage, Path(folder), size, count, repeats).result()
    return found


def prepare(stage: Stage, folder: Path, size: int, count: int, _: int) -> None:
    if stage.prepare is not None:
        with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
            stage.prepare(folder, size, count)


def cost(stage: Stage, folder: Path, size: int, count: int, repeats: int) -> Cost:
    """Runs the stage in this process."""
    import torch

    torch.set_num_threads(1)
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        work = stage.set_up(folder, size, count)

        def run() -> float:
            with tempfile.TemporaryDirectory() as out:
                work(Path(out))
                return sum(file.stat().st_size for file in Path(out).rglob("*") if file.is_file()) / 1e6

        written, seconds = least(run, repeats)
    return Cost(seconds["cpu_seconds"], resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, written)


def extrapolated(stage: Stage, few: Cost, many: Cost, half: Cost | None) -> dict[str, Any]:
    """The costs of a stage, per unit and for the whole chain. half: of the fewer units at half the size."""
    low, high = stage.counts
    slope = max((many.cpu_seconds - few.cpu_seconds) / (high - low), 0.0)
    exponent = log(many.cpu_seconds / few.cpu_seconds) / log(high / low)
    runs = max(stage.units / stage.at_once, 1)
    if exponent > NOISE:
        seconds = runs * many.cpu_seconds * (stage.at_once / high) ** exponent
    else:
        seconds = many.cpu_seconds + slope * (stage.units - high)
    growth = (many.peak_mib - few.peak_mib) / (high - low)
    grows = many.peak_mib - few.peak_mib > CONSTANT_MIB
    return {
        "stage": stage.name,
        "unit": stage.unit,
        "size": stage.size or None,
        "few": low,
        "many": high,
        "cpu_seconds_few": few.cpu_seconds,
        "cpu_seconds_many": many.cpu_seconds,
        "cpu_seconds_half_size": None if half is None else half.cpu_seconds,
        "ms_per_unit": 1000 * slope,
        "fixed_seconds": max(few.cpu_seconds - slope * low, 0.0),
        "growth_exponent": exponent,
        "size_exponent": None if half is None else log(few.cpu_seconds / half.cpu_seconds) / log(2),
        "units": stage.units,
        "cpu_hours": seconds / 3600,
        "gb": (many.mb - few.mb) / (high - low) * stage.units / 1000,
        "peak_mib_few": few.peak_mib,
        "peak_mib_many": many.peak_mib,
        "mib_per_1000_units": 1000 * growth if grows else 0.0,
        "peak_mib": many.peak_mib + (growth * (stage.at_once - high) if grows else 0.0),
    }


if __name__ == "__main__":
    cli.run(main)
