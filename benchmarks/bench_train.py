"""Training: the loader alone, the network alone, and both together, against the published loop in the same run.

    python -m benchmarks.bench_train
    python -m benchmarks.bench_train --device cpu --batches 2 --steps 1 --films 8 --out /tmp/quick.csv

The published way is written plainly: float transforms on 1024 px JPEGs in the workers, NCHW, float16 with a loss
scaler (float32 on a CPU), the loss read at every step; compiled where ours is. Films are noise of all sizes, whose
JPEGs are as large as CheXpert's, and lie in the page cache. The network alone runs on films that stay on the device.
One call does it all: within 9 minutes on a GPU, with a small batch and EfficientNet-B0 alone on a CPU. A row without
numbers is one that there was no time for.

On a GPU also: the share of the memory's speed (as a large copy finds it) that the training of a film needs at least,
peak memory, and how often a step waits for the device. On a CPU that others use too, set OMP_NUM_THREADS=1, or threads
that wait for each other count as CPU seconds. `--compile` needs a C++ compiler on a CPU, and some minutes.
"""

from __future__ import annotations

import argparse
import gc
import math
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice, product, repeat
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import nn
from torch.utils.data import DataLoader

import cli
from benchmarks.measure import load, machine, report
from benchmarks.published.training import PublishedLoop, PublishedSet
from benchmarks.training.films import JPEGS, draw_films
from benchmarks.training.loops import Idle, Loop, OurLoop, copy_bandwidth, synchronisations, timed
from benchmarks.training.ratios import ratios, with_ratios
from cxr.dataset import FilmDataset
from cxr.labels import CHEXPERT
from cxr.manifests.films import Films
from models.checkpoint import build_model
from training.loader import Batch, PartSampler, TrainingSet, collate
from training.trainer import READ_EVERY

MEMORY_GB = {"efficientnet_b0": 1.15, "efficientnet_v2_s": 2.02}
"""Least traffic through a GPU's memory for training on a film of 512 px."""

PACKED_SIZES = (1024, 640, 512)

ONE_CORE, ALL_WORKERS, NETWORK, TOGETHER = "loader, one core", "loader, all workers", "network", "end to end"
LOADER_BATCH = 8

COMPILED, ANY_CUDNN = "compiled", "channels_last, not deterministic"

LOOPS: dict[str, Callable[[nn.Module, str], Loop]] = {"published": PublishedLoop, "ours": OurLoop}

NO_NUMBERS = dict.fromkeys(("timed_films", "seconds", "cpu_seconds", "films_per_s", "cpu_ms_per_film"), math.nan)


@dataclass(frozen=True)
class Case:
    """One measurement. films: JPEGS, or `packed <size>`. mode: memory layout and more; ours is channels_last where it
    is compiled, the published loop NCHW."""

    what: str
    way: str
    batch: int
    films: str = ""
    backbone: str = ""
    mode: str = ""

    @property
    def name(self) -> str:
        return ", ".join((self.what, self.way, self.mode or self.films))


def minutes_of(case: Case) -> float:
    """Time and memory that a case may take on a GPU."""
    return 2.0 if case.mode == COMPILED else 1.0 if case.what == TOGETHER else 0.5


