"""Error of evidence at every few pixels, and of fewer steps, against the patch at every pixel.

    python -m benchmarks.bench_stride --evidence demo=results/MedicalPatchNet/evidence/test --masks gt.json
    python -m benchmarks.bench_stride --windows lite0=savedModels/MedicalPatchNet --films ../shared/real_films/png

--evidence: folders of evidence files of all 64 steps, which hold every coarser grid. --windows: networks whose grids
are computed here, of squares of `WINDOW` px out of the middle of films that are read at the network's image size (a
whole film of 512 px takes ten minutes); `random` and `imagenet` stand for an untrained EfficientNet-B0 and an
EfficientNet-Lite0 with ImageNet weights and a random head.

Per map: mean and largest error of the corrected raw map in percent of its range; with --masks whether the hit changed,
and the change of the IoU at the task's best threshold of the full maps. Means with 95% intervals (films resampled,
Clopper-Pearson for hits). `estimate`: of the mean error, from the grid's own second starts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

import cli
from benchmarks.bench_real_films import imagenet_weights
from benchmarks.measure import load, machine, report
from cxr.heat_maps import HeatMap
from cxr.images import Crop
from cxr.labels import CHEXPERT
from cxr.masks import GroundTruth, read_ground_truth
from cxr.pixels.tensors import read_square, resize
from evaluation.binomial import exact_interval
from evaluation.localizing.localization import score_map
from models.checkpoint import build_model, load_model
from models.initial import start_from
from models.patch_net import MedicalPatchNet
from saliency.evidence.evidence_files import SUFFIX, read_grids
from saliency.evidence.evidence_folders import evidence_files
from saliency.evidence.pixel_grid import PixelGrid
from saliency.evidence.shift_grid import ShiftGrid
from saliency.evidence.stride_error import stride_errors
from saliency.film_maps import Evidence, film_maps
from saliency.patch_maps import evidence_grid
from tests.networks import calibrate

STRIDES = (2, 3, 4, 5, 6, 7, 8, 9, 11, 13, 15)
STEPS = (8, 16, 32)
WINDOW = 192
THRESHOLDS = np.linspace(0.1, 0.9, 17)
RESAMPLES = 2000


@dataclass(frozen=True)
class Full:
    """A film's evidence of all steps. tasks: of the rows of its grid."""

    name: str
    evidence: Evidence
    tasks: Sequence[str]


def main(argv: Sequence[str] | None = None) -> int:
    parser = cli.parser(__doc__.splitlines()[0], "python -m benchmarks.bench_stride --evidence demo=FOLDER")
    add = parser.add_argument
    add("--evidence", nargs="*", default=[], metavar="NAME=FOLDER", help="evidence files of as many steps as pixels")
    add("--masks", nargs="*", default=[], type=Path, help="CheXlocalize's json for each folder of --evidence")
    add("--windows", nargs="*", default=[], metavar="NAME=WEIGHTS", help="networks; or random, imagenet")
    add("--films", type=Path, help="folder of PNG for --windows")
    add("--count", type=cli.whole_number(1, 10**6), default=6, help="windows per network")
    add("--cache", type=cli.path, default=Path("/tmp/bench_stride"), help="grids of windows, computed once")
    add("--out", type=Path, default=Path("benchmarks/results/bench_stride.csv"), help="result file")
    args = parser.parse_args(argv)
    facts = {"machine": machine(), "load_before": load()}
    rows = []
    for place, source in enumerate(args.evidence):
        name, _, folder = source.partition("=")
        masks = read_ground_truth(args.masks[place]) if place < len(args.masks) else None
        rows += compare(name, list(stored(Path(folder))), masks)
    for source in args.windows:
        name, _, weights = source.partition("=")
        rows += compare(name, list(windows(name, weights, args.films, args.count, args.cache)), None)
    table = pd.DataFrame(rows)
    errors = table[table["kind"] == "stride"].pivot(index="set", columns="value", values="mean_error_percent").round(2)
    report("bench_stride", table, args.out, {"mean_error_percent": errors.to_dict("index")}, facts)
    return 0


# ---------------------------------------------------------------------------------------------------------- full grids


