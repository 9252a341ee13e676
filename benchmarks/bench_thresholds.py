"""Threshold search over every k / 65536 from one reading of each map, against one reading per threshold as published.

    python -m benchmarks.bench_thresholds
    python -m benchmarks.bench_thresholds --films 512x640 --out /tmp/quick.csv

Simulated maps of 512 x 512 for films of 512 x 640 and of 2320 x 2828 pixels, as CheXlocalize's are: one film for each
task where every map has a true mask, two where half of the maps have one. Both ways run in one process with one
thread. The published way is written plainly: for each of the up to 21 thresholds of its search and each map it reads
the pickle, stretches, normalises and compares the map, decodes the mask and computes the IoU; as published, but without
a pool of processes that starts and ends for every threshold. Its thresholds are checked against `--search ternary`,
which finds them on our curve.

CPU seconds: ours the least of three runs; the published search the least that one of its thresholds took, times 21, for
they all do the same work. Of large films only three thresholds of each task are tried so; the whole search is compared
with ours on small ones (below a megapixel).
"""

from __future__ import annotations

import pickle
import tempfile
from collections.abc import Sequence
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from pycocotools import mask as coco
from torch.nn.functional import interpolate

import cli
from benchmarks.measure import Timer, least, load, machine, report
from cxr.heat_maps import HeatMapFolder, heat_map_name, write_heat_map
from cxr.labels import CHEXPERT
from cxr.masks import GroundTruth, encode_mask
from evaluation.localizing.heatmap_thresholds import tune
from evaluation.localizing.miou_curves import STEPS, TaskCurves, miou_curves

CASES = ((1, 10, True), (2, 5, True), (2, 5, False))
"""Films per task, how many of ten maps have a true mask, and whether only true positives are scored."""
REPEATS, ROUNDS = 3, 10
SEARCHED_WHOLE = 1_000_000
"""Pixels of a film below which the whole published search is made."""


def main(argv: Sequence[str] | None = None) -> int:
    parser = cli.parser(__doc__.splitlines()[0], "python -m benchmarks.bench_thresholds")
    parser.add_argument("--films", type=_sides, nargs="+", default=[(512, 640), (2320, 2828)], metavar="HEIGHTxWIDTH")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/bench_thresholds.csv"), help="result file")
    args = parser.parse_args(argv)

    torch.set_num_threads(1)
    facts = {"threads": 1, "machine": machine(), "load_before": load()}
    rows: list[dict[str, Any]] = []
    for size, (films, positive, true_pos_only) in product(args.films, CASES):
        with tempfile.TemporaryDirectory() as folder:
            codes = simulate(Path(folder), films, positive, size)
            case = {"film": "x".join(map(str, size)), "case": f"{positive} of 10 maps have a mask"}
            rows += [case | row for row in compare(Path(folder), codes, true_pos_only)]
    table = pd.DataFrame(rows)
    summary = {"cpu_ratios": table["cpu_ratio"].dropna().round(1).to_list()}
    report("bench_thresholds", table, args.out, summary, facts)
    return 0


def _sides(text: str) -> tuple[int, int]:
    height, width = text.split("x")
    return int(height), int(width)


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


def compare(folder: Path, codes: dict[str, dict[str, Any]], true_pos_only: bool) -> list[dict[str, Any]]:
    """Two rows: the published search and ours, over all tasks. Raises RuntimeError where they disagree."""
    truth = GroundTruth(codes)

    def tuned_here() -> tuple[TaskCurves, pd.DataFrame]:
        curves = miou_curves(HeatMapFolder(folder), truth, true_pos_only=true_pos_only)
        return curves, tune(curves)

    (curves, exact), ours = least(tuned_here, REPEATS)
    height, width = truth.size(truth.image_ids[0])
    whole = height * width < SEARCHED_WHOLE
    searched, published = {}, dict.fromkeys(ours, 0.0)
    for task in CHEXPERT.task_names:
        paths = sorted(folder.glob(f"*_{task}_map.pkl"))
        searched[task], seconds = published_search(paths, codes, true_pos_only, ROUNDS if whole else 1)
        published = {name: published[name] + seconds[name] for name in published}
    tuned = dict(tune(curves, "ternary")[["task", "threshold"]].itertuples(index=False, name=None))
    if whole and searched != tuned:
        raise RuntimeError(f"the two searches disagree: {searched} and {tuned}")
    found = np.mean([curves[task][int(tuned[task] * STEPS)] for task in CHEXPERT.task_names])
    shared = {"true_pos_only": true_pos_only, "maps": len(codes) * len(CHEXPERT.task_names)}
    ratio = published["cpu_seconds"] / ours["cpu_seconds"]
    return [
        shared | {"way": "published", **published, "mean_miou": found},
        shared | {"way": "ours, exact", **ours, "mean_miou": exact["miou"].mean(), "cpu_ratio": ratio},
    ]


def published_search(
    paths: Sequence[Path], codes: dict[str, dict[str, Any]], true_pos_only: bool, rounds: int
) -> tuple[float, dict[str, float]]:
    """10 rounds from 0.5 with steps of 0.25 halved; a threshold that was tried is not tried again.

    rounds: of the 10, how many are made. Returns the threshold, and the seconds of all: 21 times those of the quickest.
    """
    runs: list[dict[str, float]] = []

    @cache
    def miou(threshold: float) -> float:
        timer = Timer()
        found = float(np.nanmean([iou_of_file(path, codes, threshold, true_pos_only) for path in paths]))
        runs.append(timer.seconds())
        return found

    best, step = 0.5, 0.25
    for _ in range(rounds):
        best = max((best + step, best, best - step), key=miou)
        step /= 2
    return best, {name: (2 * ROUNDS + 1) * min(run[name] for run in runs) for name in runs[0]}


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
