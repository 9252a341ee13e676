"""Means over films with intervals: per task, over the tasks, and the difference of two methods on the same films.

A resample draws films, or patients with all their films. Tables are film x task, NaN where a value is undefined.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from cxr.files import InputError
from cxr.tables import write_csv
from evaluation.binomial import exact_interval
from evaluation.bootstrap import interval, mean_of_defined, resample_weights
from evaluation.localizing.scored_tasks import with_kinds

MEAN_ROW = "Mean"
EXACT_NOTE = "exact (Clopper-Pearson) interval of {} of {} {}s; every resample is the same"


class Resampling(NamedTuple):
    """units: (N,) index of the film, or patient, that is drawn with each film; unit: the word for it."""

    units: np.ndarray
    resamples: int
    seed: int
    unit: str = "film"


def of_films(films: int, *, resamples: int, seed: int) -> Resampling:
    """Every film is a unit of its own."""
    return Resampling(np.arange(films), resamples, seed)


def resampled_ratios(sums: np.ndarray, counts: np.ndarray, resampling: Resampling) -> np.ndarray:
    """(row, B): sum over the films / count over the films under each resample, NaN where nothing is counted.

    sums, counts: (row, film).
    """
    parts = []
    for weights in resample_weights(resampling.units, resampling.resamples, resampling.seed):  # (film, resample)
        count = counts.astype(float) @ weights
        parts.append(np.divide(sums @ weights, count, out=np.full(count.shape, np.nan), where=count > 0))
    return np.concatenate(parts, axis=1)


def resampled_means(per_film: pd.DataFrame, resampling: Resampling) -> np.ndarray:
    """(task, B): the mean over films, undefined ones left out, under each resample."""
    values = per_film.to_numpy(float).T  # (task, film)
    defined = ~np.isnan(values)
    return resampled_ratios(np.where(defined, values, 0.0), defined, resampling)


def bootstrap(per_film: pd.DataFrame, resampling: Resampling) -> pd.DataFrame:
    """`resampled_means` as CheXlocalize's table: a row per resample, a column per task."""
    return pd.DataFrame(resampled_means(per_film, resampling).T, columns=per_film.columns)


def summarise(resampled: pd.DataFrame) -> pd.DataFrame:
    """`name`, `lower`, `mean`, `upper` per task and for the mean over the tasks that are defined in a resample.

    The 2.5 and 97.5 percentiles and, as CheXlocalize has it, the mean of the resamples; undefined ones are left out.
    """
    samples = resampled.to_numpy().T
    named = [*zip(resampled.columns, samples, strict=True), (MEAN_ROW, mean_of_defined(samples))]
    rows = [(name, found.low, found.mean, found.high) for name, found in ((n, interval(s)) for n, s in named)]
    return pd.DataFrame(rows, columns=["name", "lower", "mean", "upper"])


def exact_if_constant(hits: np.ndarray, resampling: Resampling) -> tuple[float, float, str] | None:
    """Limits and note of hits (N,) that are all 0 or all 1 where defined, so that no bootstrap varies; else None.

    A trial is a unit of the resampling: films of one patient that agree count once.
    """
    defined = ~np.isnan(hits)
    values = np.unique(hits[defined])
    if len(values) != 1 or values[0] not in (0.0, 1.0):
        return None
    trials = len(np.unique(resampling.units[defined]))
    successes = trials * int(values[0])
    return *exact_interval(successes, trials), EXACT_NOTE.format(successes, trials, resampling.unit)


def exact_where_constant(summary: pd.DataFrame, hits: pd.DataFrame, resampling: Resampling) -> pd.DataFrame:
    """The summary with exact limits where all hits of a task agree, and a column `note` that says so where any do."""
    found = {str(task): exact_if_constant(hits[task].to_numpy(float), resampling) for task in hits.columns}
    exact = {task: limits for task, limits in found.items() if limits is not None}
    if not exact:
        return summary
    limits = [exact.get(name, (low, high, "")) for name, low, high in summary[["name", "lower", "upper"]].to_numpy()]
    lower, upper, note = zip(*limits, strict=True)
    return summary.assign(lower=lower, upper=upper, note=note)


