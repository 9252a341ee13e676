"""A method's test maps scored together with their controls and posterior; every map is read once for all of them.

A map is scored on its own film; as the map of other films (shuffled), whose donor its film is; and times the location
prior, on its own film (where, at thresholds of its own, it is scored as the posterior too) and on those.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import numpy as np
import pandas as pd

from cxr.heat_maps import HeatMap, HeatMapSource
from cxr.masks import GroundTruth
from evaluation.localizing.heatmap_thresholds import tune
from evaluation.localizing.localization import MapScore, Scores, Thresholds, score_map, score_maps
from evaluation.localizing.location_prior import (
    ControlMaps,
    LocationPrior,
    area_shares,
    centre_maps,
    outlined,
    prior_maps,
    shuffled_donors,
)
from evaluation.localizing.miou_curves import miou_curves
from evaluation.localizing.outlined_films import OutlinedFilms
from evaluation.localizing.scored_tasks import scored_entries
from evaluation.localizing.with_prior import FilmPriors, posterior_map, with_prior
from evaluation.map_pool import over_maps

Cell = tuple[str, str]
"""(film id, task)"""

OF_METHOD = ("with_prior_hit", "shuffled_hit", "shuffled_iou", "shuffled_with_prior_hit")
OF_NO_METHOD = ("chance", "centre_hit", "centre_iou", "prior_hit", "prior_iou")
"""Columns of the per-film tables: hits 0 or 1, IoU in [0, 1] where both masks have pixels, blank where undefined."""


@dataclass(frozen=True)
class Controls:
    """The data for controls of one method's maps. recipients: (donor, task) -> the films that are shown its map."""

    priors: FilmPriors
    floor: float
    recipients: Mapping[Cell, Sequence[str]]


class MapScores(NamedTuple):
    """One map. own, posterior: under each of their thresholds, the latter empty where it is not asked for or has no
    prior; controls: film and task -> column of OF_METHOD -> value."""

    own: list[MapScore]
    posterior: list[MapScore]
    controls: dict[Cell, dict[str, float]]


class MethodScores(NamedTuple):
    """All maps of a method. own, posterior: under each of their thresholds. cells: the controls per outlined film that
    has a map: `img_id`, `task`, OF_METHOD, and `shuffled_from`, empty for a film that is the only one of its view with
    the task."""

    own: list[Scores]
    posterior: list[Scores]
    cells: pd.DataFrame


def score_with_controls(
    source: HeatMapSource,
    films: OutlinedFilms,
    prior: LocationPrior,
    *,
    thresholds: Sequence[Thresholds],
    floor: float,
    seed: int,
    workers: int,
    posterior: Sequence[Thresholds] = (),
) -> MethodScores:
    """`score_maps_at` of the maps and, at the thresholds `posterior`, of the maps times the prior; and their controls.

    The IoU of shuffled maps is taken at the first of the maps' own thresholds.
    """
    entries, truth = scored_entries(source, films.truth), films.truth
    donors = shuffled_donors(entries, films, seed)
    recipients: dict[Cell, list[str]] = {}
    for (film, task), donor in donors.items():
        recipients.setdefault((donor, task), []).append(film)
    work = partial(
        score_own_and_controls,
        thresholds=thresholds,
        controls=Controls(FilmPriors(prior, films), floor, recipients),
        posterior=posterior,
    )
    scored = list(over_maps(work, source, truth, entries, workers=workers, label="localization"))
    own = _scores((of_map.own for of_map in scored), truth)
    of_posterior = _scores((of_map.posterior for of_map in scored if of_map.posterior), truth)
    cells: dict[Cell, dict[str, float]] = {}
    for of_map in scored:
        for cell, values in of_map.controls.items():
            cells.setdefault(cell, {}).update(values)
    rows = [
        {"img_id": film, "task": task, "shuffled_from": donors.get((film, task), "")} | cells.get((film, task), {})
        for film, task in entries
        if truth.area(film, task)
    ]
    return MethodScores(own, of_posterior, pd.DataFrame(rows, columns=["img_id", "task", "shuffled_from", *OF_METHOD]))


