"""Threshold search over every k / 65536 from one reading of each map, against one reading per threshold as published.

    python -m benchmarks.bench_thresholds
    python -m benchmarks.bench_thresholds --height 512 --width 640 --out /tmp/quick.csv

Simulated maps of 512 x 512 for films of 2320 x 2828 pixels: two films for each task where every map has a true mask,
four where three maps in ten have one. Both ways run in one process with one thread. The published way is written
plainly: for each of the 21 thresholds of its search and each map it reads the pickle, stretches, normalises and
compares the map, decodes the mask and computes the IoU; as published, but without a pool of processes that starts and
ends for every threshold. Its thresholds are checked against `--search ternary`, which finds them on our curve.
"""

from __future__ import annotations

import pickle
import tempfile
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from pycocotools import mask as coco
from torch.nn.functional import interpolate

import cli
from benchmarks.measure import Timer, load, machine, report
from cxr.heat_maps import HeatMapFolder, heat_map_name, write_heat_map
from cxr.labels import CHEXPERT
from cxr.masks import GroundTruth, encode_mask
from evaluation.localizing.heatmap_thresholds import STEPS, miou_curves, tune

CASES = ((2, 10, True), (4, 3, True), (4, 3, False))
"""Films per task, how many of ten maps have a true mask, and whether only true positives are scored."""


def main(argv: Sequence[str] | None = None) -> int:
    parser = cli.parser(__doc__.splitlines()[0], "python -m benchmarks.bench_thresholds")
    parser.add_argument("--height", type=int, default=2320, help="of the films, in pixels")
    parser.add_argument("--width", type=int, default=2828, help="of the films, in pixels")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/bench_thresholds.csv"), help="result file")
    args = parser.parse_args(argv)

    torch.set_num_threads(1)
    facts = {"film": f"{args.height}x{args.width}", "machine": machine(), "load_before": load()}
    rows: list[dict[str, Any]] = []
    for films, positive, true_pos_only in CASES:
        with tempfile.TemporaryDirectory() as folder:
            codes = simulate(Path(folder), films, positive, (args.height, args.width))
            rows += compare(Path(folder), codes, true_pos_only, f"{positive} of 10 maps have a mask")
    table = pd.DataFrame(rows)
    summary = {"cpu_ratios": table["cpu_ratio"].dropna().round(1).to_list()}
    report("bench_thresholds", table, args.out, summary, facts)
    return 0


def simulate(folder: Path, films: int, positive: int, size: tuple[int, int]) -> dict[str, dict[str, Any]]:
    """Writes smooth random maps; returns the masks' codes: ellipses in the first `positive` tenths of the maps."""
    rng = np.random.default_rng(0)
    y, x = np.ogrid[-1 : 1 : size[0] * 1j, -1 : 1 : size[1] * 1j]
    codes: dict[str, dict[str, Any]] = {}
    for number in range(films * len(CHEXPERT.task_names)):
        film, task = (
            f"patient{number // len(CHEXPERT.task_names) + 1}_study1_view1_frontal",
            CHEXPERT.task_names[number % len(CHEXPERT.task_names)],
        )
        has_mask = number < films * positive
        centre, radii = rng.uniform(-0.5, 0.5, 2), rng.uniform(0.1, 0.4, 2)
        inside = ((y - centre[0]) / radii[0]) ** 2 + ((x - centre[1]) / radii[1]) ** 2 < has_mask
        codes.setdefault(film, {})[task] = encode_mask(inside)
        coarse = torch.from_numpy(rng.random((1, 1, 16, 16), dtype=np.float32))
        write_heat_map(
            folder / heat_map_name(film, task),
            map=interpolate(coarse, size=(512, 512), mode="bicubic")[0, 0],
            probability=0.5,
            task=task,
            ground_truth=int(has_mask),
            film_size=(size[1], size[0]),
            film_pixels=np.zeros((512, 512), dtype=np.float32),
        )
    return codes


def compare(folder: Path, codes: dict[str, dict[str, Any]], true_pos_only: bool, case: str) -> list[dict[str, Any]]:
    """Two rows: the published search and ours, over all tasks."""
    truth = GroundTruth(codes)
    miou_curves(HeatMapFolder(folder), truth, true_pos_only=true_pos_only)  # files and code are warm for both
    timer = Timer()
    curves = miou_curves(HeatMapFolder(folder), truth, true_pos_only=true_pos_only)
    exact = tune(curves)
    ours = timer.seconds()
    timer = Timer()
    searched = {
        task: published_search(sorted(folder.glob(f"*_{task}_map.pkl")), codes, true_pos_only)
        for task in CHEXPERT.task_names
    }
    published = timer.seconds()
    tuned = dict(tune(curves, "ternary")[["task", "threshold"]].itertuples(index=False, name=None))
    if searched != tuned:
        raise RuntimeError(f"the two searches disagree: {searched} and {tuned}")
    found = np.mean([curves[task][int(searched[task] * STEPS)] for task in CHEXPERT.task_names])
    shared = {"case": case, "true_pos_only": true_pos_only, "maps": len(codes) * len(CHEXPERT.task_names)}
    return [
        shared | {"way": "published", **published, "mean_miou": found},
        shared
        | {"way": "ours, exact", **ours, "mean_miou": exact["miou"].mean()}
        | {"cpu_ratio": published["cpu_seconds"] / ours["cpu_seconds"]},
    ]


def published_search(paths: Sequence[Path], codes: dict[str, dict[str, Any]], true_pos_only: bool) -> float:
    """10 rounds from 0.5 with steps of 0.25 halved; a threshold that was tried is not tried again."""

    @lru_cache
    def miou(threshold: float) -> float:
        return float(np.nanmean([iou_of_file(path, codes, threshold, true_pos_only) for path in paths]))

    best, step = 0.5, 0.25
    for _ in range(10):
        best = max((best + step, best, best - step), key=miou)
        step /= 2
    return best


def iou_of_file(path: Path, codes: dict[str, dict[str, Any]], threshold: float, true_pos_only: bool) -> float:
    with open(path, "rb") as handle:
        content = pickle.load(handle)  # a file that we have just written
    width, height = content["cxr_dims"]
    resized = interpolate(content["map"], size=(height, width), mode="bilinear", align_corners=False).squeeze()
    shifted = resized - resized.min()
    predicted = np.array(shifted.div(shifted.max()).numpy() > threshold, dtype=int)
    image_id, task, _ = path.name.rsplit("_", 2)
    true = coco.decode(codes[image_id][task])
    if true_pos_only and (predicted.sum() == 0 or true.sum() == 0):
        return np.nan
    union = np.logical_or(predicted, true).sum()
    return np.logical_and(predicted, true).sum() / union if union else np.nan


if __name__ == "__main__":
    cli.run(main)
