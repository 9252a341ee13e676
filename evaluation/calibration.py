"""Calibration of probabilities: a line fitted on validation, and the errors before and after it.

Platt 1999, "Probabilistic outputs for support vector machines", with the labels themselves as targets: the maximum
likelihood of sigmoid(slope * logit + intercept), which is logistic regression on the logit without a penalty.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import sparse
from scipy.special import expit

from cxr.calibration_lines import Calibration, Line, logit
from cxr.labels import LabelSet
from cxr.predictions import Predictions
from evaluation.bootstrap import film_units, resampled_values
from evaluation.classification import by_label, group_means, summary_rows
from evaluation.metrics import CALIBRATION_BINS, NOT_LABELLED, calibration_bin, labelled, ratio

ERRORS = ("brier", "ece")
COLUMNS = (
    "label",
    "metric",
    "value_before",
    "value_after",
    "difference",
    "ci_low",
    "ci_high",
    "bootstrap_mean",
    "bootstrap_median",
    "resamples",
    "note",
)
REVERSED = "the slope is negative: in validation, films with higher probabilities were positive less often"
_STEPS, _TOLERANCE = 200, 1e-12


def fit_line(labels: np.ndarray, probabilities: np.ndarray) -> tuple[Line | None, str]:
    """Fits the line of one label; returns None and the reason when there is none.

    labels (N,) 0, 1 or NaN; probabilities (N,) in [0, 1]. There is no line without positives or negatives, with one
    probability for all films, and where the probabilities separate the classes: the likelihood then has no maximum.
    """
    labels, probabilities = labelled(labels, probabilities)
    reason = _no_line(labels, probabilities)
    if reason:
        return None, reason
    logits = logit(probabilities)
    centre, scale = float(logits.mean()), float(logits.std())
    try:
        slope, intercept = _maximum_likelihood(labels, (logits - centre) / scale)
    except np.linalg.LinAlgError:  # every chance but a few has become 0 or 1
        return None, "validation is all but perfectly separated"
    return Line(slope / scale, intercept - slope * centre / scale), ""


def _no_line(labels: np.ndarray, probabilities: np.ndarray) -> str:
    """Why a line cannot be fitted to labelled films; empty where it can."""
    logits = logit(probabilities)
    positive, negative = logits[labels == 1], logits[labels == 0]
    if not len(labels):
        return f"{NOT_LABELLED} in validation"
    if not len(positive):
        return "no positives in validation"
    if not len(negative):
        return "no negatives in validation"
    if np.ptp(logits) == 0:
        return "one probability for all films of validation"
    if negative.max() <= positive.min() or positive.max() <= negative.min():
        return "validation is perfectly separated"
    return ""


def _maximum_likelihood(labels: np.ndarray, x: np.ndarray) -> tuple[float, float]:
    """slope and intercept of logistic regression on x (N,), by Newton's method with halved steps.

    The negative log-likelihood is strictly convex and has a minimum, as `_no_line` has seen to.
    """
    design = np.column_stack([x, np.ones_like(x)])  # (N, 2)
    share = labels.mean()
    weights = np.array([0.0, np.log(share / (1 - share))])
    loss = _loss(design @ weights, labels)
    for _ in range(_STEPS):
        chances = expit(design @ weights)
        gradient = design.T @ (chances - labels)  # (2,)
        curvature = (design * (chances * (1 - chances))[:, None]).T @ design  # (2, 2)
        step = np.linalg.solve(curvature, gradient)
        if gradient @ step < _TOLERANCE**2 * len(labels):
            break
        while _loss(design @ (weights - step), labels) > loss and np.abs(step).max() > 1e-15:
            step = step / 2
        weights = weights - step
        loss = _loss(design @ weights, labels)
    return float(weights[0]), float(weights[1])


def _loss(logits: np.ndarray, labels: np.ndarray) -> float:
    """Negative log-likelihood."""
    return float(np.sum(np.logaddexp(0, logits) - labels * logits))


def fit_calibration(validation: Predictions) -> Calibration:
    """The line of every label, from the validation films."""
    columns = zip(validation.labels.T, validation.probabilities.T, strict=True)
    found = {name: fit_line(*column) for name, column in zip(validation.names, columns, strict=True)}
    lines = {name: line for name, (line, _) in found.items()}
    return Calibration(lines, {name: reason for name, (_, reason) in found.items() if reason})


def calibrated(predictions: Predictions, calibration: Calibration) -> np.ndarray:
    """(N, C) calibrated probabilities; NaN for a label without a line."""
    result = np.full(predictions.probabilities.shape, np.nan)
    for i, name in enumerate(predictions.names):
        line = calibration.lines.get(name)
        if line is not None:
            result[:, i] = line.probabilities(predictions.probabilities[:, i])
    return result


class CalibrationErrors:
    """Brier score and calibration error of one label under weightings of its N films, as in `evaluation.metrics`."""

    def __init__(self, labels: np.ndarray, probabilities: np.ndarray) -> None:
        """labels (N,) 0, 1 or NaN; probabilities (N,), all NaN where the label has none."""
        known = np.flatnonzero(~np.isnan(labels) & ~np.isnan(probabilities))
        residuals = probabilities[known] - labels[known]
        bins = calibration_bin(probabilities[known])
        rows = np.concatenate([np.zeros(len(known), int), np.ones(len(known), int), 2 + bins])
        values = np.concatenate([np.ones(len(known)), residuals**2, residuals])
        shape = (2 + CALIBRATION_BINS, len(labels))
        self._rows = sparse.csr_array((values, (rows, np.tile(known, 3))), shape=shape)

    def __call__(self, weights: np.ndarray) -> np.ndarray:
        """weights (N, B) -> (len(ERRORS), B); NaN without a labelled film."""
        films, squared_error, *gaps = self._rows @ weights
        gap = sum(np.abs(gaps), np.zeros(weights.shape[1]))  # row after row: see LabelSums
        return np.stack([ratio(squared_error, films), ratio(gap, films)])


def recalibration_table(
    predictions: Predictions,
    calibration: Calibration,
    *,
    resamples: int = 100_000,
    seed: int = 0,
    unit: str = "film",
) -> pd.DataFrame:
    """One row per label or mean of labels and error (`COLUMNS`): before, after, the difference after - before.

    A label without a line has its error before alone, and the reason in `note`.

    The interval is that of the difference, paired: both sides have the same resamples. A mean covers the labels that
    have a line. ECE is biased upward on few films, and a line cannot mend what is not a straight line on the logit
    scale, so a calibrated label can have a larger error on the test films.
    """
    sides = (predictions.probabilities.T, calibrated(predictions, calibration).T)
    columns = zip(predictions.labels.T, *sides, strict=True)
    pairs = [(CalibrationErrors(y, before), CalibrationErrors(y, after)) for y, before, after in columns]

    def errors(weights: np.ndarray) -> np.ndarray:
        """(N, B) -> (2, len(ERRORS), C, B): before and after."""
        sides = zip(*([side(weights) for side in pair] for pair in pairs), strict=True)
        return np.stack([np.stack(side, axis=1) for side in sides])

    before, after = errors(np.ones((len(predictions.paths), 1)))[..., 0]  # two (len(ERRORS), C)
    drawn = resampled_values(errors, film_units(predictions, unit), resamples=resamples, seed=seed)
    named = zip(predictions.names, predictions.labels.T, strict=True)
    why = [_reason(name, labels, calibration) for name, labels in named]
    rows = []
    for i, metric in enumerate(ERRORS):
        difference, samples = after[i] - before[i], drawn[1, i] - drawn[0, i]  # (C,), (C, B)
        summaries = summary_rows(predictions.label_set, difference, samples, why, NOT_LABELLED)
        both = [_with_means(predictions.label_set, side[i], np.isnan(difference)) for side in (before, after)]
        for row, value_before, value_after in zip(summaries, *both, strict=True):
            row |= {"metric": metric, "value_before": value_before, "value_after": value_after}
            line = calibration.lines.get(str(row["label"]))
            if line is not None and line.slope < 0:
                row["note"] = "; ".join(filter(None, (str(row["note"]), REVERSED)))
            rows.append(row | {"difference": row["value"]})
    return by_label(predictions.label_set, rows, COLUMNS)


def _reason(name: str, labels: np.ndarray, calibration: Calibration) -> str:
    """Why a label has no difference, where it has none."""
    if np.isnan(labels).all():
        return NOT_LABELLED
    return calibration.reasons.get(name, "not a label of the validation films")


def _with_means(label_set: LabelSet, values: np.ndarray, left_out: np.ndarray) -> np.ndarray:
    """(C,) -> (C + means,): the values, and the means over the labels that are not left out; left_out: (C,) bool."""
    return np.append(values, group_means(label_set, np.where(left_out, np.nan, values)[:, None])[:, 0])
