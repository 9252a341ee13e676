"""The audit's tables of one network: a row per film, label and method, and from these means with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch.nn.functional import adaptive_avg_pool2d

from cxr.images import Crop
from cxr.masks import GroundTruth
from cxr.names import CHANCE, SIGNED_CAM, SIGNED_CAM_RELATIVE, predictions_file
from cxr.paths import patient_of
from cxr.predictions import read_predictions
from evaluation.audit.faithfulness import (
    Curves,
    area_gains,
    border_ring,
    by_map,
    curve_share,
    infidelity,
    pixel_ranking,
    rank_correlation,
    same_top_patch,
    shares_inside,
)
from evaluation.audit.grid_pointing import FILMS as GRID_FILMS
from evaluation.audit.grid_pointing import draw_grids, pointing_shares
from evaluation.bootstrap import units_of
from evaluation.film_statistics import Resampling, mean_rows
from evaluation.localizing.outlined_films import OutlinedFilms


@dataclass(frozen=True)
class FilmFacts:
    """body: (S, S) bool, of the crop; linear: whether effects of patches add up."""

    film_id: str
    body: np.ndarray
    linear: bool


@dataclass
class FilmScores:
    """curves: label -> those of `evaluation.audit.faithfulness`."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    curves: dict[str, Curves] = field(default_factory=dict)

    def add(self, other: FilmScores) -> None:
        self.rows += other.rows
        self.curves |= other.curves


def score_task(
    facts: FilmFacts,
    label: str,
    maps: Mapping[str, np.ndarray],
    patches: Mapping[str, np.ndarray],
    drops: Mapping[str, np.ndarray],
    curves: Curves,
) -> FilmScores:
    """The measures of one film and label that need no mask, per method, and of a map that says nothing.

    maps: method -> (S, S), of the crop; patches: method -> (k, k); drops: fill -> (k, k); curves: of the methods and of
    chance, empty where none are asked for.
    """
    ring, outside = border_ring(*facts.body.shape), ~facts.body
    rows = []
    for method, values in maps.items():
        row: dict[str, Any] = {"Film": facts.film_id, "label": label, "method": method}
        for fill, of_fill in drops.items():
            row |= _effects(patches[method], of_fill, fill, facts.linear)
        shares = shares_inside(values, [ring, outside])
        rows.append(row | dict(zip(("border", "outside"), shares, strict=True)))
    rows.append(_chance(facts, label, drops) | {"border": float(ring.mean()), "outside": float(outside.mean())})
    for row in rows:
        row |= _gains(row["method"], curves)
    return FilmScores(rows, {label: curves} if curves else {})


def _gains(method: str, curves: Curves) -> dict[str, float]:
    found: dict[str, float] = {}
    for (of, fill), curve in curves.items():
        if of == method:
            gains = area_gains(curve, curves[CHANCE, fill])
            found |= {f"{kind}_gain {fill}": gain for kind, gain in zip(_CURVES, gains, strict=True)}
    return found


def score_mask(rows: Sequence[dict[str, Any]], maps: Mapping[str, np.ndarray], mask: CropMask) -> None:
    """Adds the measures that need a mask to the rows of `score_task`. maps: method -> (S, S), of the crop."""
    for row in rows:
        if row["method"] == CHANCE:
            row |= {"energy": float(mask.inside.mean(dtype=np.float64)), "auroc": 0.5, "auprc": mask.share}
            row |= {"hit": mask.share} if SIGNED_CAM in maps else {}
            continue
        values = maps[row["method"]]
        (row["energy"],) = shares_inside(values, [mask.inside])
        row["auroc"], row["auprc"] = pixel_ranking(values, mask.inside, mask.unseen)
        if row["method"] in (SIGNED_CAM, SIGNED_CAM_RELATIVE):  # localization scores the others
            row["hit"] = mask.hit(values)


def _effects(patches: np.ndarray, drops: np.ndarray, fill: str, linear: bool) -> dict[str, float]:
    order = by_map(patches)
    shares = {kind: curve_share(drops, order, deletion=kind == "deletion") for kind in _CURVES} if linear else {}
    return {
        f"correlation {fill}": rank_correlation(patches, drops),
        f"top1 {fill}": same_top_patch(patches, drops),
        **{f"{kind} {fill}": share for kind, share in shares.items()},
        f"infidelity {fill}": infidelity(patches, drops),
    }


