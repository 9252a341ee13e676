"""Maps that never saw the film: what localization scores are worth must be judged beside theirs.

Each control is a source of heat maps and is scored like a method: the mean validation mask of the film's view (location
prior), the distance from the film's centre, and the map of another positive film of that view (shuffled). The expected
hit rate of a random pixel is the share of the film that the mask covers (chance).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from torch.nn.functional import adaptive_avg_pool2d

from cxr.files import InputError, place
from cxr.heat_maps import HeatMap, HeatMapSource
from cxr.masks import GroundTruth
from evaluation.bootstrap import interval, mean_of_defined, resample_weights

SIDE = 128
"""Pixels per axis of the prior; every film is stretched over the same square."""
SIZE_BINS = (0.01, 0.03, 0.10)
"""Shares of the film between which lesions are counted apart."""
SIZE_NAMES = ("<1%", "1-3%", "3-10%", ">10%")
ALL = "all"


@dataclass(frozen=True)
class LocationPrior:
    """Mean masks of the validation films. planes: (view, task) -> (SIDE, SIDE) float32 in [0, 1].

    A view in which a task is outlined in no film has no plane; the mean over all films, `ALL`, stands for it.
    """

    planes: Mapping[tuple[str, str], np.ndarray]

    @classmethod
    def of(cls, truth: GroundTruth, views: Mapping[str, str]) -> LocationPrior:
        """truth: of the validation films; views: film id -> view, missing or empty where it is not known.

        The mean runs over the films in which the task was looked for.
        Raises InputError when no film has an outline.
        """
        sums: dict[tuple[str, str], np.ndarray] = {}
        counts: dict[tuple[str, str], int] = {}
        for film in truth.image_ids:
            for task in (task for task in truth.tasks if truth.annotates(film, task)):
                plane = stretched(truth.mask(film, task)) if truth.area(film, task) else None
                for view in {ALL, views.get(film) or ALL}:
                    counts[view, task] = counts.get((view, task), 0) + 1
                    if plane is not None:
                        sums[view, task] = sums.get((view, task), 0.0) + plane
        if not sums:
            raise InputError(f"{place(truth.source)}: no outline in any film; the location prior needs some")
        return cls({key: (total / counts[key]).astype(np.float32) for key, total in sums.items()})

    def plane(self, view: str, task: str) -> np.ndarray | None:
        """(SIDE, SIDE), or None for a task that no validation film has an outline of."""
        found = self.planes.get((view, task))
        return self.planes.get((ALL, task)) if found is None else found


def stretched(mask: np.ndarray) -> np.ndarray:
    """(H, W) -> (SIDE, SIDE) float64: the share of each cell that the mask covers."""
    return adaptive_avg_pool2d(torch.from_numpy(mask)[None].double(), SIDE)[0].numpy()


class ControlMaps:
    """Maps of one kind for the outlined film-task pairs of a ground truth: planes, stretched over each film."""

    def __init__(self, truth: GroundTruth, planes: Mapping[tuple[str, str], np.ndarray]) -> None:
        """planes: (film id, task) -> (h, w)."""
        self._truth, self._planes = truth, planes
        self.entries = sorted(key for key in planes if truth.area(*key))

    def load(self, image_id: str, task: str) -> HeatMap:
        height, width = self._truth.size(image_id)
        plane = np.ascontiguousarray(self._planes[image_id, task], dtype=np.float32)
        return HeatMap(image_id, task, plane, 1.0, 1, (width, height))

    def film_pixels(self, image_id: str) -> np.ndarray:
        """A control never saw the film."""
        raise InputError(f"{place(image_id)}: a control has no film")


def prior_maps(prior: LocationPrior, truth: GroundTruth, views: Mapping[str, str]) -> ControlMaps:
    """The location prior as a heat map of every film; without a plane there is no map."""
    planes = {(film, task): prior.plane(views.get(film, ""), task) for film, task in _positive(truth)}
    return ControlMaps(truth, {key: plane for key, plane in planes.items() if plane is not None})


def centre_maps(truth: GroundTruth) -> ControlMaps:
    """1 at the film's centre and less with the distance from it, in shares of the film's sides."""
    offset = (np.arange(SIDE + 1) / SIDE - 0.5) ** 2  # an odd number of pixels: one is the centre
    plane = 1 - offset[:, None] - offset[None, :]
    return ControlMaps(truth, dict.fromkeys(_positive(truth), plane))


class ShuffledMaps:
    """For every outlined film, the map of another outlined film of that view, drawn by hash of (seed, film, task).

    A film that is the only one of its view with the task has no map.
    """

    def __init__(self, source: HeatMapSource, truth: GroundTruth, views: Mapping[str, str], seed: int) -> None:
        self._source, self._truth = source, truth
        with_map = set(source.entries)
        groups: dict[tuple[str, str], list[str]] = {}
        for film, task in _positive(truth):
            if (film, task) in with_map:
                groups.setdefault((views.get(film, ""), task), []).append(film)
        self.donors = {
            (film, task): _other(film, films, f"{seed}/{film}/{task}")
            for (_, task), films in groups.items()
            for film in films
            if len(films) > 1
        }
        self.entries = sorted(self.donors)

    def load(self, image_id: str, task: str) -> HeatMap:
        height, width = self._truth.size(image_id)
        donor = self._source.load(self.donors[image_id, task], task)
        return replace(donor, image_id=image_id, film_size=(width, height))

    def film_pixels(self, image_id: str) -> np.ndarray:
        return self._source.film_pixels(image_id)


def _other(film: str, films: Sequence[str], key: str) -> str:
    others = [other for other in films if other != film]
    digest = hashlib.sha256(key.encode(errors="surrogateescape")).digest()
    return others[int.from_bytes(digest[:8], "big") % len(others)]


def _positive(truth: GroundTruth) -> list[tuple[str, str]]:
    """(film id, task) of every outline."""
    return [(film, task) for film in truth.image_ids for task in truth.tasks if truth.area(film, task)]


def area_shares(truth: GroundTruth) -> pd.DataFrame:
    """Film x task: share of the film inside the mask, NaN without one: the hit rate of a random pixel."""
    table = pd.DataFrame(np.nan, index=truth.image_ids, columns=list(truth.tasks))
    for film, task in _positive(truth):
        height, width = truth.size(film)
        table.loc[film, task] = truth.area(film, task) / (height * width)
    return table


def by_size(hits: pd.DataFrame, shares: pd.DataFrame) -> pd.DataFrame:
    """`size`, `hits`, `films` per bin of the lesions' share of the film, over all tasks; undefined hits are out."""
    values = hits.to_numpy(float).ravel()
    areas = shares.reindex(index=hits.index, columns=hits.columns).to_numpy(float).ravel()
    known = ~np.isnan(values) & ~np.isnan(areas)
    bins = np.digitize(areas[known], SIZE_BINS)
    inside = [bins == index for index in range(len(SIZE_NAMES))]
    rows = [(name, int(values[known][b].sum()), int(b.sum())) for name, b in zip(SIZE_NAMES, inside, strict=True)]
    return pd.DataFrame(rows, columns=["size", "hits", "films"])


def mean_interval(
    per_film: pd.DataFrame, units: np.ndarray, *, resamples: int, seed: int
) -> tuple[float, float, float]:
    """Mean over the tasks of the mean over films, and its 95% percentile interval.

    per_film: film x task, NaN where undefined; units: (N,) index of the patient, or of the film, drawn with each film.
    """
    values = per_film.to_numpy(float).T  # (task, film)
    defined = (~np.isnan(values)).astype(float)
    filled = np.nan_to_num(values)
    parts = []
    for weights in resample_weights(units, resamples, seed):  # (film, resample)
        count = defined @ weights
        means = np.divide(filled @ weights, count, out=np.full(count.shape, np.nan), where=count > 0)
        parts.append(mean_of_defined(means))
    found = interval(np.concatenate(parts))
    return float(per_film.mean().mean()), found.low, found.high
