"""Classification metrics of one label, for the films as they are or under any weighting of them.

Everything is made of a few sums over films (`SUMS`): for a weight per film, each is one row of a sparse matrix times
the weights. With weights 1 this is the metric; with the counts of a bootstrap resample it is the metric of that
resample. All sums but the two calibration ones are sums of integers, hence exact in float64.

A film is decided positive when its score >= the threshold, under every rule. That is what scikit-learn's ROC curve
means by a threshold, so the film that defines the Youden threshold is itself positive. (torchmetrics decides by
score > threshold, and the published code applied that to ROC thresholds as well. At 0.5 the two differ only for a
probability of exactly 0.5.)

A label of NaN says that the film is not labelled: it counts in no sum of that label, as if it were not there.

An undefined metric is NaN, never 0; `REASONS` says why.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse

RULES = ("0.5", "youden")
CALIBRATION_BINS = 15
SUMS = (
    "films",
    "positives",
    "twice_wins",
    "squared_error",
    "calibration_gap",
    *(f"{count} {rule}" for rule in RULES for count in ("tp", "fp")),
)


@dataclass(frozen=True)
class Confusion:
    """Counts, or sums of weights, of the four outcomes; arrays of one shape."""

    tp: np.ndarray
    fp: np.ndarray
    fn: np.ndarray
    tn: np.ndarray


def confusion(labels: np.ndarray, scores: np.ndarray, threshold: float) -> Confusion:
    """Counts films (N,) decided by score >= threshold."""
    positive, negative, decided = labels == 1, labels == 0, scores >= threshold
    pairs = ((positive, decided), (negative, decided), (positive, ~decided), (negative, ~decided))
    return Confusion(*(np.asarray(np.count_nonzero(truth & decision), float) for truth, decision in pairs))


def accuracy(counts: Confusion) -> np.ndarray:
    return ratio(counts.tp + counts.tn, counts.tp + counts.tn + counts.fp + counts.fn)


def sensitivity(counts: Confusion) -> np.ndarray:
    return ratio(counts.tp, counts.tp + counts.fn)


def specificity(counts: Confusion) -> np.ndarray:
    return ratio(counts.tn, counts.tn + counts.fp)


def precision(counts: Confusion) -> np.ndarray:
    return ratio(counts.tp, counts.tp + counts.fp)


def f1(counts: Confusion) -> np.ndarray:
    """2 TP / (2 TP + FP + FN): 0, not undefined, where there are positives and none is found."""
    return ratio(2 * counts.tp, 2 * counts.tp + counts.fp + counts.fn)


def ratio(numerator: np.ndarray, denominator: np.ndarray | float) -> np.ndarray:
    """Quotient; NaN where the denominator, a count or sum of weights, is 0."""
    undefined = np.full(np.broadcast_shapes(np.shape(numerator), np.shape(denominator)), np.nan)
    return np.divide(numerator, denominator, out=undefined, where=np.asarray(denominator) > 0)


DECISION_METRICS: dict[str, Callable[[Confusion], np.ndarray]] = {
    "accuracy": accuracy,
    "sensitivity": sensitivity,
    "specificity": specificity,
    "precision": precision,
    "f1": f1,
}
METRICS: tuple[tuple[str, str], ...] = (
    ("auroc", "-"),
    *((metric, rule) for rule in RULES for metric in DECISION_METRICS),
    ("brier", "-"),
    ("ece", "-"),
)
"""Every metric and its rule, in the order of the tables; rule `-` needs no threshold."""

NOT_LABELLED = "no labelled films"
REASONS = {
    "auroc": "no positives or no negatives",
    "accuracy": NOT_LABELLED,
    "sensitivity": "no positives",
    "specificity": "no negatives",
    "precision": "no film decided positive",
    "f1": "no positives and no film decided positive",
    "brier": NOT_LABELLED,
    "ece": NOT_LABELLED,
}
"""Why a metric is undefined, where films are labelled or in a resample."""


def labelled(labels: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The labels and scores of the films that are labelled."""
    known = ~np.isnan(labels)
    return labels[known], scores[known]