def main(argv: Sequence[str] | None = None) -> int:
    args = _parse(argv)
    ends = time.monotonic() + 60 * args.minutes
    on_gpu = args.device == "cuda"
    facts = {"machine": machine(torch.cuda.get_device_name()) if on_gpu else machine(), "load_before": load()}
    facts |= {
        "threads": torch.get_num_threads(),
        "film_size": args.film_size,
        "image_size": args.image_size,
        "workers": args.workers,
    }
    if on_gpu:
        facts["copy_gb_per_s"] = round(copy_bandwidth(), 1)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(args, draw_films(Path(folder), args.films, args.film_size, PACKED_SIZES))
        for case in (case for case in cases(args) if any(case.name.startswith(start) for start in args.only)):
            enough = time.monotonic() + 60 * minutes_of(case) < ends
            rows.append(vars(case) | NO_NUMBERS | (bench.measure(case) if enough else {}))
        waits = {way: bench.synchronisations(way) for way in LOOPS}
    table = with_ratios(pd.DataFrame(rows))
    if on_gpu:
        table["share_of_bandwidth"] = table["films_per_s"] * table["backbone"].map(MEMORY_GB) / facts["copy_gb_per_s"]
    report("bench_train", table, args.out, ratios(table) | {"synchronisations_per_step": waits}, facts)
    return 0


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = cli.parser(__doc__.splitlines()[0], "python -m benchmarks.bench_train")
    add = parser.add_argument
    add("--backbones", nargs="+", help="B0 and V2-S on a GPU, B0 on a CPU")
    add("--batches", type=int, nargs="+", help="films per step; 16 64 128 on a GPU, 8 on a CPU")
    add("--steps", type=int, help="timed per row; more where many workers read ahead")
    add("--repeats", type=cli.whole_number(1, 100), help="the least CPU seconds of so many are taken")
    add("--only", nargs="+", default=[""], metavar="START",
        help="rows that begin so, as `loader` or `network, published, compiled`")  # fmt: skip
    add("--films", type=int, help="different films on the disk")
    add("--workers", type=int, help="that read films; all cores with a GPU, none with a CPU")
    add("--compile", action=argparse.BooleanOptionalAction, help="also compiled networks; on a GPU by default")
    add("--image-size", type=int, default=512, help="of the network")
    add("--film-size", type=int, default=1024, help="of the JPEGs")
    add("--minutes", type=float, default=9.0, help="what does not fit is left out")
    add("--out", type=Path, default=Path("benchmarks/results/bench_train.csv"), help="result file")
    cli.add_device(parser)
    args = parser.parse_args(argv)
    args.device = cli.pick_device(args.device)
    for name, value in FEASIBLE[args.device].items():
        if getattr(args, name) is None:
            setattr(args, name, value)
    return args


FEASIBLE = {
    "cuda": {
        "backbones": ["efficientnet_b0", "efficientnet_v2_s"],
        "batches": [16, 64, 128],
        "steps": 20,
        "films": 256,
        "repeats": 1,
        "workers": min(os.cpu_count() or 1, 24),  # the published number
        "compile": True,
    },
    "cpu": {
        "backbones": ["efficientnet_b0"],
        "batches": [8],
        "steps": 2,
        "films": 48,
        "repeats": 2,
        "workers": 0,
        "compile": False,
    },
}


def cases(args: argparse.Namespace) -> list[Case]:
    """Cases to measure, the quick and important ones first."""
    packed = [f"packed {size}" for size in PACKED_SIZES]
    loaders = [ONE_CORE, ALL_WORKERS] if args.workers else [ONE_CORE]
    found = [Case(what, "published", LOADER_BATCH, JPEGS) for what in loaders]
    found += [Case(what, "ours", LOADER_BATCH, films) for what in loaders for films in (JPEGS, *packed)]
    compiled = [COMPILED] if args.compile else []
    faster = [ANY_CUDNN] if args.device == "cuda" else []
    for batch, backbone in product(args.batches, args.backbones):
        with_films = [TOGETHER] if batch in args.batches[:2] else []
        for mode in ("nchw", *compiled):
            found.append(Case(NETWORK, "published", batch, "", backbone, mode))
            found += [Case(what, "published", batch, JPEGS, backbone, mode) for what in with_films]
        for mode in ("nchw", "channels_last", *faster, *compiled):
            found.append(Case(NETWORK, "ours", batch, "", backbone, mode))
        for mode in ("channels_last", *compiled):
            found += [Case(what, "ours", batch, packed[0], backbone, mode) for what in with_films]
    last = [case for case in found if case.mode == COMPILED]
    last.sort(key=lambda case: (case.batch, case.way))  # ours first: the time may not do for all
    return [case for case in found if case.mode != COMPILED] + last


