"""A map times the location prior: does a map say more about where a lesion lies than lesions' habits do?

(map - its minimum) x (prior + floor), as evidence and prior multiply in a posterior. The floor, which says how much a
place counts where no validation film has an outline, is chosen per method by the hit rate on the validation films, each
with the prior of the other patients' films.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch.nn.functional import interpolate

from cxr.files import InputError, place
from cxr.heat_maps import HeatMap, HeatMapSource
from cxr.masks import GroundTruth
from cxr.tables import read_csv
from evaluation.localizing.location_prior import LocationPrior
from evaluation.localizing.outlined_films import OutlinedFilms
from evaluation.localizing.scored_tasks import scored_entries
from evaluation.map_pool import over_maps

FLOORS = (0.02, 0.05, 0.01, 0.1, 0.005, 0.2, 0.5, 1.0)
"""Those tried; of equally good ones the first is taken."""


@dataclass(frozen=True)
class FilmPriors:
    """The location prior of the films of a split, by film and task."""

    prior: LocationPrior
    films: OutlinedFilms

    def plane(self, film: str, task: str) -> np.ndarray | None:
        """(SIDE, SIDE) float32, or None for a task that no validation film has an outline of."""
        return self.prior.plane(film, self.films.view(film), task)

    def has(self, task: str) -> bool:
        """Whether some validation film has an outline of the task."""
        return self.prior.plane("", "", task) is not None


def with_prior(heat_map: HeatMap, plane: np.ndarray, floor: float) -> HeatMap:
    """The map times the prior, which is stretched over it. plane: (SIDE, SIDE) in [0, 1]."""
    product = (heat_map.map - heat_map.map.min()) * (_over(plane, heat_map.map.shape) + np.float32(floor))
    return replace(heat_map, map=product)


def posterior_map(heat_map: HeatMap, *, priors: FilmPriors, floor: float) -> HeatMap | None:
    """The map times the prior of its film; None for a task without prior.

    A validation film that is the only one with an outline has no prior but its own: it gets an even one.
    """
    if not priors.has(heat_map.task):
        return None
    plane = priors.plane(heat_map.image_id, heat_map.task)
    return with_prior(heat_map, np.zeros((1, 1), np.float32) if plane is None else plane, floor)


def _over(plane: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """(SIDE, SIDE) -> (h, w) float32, bilinearly."""
    tensor = torch.from_numpy(plane)[None, None]  # (1, 1, SIDE, SIDE)
    return interpolate(tensor, size=shape, mode="bilinear", align_corners=False)[0, 0].numpy()


def floor_hits(heat_map: HeatMap, truth: GroundTruth, *, priors: FilmPriors) -> np.ndarray | None:
    """(len(FLOORS),) whether the product's largest pixel has its centre in the mask; None without mask or prior.

    The film's size is not gone to, which scoring does: this is for the choice among floors only.
    """
    film, task = heat_map.image_id, heat_map.task
    plane = priors.plane(film, task) if truth.area(film, task) else None
    if plane is None:
        return None
    mask, (height, width) = truth.mask(film, task), heat_map.map.shape
    evidence, habit = heat_map.map - heat_map.map.min(), _over(plane, heat_map.map.shape)
    hits = []
    for floor in FLOORS:
        y, x = divmod(int((evidence * (habit + np.float32(floor))).argmax()), width)
        hits.append(mask[int((y + 0.5) * mask.shape[0] / height), int((x + 0.5) * mask.shape[1] / width)])
    return np.array(hits, dtype=float)


def outlined_floor_hits(
    source: HeatMapSource, priors: FilmPriors, *, workers: int
) -> dict[tuple[str, str], np.ndarray | None]:
    """(film, task) -> `floor_hits` of the maps of outlined films, the only ones that it is defined for."""
    truth = priors.films.truth
    entries = [entry for entry in scored_entries(source, truth) if truth.area(*entry)]
    hits = over_maps(partial(floor_hits, priors=priors), source, truth, entries, workers=workers, label="prior's floor")
    return dict(zip(entries, hits, strict=True))


def floor_table(hits: Mapping[tuple[str, str], np.ndarray | None]) -> pd.DataFrame:
    """`floor`, `hit_rate` (mean over the tasks of the mean over the films), `films` (film-task pairs), `chosen`.

    hits: (film, task) -> (len(FLOORS),). Without any film, the first floor is chosen.
    """
    by_task: dict[str, list[np.ndarray]] = {}
    for (_, task), of_film in hits.items():
        if of_film is not None:
            by_task.setdefault(task, []).append(of_film)
    rates = np.mean([np.mean(rows, axis=0) for rows in by_task.values()], axis=0) if by_task else None
    best = 0 if rates is None else int(np.argmax(np.round(rates, 12)))
    table = pd.DataFrame({"floor": FLOORS, "hit_rate": np.nan if rates is None else rates})
    return table.assign(films=sum(map(len, by_task.values())), chosen=(np.arange(len(FLOORS)) == best).astype(int))


def read_floor(path: Path) -> float:
    """The floor chosen in a file of `floor_table`. Raises InputError when it does not hold just one."""
    table = read_csv(path, ("floor", "chosen"))
    try:
        chosen = [float(floor) for floor, mark in zip(table["floor"], table["chosen"], strict=True) if mark == "1"]
    except ValueError:
        chosen = []
    if len(chosen) != 1 or not 0 <= chosen[0] <= 1:
        raise InputError(f"{place(path)}: no single floor from 0 to 1 is chosen in it; delete the file and run again")
    return chosen[0]
