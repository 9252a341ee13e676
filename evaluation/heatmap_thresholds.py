"""The threshold that turns a task's heat maps into masks: the one of the largest mean IoU on validation.

`exact` looks at every threshold k / 65536. A pixel v of a normalised map is above k / 65536 just when
ceil(65536 v) > k, and 65536 v is exact in float32; so one histogram of all pixels and one of those inside the mask give
the IoU at all of them. `ternary` is the published search (10 rounds from 0.5, steps of 0.25 halved each time), whose
thresholds are multiples of 1 / 2048 and thus lie on the same curve: `exact` never scores below it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import groupby
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from cxr.files import InputError, place
from cxr.heat_maps import HeatMap, HeatMapSource
from cxr.labels import TASKS
from cxr.masks import GroundTruth
from cxr.tables import line_of, read_csv, write_csv
from evaluation.map_pool import over_maps, scored_entries
from evaluation.segmentation import check_film_size, resize_to_film, value_range

STEPS = 65536
"""Thresholds searched: k / STEPS for k = 0 .. STEPS - 1."""

UNTUNED = 0.5
"""Threshold of a task without any defined IoU, where the published search starts and then stays."""

CURVE_FILE, TUNING_FILE = "miou_curve.csv", "tuning_results.csv"

_CHUNK = 2**19  # pixels binned at once: what a core's cache holds
_WRITTEN_EVERY = 128  # thresholds of the curve file

IouCurve = float | np.ndarray
"""A map's IoU at every threshold: (STEPS,) float64, or a number where it is the same at all."""


def miou_curves(
    source: HeatMapSource, ground_truth: GroundTruth, *, true_pos_only: bool, workers: int = 1
) -> dict[str, np.ndarray]:
    """Task -> (STEPS,) mean IoU over its films at the threshold k / STEPS; NaN where no film has one.

    Defined as CheXlocalize's tuning defines it: maps of films without ground truth are left out; with `true_pos_only`
    so are films whose true or predicted mask is empty, otherwise only those where both are.
    Raises InputError as the source does, when there is no map of a task, and when a film has another size in its map
    than in the ground truth.
    """
    entries = sorted(scored_entries(source, ground_truth), key=lambda entry: (entry[1], entry[0]))
    missing = sorted(set(TASKS) - {task for _, task in entries})
    if missing:
        raise InputError(f"no heat map of {missing[0]!r}; a threshold needs maps of all 10 tasks")
    work = partial(iou_curve, true_pos_only=true_pos_only)
    curves = over_maps(work, source, ground_truth, entries, workers=workers, label="thresholds")
    by_task = groupby(zip(entries, curves, strict=True), key=lambda item: item[0][1])
    return {task: _mean_over_maps([curve for _, curve in items]) for task, items in by_task}


def iou_curve(heat_map: HeatMap, ground_truth: GroundTruth, *, true_pos_only: bool) -> IouCurve:
    """IoU of `normalised map > k / STEPS` with the true mask at the film's full size; NaN where it is undefined."""
    if heat_map.image_id not in ground_truth:
        return np.nan
    check_film_size(heat_map, ground_truth)
    area = ground_truth.area(heat_map.image_id, heat_map.task)
    if not area and true_pos_only:
        return np.nan
    resized = resize_to_film(heat_map)
    low, span = value_range(resized)
    if span == 0:  # normalised to NaN: no pixel is above any threshold
        return 0.0 if area and not true_pos_only else np.nan
    if not area:
        return 0.0  # the largest pixel, 1, is above every threshold
    inside = ground_truth.mask(heat_map.image_id, heat_map.task)
    intersection = _pixels_above(resized[inside], low, span)
    return intersection / (area + _pixels_above(resized.ravel(), low, span) - intersection)


def _pixels_above(values: np.ndarray, low: np.float32, span: np.float32) -> np.ndarray:
    """(n,) float32 -> (STEPS,) how many of (values - low) / span are above k / STEPS."""
    counts = torch.zeros(STEPS + 1, dtype=torch.int64)
    scaled, bins = torch.empty(_CHUNK), torch.empty(_CHUNK, dtype=torch.int32)  # reused: new memory costs more
    for chunk in torch.from_numpy(values).split(_CHUNK):
        part = slice(len(chunk))
        torch.sub(chunk, float(low), out=scaled[part]).div_(float(span)).mul_(STEPS).ceil_()
        counts += torch.bincount(bins[part].copy_(scaled[part]), minlength=STEPS + 1)
    return counts.numpy()[:0:-1].cumsum()[::-1]


