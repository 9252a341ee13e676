"""Decision curves: what it is worth to act on a probability, for everyone who would act from some probability on."""

from __future__ import annotations

import numpy as np
import pandas as pd

from cxr.calibration_lines import Calibration
from cxr.predictions import Predictions
from evaluation.calibration import calibrated
from evaluation.metrics import labelled

THRESHOLDS = np.arange(1, 100) / 100


def net_benefit(labels: np.ndarray, probabilities: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Net benefit (T,) at thresholds (T,) in (0, 1), in true positives per film.

    TP/N - FP/N * t/(1 - t), deciding by probability >= t: a threshold t says that a false positive costs t/(1 - t) of
    what a true positive gains (Vickers and Elkin 2006, doi:10.1177/0272989X06295361). It takes the probabilities at
    their word, and so asks for calibrated ones. labels (N,) 0 or 1; NaN for no films and for probabilities of NaN.
    """
    films = len(labels)
    if not films or np.isnan(probabilities).any():
        return np.full(len(thresholds), np.nan)
    found, false = (_decided(probabilities[labels == kind], thresholds) for kind in (1, 0))
    return (found - false * thresholds / (1 - thresholds)) / films


def _decided(probabilities: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """(T,) number of films with a probability >= each threshold."""
    return len(probabilities) - np.searchsorted(np.sort(probabilities), thresholds, side="left")


def decision_curves(predictions: Predictions, calibration: Calibration) -> pd.DataFrame:
    """Net benefit of each label at thresholds 0.01 to 0.99, in true positives per film.

    Columns: label, threshold, net_benefit (probabilities as predicted), net_benefit_calibrated (NaN without a line),
    treat_all (prevalence - (1 - prevalence) t/(1 - t)), treat_none (0). A label without a labelled film has no rows.
    """
    tables = []
    after = calibrated(predictions, calibration)
    for i, name in enumerate(predictions.names):
        labels, probabilities = labelled(predictions.labels[:, i], predictions.probabilities[:, i])
        if not len(labels):
            continue
        curves = {"label": name, "threshold": THRESHOLDS}
        calibrated_ones = labelled(predictions.labels[:, i], after[:, i])[1]
        for column, scores in (
            ("net_benefit", probabilities),
            ("net_benefit_calibrated", calibrated_ones),
            ("treat_all", np.ones(len(labels))),
            ("treat_none", np.zeros(len(labels))),
        ):
            curves[column] = net_benefit(labels, scores, THRESHOLDS)
        tables.append(pd.DataFrame(curves))
    columns = ["label", "threshold", "net_benefit", "net_benefit_calibrated", "treat_all", "treat_none"]
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=columns)