def _scores(of_maps: Iterable[list[MapScore]], truth: GroundTruth) -> list[Scores]:
    """Scores per map and threshold -> per threshold."""
    return [Scores(maps, truth, has_masks=True) for maps in zip(*of_maps, strict=True)]


def score_own_and_controls(
    heat_map: HeatMap,
    truth: GroundTruth,
    *,
    thresholds: Sequence[Thresholds],
    controls: Controls,
    posterior: Sequence[Thresholds],
) -> MapScores:
    """One map on its own film, alone and as the posterior, and in its parts as a control."""
    film, task = heat_map.image_id, heat_map.task
    own = score_map(heat_map, truth, thresholds=thresholds, cutoffs=None, masks=True)
    product = posterior_map(heat_map, priors=controls.priors, floor=controls.floor) if posterior else None
    of_posterior = [] if product is None else score_map(product, truth, thresholds=posterior, cutoffs=None, masks=True)
    cells: dict[Cell, dict[str, float]] = {}
    if truth.area(film, task):
        cells[film, task] = {"with_prior_hit": _hit_with_prior(heat_map, truth, controls)}
    for other in controls.recipients.get((film, task), ()):
        height, width = truth.size(other)
        shown = replace(heat_map, image_id=other, film_size=(width, height))
        (score,) = score_map(shown, truth, thresholds=thresholds[:1], cutoffs=None, masks=True)
        cells[other, task] = {
            "shuffled_hit": score.hit,
            "shuffled_iou": _iou(score, truth.area(other, task)),
            "shuffled_with_prior_hit": _hit_with_prior(shown, truth, controls),
        }
    return MapScores(own, of_posterior, cells)


def _hit_with_prior(heat_map: HeatMap, truth: GroundTruth, controls: Controls) -> float:
    plane = controls.priors.plane(heat_map.image_id, heat_map.task)
    if plane is None:
        return np.nan
    product = with_prior(heat_map, plane, controls.floor)
    return score_map(product, truth, thresholds=[None], cutoffs=None, masks=False)[0].hit


def _iou(score: MapScore, area: int) -> float:
    """Of a film with a true mask; NaN for an empty predicted one."""
    return score.intersection / (score.predicted + area - score.intersection) if score.predicted else np.nan


def without_method(prior: LocationPrior, test: OutlinedFilms, *, search: str, workers: int) -> pd.DataFrame:
    """The controls that need no method, per outlined test film: `img_id`, `task`, `view`, `patient`, OF_NO_METHOD.

    The thresholds of centre and prior are tuned on the validation films, whose prior leaves out their own patient.
    """
    cells = outlined(test.truth)
    facts = [(film, task, test.view(film), test.patient(film)) for film, task in cells]
    table = pd.DataFrame(facts, columns=["img_id", "task", "view", "patient"])
    tables = {"chance": area_shares(test.truth)}
    for name, maps_of in (("centre", centre_maps), ("prior", partial(prior_maps, prior))):
        validation, maps = (maps_of(films) for films in (prior.films, test))
        of_control = _score_control(validation, maps, prior.films.truth, test.truth, search, workers)
        tables |= {f"{name}_{measure}": of_measure for measure, of_measure in of_control.items()}
    for column in OF_NO_METHOD:
        values = tables[column]
        table[column] = [
            values.loc[film, task] if film in values.index and task in values else np.nan for film, task in cells
        ]
    return table


def _score_control(
    validation: ControlMaps, test: ControlMaps, val_truth: GroundTruth, truth: GroundTruth, search: str, workers: int
) -> dict[str, pd.DataFrame]:
    """`hit`, and `iou` at tuned thresholds, film x task; a task that is outlined in no validation film has no IoU."""
    if not test.entries:
        return dict.fromkeys(("hit", "iou"), pd.DataFrame())
    tuned = {}
    if validation.entries:
        table = tune(miou_curves(validation, val_truth, true_pos_only=True, workers=workers), search).dropna()
        tuned = dict(zip(table["task"], table["threshold"], strict=True))
    scores = score_maps(test, truth, thresholds=dict.fromkeys(truth.tasks, 1.0) | tuned, workers=workers)
    ious = scores.iou(true_pos_only=True)
    return {"hit": scores.hits(), "iou": ious[[task for task in ious if task in tuned]]}
