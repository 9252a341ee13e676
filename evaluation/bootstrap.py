"""The bootstrap: one matrix of resample counts, shared by every label, metric and model.

Resamples are drawn one after another from one seeded stream, so the first B resamples of a seed are the same whatever
the number of resamples, the chunk size and the number of threads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from tqdm import tqdm

from cxr.files import InputError, printable
from cxr.predictions import Predictions
from evaluation.metrics import SUMS, LabelSums, PanelSums, panel_sums

UNITS = ("film", "patient")
_CHUNK_VALUES = 2**17  # counts made at once: 1 MB of float64, what a core's cache holds


def film_units(predictions: Predictions, unit: str) -> np.ndarray:
    """`units_of` the films of predictions."""
    return units_of(predictions.paths, predictions.patients, unit)


def units_of(films: Sequence[str], patients: Sequence[str], unit: str) -> np.ndarray:
    """(N,) index of the unit that is drawn with each film: the film itself, or its patient with all their films.

    films: N names, for messages. Patients are numbered as they first occur: with one film each they are the films.
    Raises InputError when patients are asked for and a film's patient is unknown.
    """
    if unit not in UNITS:
        raise ValueError(f"unit {unit!r} is none of {UNITS}")
    if unit == "film":
        return np.arange(len(films))
    if "" in patients:
        film = printable(films[list(patients).index("")])
        raise InputError(f"{film}: its patient is unknown; fill in a column Patient, or resample by film")
    return pd.factorize(np.asarray(patients, dtype=object))[0]


def resample_weights(units: np.ndarray, resamples: int, seed: int, chunk: int | None = None) -> Iterator[np.ndarray]:
    """Yields (N, b) float64: how often each film occurs in each of the next b resamples; b sums to `resamples`.

    units: (N,) from `film_units`. A resample draws as many units as there are, with replacement.
    """
    count = int(units.max()) + 1
    one_film_each = np.array_equal(units, np.arange(len(units)))
    chunk = chunk or max(64, min(4096, _CHUNK_VALUES // len(units)))
    stream = np.random.default_rng(seed)
    for start in range(0, resamples, chunk):
        width = min(chunk, resamples - start)
        drawn = stream.integers(0, count, size=(width, count))
        drawn *= width
        drawn += np.arange(width)[:, None]
        weights = np.bincount(drawn.ravel(), minlength=count * width).reshape(count, width).astype(np.float64)
        yield weights if one_film_each else weights[units]


def resampled_sums(
    panels: Sequence[Sequence[LabelSums]],
    units: np.ndarray,
    *,
    resamples: int,
    seed: int,
    chunk: int | None = None,
) -> list[PanelSums]:
    """The sums of several panels (models) on the same N films, all under the same B = `resamples` resamples."""
    results = [PanelSums(np.empty((len(SUMS), len(panel), resamples))) for panel in panels]
    start = 0
    with tqdm(total=resamples, desc="resamples", delay=2, leave=False, disable=None) as progress:
        for weights in resample_weights(units, resamples, seed, chunk):
            stop = start + weights.shape[1]
            for panel, result in zip(panels, results, strict=True):
                result.rows[..., start:stop] = panel_sums(panel, weights).rows
            progress.update(stop - start)
            start = stop
    return results


def resampled_values(
    statistic: Callable[[np.ndarray], np.ndarray], units: np.ndarray, *, resamples: int, seed: int
) -> np.ndarray:
    """Values (..., B) of a statistic that takes weights (N, b) to (..., b), under B = `resamples` resamples."""
    parts = [statistic(np.empty((len(units), 0)))]
    with tqdm(total=resamples, desc="resamples", delay=2, leave=False, disable=None) as progress:
        for weights in resample_weights(units, resamples, seed):
            parts.append(statistic(weights))
            progress.update(weights.shape[1])
    return np.concatenate(parts, axis=-1)


@dataclass(frozen=True)
class Interval:
    """95% percentile interval, mean and median over the resamples where the statistic is defined, and their number."""

    low: float
    high: float
    mean: float
    median: float
    defined: int


def interval(samples: np.ndarray) -> Interval:
    """Summary of a statistic's values (B,) over resamples; NaN, undefined, is left out and counted."""
    defined = samples[~np.isnan(samples)]
    if not len(defined):
        return Interval(np.nan, np.nan, np.nan, np.nan, 0)
    low, median, high = np.quantile(defined, (0.025, 0.5, 0.975))
    return Interval(float(low), float(high), float(defined.mean()), float(median), len(defined))


def mean_of_defined(values: np.ndarray) -> np.ndarray:
    """(C, B) -> (B,): mean over the labels that are defined, NaN where none is."""
    defined = ~np.isnan(values)
    count = defined.sum(axis=0)
    total = np.where(defined, values, 0).sum(axis=0)
    return np.divide(total, count, out=np.full(len(total), np.nan), where=count > 0)
