"""From probabilities to decisions, by the thresholds that travel with the weights."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from models.patch_net import MedicalPatchNet

DEFAULT_THRESHOLD = 0.5


@dataclass(frozen=True)
class DecisionRule:
    """thresholds: the probability from which each label is decided positive, (C,); source: where they come from."""

    labels: tuple[str, ...]
    thresholds: np.ndarray
    source: str

    @classmethod
    def of(cls, model: MedicalPatchNet) -> DecisionRule:
        """The thresholds of the model's details; one half for labels that have none."""
        known = model.details.get("thresholds", {})
        values = [DEFAULT_THRESHOLD if known.get(label) is None else known[label] for label in model.labels]
        missing = sum(known.get(label) is None for label in model.labels)
        source = f"{DEFAULT_THRESHOLD} for {missing} of {len(values)} labels, for which the weights carry none"
        return cls(model.labels, np.array(values, dtype=float), source if missing else "from the weights' config.json")

    def positive(self, probabilities: np.ndarray) -> np.ndarray:
        """(C,) probabilities -> (C,) bool."""
        return probabilities >= self.thresholds