def mean_rows(per_film: pd.DataFrame, resampling: Resampling, *, hits: bool) -> list[dict[str, Any]]:
    """Per task, and for the mean over the tasks: `name`, `films`, `value`, `ci_low`, `ci_high`, `resamples`, `note`.

    hits: whether the values are 0 and 1, whose interval is exact where all agree. `films` of the mean: film-task pairs.
    """
    samples = resampled_means(per_film, resampling)
    columns = [per_film[task].to_numpy(float) for task in per_film.columns]
    rows: list[dict[str, Any]] = []
    for task, values, of_task in zip(per_film.columns, columns, samples, strict=True):
        low, high, defined, note = limits_of(values, of_task, resampling, hits=hits)
        films, value = int((~np.isnan(values)).sum()), float(per_film[task].mean())
        bounds = {"ci_low": low, "ci_high": high, "resamples": defined, "note": note}
        rows.append({"name": str(task), "films": films, "value": value} | bounds)
    found = interval(mean_of_defined(samples))
    units = len(np.unique(resampling.units[per_film.notna().any(axis=1)]))
    values = [row["value"] for row in rows if row["films"]]
    mean = {
        "films": sum(row["films"] for row in rows),
        "value": float(np.mean(values)) if values else np.nan,
        "ci_low": found.low if units > 1 else np.nan,
        "ci_high": found.high if units > 1 else np.nan,
        "resamples": found.defined,
        "note": "" if len(values) == len(rows) else f"over {len(values)} of {len(rows)} tasks",
    }
    return [*rows, {"name": MEAN_ROW} | mean]


def limits_of(
    values: np.ndarray, samples: np.ndarray, resampling: Resampling, *, hits: bool
) -> tuple[float, float, int, str]:
    """Lower and upper limit, number of resamples that define them, and a note.

    values: (N,) per film, NaN where undefined; samples: (B,) the statistic's values over the resamples. The interval is
    the percentile interval; exact for hits that all agree, and undefined for values of a single unit.
    """
    found, units = interval(samples), len(np.unique(resampling.units[~np.isnan(values)]))
    if not units:
        return np.nan, np.nan, 0, "no film to score"
    exact = exact_if_constant(values, resampling) if hits else None
    if exact is not None:
        return exact[0], exact[1], found.defined, exact[2]
    if units == 1:
        return np.nan, np.nan, found.defined, f"no interval of a single {resampling.unit}"
    return found.low, found.high, found.defined, ""


def paired_differences(per_film_a: pd.DataFrame, per_film_b: pd.DataFrame, resampling: Resampling) -> pd.DataFrame:
    """Two methods on the same films: `name`, `a`, `b`, `difference` (a - b), `lower`, `upper`, `resamples`.

    a and b: means over films, per task; `Mean`: over the tasks that are defined in both. The interval is the percentile
    interval of a - b under resamples shared by both; `resamples` counts those where it is defined.
    Raises InputError for other films or tasks.
    """
    if not per_film_a.index.equals(per_film_b.index) or not per_film_a.columns.equals(per_film_b.columns):
        raise InputError("the two methods were not scored on the same films and tasks; score them again together")
    means = pd.DataFrame({"a": per_film_a.mean(), "b": per_film_b.mean()})
    means.loc[MEAN_ROW] = means.dropna().mean()
    a, b = (resampled_means(table, resampling) for table in (per_film_a, per_film_b))  # (task, resample)
    found = [interval(samples) for samples in (*(a - b), mean_of_defined(a - b))]
    bounds = {
        "lower": [i.low for i in found],
        "upper": [i.high for i in found],
        "resamples": [i.defined for i in found],
    }
    table = means.assign(difference=means["a"] - means["b"], **bounds)
    return table.rename_axis("name").reset_index()


RESULT_KINDS = ("results_per_cxr", "bootstrap_results_per_cxr", "summary_results")
"""CheXlocalize's three files, after their prefix."""


def result_files(folder: Path, prefix: str) -> list[Path]:
    """Paths of the files that `write_results` writes."""
    return [folder / f"{prefix}_{kind}.csv" for kind in RESULT_KINDS]


def write_results(
    folder: Path,
    prefix: str,
    per_film: pd.DataFrame,
    resampling: Resampling,
    *,
    kinds: Mapping[str, str] | None = None,
    exact: bool = False,
) -> pd.DataFrame:
    """Writes CheXlocalize's three files, `<prefix>_{results_per_cxr,bootstrap_results_per_cxr,summary_results}.csv`.

    kinds: task -> kind of its regions; where some are boxes, the summary says it in a column `kind`. exact: values are
    hits, whose interval is exact where all of a task agree; the summary then has a column `note`.
    Returns the summary.
    """
    resampled = bootstrap(per_film, resampling)
    summary = with_kinds(summarise(resampled), "name", kinds or {})
    if exact:
        summary = exact_where_constant(summary, per_film, resampling)
    tables = (per_film.assign(img_id=per_film.index), resampled, summary)
    for path, table in zip(result_files(folder, prefix), tables, strict=True):
        write_csv(path, table)
    return summary
