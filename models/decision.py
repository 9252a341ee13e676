"""From probabilities to decisions, by the thresholds that travel with the weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from cxr.calibration_lines import Line
from models.patch_net import MedicalPatchNet

DEFAULT_THRESHOLD = 0.5


@dataclass(frozen=True)
class DecisionRule:
    """thresholds: the probability from which each label is decided positive, (C,); source: where they come from.

    lines: label -> calibration of its logits, for the labels that have one; decisions are made without it.
    """

    labels: tuple[str, ...]
    thresholds: np.ndarray
    source: str
    lines: Mapping[str, Line] = field(default_factory=dict)

    @classmethod
    def of(cls, model: MedicalPatchNet) -> DecisionRule:
        """The thresholds of the model's details; one half for labels that have none."""
        known = model.details.get("thresholds", {})
        values = [DEFAULT_THRESHOLD if known.get(label) is None else known[label] for label in model.labels]
        missing = sum(known.get(label) is None for label in model.labels)
        source = f"{DEFAULT_THRESHOLD} for {missing} of {len(values)} labels, for which the weights carry none"
        source = source if missing else "from the weights' config.json"
        lines = {label: Line(**line) for label, line in model.details.get("calibration", {}).items()}
        return cls(model.labels, np.array(values, dtype=float), source, lines)

    def positive(self, probabilities: np.ndarray) -> np.ndarray:
        """(C,) probabilities -> (C,) bool."""
        return probabilities >= self.thresholds