_CURVES = ("deletion", "insertion")
BINARY = ("top1", "hit")


def _chance(facts: FilmFacts, label: str, drops: Mapping[str, np.ndarray]) -> dict[str, Any]:
    row: dict[str, Any] = {"Film": facts.film_id, "label": label, "method": CHANCE}
    for fill, of_fill in drops.items():
        row |= {f"correlation {fill}": 0.0, f"top1 {fill}": 1 / of_fill.size, f"infidelity {fill}": 1.0}
        row |= {f"{kind} {fill}": 0.0 for kind in (_CURVES if facts.linear else ())}
    return row


@dataclass(frozen=True)
class CropMask:
    """A mask of a film on the pixels of its crop's maps. inside: (S, S) float32, each pixel's share in the mask;
    unseen: pixels, of that size, inside and outside the mask that lie beyond the crop; in_film: (side, side) bool, the
    mask on the film's own pixels in the crop."""

    inside: np.ndarray
    unseen: tuple[float, float]
    in_film: np.ndarray

    @property
    def share(self) -> float:
        """Of the film, what the mask covers."""
        within = float(self.inside.sum(dtype=np.float64)) + self.unseen[0]
        return within / (self.inside.size + sum(self.unseen))

    def hit(self, values: np.ndarray) -> float:
        """1 where the film's pixel under the centre of the highest pixel of a map (S, S) lies in the mask, else 0."""
        place = np.unravel_index(values.argmax(), values.shape)
        row, column = ((start + 0.5) * len(self.in_film) / len(values) for start in place)
        return float(self.in_film[int(row), int(column)])

    @classmethod
    def of(cls, truth: GroundTruth, film_id: str, task: str, size: int) -> CropMask | None:
        """None where the film has no mask of the task. size: S."""
        if film_id not in truth or not truth.area(film_id, task):
            return None
        mask = truth.mask(film_id, task)
        crop = Crop.centred(mask.shape[1], mask.shape[0])
        left, top, right, bottom = crop.box
        seen = mask[top:bottom, left:right]
        inside = adaptive_avg_pool2d(torch.from_numpy(seen.astype(np.float32))[None], size)[0].numpy()
        scale = (size / crop.side) ** 2
        beyond = np.count_nonzero(mask) - np.count_nonzero(seen)
        return cls(inside, (beyond * scale, (mask.size - seen.size - beyond) * scale), seen)


# --------------------------------------------------------------------------------------------------- all films together


def with_grid_pointing(
    rows: Sequence[Mapping[str, Any]],
    evidence: Mapping[tuple[str, str], Mapping[str, tuple[float, int]]],
    seed: int,
) -> pd.DataFrame:
    """The rows of `score_task` as a table, with a column `gridpg` where a film is the first of a grid.

    evidence: (label, method) -> film id -> sum of the positive contributions of its patches, and its ground truth.
    """
    table = pd.DataFrame(rows)
    shares: dict[tuple[str, str, str], float] = {}
    for (label, method), films in evidence.items():
        grids = draw_grids({film: truth for film, (_, truth) in films.items()}, label, seed)
        found = pointing_shares({film: positive for film, (positive, _) in films.items()}, grids)
        shares |= {(film, label, method): share for film, share in found.items()}
        shares |= {(film, label, CHANCE): 1 / GRID_FILMS for film in found}
    keys = zip(table["Film"], table["label"], table["method"], strict=True)
    values = [shares.get(key, np.nan) for key in keys]
    return table.assign(gridpg=values) if shares else table


def film_resampling(
    results: Path, films: Sequence[str], outlined: OutlinedFilms | None, *, resamples: int, seed: int, unit: str
) -> Resampling:
    """Patients are those of the test predictions, else of the outlined films, else what the film ids say.

    Raises InputError when patients are to be drawn and a film's patient is unknown.
    """
    known: dict[str, str] = {}
    predicted = predictions_file(results, "test")
    if unit == "patient" and predicted.is_file():
        predictions = read_predictions(predicted)
        known = dict(zip(predictions.ids, predictions.patients, strict=True))
    elif outlined is not None:
        known = {film: outlined.patient(film) for film in films}
    patients = [known.get(film) or patient_of(film) for film in films]
    return Resampling(units_of(films, patients, unit), resamples, seed, unit)


