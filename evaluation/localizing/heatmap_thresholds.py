"""The threshold that turns a task's heat maps into masks: the one of the largest mean IoU on validation.

`exact` looks at every threshold k / 65536. A pixel v of a normalised map is above k / 65536 just when
ceil(65536 v) > k, and 65536 v is exact in float32; so one histogram of all pixels and one of those inside the mask give
the IoU at all of them. `ternary` is the published search (10 rounds from 0.5, steps of 0.25 halved each time), whose
thresholds are multiples of 1 / 2048 and thus lie on the same curve: `exact` never scores below it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import pandas as pd
import torch

from cxr.files import InputError, number_in, place, quoted
from cxr.heat_maps import HeatMap, HeatMapSource
from cxr.masks import GroundTruth
from cxr.tables import line_of, read_csv, write_csv
from evaluation.localizing.scored_tasks import scored_entries, with_kinds
from evaluation.localizing.segmentation import check_film_size, value_range
from evaluation.localizing.stretched import StretchedMap
from evaluation.map_pool import over_maps

T = TypeVar("T")

STEPS = 65536
"""Thresholds searched: k / STEPS for k = 0 .. STEPS - 1."""

UNTUNED = 0.5
"""Threshold of a task without any defined IoU, where the published search starts and then stays."""

CURVE_FILE, TUNING_FILE = "miou_curve.csv", "tuning_results.csv"

_CHUNK = 2**19  # pixels binned at once: what a core's cache holds
_WRITTEN_EVERY = 128  # thresholds of the curve file

IouCurve = float | np.ndarray
"""A map's IoU at every threshold: (STEPS,) float64, or a number where it is the same at all."""


class IouCurves(NamedTuple):
    """A map's IoU in CheXlocalize's two countings, NaN where it is undefined.

    true_pos: defined where the true and the predicted mask have pixels; all_cases: where either of them has.
    """

    true_pos: IouCurve
    all_cases: IouCurve


TaskCurves = dict[str, np.ndarray]
"""Task -> (STEPS,) mean IoU over its films at the threshold k / STEPS; NaN where no film has one."""


def miou_curves(
    source: HeatMapSource, ground_truth: GroundTruth, *, true_pos_only: bool, workers: int = 1
) -> TaskCurves:
    """The mean curves of every task of the ground truth in one of the two countings.

    Defined as CheXlocalize's tuning defines them: maps of films without ground truth are left out. A task without maps
    is NaN. Raises InputError as the source does, when no map can be scored, and when a film has another size in its map
    than in the ground truth.
    """
    curves = _mean_curves(source, ground_truth, _nothing, all_cases=not true_pos_only, workers=workers)
    return curves[0] if true_pos_only else curves[1]


def miou_curves_of_both(
    source: HeatMapSource, ground_truth: GroundTruth, *, workers: int = 1
) -> tuple[TaskCurves, TaskCurves]:
    """`miou_curves` over true positives only, and over all cases; each map is read once for both."""
    true_pos, all_cases, _ = miou_curves_and_more(source, ground_truth, _nothing, workers=workers)
    return true_pos, all_cases


def miou_curves_and_more(
    source: HeatMapSource, ground_truth: GroundTruth, more: Callable[[HeatMap, GroundTruth], T], *, workers: int = 1
) -> tuple[TaskCurves, TaskCurves, dict[tuple[str, str], T]]:
    """`miou_curves_of_both`, and (film, task) -> `more` of every map, which is read once for all three.

    more: a function of a module, or a `functools.partial` of one.
    """
    return _mean_curves(source, ground_truth, more, all_cases=True, workers=workers)


def _nothing(heat_map: HeatMap, ground_truth: GroundTruth) -> None:
    return None


def _curves_and_more(
    heat_map: HeatMap, ground_truth: GroundTruth, more: Callable[[HeatMap, GroundTruth], T], all_cases: bool
) -> tuple[IouCurves, T]:
    return iou_curves(heat_map, ground_truth, all_cases=all_cases), more(heat_map, ground_truth)


def _mean_curves(
    source: HeatMapSource,
    ground_truth: GroundTruth,
    more: Callable[[HeatMap, GroundTruth], T],
    *,
    all_cases: bool,
    workers: int,
) -> tuple[TaskCurves, TaskCurves, dict[tuple[str, str], T]]:
    entries = sorted(scored_entries(source, ground_truth), key=lambda entry: (entry[1], entry[0]))
    work = partial(_curves_and_more, more=more, all_cases=all_cases)
    results = over_maps(work, source, ground_truth, entries, workers=workers, label="thresholds")
    means = tuple(dict.fromkeys(ground_truth.tasks, np.full(STEPS, np.nan)) for _ in IouCurves._fields)
    further: dict[tuple[str, str], T] = {}
    for task, of_task in groupby(zip(entries, results, strict=True), key=lambda item: item[0][1]):
        items = list(of_task)
        further |= {entry: seen for entry, (_, seen) in items}
        for mean, of_counting in zip(means, zip(*(curves for _, (curves, _) in items), strict=True), strict=True):
            mean[task] = _mean_over_maps(of_counting)
    return means[0], means[1], further


