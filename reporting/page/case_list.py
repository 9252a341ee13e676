"""Every film and label of the test set as the page lists it: probabilities, truth, thresholds, hits and IoU."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cxr.labels import LabelSet
from cxr.names import METHODS, PROTOCOLS, THRESHOLDS, localization_folder
from cxr.predictions import Predictions
from cxr.thresholds import read_thresholds
from reporting.label_words import task_heading
from reporting.localization_results import read_per_film
from reporting.page.private import shown_path
from reporting.results import Model, Results

OUTCOMES = ("TP", "FN", "FP", "TN")


@dataclass(frozen=True)
class CaseList:
    """N films, C labels and T scored tasks.

    films: film ids. paths: as the page may show them. truth: (N, C), 0, 1 or NaN where a film is not labelled.
    probabilities: model's name -> (N, C), NaN where it did not predict. thresholds: model's name -> (C,), NaN where
    undefined. scores: (protocol, method) -> hit and IoU, each (N, T), NaN where undefined. missing: a line per part
    that is not there.
    """

    films: tuple[str, ...]
    paths: tuple[str, ...]
    labels: LabelSet
    tasks: tuple[str, ...]
    truth: np.ndarray
    probabilities: dict[str, np.ndarray]
    thresholds: dict[str, np.ndarray]
    scores: dict[tuple[str, str], tuple[np.ndarray, np.ndarray]]
    missing: tuple[str, ...]

    def outcome(self, film: int, label: int) -> str:
        """By the first model's Youden threshold; empty without one, and for a film that is not labelled."""
        name = next(iter(self.probabilities))
        probability, threshold = self.probabilities[name][film, label], self.thresholds[name][label]
        truth = self.truth[film, label]
        if np.isnan([probability, threshold, truth]).any():
            return ""
        called = probability >= threshold
        return f"{'T' if called == truth else 'F'}{'P' if called else 'N'}"

    def _row_names(self) -> dict[str, str]:
        """A label as rows of tables call it -> its name."""
        of_tasks = {task: self.labels.label_of(task) for task in self.tasks}
        headings = {task_heading(task, self.labels): label for task, label in of_tasks.items()}
        return of_tasks | headings | {name: name for name in self.labels.names}

    def content(self) -> dict[str, Any]:
        """The list for json, undefined numbers as null. Probabilities are the file's own, so that outcomes are too."""
        return {
            "films": self.films,
            "paths": self.paths,
            "labels": self.labels.names,
            "rows": self._row_names(),
            "tasks": [self.labels.label_of(task) for task in self.tasks],
            "truth": ["".join(map(_truth, row)) for row in self.truth.tolist()],
            "models": [
                {"name": name, "probability": _listed(values), "threshold": _listed(self.thresholds[name])}
                for name, values in self.probabilities.items()
            ],
            "scores": {
                f"{protocol} {method}": {"hit": _listed(hit), "iou": _listed(iou, "%.4g")}
                for (protocol, method), (hit, iou) in self.scores.items()
            },
        }


def _truth(label: float) -> str:
    """A character: `1`, `0`, or `?` for a film that is not labelled."""
    return "?" if np.isnan(label) else str(int(label))


def _listed(values: np.ndarray, form: str = "%.17g") -> list[Any]:
    """Nested lists with None for NaN, whole numbers without a point."""
    if values.ndim > 1:
        return [_listed(row, form) for row in values]
    return [None if np.isnan(value) else json.loads(form % value) for value in values]


def read_case_list(results: Results) -> CaseList | None:
    """None when no model left its predictions of the test films. Raises InputError when a file is damaged."""
    missing = []
    predictions: dict[str, Predictions] = {}
    for model in results.models:
        if model.predictions is not None:
            predictions[model.name] = model.predictions
        else:
            missing.append(f"{model.folder / 'predictions_test.csv'}: missing; made by ./runEval.sh")
    if not predictions:
        return None
    first = next(iter(predictions.values()))
    films, labels, tasks = first.ids, results.labels, tuple(sorted(results.tasks))
    truths = [_placed(of_model, of_model.labels, films, labels.names) for of_model in predictions.values()]
    return CaseList(
        films,
        tuple(map(shown_path, first.paths)),
        labels,
        tasks,
        np.where(np.isnan(truths[0]), truths[-1], truths[0]),
        {name: _placed(p, p.probabilities, films, labels.names) for name, p in predictions.items()},
        {model.name: _thresholds(model, labels, missing) for model in results.models if model.name in predictions},
        _scores(results, films, tasks),
        tuple(missing),
    )


def _placed(predictions: Predictions, values: np.ndarray, films: Sequence[str], labels: Sequence[str]) -> np.ndarray:
    """(N, C): the values of `predictions` in the order of `films` and `labels`, NaN where it has none."""
    table = pd.DataFrame(values, index=pd.Index(predictions.ids), columns=list(predictions.names))
    return table.reindex(index=list(films), columns=list(labels)).to_numpy(float)


def _thresholds(model: Model, labels: LabelSet, missing: list[str]) -> np.ndarray:
    """(C,) Youden thresholds."""
    path = model.folder / THRESHOLDS
    if not path.exists():
        command = f"python evalClassification.py --predictions {model.folder}"
        missing.append(f"{path}: missing, so no outcomes; made by {command}")
        return np.full(len(labels), np.nan)
    found = read_thresholds(path)
    return np.array([np.nan if found.get(name) is None else found[name] for name in labels.names], dtype=float)


def _scores(
    results: Results, films: Sequence[str], tasks: Sequence[str]
) -> dict[tuple[str, str], tuple[np.ndarray, np.ndarray]]:
    scores: dict[tuple[str, str], tuple[np.ndarray, np.ndarray]] = {}
    for method in METHODS:
        model = results.model_of(method)
        if model is None:
            continue
        for protocol in PROTOCOLS:
            folder = localization_folder(model.folder, protocol, method)
            files = [folder / f"{kind}_results_per_cxr.csv" for kind in ("hitmiss", "iou")]
            hits, ious = (_per_film(file, films, tasks) for file in files)
            if np.isfinite(hits).any() or np.isfinite(ious).any():
                scores[protocol, method] = hits, ious
    return scores


def _per_film(path: Path, films: Sequence[str], tasks: Sequence[str]) -> np.ndarray:
    """Reads values (N, T) in the order of `films` and `tasks`; NaN where a film has none."""
    if not path.exists():
        return np.full((len(films), len(tasks)), np.nan)
    return read_per_film(path).reindex(index=list(films), columns=list(tasks)).to_numpy(float)
