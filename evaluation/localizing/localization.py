"""How well heat maps find what radiologists outlined: IoU of masks, and hits of the map's maximum (CheXlocalize).

CheXlocalize: Saporta et al., Nature Machine Intelligence 2022, doi 10.1038/s42256-022-00536-x. Per film the numbers are
those of its `eval.py`; their means and intervals are in `evaluation.film_statistics`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cxr.files import InputError, place, quoted, read_json
from cxr.heat_maps import HeatMap, HeatMapSource
from cxr.masks import GroundTruth
from evaluation.localizing.scored_tasks import scored_entries
from evaluation.localizing.segmentation import check_film_size
from evaluation.localizing.stretched import StretchedMap
from evaluation.map_pool import over_maps


@dataclass(frozen=True)
class MapScore:
    """One map against the radiologists' mask, in pixels. hit: 1, 0, or NaN without a true mask.

    Without a true mask nothing depends on how many pixels are predicted: `predicted` is 1 where there are any, else 0.
    """

    image_id: str
    task: str
    predicted: int
    intersection: int
    hit: float


@dataclass(frozen=True)
class Scores:
    """Every map of a source, scored, for the tables film x task; their tasks are those of the ground truth."""

    maps: tuple[MapScore, ...]
    ground_truth: GroundTruth
    has_masks: bool

    def iou(self, *, true_pos_only: bool) -> pd.DataFrame:
        """Indexed by image id, a column per task, NaN where undefined: as CheXlocalize's `get_ious`.

        true_pos_only: the films of the ground truth, defined where both masks have pixels. Otherwise also films that
        only have maps, defined where either mask has pixels. A missing map counts as an empty mask; a task without any
        map, or one that was not looked for in a film, is undefined there.
        Raises ValueError when the maps were scored without masks.
        """
        if not self.has_masks:
            raise ValueError("scored with masks=False: there is no IoU")
        predicted, intersection = self._table("predicted"), self._table("intersection")
        films = sorted(
            self.ground_truth.image_ids if true_pos_only else {*self.ground_truth.image_ids, *predicted.index}
        )
        predicted, intersection = (t.reindex(films, fill_value=0.0).fillna(0.0) for t in (predicted, intersection))
        truth = pd.DataFrame([self._areas(film) for film in films], index=films, columns=list(self.ground_truth.tasks))
        defined = (predicted > 0) & (truth > 0) if true_pos_only else (predicted > 0) | (truth > 0)
        with_maps = truth.columns.isin([score.task for score in self.maps])
        return (intersection / (predicted + truth - intersection)).where(defined & truth.notna() & with_maps)

    def hits(self) -> pd.DataFrame:
        """Indexed by image id, a column per task: 1 hit, 0 miss, NaN without a true mask; the films that have both
        ground truth and maps."""
        hits = self._table("hit")
        return hits[hits.index.isin(self.ground_truth.image_ids)]

    def _table(self, value: str) -> pd.DataFrame:
        cells: dict[str, dict[str, float]] = {}
        for score in self.maps:
            cells.setdefault(score.image_id, {})[score.task] = getattr(score, value)
        columns = list(self.ground_truth.tasks)
        return pd.DataFrame.from_dict(cells, orient="index", columns=columns, dtype=float).sort_index()

    def _areas(self, image_id: str) -> list[float]:
        """Of a film without ground truth all are empty, as CheXlocalize has it."""
        truth = self.ground_truth
        looked_for = [image_id not in truth or truth.annotates(image_id, task) for task in truth.tasks]
        return [
            float(truth.area(image_id, task)) if known else np.nan
            for task, known in zip(truth.tasks, looked_for, strict=True)
        ]


Thresholds = Mapping[str, float] | None
"""Task -> threshold of the normalised map; None takes Otsu's."""


def score_maps(
    source: HeatMapSource,
    ground_truth: GroundTruth,
    *,
    thresholds: Thresholds = None,
    cutoffs: Mapping[str, float] | None = None,
    masks: bool = True,
    workers: int = 1,
) -> Scores:
    """Scores every map of the ground truth's tasks.

    cutoffs: task -> probability below which the predicted mask is empty. masks=False saves the time of the masks where
    only hits are wanted.
    Raises InputError as the source does, when no film has both a map and ground truth, and when a film has another
    size in its map than in the ground truth.
    """
    several = [thresholds]
    return score_maps_at(source, ground_truth, thresholds=several, cutoffs=cutoffs, masks=masks, workers=workers)[0]


