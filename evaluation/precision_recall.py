"""Area under the precision-recall curve: the mean precision at which the positives are found."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import sparse

from cxr.predictions import Predictions
from evaluation.bootstrap import film_units, resampled_values
from evaluation.classification import by_label, summary_rows
from evaluation.metrics import NOT_LABELLED, ratio

COLUMNS = (
    "label",
    "metric",
    "value",
    "ci_low",
    "ci_high",
    "bootstrap_mean",
    "bootstrap_median",
    "resamples",
    "note",
)
METRICS = ("auprc", "prevalence")
"""A score without information has an AUPRC of about the prevalence, so no AUPRC is readable without it.

Both are undefined without positives, so that means of both cover the same labels.
"""

_REASON = "no positives"


class PrecisionSums:
    """AUPRC and prevalence of one label under weightings of its N films: sorts once, then costs O(N) per weighting."""

    def __init__(self, labels: np.ndarray, scores: np.ndarray) -> None:
        """labels (N,) 0, 1 or NaN; scores (N,) of any scale.

        Row k of the first half are the positives of the k-th highest score that a positive has; row k of the second
        half, all labelled films from this score up to the next higher one; the last row, all labelled films.
        """
        known = np.flatnonzero(~np.isnan(labels))
        positive = known[labels[known] == 1]
        steps = np.unique(scores[positive])  # (K,) ascending
        run = len(steps) - np.searchsorted(steps, scores[known], side="right")  # K for films below every positive
        found = len(steps) - 1 - np.searchsorted(steps, scores[positive])
        seen = run < len(steps)
        rows = np.concatenate([found, len(steps) + run[seen], np.full(len(known), 2 * len(steps))])
        films = np.concatenate([positive, known[seen], known])
        shape = (2 * len(steps) + 1, len(labels))
        self._rows = sparse.csr_array((np.ones(len(rows)), (rows, films)), shape=shape)

    def __call__(self, weights: np.ndarray) -> np.ndarray:
        """weights (N, B) float64 -> (2, B): sum over k of recall gained times precision, and prevalence."""
        rows = self._rows @ weights
        (found, seen), films = np.split(rows[:-1], 2), rows[-1]  # two (K, B), (B,)
        precisions = ratio(np.cumsum(found, axis=0), np.cumsum(seen, axis=0))
        terms = np.where(found > 0, found * precisions, 0)
        none = np.zeros(weights.shape[1])
        positives = sum(found, none)
        prevalence = np.where(positives > 0, ratio(positives, films), np.nan)
        return np.stack([ratio(sum(terms, none), positives), prevalence])  # row after row: see LabelSums


def average_precision(labels: np.ndarray, scores: np.ndarray) -> float:
    """Sum over the distinct scores, from above, of the recall gained times the precision there; NaN without positives.

    The step-wise area under the precision-recall curve, as scikit-learn's `average_precision_score`, without the
    straight lines between its points that are too optimistic (Davis and Goadrich 2006, doi:10.1145/1143844.1143874).
    labels (N,) 0, 1 or NaN, scores (N,) of any scale.
    """
    return float(PrecisionSums(labels, scores)(np.ones((len(labels), 1)))[0, 0])


def precision_recall_table(
    predictions: Predictions, *, resamples: int = 100_000, seed: int = 0, unit: str = "film"
) -> pd.DataFrame:
    """One row per label or mean of labels for `auprc` and `prevalence`, which is its chance level (`COLUMNS`)."""
    columns = zip(predictions.labels.T, predictions.probabilities.T, strict=True)
    panel = [PrecisionSums(labels, scores) for labels, scores in columns]

    def values(weights: np.ndarray) -> np.ndarray:
        """(N, B) -> (2, C, B)."""
        return np.stack([label(weights) for label in panel], axis=1)

    observed = values(np.ones((len(predictions.paths), 1)))[..., 0]
    drawn = resampled_values(values, film_units(predictions, unit), resamples=resamples, seed=seed)
    why = [NOT_LABELLED if unlabelled else _REASON for unlabelled in np.isnan(predictions.labels).all(axis=0)]
    rows = []
    for i, metric in enumerate(METRICS):
        for row in summary_rows(predictions.label_set, observed[i], drawn[i], why, _REASON):
            rows.append({"metric": metric, **row})
    return by_label(predictions.label_set, rows, COLUMNS)