def auroc(labels: np.ndarray, scores: np.ndarray) -> float:
    """Probability that a positive film scores above a negative one, ties counting half; NaN without both.

    labels (N,) 0, 1 or NaN, scores (N,) of any scale.
    """
    labels, scores = labelled(labels, scores)
    twice_wins = _twice_wins(_pair_rows(labels, scores).sum(axis=1)[:, None])
    positives = np.count_nonzero(labels == 1)
    return float(ratio(twice_wins, 2.0 * positives * (len(labels) - positives))[0])


def brier_score(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Mean squared difference of probability and label; NaN without a labelled film."""
    labels, probabilities = labelled(labels, probabilities)
    return float(np.mean((probabilities - labels) ** 2)) if len(labels) else np.nan


def expected_calibration_error(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Mean over films of |mean probability - fraction positive| of the film's bin.

    15 bins of equal width, [0, 1/15), ..., [14/15, 1] (Guo et al. 2017, doi:10.48550/arXiv.1706.04599, with the bins
    closed below).
    Noise within a bin adds to it, so it is biased upward on few films and more so on their resamples: its bootstrap
    interval may lie above the value. NaN without a labelled film.
    """
    labels, probabilities = labelled(labels, probabilities)
    gaps = np.bincount(calibration_bin(probabilities), probabilities - labels, minlength=CALIBRATION_BINS)
    return float(np.abs(gaps).sum() / len(labels)) if len(labels) else np.nan


def calibration_edges() -> np.ndarray:
    """(16,) edges of the calibration bins."""
    return np.arange(CALIBRATION_BINS + 1) / CALIBRATION_BINS


def calibration_bin(probabilities: np.ndarray) -> np.ndarray:
    """Index of the calibration bin of each probability."""
    return np.searchsorted(calibration_edges()[1:-1], probabilities, side="right")


def roc_counts(labels: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Films decided positive at every distinct score, from above: tp, fp (K + 1,) int and thresholds (K + 1,).

    The first threshold is infinity, where no film is decided positive, as in scikit-learn's `roc_curve`.
    """
    labels, scores = labelled(labels, scores)
    thresholds, tied = np.unique(-scores, return_inverse=True)
    tp = np.cumsum(np.bincount(tied, labels == 1)).astype(np.int64)
    fp = np.cumsum(np.bincount(tied)) - tp
    return np.append(0, tp), np.append(0, fp), np.append(np.inf, -thresholds)


def youden_threshold(labels: np.ndarray, scores: np.ndarray) -> tuple[float | None, str | None]:
    """The threshold with the largest tpr - fpr, the highest of several, and None; or None and why there is none.

    There is none without both positives and negatives, and where no threshold beats chance: the best is then to call
    every film negative, which is not a rule to hand on. Compared in integers, so rounding cannot break a tie.
    """
    tp, fp, thresholds = roc_counts(labels, scores)
    positives, negatives = int(tp[-1]), int(fp[-1])
    if not positives + negatives:
        return None, f"{NOT_LABELLED} in validation"
    if not positives:
        return None, "no positives in validation"
    if not negatives:
        return None, "no negatives in validation"
    gain = tp * negatives - fp * positives  # (tpr - fpr) * positives * negatives
    best = int(np.argmax(gain))
    if gain[best] == 0:
        return None, "no threshold is better than chance in validation"
    return float(thresholds[best]), None


class LabelSums:
    """The sums of one label under weightings of its N films: sorts once, then costs O(N) per weighting."""

    def __init__(self, labels: np.ndarray, scores: np.ndarray, thresholds: Mapping[str, float | None]) -> None:
        """labels (N,) 0, 1 or NaN; scores (N,) in [0, 1]; a threshold per rule, None where the rule has none."""
        self.thresholds = dict(thresholds)
        known = np.flatnonzero(~np.isnan(labels))
        rows = self._weight_rows(labels[known], scores[known]).tocoo()  # (R, films that are labelled)
        self._rows = sparse.csr_array((rows.data, (rows.row, known[rows.col])), shape=(rows.shape[0], len(labels)))

    def _weight_rows(self, labels: np.ndarray, scores: np.ndarray) -> sparse.csr_array:
        """(R, films): the rows whose products with the films' weights `__call__` puts together."""
        positive = labels == 1
        masks = [np.ones_like(positive), positive]
        for rule in RULES:
            threshold = self.thresholds[rule]
            decided = np.zeros_like(positive) if threshold is None else scores >= threshold
            masks += [positive & decided, ~positive & decided]
        residuals = scores - labels
        gaps = (residuals, (calibration_bin(scores), np.arange(len(labels))))
        return sparse.vstack(
            [
                sparse.csr_array(np.vstack([*masks, residuals**2])),
                sparse.csr_array(gaps, shape=(CALIBRATION_BINS, len(labels))),
                _pair_rows(labels, scores),
            ],
            format="csr",
        )

    def __call__(self, weights: np.ndarray) -> np.ndarray:
        """weights (N, B) float64 -> (len(SUMS), B); the counts of a rule without threshold are NaN."""
        rows = self._rows @ weights
        films, positives, *counts, squared_error = rows[: 3 + 2 * len(RULES)]
        gaps, pairs = np.split(rows[3 + 2 * len(RULES) :], [CALIBRATION_BINS])
        for index, rule in enumerate(RULES):
            if self.thresholds[rule] is None:
                counts[2 * index][:] = counts[2 * index + 1][:] = np.nan
        calibration_gap = sum(np.abs(gaps))  # row after row: numpy's own order of addition depends on B
        return np.stack([films, positives, _twice_wins(pairs), squared_error, calibration_gap, *counts])


def _pair_rows(labels: np.ndarray, scores: np.ndarray) -> sparse.csr_array:
    """(2K, N): the rows whose products with the weights `_twice_wins` needs.

    Sort the negatives by score. A positive film wins over the negatives below it, and over half of those it ties with:
    twice its wins is (negatives < score) + (negatives <= score). Both are ends of runs of negatives; there are K
    distinct ends. Row k of the first half says how many times each positive asks for end k; row k of the second half,
    which negatives lie between the ends k - 1 and k.
    """
    positive = np.flatnonzero(labels == 1)
    negative = np.flatnonzero(labels != 1)
    negative = negative[np.argsort(scores[negative], kind="stable")]
    below, through = (np.searchsorted(scores[negative], scores[positive], side=side) for side in ("left", "right"))
    ends, asked = np.unique(np.concatenate([below, through]), return_inverse=True)
    run = np.searchsorted(ends, np.arange(len(negative)), side="right")
    below_some = run < len(ends)  # a negative above every positive is never asked for
    rows = np.concatenate([asked, len(ends) + run[below_some]])
    films = np.concatenate([positive, positive, negative[below_some]])
    return sparse.csr_array((np.ones(len(rows)), (rows, films)), shape=(2 * len(ends), len(labels)))


def _twice_wins(pairs: np.ndarray) -> np.ndarray:
    """Products of `_pair_rows` and weights, (2K, B) -> (B,), twice the weight of the pairs a positive film wins."""
    asked, negatives = np.split(pairs, 2)
    for below, upto in zip(negatives, negatives[1:], strict=False):  # faster than numpy's cumsum over the first axis
        upto += below
    return np.einsum("kb,kb->b", asked, negatives)


@dataclass(frozen=True)
class PanelSums:
    """The sums of C labels under B weightings. rows: (len(SUMS), C, B)."""

    rows: np.ndarray

    def __getitem__(self, name: str) -> np.ndarray:
        """(C, B), by a name of `SUMS`."""
        return self.rows[SUMS.index(name)]

    def confusion(self, rule: str) -> Confusion:
        tp, fp, positives = self[f"tp {rule}"], self[f"fp {rule}"], self["positives"]
        return Confusion(tp, fp, positives - tp, self["films"] - positives - fp)

    def metric(self, metric: str, rule: str) -> np.ndarray:
        """(C, B) values of one of `METRICS`, NaN where undefined."""
        if metric in DECISION_METRICS:
            return DECISION_METRICS[metric](self.confusion(rule))
        if metric == "auroc":
            positives = self["positives"]
            return ratio(self["twice_wins"], 2 * positives * (self["films"] - positives))
        return ratio(self["squared_error" if metric == "brier" else "calibration_gap"], self["films"])


def panel_sums(panel: Sequence[LabelSums], weights: np.ndarray) -> PanelSums:
    """The sums of all labels of a panel under weights (N, B)."""
    return PanelSums(np.stack([label(weights) for label in panel], axis=1))