def summary_table(
    per_film: pd.DataFrame,
    methods: Sequence[str],
    labels: Sequence[str],
    resampling: Resampling,
    notes: Mapping[str, str],
) -> pd.DataFrame:
    """Per label and for the mean over labels: `label, metric, method, fill, value, ci_low, ci_high, resamples, films,
    note`. per_film: rows of `score_task`, of all films; notes: metric -> why it is undefined for this network."""
    films = list(dict.fromkeys(per_film["Film"]))
    tables = []
    for column in (column for column in per_film.columns if column not in ("Film", "label", "method")):
        metric, _, fill = column.partition(" ")
        eligible = _wide(per_film[per_film["method"] == CHANCE], column, films, labels).notna()
        for method in (*methods, CHANCE):
            rows = per_film[per_film["method"] == method]
            if rows.empty or rows[column].isna().all():
                continue
            wide = _wide(rows, column, films, labels)
            table = pd.DataFrame(mean_rows(wide, resampling, hits=metric in BINARY and method != CHANCE))
            table = table.assign(metric=metric, method=method, fill=fill, note=_noted(table, wide, eligible))
            tables.append(table.rename(columns={"name": "label"}))
    for metric, reason in notes.items():
        tables.append(pd.DataFrame([{"label": "Mean", "metric": metric, "fill": "", "method": "", "note": reason}]))
    order = ["label", "metric", "method", "fill", "value", "ci_low", "ci_high", "resamples", "films", "note"]
    return pd.concat(tables).reindex(columns=order)


def _wide(rows: pd.DataFrame, column: str, films: Sequence[str], labels: Sequence[str]) -> pd.DataFrame:
    """Film x label."""
    return rows.pivot(index="Film", columns="label", values=column).reindex(index=films, columns=list(labels))


def _noted(table: pd.DataFrame, values: pd.DataFrame, eligible: pd.DataFrame) -> list[str]:
    """The note of each row, and in how many of the films that the measure is asked of it is undefined."""
    undefined = (eligible & values.isna()).sum()
    counts = [int(undefined.get(name, undefined.sum())) for name in table["name"]]
    texts = [f"{count} more undefined" if count else "" for count in counts]
    return ["; ".join(filter(None, pair)) for pair in zip(table["note"].fillna(""), texts, strict=True)]


class CurveMeans:
    """Mean curves over films, per label and over all labels, film by film, as changes of the logit."""

    def __init__(self) -> None:
        self._sums: dict[tuple[str, str, str], np.ndarray] = {}
        self._counts: dict[tuple[str, str, str], int] = {}

    def add(self, curves: Mapping[str, Curves]) -> None:
        """curves: label -> those of a film."""
        for label, of_label in curves.items():
            for (method, fill), values in of_label.items():
                key = (label, method, fill)
                self._sums[key] = self._sums.get(key, 0.0) + values
                self._counts[key] = self._counts.get(key, 0) + 1

    def table(self) -> pd.DataFrame:
        """`label, method, fill, patches, share, deletion, insertion, films, note`; of the labels' mean curves too."""
        means = {key: total / self._counts[key] for key, total in self._sums.items()}
        for kind in dict.fromkeys((method, fill) for _, method, fill in means):
            of_labels = [values for (_, *of), values in means.items() if tuple(of) == kind]
            means["Mean", *kind] = np.mean(of_labels, axis=0)
        rows: list[pd.DataFrame] = []
        for (label, method, fill), (patches, deletion, insertion) in means.items():
            columns = {"patches": patches.round().astype(int), "share": patches / patches[-1]}
            columns |= {"deletion": deletion, "insertion": insertion}
            films = self._counts.get((label, method, fill), np.nan)
            rows.append(pd.DataFrame({"label": label, "method": method, "fill": fill, **columns, "films": films}))
        names = ["label", "method", "fill", "patches", "share", "deletion", "insertion", "films"]
        table = pd.concat(rows) if rows else pd.DataFrame(columns=names)
        return table.assign(note="")
