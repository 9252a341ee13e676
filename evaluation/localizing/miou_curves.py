"""The mean IoU of a task's heat maps at every threshold, on the films of validation.

A threshold is k / 65536. A pixel v of a normalised map is above it just when ceil(65536 v) > k, and 65536 v is exact in
float32; so one histogram of all pixels and one of those inside the mask give the IoU at all thresholds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple, TypeVar

import numpy as np
import torch

from cxr.heat_maps import HeatMap, HeatMapSource
from cxr.masks import GroundTruth
from evaluation.localizing.scored_tasks import scored_entries
from evaluation.localizing.segmentation import check_film_size, value_range
from evaluation.localizing.stretched import StretchedMap
from evaluation.map_pool import over_maps

T = TypeVar("T")

STEPS = 65536
"""Thresholds searched: k / STEPS for k = 0 .. STEPS - 1."""

_CHUNK = 2**19  # pixels binned at once: what a core's cache holds

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

Version = Callable[[HeatMap], HeatMap | None]
"""Makes of a map that was read the one that is tuned, or None; a function of a module, or a partial of one."""

_MOST_CURVES = 256
"""Curves of single maps kept at once (128 MiB); more only where one task has more."""


def miou_curves(
    source: HeatMapSource, ground_truth: GroundTruth, *, true_pos_only: bool, workers: int = 1
) -> TaskCurves:
    """The mean curves of every task of the ground truth in one of the two countings.

    Defined as CheXlocalize's tuning defines them: maps of films without ground truth are left out. A task without maps
    is NaN. Raises InputError as the source does, when no map can be scored, and when a film has another size in its map
    than in the ground truth.
    """
    ((true_pos, all_cases),), _ = _mean_curves(
        source, ground_truth, [as_it_is], _nothing, all_cases=not true_pos_only, workers=workers
    )
    return true_pos if true_pos_only else all_cases


def miou_curves_of_both(
    source: HeatMapSource, ground_truth: GroundTruth, *, workers: int = 1
) -> tuple[TaskCurves, TaskCurves]:
    """`miou_curves` over true positives only, and over all cases; each map is read once for both."""
    return miou_curves_of_versions(source, ground_truth, [as_it_is], workers=workers)[0]


def miou_curves_of_versions(
    source: HeatMapSource, ground_truth: GroundTruth, versions: Sequence[Version], *, workers: int = 1
) -> list[tuple[TaskCurves, TaskCurves]]:
    """`miou_curves_of_both` of every version of the maps; each map is read once for all of them.

    A task that a version has no map of is NaN there.
    """
    return _mean_curves(source, ground_truth, versions, _nothing, all_cases=True, workers=workers)[0]


def miou_curves_and_more(
    source: HeatMapSource, ground_truth: GroundTruth, more: Callable[[HeatMap, GroundTruth], T], *, workers: int = 1
) -> tuple[TaskCurves, TaskCurves, dict[tuple[str, str], T]]:
    """`miou_curves_of_both`, and (film, task) -> `more` of every map that counts, which is read once for all three.

    more: a function of a module, or a `functools.partial` of one.
    """
    (curves,), further = _mean_curves(source, ground_truth, [as_it_is], more, all_cases=True, workers=workers)
    return *curves, further


def as_it_is(heat_map: HeatMap) -> HeatMap:
    """The version of a map that is the map itself."""
    return heat_map


def _nothing(heat_map: HeatMap, ground_truth: GroundTruth) -> None:
    return None


def _curves_and_more(
    heat_map: HeatMap,
    ground_truth: GroundTruth,
    versions: Sequence[Version],
    more: Callable[[HeatMap, GroundTruth], T],
    all_cases: bool,
) -> tuple[list[IouCurves | None], T]:
    made = [version(heat_map) for version in versions]
    curves = [None if one is None else iou_curves(one, ground_truth, all_cases=all_cases) for one in made]
    return curves, more(heat_map, ground_truth)


def _mean_curves(
    source: HeatMapSource,
    ground_truth: GroundTruth,
    versions: Sequence[Version],
    more: Callable[[HeatMap, GroundTruth], T],
    *,
    all_cases: bool,
    workers: int,
) -> tuple[list[tuple[TaskCurves, TaskCurves]], dict[tuple[str, str], T]]:
    """The mean curves of every version, and `more` of every map that was read.

    Maps are not read where the film has no ground truth, or the task was not looked for in it: they count nowhere.
    """
    entries = scored_entries(source, ground_truth)
    counted = [(film, task) for film, task in entries if film in ground_truth and ground_truth.annotates(film, task)]
    work = partial(_curves_and_more, versions=versions, more=more, all_cases=all_cases)
    undefined = dict.fromkeys(ground_truth.tasks, np.full(STEPS, np.nan))
    means = [(undefined.copy(), undefined.copy()) for _ in versions]
    further: dict[tuple[str, str], T] = {}
    for tasks in _groups_of_tasks(counted, ground_truth, len(versions)):
        of_group = sorted(entry for entry in counted if entry[1] in tasks)
        results = over_maps(work, source, ground_truth, of_group, workers=workers, label="thresholds")
        found = dict(zip(of_group, results, strict=True))
        further |= {entry: seen for entry, (_, seen) in found.items()}
        for task in tasks:
            of_task = [found.pop(entry, None) for entry in sorted(entries) if entry[1] == task]
            for number, (true_pos, cases) in enumerate(means):
                curves = [_UNDEFINED if of_map is None else of_map[0][number] for of_map in of_task]
                _add_means(task, curves, true_pos, cases)
            del of_task, curves  # or the next group's processes would begin with these as well
    return means, further


def _add_means(task: str, curves: Sequence[IouCurves | None], true_pos: TaskCurves, all_cases: TaskCurves) -> None:
    """Adds the mean curves of a task, unless a version has no map of it."""
    defined = [curve for curve in curves if curve is not None]
    if len(defined) == len(curves):
        true_pos[task], all_cases[task] = map(_mean_over_maps, zip(*defined, strict=True))


_UNDEFINED = IouCurves(np.nan, np.nan)


def _groups_of_tasks(entries: Sequence[tuple[str, str]], ground_truth: GroundTruth, versions: int) -> list[list[str]]:
    """The tasks, those together whose maps give at most `_MOST_CURVES` curves: every outlined one gives `versions`.

    Films are read once per group. Maps without an outline give numbers, which take no memory.
    """
    counts = dict.fromkeys(sorted({task for _, task in entries}), 0)
    for image_id, task in entries:
        counts[task] += versions * (ground_truth.area(image_id, task) > 0)
    groups: list[list[str]] = []
    kept = 0
    for task, count in counts.items():
        if not groups or kept + count > _MOST_CURVES:
            groups.append([])
            kept = 0
        groups[-1].append(task)
        kept += count
    return groups


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