def score_maps_at(
    source: HeatMapSource,
    ground_truth: GroundTruth,
    *,
    thresholds: Sequence[Thresholds],
    cutoffs: Mapping[str, float] | None = None,
    masks: bool = True,
    workers: int = 1,
) -> list[Scores]:
    """`score_maps` under several thresholds; each map is read and stretched once for all of them."""
    entries = scored_entries(source, ground_truth)
    work = partial(score_map, thresholds=thresholds, cutoffs=cutoffs, masks=masks)
    scored = list(over_maps(work, source, ground_truth, entries, workers=workers, label="localization"))
    return [Scores(maps, ground_truth, masks) for maps in zip(*scored, strict=True)]


def score_map(
    heat_map: HeatMap,
    ground_truth: GroundTruth,
    *,
    thresholds: Sequence[Thresholds],
    cutoffs: Mapping[str, float] | None,
    masks: bool,
) -> list[MapScore]:
    """One map, stretched over the film, against its mask, under each of `thresholds`. A film without ground truth has
    an empty true mask."""
    if heat_map.image_id in ground_truth:
        check_film_size(heat_map, ground_truth)
    masks = masks and heat_map.probability >= (cutoffs[heat_map.task] if cutoffs else 0)
    return score_stretched(StretchedMap(heat_map), true_mask(heat_map, ground_truth), thresholds, masks=masks)


def true_mask(heat_map: HeatMap, ground_truth: GroundTruth) -> np.ndarray | None:
    """(H, W) bool, or None where it has no pixel."""
    image_id, task = heat_map.image_id, heat_map.task
    return ground_truth.mask(image_id, task) if ground_truth.area(image_id, task) else None


def score_stretched(
    stretched: StretchedMap, truth: np.ndarray | None, thresholds: Sequence[Thresholds], *, masks: bool = True
) -> list[MapScore]:
    """A map against the true mask (H, W) bool of the film that it is shown on, under each of `thresholds`."""
    image_id, task = stretched.heat_map.image_id, stretched.heat_map.task
    limits = [chosen[task] if chosen else None for chosen in thresholds]
    if truth is None:
        counts = [int(masks and stretched.is_any_above(limit)) for limit in limits]
        return [MapScore(image_id, task, count, 0, np.nan) for count in counts]
    if not masks:
        return [MapScore(image_id, task, 0, 0, stretched.hits(truth))] * len(limits)
    scores = []
    for limit in limits:
        mask = stretched.above(limit)
        both = int(np.count_nonzero(mask[truth]))
        scores.append(MapScore(image_id, task, int(np.count_nonzero(mask)), both, stretched.hits(truth)))
    return scores


def human_hits(points: Mapping[str, Mapping[str, Any]], ground_truth: GroundTruth) -> pd.DataFrame:
    """Hits of radiologists' points, film x task as `Scores.hits`; a film or task without points is a miss.

    points: image id -> task -> [[x, y], ...] in the film's pixels; one inside the mask is a hit.
    """
    hits = pd.DataFrame(np.nan, index=ground_truth.image_ids, columns=list(ground_truth.tasks))
    for image_id in ground_truth.image_ids:
        for task in ground_truth.tasks:
            if ground_truth.area(image_id, task):
                mask = ground_truth.mask(image_id, task)
                inside = [mask[int(y), int(x)] for x, y in points.get(image_id, {}).get(task, [])]
                hits.loc[image_id, task] = float(any(inside))
    return hits


def read_human_points(path: Path, ground_truth: GroundTruth) -> dict[str, dict[str, list[list[float]]]]:
    """CheXlocalize's json of the most representative points. Raises InputError for a point outside its film."""
    content = read_json(path)
    if not isinstance(content, dict) or not all(isinstance(tasks, dict) for tasks in content.values()):
        raise InputError(f"{place(path)}: expected a json object of image id -> task -> [[x, y], ...]")
    scored = ((i, t) for i in content for t in content[i] if i in ground_truth and t in ground_truth.tasks)
    for image_id, task in scored:
        height, width = ground_truth.size(image_id)
        points = content[image_id][task]
        for point in points if isinstance(points, list) else [points]:
            if not _is_inside(point, width, height):
                shown = ", ".join(map(quoted, point[:3])) if isinstance(point, list) else quoted(point)
                where = place(path, column=f"{image_id}, {task}")
                raise InputError(f"{where}: [{shown}] is not a point [x, y] of {width} x {height} pixels")
    return content


def _is_inside(point: Any, width: int, height: int) -> bool:
    numbers = isinstance(point, list) and len(point) == 2 and all(isinstance(n, (int, float)) for n in point)
    return numbers and 0 <= point[0] < width and 0 <= point[1] < height