def _mean_over_maps(curves: list[IouCurve]) -> np.ndarray:
    """(STEPS,) mean over the maps whose IoU is defined.

    Summed per threshold over all maps in their order, as `numpy.nanmean` sums a list of them: equal to the last bit.
    """
    mean = np.full(STEPS, np.nan)
    block = np.empty((2048, len(curves)))
    for start in range(0, STEPS, len(block)):
        for column, curve in enumerate(curves):
            block[:, column] = curve[start : start + len(block)] if isinstance(curve, np.ndarray) else curve
        defined = ~np.isnan(block).all(axis=1)
        mean[start : start + len(block)][defined] = np.nanmean(block[defined], axis=1)
    return mean


def exact_search(curve: np.ndarray) -> float:
    """The threshold of the largest mean IoU; of several, the middle of their longest run (the first such run)."""
    best = np.flatnonzero(curve == np.nanmax(curve))
    runs = np.split(best, np.flatnonzero(np.diff(best) > 1) + 1)
    longest = max(runs, key=len)
    return float(longest[len(longest) // 2]) / STEPS


def ternary_search(curve: np.ndarray) -> float:
    """The published search: of the threshold and its neighbours a step away, the largest with the best mean IoU."""
    threshold, step = UNTUNED, 0.25
    for _ in range(10):
        tried = [threshold - step, threshold, threshold + step]
        defined = [t for t in tried if not np.isnan(curve[int(t * STEPS)])]
        if not defined:
            break
        threshold = max(reversed(defined), key=lambda t: curve[int(t * STEPS)])
        step /= 2
    return threshold


SEARCHES: Mapping[str, Callable[[np.ndarray], float]] = {"exact": exact_search, "ternary": ternary_search}


def tune(curves: Mapping[str, np.ndarray], search: str = "exact") -> pd.DataFrame:
    """One row per task: `threshold`, `task`, `miou` there; UNTUNED and NaN where no IoU is defined."""
    rows = []
    for task, curve in sorted(curves.items()):
        threshold = UNTUNED if np.isnan(curve).all() else SEARCHES[search](curve)
        rows.append((threshold, task, curve[int(threshold * STEPS)]))
    return pd.DataFrame(rows, columns=["threshold", "task", "miou"])


def write_tuning(folder: Path, curves: Mapping[str, np.ndarray], tuned: pd.DataFrame) -> None:
    """Writes `tuning_results.csv`, as CheXlocalize reads it, and `miou_curve.csv`: `threshold`, one column per task.

    The curve is written at every 128th threshold and at the tuned ones. Thresholds are written in full, not with 9
    digits: a map's pixel may equal one.
    """
    exact = {"threshold": [repr(float(t)) for t in tuned["threshold"]], "task": tuned["task"]}
    write_csv(folder / TUNING_FILE, pd.DataFrame(exact))
    kept = sorted({*range(0, STEPS, _WRITTEN_EVERY), *(int(t * STEPS) for t in tuned["threshold"])})
    columns = {"threshold": [repr(k / STEPS) for k in kept]} | {task: curves[task][kept] for task in sorted(curves)}
    write_csv(folder / CURVE_FILE, pd.DataFrame(columns))


def read_thresholds(path: Path) -> dict[str, float]:
    """Task -> threshold, from a file like CheXlocalize's `tuning_results.csv`.

    Raises InputError with file and line for a repeated task, a value that is not a number, and a missing task.
    """
    thresholds: dict[str, float] = {}
    for line, task, (threshold,) in _numbers_per_task(path, ("threshold",)):
        if task in thresholds:
            raise InputError(f"{path}: line {line}: a second threshold of {task!r}")
        thresholds[task] = threshold
    return _all_tasks(thresholds, path)


def read_probability_cutoffs(path: Path) -> dict[str, float]:
    """Task -> the `prob_threshold` of its largest `mIoU` (the first), from CheXlocalize's probability tuning.

    Raises InputError with file and line for a value that is not a number, and for a missing task.
    """
    best: dict[str, tuple[float, float]] = {}
    for _, task, (cutoff, miou) in _numbers_per_task(path, ("prob_threshold", "mIoU")):
        if task not in best or miou > best[task][1]:
            best[task] = (cutoff, miou)
    return _all_tasks({task: cutoff for task, (cutoff, _) in best.items()}, path)


def _numbers_per_task(path: Path, columns: tuple[str, ...]) -> Iterator[tuple[int, str, tuple[float, ...]]]:
    """(line, task, values of `columns`) of every row."""
    table = read_csv(path, (*columns, "task"))
    for row, task in enumerate(table["task"]):
        line = line_of(table, row)
        try:
            values = tuple(float(table[column][row]) for column in columns)
        except ValueError as error:
            raise InputError(f"{place(path, line)}: {error}") from None
        if not np.isfinite(values).all():
            raise InputError(f"{place(path, line)}: {', '.join(columns)} must be finite")
        yield line, task, values


def _all_tasks(values: dict[str, float], path: Path) -> dict[str, float]:
    missing = [task for task in TASKS if task not in values]
    if missing:
        raise InputError(f"{path}: no row of {missing[0]!r}; every one of the 10 tasks needs one")
    return values