def stored(folder: Path) -> Iterator[Full]:
    for path in evidence_files(folder):
        facts, grids = read_grids(path)
        if facts.steps_per_patch != facts.patch_size or facts.stride > 1:
            raise SystemExit(f"{path}: not of every start")
        sizes = (facts.patch_size, facts.steps_per_patch, facts.image_size)
        grid = torch.from_numpy(np.stack(list(grids.values())))
        yield Full(path.name.removesuffix(SUFFIX), Evidence(facts.crop, *sizes, grid, {}), list(grids))


def windows(name: str, weights: str, films: Path, count: int, cache: Path) -> Iterator[Full]:
    """Squares out of the middle of films spread over the folder, as small films of a network for that size."""
    model = network(weights or name)
    size = model.image_size
    small = MedicalPatchNet(model.backbone, model.patch_size, WINDOW, model.labels)
    small.load_state_dict(model.state_dict())
    small.eval()
    files = sorted(films.glob("*.png"))
    cache.mkdir(parents=True, exist_ok=True)
    for path in files[:: len(files) // count][:count]:
        target = cache / f"{name}_{path.stem}.npy"
        if not target.exists():
            image = resize(read_square(path)[0], size)  # (1, S, S)
            first = (size - WINDOW) // 2
            window = image[:, first : first + WINDOW, first : first + WINDOW]
            np.save(target, evidence_grid(small, window, steps_per_patch=model.patch_size, batch_size=8).numpy())
        grid = torch.from_numpy(np.load(target))
        crop = Crop.centred(WINDOW, WINDOW)
        yield Full(path.stem, Evidence(crop, model.patch_size, model.patch_size, WINDOW, grid, {}), model.labels)


def network(weights: str) -> MedicalPatchNet:
    torch.manual_seed(0)
    settings: dict[str, Any] = {"patch_size": 64, "image_size": 512, "labels": CHEXPERT.names}
    if weights == "random":
        model = build_model("efficientnet_b0", **settings)
        calibrate(model, torch.rand(2, 1, 512, 512))
        return model
    if weights == "imagenet":
        model = build_model("timm/tf_efficientnet_lite0", **settings)
        start_from(model, imagenet_weights())
        return model.eval()
    return load_model(Path(weights))


# ---------------------------------------------------------------------------------------------------------- comparison


def compare(name: str, films: Sequence[Full], masks: GroundTruth | None) -> list[dict[str, Any]]:
    """A row per stride and number of steps, over all films."""
    exact = {film.name: film_maps(film.evidence, ["raw"], "corrected")["raw"] for film in films}  # (C, h, w) each
    thresholds = best_thresholds(films, exact, masks) if masks is not None else {}
    rows = []
    for kind, value in [*(("stride", stride) for stride in STRIDES), *(("steps", steps) for steps in STEPS)]:
        per_map = pd.concat([errors_of(film, exact[film.name], kind, value, masks, thresholds) for film in films])
        rows.append({"set": name, "kind": kind, "value": value, **summary(per_map, films[0].evidence, kind, value)})
    return rows


def coarse(evidence: Evidence, kind: str, value: int) -> Evidence:
    """The evidence as a stride or as fewer steps would have computed it."""
    if evidence.grid is None:
        raise ValueError("no grid")
    if kind == "steps":
        every = evidence.patch_size // value
        return replace(evidence, steps_per_patch=value, grid=evidence.grid[:, ::every, ::every].contiguous())
    starts = PixelGrid(evidence.pixels.shifts, value).starts
    return replace(evidence, stride=value, grid=evidence.grid[:, starts][:, :, starts])


def errors_of(
    film: Full, exact: torch.Tensor, kind: str, value: int, masks: GroundTruth | None, thresholds: Mapping[str, float]
) -> pd.DataFrame:
    """A row per map of a film."""
    made = coarse(film.evidence, kind, value)
    maps = film_maps(made, ["raw"], "corrected")["raw"]
    inside = film.evidence.crop
    across = slice(round(maps.shape[2] * inside.left / inside.film_width), None)  # the filled margin has no error
    down = slice(round(maps.shape[1] * inside.top / inside.film_height), None)
    estimates = stride_errors(made.grid, made.pixels) if kind == "stride" and made.grid is not None else None
    rows = []
    for place, task in enumerate(film.tasks):
        full, found = exact[place].numpy(), maps[place].numpy()
        side = film.evidence.image_size
        error = 100 * np.abs(found - full)[down, across][:side, :side] / np.ptp(full)
        row = {"film": film.name, "task": task, "mean": error.mean(), "max": error.max()}
        row["estimate"] = float(estimates[place]) if estimates is not None else np.nan
        if masks is not None and film.name in masks and masks.area(film.name, task):
            before, after = (scored(film, task, pixels, masks, [thresholds])[0] for pixels in (full, found))
            row |= {"flipped": float(before[0] != after[0]), "iou_change": after[1] - before[1]}
        rows.append(row)
    return pd.DataFrame(rows)


def scored(
    film: Full, task: str, pixels: np.ndarray, masks: GroundTruth, thresholds: Sequence[Mapping[str, float]]
) -> list[tuple[float, float]]:
    """(hit, IoU) under each of the thresholds."""
    crop = film.evidence.crop
    heat_map = HeatMap(film.name, task, pixels, 1.0, 1, (crop.film_width, crop.film_height))
    area = masks.area(film.name, task)
    scores = score_map(heat_map, masks, thresholds=thresholds, cutoffs=None, masks=True)
    return [(score.hit, score.intersection / (score.predicted + area - score.intersection)) for score in scores]


def best_thresholds(films: Sequence[Full], exact: Mapping[str, torch.Tensor], masks: GroundTruth) -> dict[str, float]:
    """Task -> the threshold of the largest mean IoU of the full maps."""
    tasks = sorted({task for film in films for task in film.tasks})
    candidates = [dict.fromkeys(tasks, float(threshold)) for threshold in THRESHOLDS]
    best = {}
    for task in tasks:
        ious = [
            [iou for _, iou in scored(film, task, exact[film.name][place].numpy(), masks, candidates)]
            for film in films
            for place, known in enumerate(film.tasks)
            if known == task and film.name in masks and masks.area(film.name, task)
        ]
        best[task] = float(THRESHOLDS[int(np.mean(ious, axis=0).argmax())]) if ious else 0.5
    return best


def summary(per_map: pd.DataFrame, evidence: Evidence, kind: str, value: int) -> dict[str, Any]:
    shifts = ShiftGrid(evidence.patch_size, evidence.patch_size, evidence.image_size)
    patches = PixelGrid(shifts, value).m ** 2 if kind == "stride" else (value * shifts.n // shifts.steps) ** 2
    of_films = per_map.groupby("film")
    mean, low, high = resampled(of_films["mean"].mean())
    row: dict[str, Any] = {
        "image_size": evidence.image_size,
        "films": len(of_films),
        "maps": len(per_map),
        "patches": patches,
        "times_fewer": shifts.n**2 / patches,
        **{"mean_error_percent": mean, "ci_low": low, "ci_high": high},
        "worst_map_percent": per_map["mean"].max(),
        "largest_error_percent": per_map["max"].max(),
    }
    if kind == "stride":
        ratio = per_map["estimate"] / per_map["mean"]
        row |= {"estimate_percent": per_map["estimate"].mean(), "estimate_over_error": ratio.median()}
        row |= {"ratio_5": ratio.quantile(0.05), "ratio_95": ratio.quantile(0.95)}
    if "flipped" in per_map:
        outlined = per_map.dropna(subset="flipped")
        flips = int(outlined["flipped"].sum())
        change, change_low, change_high = resampled(outlined.groupby("film")["iou_change"].mean())
        row |= {"outlined": len(outlined), "hits_flipped": flips}
        row["flipped_high"] = exact_interval(flips, len(outlined))[1]
        row |= {"iou_change": change, "iou_change_low": change_low, "iou_change_high": change_high}
        row["iou_change_abs"] = outlined["iou_change"].abs().mean()
    return row


def resampled(of_films: pd.Series) -> tuple[float, float, float]:
    """Mean over films and its 95% interval, films resampled."""
    values = of_films.to_numpy()
    drawn = np.random.default_rng(0).integers(0, len(values), (RESAMPLES, len(values)))
    low, high = np.quantile(values[drawn].mean(axis=1), (0.025, 0.975))
    return float(values.mean()), float(low), float(high)


if __name__ == "__main__":
    cli.run(main)