class Bench:
    """Measures cases on films that are drawn already: {JPEGS or `packed <size>`: films}."""

    def __init__(self, args: argparse.Namespace, films: dict[str, Films]) -> None:
        self.args, self.films = args, films

    def measure(self, case: Case) -> dict[str, float]:
        """A row's numbers. CPU seconds are of this process; films that workers read are not in them."""
        workers = 0 if case.what in (ONE_CORE, NETWORK) else self.args.workers
        ahead = 2 * workers  # batches that lie ready, which must not count
        warm_up, steps = 1 + ahead + 4 * self.on_gpu, max(self.args.steps, 2 * ahead)
        if case.what == ONE_CORE:
            warm_up, steps = 1, max(1, self.args.films // case.batch - 1)
        if case.mode == COMPILED:
            torch._dynamo.reset()
        gc.collect()
        if self.on_gpu:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        loop = self.loop(case) if case.backbone else Idle()
        with threads(1 if case.what == ONE_CORE else torch.get_num_threads()):
            runs = [timed(loop, self.batches(case, warm_up + steps, workers), warm_up) for _ in range(self.repeats)]
        seconds = min(runs, key=lambda run: run["cpu_seconds"])
        films = steps * case.batch
        numbers = {"timed_films": films, **seconds, "films_per_s": films / seconds["seconds"]}
        if not workers:
            numbers["cpu_ms_per_film"] = 1000 * seconds["cpu_seconds"] / films
        if self.on_gpu:
            numbers["peak_gib"] = torch.cuda.max_memory_allocated() / 2**30
        return numbers

    @property
    def repeats(self) -> int:
        return int(self.args.repeats)

    def batches(self, case: Case, steps: int, workers: int) -> Iterable[Any]:
        if case.what == NETWORK:
            return repeat(self.resident(case.way, case.batch), steps)
        return self.loader(case, steps, workers)

    @property
    def on_gpu(self) -> bool:
        return self.args.device == "cuda"

    def loop(self, case: Case) -> Loop:
        torch.manual_seed(0)
        net = build_model(case.backbone, patch_size=64, image_size=self.args.image_size, labels=CHEXPERT.names)
        ours = case.way == "ours"
        torch.backends.cudnn.deterministic = ours and case.mode != ANY_CUDNN
        torch.backends.cudnn.benchmark = case.mode == ANY_CUDNN
        layout = torch.channels_last if ours and case.mode != "nchw" else torch.contiguous_format
        net = net.to(device=self.args.device, memory_format=layout)
        return LOOPS[case.way](torch.compile(net) if case.mode == COMPILED else net, self.args.device)

    def resident(self, way: str, count: int) -> Any:
        """A batch of noise that stays on the device."""
        size, device = self.args.image_size, self.args.device
        labels = torch.randint(0, 2, (count, len(CHEXPERT.names)), device=device).float()
        images = torch.randint(0, 256, (count, 1, size, size), dtype=torch.uint8, device=device)
        if way == "published":
            return images / 255, labels
        degrees, brightness = torch.linspace(-5, 5, count), torch.linspace(0.7, 1.3, count)
        return Batch(images, labels, degrees.to(device), brightness.to(device), torch.arange(count), {}, 0.0)

    def loader(self, case: Case, steps: int, workers: int) -> DataLoader:
        """`steps` batches, over as many epochs as that takes; the same films in the same order for both ways."""
        films = self.films[case.films]
        keys = list(islice(endless(PartSampler(len(films), case.batch, seed=0)), steps))
        ours = case.way == "ours"
        dataset = FilmDataset(films, self.args.image_size)
        return DataLoader(
            TrainingSet(dataset, seed=0) if ours else PublishedSet(films, self.args.image_size),
            batch_sampler=keys if ours else [[index for _, index in batch] for batch in keys],
            collate_fn=collate if ours else None,
            num_workers=workers,
            pin_memory=self.on_gpu,
        )

    def synchronisations(self, way: str) -> dict[str, float]:
        """Per step, with a batch as the loader hands it over; our steps here are too few for a look at the losses."""
        films = self.args.batches[0] if self.on_gpu else 1
        case = Case(TOGETHER, way, films, JPEGS, self.args.backbones[0], "channels_last")
        batch = next(iter(self.loader(case, 1, workers=0)))
        return synchronisations(self.loop(case), batch, READ_EVERY // 4 if self.on_gpu else 1)


def endless(sampler: PartSampler) -> Iterator[list[tuple[int, int]]]:
    """Epoch after epoch."""
    while True:
        yield from sampler
        sampler.epoch += 1


@contextmanager
def threads(number: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    yield
    torch.set_num_threads(before)


if __name__ == "__main__":
    cli.run(main)
