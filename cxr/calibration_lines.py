"""`calibration.json`: the straight line that turns a label's logits into calibrated ones.

With logit z, the calibrated probability is sigmoid(slope * z + intercept) (Platt 1999). A straight line keeps a sum of
contributions a sum: with z = sum of c_p over P patches, slope * c_p + intercept / P sum to the calibrated logit, and a
patch's share of any difference of logits stays what it was.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import expit

from cxr.files import InputError, composed, place, quoted, read_json, write_json

LOGIT_LIMIT = math.log((1 - 5e-10) / 5e-10)
"""Logits of probabilities are cut to +- this, 21.4: nine digits, as in a predictions file, cannot say more."""


@dataclass(frozen=True)
class Line:
    """slope and intercept of one label, in log-odds."""

    slope: float
    intercept: float

    def logits(self, logits: np.ndarray) -> np.ndarray:
        """Calibrated logits, of any shape."""
        return self.slope * logits + self.intercept

    def contributions(self, contributions: np.ndarray, patches: int) -> np.ndarray:
        """Calibrated log-odds of each patch, for contributions whose sum over `patches` patches is the logit.

        The intercept, which belongs to no patch, is divided equally.
        """
        return self.slope * contributions + self.intercept / patches

    def probabilities(self, probabilities: np.ndarray) -> np.ndarray:
        """Calibrated probabilities of uncalibrated ones, of any shape."""
        return expit(self.logits(logit(probabilities)))


@dataclass(frozen=True)
class Calibration:
    """Line per label, None where there is none; `reasons` says why, for each label without one."""

    lines: Mapping[str, Line | None]
    reasons: Mapping[str, str] = field(default_factory=dict)


def logit(probabilities: np.ndarray) -> np.ndarray:
    """log(p / (1 - p)), cut to +- LOGIT_LIMIT; p in [0, 1], of any shape."""
    with np.errstate(divide="ignore"):
        logits = np.log(probabilities) - np.log1p(-np.asarray(probabilities))
    return np.clip(logits, -LOGIT_LIMIT, LOGIT_LIMIT)


def write_calibration(path: Path, calibration: Calibration) -> None:
    """Writes `{label: {"slope": number or null, "intercept": number or null, "reason": text or null}}`."""
    content = {
        name: {
            "slope": None if line is None else line.slope,
            "intercept": None if line is None else line.intercept,
            "reason": calibration.reasons.get(name),
        }
        for name, line in calibration.lines.items()
    }
    write_json(path, content)


def read_calibration(path: Path, labels: Sequence[str] | None = None) -> Calibration:
    """The lines of `labels`, in their order; of all that the file holds where None are named.

    Raises InputError with the label when one is missing, or its numbers are neither both finite nor both null.
    """
    content = {composed(label): entry for label, entry in read_json(path).items()}
    lines: dict[str, Line | None] = {}
    reasons: dict[str, str] = {}
    for label in content if labels is None else labels:
        lines[label] = _line(content.get(label), place(path, column=label))
        if lines[label] is None:
            reasons[label] = str(content[label].get("reason") or "no calibration given")
    return Calibration(lines, reasons)


def _line(entry: Any, where: str) -> Line | None:
    if not isinstance(entry, dict) or not {"slope", "intercept"} <= set(entry):
        raise InputError(f'{where}: expected {{"slope": number, "intercept": number, "reason": null or text}}')
    numbers = (entry["slope"], entry["intercept"])
    if numbers == (None, None):
        return None
    for number in numbers:
        if type(number) not in (int, float) or not math.isfinite(number):
            raise InputError(
                f"{where}: {quoted(number)} is not a finite number; give slope and intercept, or null twice"
            )
    return Line(float(numbers[0]), float(numbers[1]))
