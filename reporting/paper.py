"""The paper's own numbers (`paper.json`), looked up by the names used here; NaN where the paper has none.

The paper was made on CheXpert and CheXlocalize, so this module and its json name labels. Nothing else in `reporting`
does.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from cxr.files import read_json
from cxr.labels import CHEXPERT

MEAN = "Mean"


@dataclass(frozen=True)
class CaseRule:
    """Which film of the test set stands for a task: the surest, or least sure, of the positive or negative ones."""

    task: str
    positive: bool
    highest: bool

    def __str__(self) -> str:
        return f"{'highest' if self.highest else 'lowest'} p, {'positives' if self.positive else 'negatives'}"


@dataclass(frozen=True)
class Paper:
    """models: role -> the name that the paper prints. note: where the numbers are from."""

    content: Any

    @property
    def models(self) -> dict[str, str]:
        return dict(self.content["models"])

    @property
    def note(self) -> str:
        return f"Paper: doi {self.content['source']['doi']}, trained and tested on CheXpert and CheXlocalize."

    def mean(self, role: str, metric: str, labels: Iterable[str]) -> float:
        """Table 1; NaN unless the paper has the mean of these very labels.

        role: `patch`, `baseline` or `difference`.
        """
        names = [mean for mean, members in CHEXPERT.means.items() if set(members) == set(labels)]
        return float(self.content["table1"][role][metric][names[0]]) if names else math.nan

    def knows(self, labels: Iterable[str]) -> bool:
        """Whether the paper has a number on any of the labels."""
        return any(label in self.content["figure1"] for label in labels)

    def auroc(self, role: str, label: str) -> float:
        """The number beside the label in Figure 1."""
        return float(self.content["figure1"].get(label, {}).get(role, math.nan))

    def hit_rate(self, task: str, method: str) -> float:
        """Table 2."""
        return float(self.content["table2"].get(task, {}).get(method, math.nan))

    def mean_hit_rate(self, tasks: Iterable[str], method: str) -> float:
        """The last row of Table 2. NaN unless it is the mean over these very tasks."""
        return self.hit_rate(MEAN, method) if self._has_tasks(tasks) else math.nan

    def mean_iou(self, tasks: Iterable[str], measure: str, method: str) -> float:
        """Table 3. NaN unless the paper's mean is over these very tasks."""
        found = self.content["table3"].get(measure, {}) if self._has_tasks(tasks) else {}
        return float(found.get(method, math.nan))

    def _has_tasks(self, tasks: Iterable[str]) -> bool:
        return {*tasks, MEAN} == set(self.content["table2"])

    @property
    def case_rules(self) -> tuple[CaseRule, ...]:
        """Sure cases of the paper's findings and, last, the negative film that the model is most wrong about."""
        return tuple(CaseRule(**rule) for rule in self.content["cases"])

    def short(self, label: str) -> str:
        """The label as the paper abbreviates it in its tables."""
        return str(self.content["short"].get(label, label))


@cache
def read_paper() -> Paper:
    return Paper(read_json(Path(__file__).with_name("paper.json")))
