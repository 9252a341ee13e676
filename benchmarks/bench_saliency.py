"""Evidence maps and class activation maps of all 14 labels, against the published way, and their memory.

    python -m benchmarks.bench_saliency
    python -m benchmarks.bench_saliency --steps 2 --cam-backbones efficientnet_b0 --out /tmp/quick.csv

Evidence maps: raw and scaled of one film, ours in one pass over its distinct patches; the published way shift by shift
in batches of 4 with gradients on, once for raw and once for scaled. Both at the same steps per patch, both all of it.
Class activation maps: three methods for the whole film, ours from one forward pass for all labels; the published way
the grad-cam package label by label, timed on some labels (each costs the same) and extrapolated to all.
Both with one thread unless told otherwise, since threads that wait for each other count as CPU seconds; in one process;
the least CPU seconds of some repeats each. Every map that both ways have made is compared.

Memory: what fresh processes hold on top of the network, at 64 steps per patch, for the first patches of the film (what
comes later takes 56 bytes per patch more), for all maps from the whole grid, and for one published batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

import cli
from benchmarks.measure import least, load, machine, memory_mib, report
from benchmarks.published.maps import BATCH, evidence_map, package_cam, shift_logits, shifts_of
from cxr.labels import CHEXPERT
from cxr.names import methods_of
from models.checkpoint import build_model
from models.patch_net import MedicalPatchNet
from saliency.cam import class_activation_maps
from saliency.patch_maps import evidence_grid, maps_from_grid, patch_maps
from tests.networks import calibrate

TOLERANCE = 1e-3
"""Largest difference allowed: of class activation maps, and of evidence maps as a share of their largest value."""

OURS_BATCH = 4
FINEST_STEPS = 64


def main(argv: Sequence[str] | None = None) -> int:
    parser = cli.parser(__doc__.splitlines()[0], "python -m benchmarks.bench_saliency")
    parser.add_argument("--backbone", default="efficientnet_b0", help="of the evidence maps")
    parser.add_argument("--cam-backbones", nargs="+", default=["efficientnet_b0", "efficientnet_v2_s"])
    parser.add_argument("--image-size", type=int, default=512)
    parser.add_argument("--steps", type=int, default=4, help="per patch of 64 pixels; the cost grows with its square")
    parser.add_argument("--cam-labels", type=int, default=4, help="labels that the package is timed on")
    parser.add_argument("--memory-patches", type=int, default=2048, help="patches after which memory is read")
    parser.add_argument("--threads", type=int, default=1, help="of both ways")
    parser.add_argument("--repeats", type=cli.whole_number(1, 100), default=3, help="the least of so many is taken")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/bench_saliency.csv"), help="result file")
    args = parser.parse_args(argv)

    facts = {"image_size": args.image_size, "threads": args.threads, "machine": machine(), "load_before": load()}
    rows = memory_rows(args.backbone, args.image_size, args.memory_patches, args.threads)
    torch.set_num_threads(args.threads)
    rows += evidence_rows(args.backbone, args.image_size, args.steps, args.repeats)
    for backbone in args.cam_backbones:
        rows += cam_rows(backbone, args.image_size, args.cam_labels, args.repeats)
    table = pd.DataFrame(rows)
    ratios = table.dropna(subset="cpu_ratio")
    summary = {
        "ratios": {f"{row.what}, {row.backbone}": round(row.ratio, 1) for row in ratios.itertuples()},
        "cpu_ratios": {f"{row.what}, {row.backbone}": round(row.cpu_ratio, 1) for row in ratios.itertuples()},
    }
    report("bench_saliency", table, args.out, summary, facts)
    return 0


def evidence_rows(backbone: str, image_size: int, steps: int, repeats: int) -> list[dict[str, Any]]:
    """The published way and ours, raw and scaled together."""
    model, image = network(backbone, 64, image_size)

    def published(steps: int) -> dict[str, Tensor]:
        kinds = {"raw": False, "scaled": True}
        return {kind: evidence_map(model, image[0], steps, scaled=scaled) for kind, scaled in kinds.items()}

    def ours(steps: int) -> dict[str, Tensor]:
        return patch_maps(model, image, steps_per_patch=steps, protocol="published", batch_size=OURS_BATCH)

    for way in (published, ours):
        way(1)  # sets things up
    rows = compare(partial(published, steps), partial(ours, steps), repeats, relative=True)
    return [{"what": f"raw and scaled, {steps} steps", "backbone": backbone} | row for row in rows]


def cam_rows(backbone: str, image_size: int, labels: int, repeats: int) -> list[dict[str, Any]]:
    """The package label by label and ours, three methods."""
    model, image = network(backbone, image_size, image_size)

    def package(labels: int) -> dict[str, Tensor]:
        return {
            method: package_cam(model, model.features, image, method, range(labels))
            for method in methods_of("baseline")
        }

    def ours() -> dict[str, Tensor]:
        return class_activation_maps(model, image, methods=methods_of("baseline"))

    package(1)
    ours()
    rows = compare(partial(package, labels), ours, repeats, relative=False, times=len(CHEXPERT.names) / labels)
    rows[0]["how"] = f"extrapolated from {labels} of {len(CHEXPERT.names)} labels"
    return [{"what": "three class activation maps", "backbone": backbone} | row for row in rows]


def compare(
    published: Callable[[], dict[str, Tensor]],
    ours: Callable[[], dict[str, Tensor]],
    repeats: int,
    *,
    relative: bool,
    times: float = 1,
) -> list[dict[str, Any]]:
    """Two rows, with seconds and their ratios; the maps of both ways must be the same.

    relative: whether differences are shares of the largest value; times: what the published seconds stand for.
    """
    ours_maps, ours_seconds = least(ours, repeats)
    published_maps, published_seconds = least(published, repeats)
    seconds = {name: value * times for name, value in published_seconds.items()}
    difference = max(
        float((ours_maps[kind][: len(maps)] - maps).abs().max() / (maps.abs().max() if relative else 1))
        for kind, maps in published_maps.items()
    )
    if difference > TOLERANCE:
        raise RuntimeError(f"the maps differ by {difference}")
    ratios = {
        "ratio": seconds["seconds"] / ours_seconds["seconds"],
        "cpu_ratio": seconds["cpu_seconds"] / ours_seconds["cpu_seconds"],
    }
    return [
        {"way": "published", "how": "measured", **seconds},
        {"way": "ours", "how": "measured", **ours_seconds, **ratios, "largest_difference": difference},
    ]


def network(backbone: str, patch_size: int, image_size: int) -> tuple[MedicalPatchNet, Tensor]:
    """Random weights whose outputs depend on their input, and a film (1, 1, S, S) of coarse shapes and noise."""
    torch.manual_seed(0)
    shapes = F.interpolate(torch.rand(1, 1, 9, 9), (image_size, image_size), mode="bicubic")
    film = (0.7 * shapes + 0.3 * torch.rand_like(shapes)).clamp(0, 1)
    model = build_model(backbone, patch_size=patch_size, image_size=image_size, labels=CHEXPERT.names)
    calibrate(model, film)
    return model, film


def memory_rows(backbone: str, image_size: int, patches: int, threads: int) -> list[dict[str, Any]]:
    """Peak memory of each case in a process of its own, forked from one that has only imported what it needs."""
    cases: dict[str, Callable[[], float]] = {
        f"grid of {FINEST_STEPS} steps, batch {batch}": partial(grid_memory, backbone, image_size, batch, patches)
        for batch in (1, 2, 4)
    }
    cases[f"all maps from the grid of {FINEST_STEPS} steps"] = partial(maps_memory, image_size)
    cases[f"published, one batch of {BATCH} shifts"] = partial(published_memory, backbone, image_size)
    context = get_context("forkserver")
    context.set_forkserver_preload(["models.checkpoint", "saliency.patch_maps"])
    rows = []
    for what, case in cases.items():
        with ProcessPoolExecutor(1, context, torch.set_num_threads, (threads,)) as fresh:
            rows.append({"what": what, "backbone": backbone, "peak_mib": fresh.submit(case).result()})
    return rows


def grid_memory(backbone: str, image_size: int, batch_size: int, patches: int) -> float:
    """MiB on top of the network at most held while the first patches of the finest grid are computed."""
    model, image = network(backbone, 64, image_size)
    before = memory_mib("VmRSS")
    computed = 0

    def stop(more: int) -> None:
        nonlocal computed
        computed += more
        if computed >= patches:
            raise Enough

    with suppress(Enough):
        evidence_grid(model, image, steps_per_patch=FINEST_STEPS, batch_size=batch_size, progress=stop)
    return memory_mib("VmHWM") - before


class Enough(Exception):
    """Ends a computation whose result nobody needs."""


def maps_memory(image_size: int) -> float:
    """MiB on top of the finest grid at most held while raw and scaled maps of all labels are made from it."""
    grid = torch.randn(len(CHEXPERT.names), *[image_size * FINEST_STEPS // 64] * 2)
    before = memory_mib("VmRSS")
    maps_from_grid(grid, patch_size=64, steps_per_patch=FINEST_STEPS, protocol="corrected", image_size=image_size)
    return memory_mib("VmHWM") - before


def published_memory(backbone: str, image_size: int) -> float:
    """MiB on top of the network at most held during the first batch of shifts."""
    model, image = network(backbone, 64, image_size)
    before = memory_mib("VmRSS")
    shift_logits(model, image[0], shifts_of(64, FINEST_STEPS)[:BATCH], scaled=False)
    return memory_mib("VmHWM") - before


if __name__ == "__main__":
    cli.run(main)