def iou_curves(heat_map: HeatMap, ground_truth: GroundTruth, *, all_cases: bool = True) -> IouCurves:
    """IoU of `normalised map > k / STEPS` with the true mask at the film's full size.

    Undefined for a film without ground truth, and for a task that was not looked for in the film. all_cases=False
    saves the time of the films that only that counting needs, and leaves them undefined.
    """
    image_id, task = heat_map.image_id, heat_map.task
    if image_id not in ground_truth or not ground_truth.annotates(image_id, task):
        return IouCurves(np.nan, np.nan)
    check_film_size(heat_map, ground_truth)
    area = ground_truth.area(image_id, task)
    if not area and not all_cases:
        return IouCurves(np.nan, np.nan)
    stretched = StretchedMap(heat_map)
    if stretched.is_constant:  # normalised to NaN: no pixel is above any threshold
        return IouCurves(np.nan, 0.0 if area else np.nan)
    if not area:
        return IouCurves(np.nan, 0.0)  # the largest pixel, 1, is above every threshold
    pixels, low, span = stretched.pixels, *value_range(stretched.pixels)
    inside = ground_truth.mask(image_id, task)
    intersection = _pixels_above(pixels[inside], low, span)
    curve = intersection / (area + _pixels_above(pixels.ravel(), low, span) - intersection)
    return IouCurves(curve, curve)  # the largest pixel is above every threshold: the predicted mask is never empty


def _pixels_above(values: np.ndarray, low: np.float32, span: np.float32) -> np.ndarray:
    """(n,) float32 -> (STEPS,) how many of (values - low) / span are above k / STEPS."""
    counts = torch.zeros(STEPS + 1, dtype=torch.int64)
    scaled, bins = torch.empty(_CHUNK), torch.empty(_CHUNK, dtype=torch.int32)  # reused: new memory costs more
    for chunk in torch.from_numpy(values).split(_CHUNK):
        part = slice(len(chunk))
        torch.sub(chunk, float(low), out=scaled[part]).div_(float(span)).mul_(STEPS).ceil_()
        counts += torch.bincount(bins[part].copy_(scaled[part]), minlength=STEPS + 1)
    return counts.numpy()[:0:-1].cumsum()[::-1]


def _mean_over_maps(curves: Sequence[IouCurve]) -> np.ndarray:
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


def write_tuning(
    folder: Path, curves: Mapping[str, np.ndarray], tuned: pd.DataFrame, kinds: Mapping[str, str] | None = None
) -> None:
    """Writes `tuning_results.csv`, as CheXlocalize reads it, and `miou_curve.csv`: `threshold`, one column per task.

    kinds: task -> kind of its regions; where some are boxes, `tuning_results.csv` says it in a column `kind`.

    The curve is written at every 128th threshold and at the tuned ones. Thresholds are written in full, not with 9
    digits: a map's pixel may equal one.
    """
    exact = {"threshold": [repr(float(t)) for t in tuned["threshold"]], "task": tuned["task"]}
    write_csv(folder / TUNING_FILE, with_kinds(pd.DataFrame(exact), "task", kinds or {}))
    kept = sorted({*range(0, STEPS, _WRITTEN_EVERY), *(int(t * STEPS) for t in tuned["threshold"])})
    columns = {"threshold": [repr(k / STEPS) for k in kept]} | {task: curves[task][kept] for task in sorted(curves)}
    write_csv(folder / CURVE_FILE, pd.DataFrame(columns))


def read_thresholds(path: Path, tasks: Sequence[str]) -> dict[str, float]:
    """Task -> threshold of `tasks`, from a file like CheXlocalize's `tuning_results.csv`.

    Raises InputError with file and line for a repeated task, a value that is not a number, and a missing task.
    """
    thresholds: dict[str, float] = {}
    for line, task, (threshold,) in _numbers_per_task(path, ("threshold",)):
        if task in thresholds:
            raise InputError(f"{place(path, line, 'task')}: a second threshold of {quoted(task)}; keep one of them")
        thresholds[task] = threshold
    return _of_tasks(thresholds, tasks, path)


def read_probability_cutoffs(path: Path, tasks: Sequence[str]) -> dict[str, float]:
    """Task -> the `prob_threshold` of its largest `mIoU` (the first), from CheXlocalize's probability tuning.

    Raises InputError with file and line for a value that is not a number, and for a missing task.
    """
    best: dict[str, tuple[float, float]] = {}
    for _, task, (cutoff, miou) in _numbers_per_task(path, ("prob_threshold", "mIoU")):
        if task not in best or miou > best[task][1]:
            best[task] = (cutoff, miou)
    return _of_tasks({task: cutoff for task, (cutoff, _) in best.items()}, tasks, path)


def _numbers_per_task(path: Path, columns: tuple[str, ...]) -> Iterator[tuple[int, str, tuple[float, ...]]]:
    """(line, task, values of `columns`) of every row."""
    table = read_csv(path, (*columns, "task"))
    for row, task in enumerate(table["task"]):
        line = line_of(table, row)
        yield line, task, tuple(_finite(table[column][row], place(path, line, column)) for column in columns)


def _finite(text: str, where: str) -> float:
    try:
        value = number_in(text)
    except ValueError:
        value = np.nan
    if not np.isfinite(value):
        raise InputError(f"{where}: {quoted(text)} is not a finite number")
    return value


def _of_tasks(values: Mapping[str, float], tasks: Sequence[str], path: Path) -> dict[str, float]:
    missing = [task for task in tasks if task not in values]
    if missing:
        raise InputError(f"{place(path)}: no row of {', '.join(map(quoted, missing))}; every task scored needs one")
    return {task: values[task] for task in tasks}
