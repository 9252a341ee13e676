"""Content of a report, as typed values of a results folder; `reporting.reading` fills them from the files.

A results folder holds one folder per network (`results/MedicalPatchNet`, `results/EfficientNetB0`). The patch network
gives the evidence maps and the baseline the CAMs, as in the paper.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from cxr.files import InputError
from cxr.labels import LabelSet
from cxr.names import LOCALIZED, POSTERIOR, PROTOCOLS
from cxr.predictions import Predictions
from reporting.control_results import Controls
from reporting.label_words import means, task_heading
from reporting.localization_results import Key, Localization
from reporting.numbers import Estimate

_MEAN_ROW = re.compile(r"Mean \(.*\d+\)")

Score = tuple[str, str, str]
"""(label or mean, metric, rule): a row of `classification_test.csv`."""


@dataclass(frozen=True)
class Scores:
    """`classification_test.csv`: the estimate of every row, and what the file notes on it."""

    estimates: Mapping[Score, Estimate]
    notes: Mapping[Score, str]

    def get(self, label: str, metric: str, rule: str) -> Estimate:
        """Undefined where the file has no such row."""
        return self.estimates.get((label, metric, rule), Estimate())

    def is_defined(self, label: str, metric: str, rule: str) -> bool:
        return not math.isnan(self.get(label, metric, rule).value)

    @property
    def labels(self) -> tuple[str, ...]:
        """Without the rows of means, in the file's order."""
        return tuple(dict.fromkeys(label for label, _, _ in self.estimates if not _MEAN_ROW.fullmatch(label)))


@dataclass(frozen=True)
class Model:
    """One network's folder; a part is None where its file is missing. record: `run.json`, {} without one."""

    folder: Path
    name: str
    record: Mapping[str, Any]
    labels: LabelSet | None
    predictions: Predictions | None
    scores: Scores | None
    roc: pd.DataFrame | None
    calibration: pd.DataFrame | None
    recalibration: pd.DataFrame | None = None
    precision_recall: pd.DataFrame | None = None
    subgroups: pd.DataFrame | None = None
    audit: pd.DataFrame | None = None
    pairs: pd.DataFrame | None = None


@dataclass(frozen=True)
class Results:
    """Everything that a report shows. missing: one line per part that is not there.

    controls: of localization, by protocol. equivalence: with the names of its models a and b; None where no margin was
    stated.
    """

    folder: Path
    patch: Model | None
    baseline: Model | None
    localization: Mapping[Key, Localization]
    comparison: pd.DataFrame | None
    missing: tuple[str, ...]
    controls: Mapping[str, Controls] = field(default_factory=dict)
    equivalence: pd.DataFrame | None = None
    equivalence_names: tuple[str, str] = ("", "")

    @property
    def roles(self) -> dict[str, Model]:
        """`patch` and `baseline`, those that are there, in this order."""
        both = {"patch": self.patch, "baseline": self.baseline}
        return {role: model for role, model in both.items() if model is not None}

    @property
    def models(self) -> tuple[Model, ...]:
        """Those that are there, the patch model first."""
        return tuple(self.roles.values())

    @property
    def scored_models(self) -> dict[str, tuple[Model, Scores]]:
        """Role -> the models that have classification scores, with these."""
        return {role: (model, model.scores) for role, model in self.roles.items() if model.scores is not None}

    @cached_property
    def labels(self) -> LabelSet:
        """The labels of all models. Raises InputError when no file of the folder has any."""
        found = [model.labels for model in self.models if model.labels is not None]
        if not found:
            raise InputError(f"{self.folder}: no labels in it, neither predictions nor scores; run ./runEval.sh")
        return found[0] if len(found) == 1 else _union(*found)

    @property
    def tasks(self) -> tuple[str, ...]:
        """Those that were scored, else those of the labels; in the order of the labels' names."""
        found = {task for item in self.localization.values() for task in item.tasks}
        return tuple(sorted(found or self.labels.task_names, key=lambda task: task_heading(task, self.labels)))

    def estimate(self, model: Model, label: str, metric: str, rule: str) -> Estimate:
        """A label's score, or that of a mean of `means(self.labels)`.

        A mean is taken over the labels that all models define, so that they can be compared. Where a model defines
        others too, the mean differs from the one in its file, whose interval does not hold for it: it has none.
        """
        if model.scores is None or label not in means(self.labels):
            return model.scores.get(label, metric, rule) if model.scores else Estimate()
        own = [name for name in means(self.labels)[label][1] if model.scores.is_defined(name, metric, rule)]
        shared = self.covered(label, metric, rule)
        if len(own) == len(shared) and model.scores.is_defined(label, metric, rule):
            return model.scores.get(label, metric, rule)
        values = [model.scores.get(name, metric, rule).value for name in shared]
        return Estimate(sum(values) / len(values) if values else math.nan)

    def covered(self, mean: str, metric: str, rule: str) -> tuple[str, ...]:
        """The labels of a mean that every scored model defines."""
        scores = [scores for _, scores in self.scored_models.values()]
        labels = means(self.labels)[mean][1]
        return tuple(label for label in labels if all(of.is_defined(label, metric, rule) for of in scores))

    @property
    def protocols(self) -> tuple[str, ...]:
        """Those of which something was scored."""
        return tuple(name for name in PROTOCOLS if any(key[0] == name for key in self.localization))

    @property
    def methods(self) -> tuple[str, ...]:
        """The paper's methods and whatever else was scored, in the order of the tables' columns."""
        scored = {method for _, method, _ in self.localization}
        return tuple(name for name, method in LOCALIZED.items() if method.in_paper or name in scored)

    def model_of(self, method: str) -> Model | None:
        """The model that the method explains."""
        return self.roles.get(LOCALIZED[method].network)

    def scored(self, protocol: str, measure: str) -> dict[str, Localization]:
        """Method -> its scores, in the order of the tables' columns."""
        keys = {method: (protocol, method, measure) for method in LOCALIZED}
        return {method: self.localization[key] for method, key in keys.items() if key in self.localization}

    def shared_tasks(self, protocol: str, measure: str) -> frozenset[str]:
        """The tasks that every method defines which defines any; the posterior, a control, takes none away."""
        scored = self.scored(protocol, measure)
        covered = [item.covered for method, item in scored.items() if item.covered and method != POSTERIOR]
        return frozenset.intersection(*covered) if covered else frozenset()

    def localization_means(self, protocol: str, measure: str) -> dict[str, Estimate]:
        """Method -> its mean over the tasks of `shared_tasks`, so that means can be compared.

        Where a method defines others too, the mean differs from the one in its file, whose interval does not hold for
        it: it has none. Undefined for a method that lacks one of the tasks.
        """
        shared = self.shared_tasks(protocol, measure)
        return {method: item.mean_over(shared) for method, item in self.scored(protocol, measure).items()}


def _union(first: LabelSet, second: LabelSet) -> LabelSet:
    """The first set's labels, then what the second has besides; groups are joined by name."""
    names = tuple(dict.fromkeys((*first.names, *second.names)))
    groups = {
        group: tuple(dict.fromkeys((*first.groups.get(group, ()), *second.groups.get(group, ()))))
        for group in (*first.groups, *second.groups)
    }
    try:
        return LabelSet(names, groups, {**second.tasks, **first.tasks})
    except ValueError:  # one task under two labels: the two agree on the names alone
        return LabelSet.of(names)
