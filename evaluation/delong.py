"""DeLong's variance of the AUROC, its interval, and the paired test of two scores on the same films.

DeLong et al. 1988, doi:10.2307/2531595, in O(n log n) through midranks: Sun and Xu 2014, doi:10.1109/LSP.2014.2337313.
Films are taken as independent, and several films of one patient make the intervals too narrow, unless a test is given
`clusters`: the variance is then that of Obuchowski 1997, doi:10.2307/2533958, which is DeLong's where every film is a
cluster of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.stats import norm, rankdata


@dataclass(frozen=True)
class Components:
    """How much each film contributes to the AUROC: the part of the other class it is ranked right against.

    of_positives: (P,), of_negatives: (N,); both have the AUROC as their mean.
    """

    of_positives: np.ndarray
    of_negatives: np.ndarray

    @property
    def variance(self) -> float:
        """Variance of the AUROC; NaN with fewer than 2 positives or 2 negatives."""
        if min(len(self.of_positives), len(self.of_negatives)) < 2:
            return np.nan
        return sum(float(np.var(part, ddof=1)) / len(part) for part in (self.of_positives, self.of_negatives))


def components(labels: np.ndarray, scores: np.ndarray) -> Components:
    """labels (N,) in {0, 1}; scores (N,) of any scale. Ties count half."""
    positive = labels == 1
    positives, negatives = int(positive.sum()), int((~positive).sum())
    ranks = rankdata(scores)
    above = ranks[positive] - rankdata(scores[positive])  # negatives below a positive, ties half
    below = ranks[~positive] - rankdata(scores[~positive])  # positives below a negative, ties half
    return Components(above / max(negatives, 1), 1 - below / max(positives, 1))


def clustered_variance(parts: Components, positive: np.ndarray, clusters: np.ndarray) -> float:
    """Variance of the mean of `parts` when the films of a cluster depend on each other (Obuchowski 1997).

    positive: (P + N,) bool, in the order of the films. clusters: (P + N,) int >= 0. With A and B the sums over a
    cluster of the centred parts of its positives and negatives, and I10, I01 and I the numbers of clusters with
    positives, with negatives, and of all, it is
    I10 / (I10 - 1) sum A^2 / P^2 + I01 / (I01 - 1) sum B^2 / N^2 + 2 I / (I - 1) sum A B / (P N).
    NaN with fewer than 2 clusters that have positives, or negatives.
    """
    shares, counts = [], []
    for values, of_class in ((parts.of_positives, clusters[positive]), (parts.of_negatives, clusters[~positive])):
        if len(np.unique(of_class)) < 2:
            return np.nan
        centred = (values - values.mean()) / len(values)
        shares.append(np.bincount(of_class, centred, minlength=int(clusters.max()) + 1))
        counts.append(len(np.unique(of_class)))
    pairs = ((shares[0], shares[0], counts[0]), (shares[1], shares[1], counts[1]))
    within = sum(count / (count - 1) * float(first @ second) for first, second, count in pairs)
    both = len(np.unique(clusters))
    return max(0.0, within + 2 * both / (both - 1) * float(shares[0] @ shares[1]))


class AurocInterval(NamedTuple):
    auroc: float
    standard_error: float
    low: float
    high: float


def interval(labels: np.ndarray, scores: np.ndarray, confidence: float = 0.95) -> AurocInterval:
    """AUROC with its normal interval, cut to [0, 1]; NaN with fewer than 2 positives or 2 negatives."""
    parts = components(labels, scores)
    error = float(np.sqrt(parts.variance))
    if np.isnan(error):
        return AurocInterval(np.nan, np.nan, np.nan, np.nan)
    auroc = float(parts.of_positives.mean())
    reach = float(norm.isf((1 - confidence) / 2)) * error
    return AurocInterval(auroc, error, max(0.0, auroc - reach), min(1.0, auroc + reach))


class PairedTest(NamedTuple):
    difference: float
    standard_error: float
    p: float


def paired_test(
    labels: np.ndarray, scores_a: np.ndarray, scores_b: np.ndarray, clusters: np.ndarray | None = None
) -> PairedTest:
    """Two-sided test of equal AUROC, `difference` being a - b. clusters: (N,) index of each film's patient.

    p is 1 where both rank every film alike. All is NaN with fewer than 2 positives or 2 negatives; p alone is NaN where
    the AUROCs differ and the variance is 0 (each film contributes the same, so the normal approximation says nothing).
    """
    a, b = components(labels, scores_a), components(labels, scores_b)
    gap = Components(a.of_positives - b.of_positives, a.of_negatives - b.of_negatives)
    variance = gap.variance if clusters is None else clustered_variance(gap, labels == 1, clusters)
    error = float(np.sqrt(variance))
    if np.isnan(error):
        return PairedTest(np.nan, np.nan, np.nan)
    difference = float(gap.of_positives.mean())
    if error == 0:
        return PairedTest(difference, error, 1.0 if difference == 0 else np.nan)
    return PairedTest(difference, error, float(2 * norm.sf(abs(difference) / error)))


def holm(p_values: np.ndarray) -> np.ndarray:
    """Holm's adjusted p values (1979); NaN, no test, stays NaN and is not counted as a test."""
    adjusted = np.full(len(p_values), np.nan)
    tested = np.flatnonzero(~np.isnan(p_values))
    order = tested[np.argsort(p_values[tested], kind="stable")]
    factors = np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(1, np.maximum.accumulate(factors * p_values[order]))
    return adjusted
