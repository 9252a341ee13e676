"""The causal test: a finding is put into a film; does the map change where it lies, as much as the logit does?

Only drawn films allow it: both films of a pair are the same but for one finding, whose mask is known.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from cxr.names import CHANCE
from evaluation.bootstrap import interval, mean_of_defined, resample_weights
from evaluation.film_statistics import MEAN_ROW, mean_rows, of_films

FEWEST = 3
"""Pairs that a correlation needs."""
COLUMNS = ("label", "metric", "method", "value", "ci_low", "ci_high", "resamples", "pairs", "note")


def pair_rows(
    film_id: str, label: str, logit: float, maps: Mapping[str, np.ndarray], inside: np.ndarray
) -> list[dict[str, Any]]:
    """A row per method. logit, maps (S, S): changes, film with the finding - film without it; inside: (S, S) in [0, 1].

    `inside`: sum of the map's change in the mask, over all pixels; `inside_share`: of the sum of absolute changes, what
    lies in the mask; `mask_share`: what the mask has of the film; `same_sign`: whether logit and mask change alike.
    """
    rows = []
    for method, change in maps.items():
        total = float(np.abs(change, dtype=np.float64).sum())
        summed = float((change * inside).sum(dtype=np.float64))
        rows.append(
            {
                "Film": film_id,
                "label": label,
                "method": method,
                "logit_change": logit,
                "inside": summed / change.size,
                "inside_share": float((np.abs(change) * inside).sum(dtype=np.float64)) / total if total else np.nan,
                "mask_share": float(inside.mean()),
                "same_sign": float(np.sign(summed) == np.sign(logit)) if summed and logit else np.nan,
            }
        )
    return rows


def pair_table(rows: pd.DataFrame, *, resamples: int, seed: int) -> pd.DataFrame:
    """`COLUMNS`, per label and the mean over labels; intervals from resamples of the pairs.

    `logit change`: mean change of the logit; `agreement`: Spearman's correlation, over the pairs of a label, of the
    logit's change with the map's change in the mask; `inside`, `sign`: means of `inside_share` and `same_sign`.
    """
    labels = list(dict.fromkeys(rows["label"]))
    first = rows[rows["method"] == rows["method"].iloc[0]]
    drawing = {"resamples": resamples, "seed": seed}
    tables = [_means(first, "logit_change", "logit change", "", labels, **drawing)]
    for method in dict.fromkeys(rows["method"]):
        own = rows[rows["method"] == method]
        tables.append(_agreements(own, method, labels, **drawing))
        tables.append(_means(own, "inside_share", "inside", method, labels, **drawing))
        tables.append(_means(own, "same_sign", "sign", method, labels, **drawing))
    tables.append(_means(first, "mask_share", "inside", CHANCE, labels, **drawing))
    return pd.concat(tables).reindex(columns=list(COLUMNS))


def _means(
    rows: pd.DataFrame, column: str, metric: str, method: str, labels: Sequence[str], *, resamples: int, seed: int
) -> pd.DataFrame:
    wide = rows.assign(pair=rows.groupby("label").cumcount()).pivot(index="pair", columns="label", values=column)
    found = mean_rows(wide[list(labels)], of_films(len(wide), resamples=resamples, seed=seed), hits=metric == "sign")
    return pd.DataFrame(found).assign(metric=metric, method=method).rename(columns={"name": "label", "films": "pairs"})


def _agreements(rows: pd.DataFrame, method: str, labels: Sequence[str], *, resamples: int, seed: int) -> pd.DataFrame:
    found: list[dict[str, Any]] = []
    samples = []
    for label in labels:
        own = rows[rows["label"] == label]
        ranks = rankdata(own["logit_change"]), rankdata(own["inside"])
        few = len(own) < FEWEST
        values = np.full(resamples, np.nan)
        if not few:
            weights = resample_weights(np.arange(len(own)), resamples, seed)
            values = np.concatenate([_correlations(*ranks, part) for part in weights])
        value = np.nan if few else float(_correlations(*ranks, np.ones((len(own), 1)))[0])
        note = f"fewer than {FEWEST} pairs" if few else "" if value == value else "a change is the same in all pairs"
        found.append({"label": label, "value": value, "pairs": len(own), "note": note})
        samples.append(values)
    known = [row["value"] for row in found if row["value"] == row["value"]]
    mean = {"label": MEAN_ROW, "value": float(np.mean(known)) if known else np.nan, "pairs": len(rows), "note": ""}
    intervals = [interval(values) for values in (*samples, mean_of_defined(np.stack(samples)))]
    bounds = [{"ci_low": i.low, "ci_high": i.high, "resamples": i.defined} for i in intervals]
    rows_found = [row | bound for row, bound in zip([*found, mean], bounds, strict=True)]
    return pd.DataFrame(rows_found).assign(metric="agreement", method=method)


def _correlations(a: np.ndarray, b: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(B,) Pearson's correlation of a and b, (N,), under weights (N, B); NaN where either is constant."""
    total = weights.sum(axis=0)
    mean_a, mean_b = a @ weights / total, b @ weights / total
    covariance = (a * b) @ weights / total - mean_a * mean_b
    spread = (a**2 @ weights / total - mean_a**2) * (b**2 @ weights / total - mean_b**2)
    return np.divide(covariance, np.sqrt(spread.clip(min=0)), out=np.full(len(total), np.nan), where=spread > 1e-12)
