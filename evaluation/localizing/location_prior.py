"""Maps that never saw the film: what localization scores are worth must be judged beside theirs.

Each control is a source of heat maps and is scored like a method: the mean validation mask of the film's view (location
prior) and the distance from the film's centre. `shuffled_donors` says which other film's map stands for a film's own.
The expected hit rate of a random pixel is the share of the film that the mask covers (chance).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch.nn.functional import adaptive_avg_pool2d

from cxr.files import InputError, place
from cxr.heat_maps import HeatMap
from cxr.masks import GroundTruth
from evaluation.localizing.outlined_films import OutlinedFilms

SIDE = 128
"""Pixels per axis of the prior; every film is stretched over the same square."""
ALL = "all"


@dataclass(frozen=True)
class LocationPrior:
    """Mean masks of the validation films, per view and task.

    own: (film, task) -> (SIDE, SIDE) float32, share of each cell inside the mask; None where the task was looked for
    and nothing is there. sums: (view, task) -> (SIDE, SIDE) float64. counts: (view, task) -> films, and those with an
    outline. `ALL` is a view of all films.
    """

    films: OutlinedFilms
    own: Mapping[tuple[str, str], np.ndarray | None]
    sums: Mapping[tuple[str, str], np.ndarray]
    counts: Mapping[tuple[str, str], tuple[int, int]]

    @classmethod
    def of(cls, films: OutlinedFilms) -> LocationPrior:
        """films: of validation. The mean runs over the films in which the task was looked for."""
        truth = films.truth
        own = {
            (film, task): stretched(truth.mask(film, task)) if truth.area(film, task) else None
            for film in truth.image_ids
            for task in truth.tasks
            if truth.annotates(film, task)
        }
        sums: dict[tuple[str, str], np.ndarray] = {}
        counts: dict[tuple[str, str], tuple[int, int]] = {}
        for (film, task), plane in own.items():
            for view in {ALL, films.view(film) or ALL}:
                looked_for, outlined = counts.get((view, task), (0, 0))
                counts[view, task] = looked_for + 1, outlined + (plane is not None)
                total = sums.setdefault((view, task), np.zeros((SIDE, SIDE)))
                total += 0 if plane is None else plane
        return cls(films, own, sums, counts)

    def plane(self, film: str, view: str, task: str) -> np.ndarray | None:
        """(SIDE, SIDE) float32 in [0, 1] for a film of this view; None for a task that is outlined in no film.

        Where a view has no outline of the task, the mean over all films stands for it. A validation film is left out of
        its own prior, together with the other films of its patient.
        """
        left_out = self._films_of_patient(film)
        for name in (view or ALL, ALL):
            looked_for, outlined = self.counts.get((name, task), (0, 0))
            without = [f for f in left_out if (f, task) in self.own and name in (ALL, self.films.view(f) or ALL)]
            planes = [plane for f in without if (plane := self.own[f, task]) is not None]
            if outlined > len(planes):
                total = self.sums[name, task] - sum(plane.astype(np.float64) for plane in planes)
                return (total / (looked_for - len(without))).clip(0, 1).astype(np.float32)
        return None

    def _films_of_patient(self, film: str) -> list[str]:
        """The validation films of a validation film's patient; empty for other films."""
        if film not in self.films.truth:
            return []
        patient = self.films.patient(film)
        return [f for f in self.films.truth.image_ids if f == film or (patient and self.films.patient(f) == patient)]


def stretched(mask: np.ndarray) -> np.ndarray:
    """(H, W) -> (SIDE, SIDE) float32: the share of each cell that the mask covers."""
    return adaptive_avg_pool2d(torch.from_numpy(mask)[None].double(), SIDE)[0].float().numpy()


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


def prior_maps(prior: LocationPrior, films: OutlinedFilms) -> ControlMaps:
    """Shows the location prior as the heat map of every outlined film that has a plane."""
    planes = {(film, task): prior.plane(film, films.view(film), task) for film, task in outlined(films.truth)}
    return ControlMaps(films.truth, {key: plane for key, plane in planes.items() if plane is not None})


def centre_maps(films: OutlinedFilms) -> ControlMaps:
    """1 at the film's centre and less with the distance from it, in shares of the film's sides."""
    offset = (np.arange(SIDE + 1) / SIDE - 0.5) ** 2  # an odd number of pixels: one is the centre
    plane = 1 - offset[:, None] - offset[None, :]
    return ControlMaps(films.truth, dict.fromkeys(outlined(films.truth), plane))


def shuffled_donors(
    with_maps: Sequence[tuple[str, str]], films: OutlinedFilms, seed: int
) -> dict[tuple[str, str], str]:
    """Maps (film, task) to the other outlined film of that view whose map it is shown, drawn by hash of these and seed.

    with_maps: (film, task) of all maps. Films of the same patient are no other film. An outlined film without another
    one has no donor.
    """
    groups: dict[tuple[str, str], list[str]] = {}
    for film, task in sorted(set(with_maps)):
        if films.truth.area(film, task):
            groups.setdefault((films.view(film), task), []).append(film)
    donors = {}
    for (_, task), group in groups.items():
        for film in group:
            patient = films.patient(film) or film
            others = [other for other in group if other != film and films.patient(other) != patient]
            if others:
                donors[film, task] = others[_drawn(f"{seed}/{film}/{task}", len(others))]
    return donors


def _drawn(key: str, below: int) -> int:
    digest = hashlib.sha256(key.encode(errors="surrogateescape")).digest()
    return int.from_bytes(digest[:8], "big") % below


def outlined(truth: GroundTruth) -> list[tuple[str, str]]:
    """(film id, task) of every outline."""
    return [(film, task) for film in truth.image_ids for task in truth.tasks if truth.area(film, task)]


def area_shares(truth: GroundTruth) -> pd.DataFrame:
    """Film x task: share of the film inside the mask, NaN without one: the hit rate of a random pixel."""
    table = pd.DataFrame(np.nan, index=truth.image_ids, columns=list(truth.tasks))
    for film, task in outlined(truth):
        height, width = truth.size(film)
        table.loc[film, task] = truth.area(film, task) / (height * width)
    return table
