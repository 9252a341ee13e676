"""Every film and label of the test set as the page lists it: probabilities, truth, thresholds, hits and IoU."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cxr.files import InputError, read_json
from cxr.labels import LABELS, TASKS, label_of
from cxr.paths import film_id
from cxr.predictions import Predictions, read_predictions
from reporting.results import METHODS, PROTOCOLS, Results, read_numbers

OUTCOMES = ("TP", "FN", "FP", "TN")


@dataclass(frozen=True)
class CaseList:
    """films: their image ids; truth: (N, 14) of 0 and 1; probabilities: model's name -> (N, 14), NaN for a film that it
    did not predict; thresholds: model's name -> (14,), NaN where undefined; scores: (protocol, method) -> hit and IoU,
    each (N, 10), NaN where undefined; missing: one line per part that is not there."""

    films: tuple[str, ...]
    paths: tuple[str, ...]
    truth: np.ndarray
    probabilities: dict[str, np.ndarray]
    thresholds: dict[str, np.ndarray]
    scores: dict[tuple[str, str], tuple[np.ndarray, np.ndarray]]
    missing: tuple[str, ...]

    def outcome(self, film: int, label: int) -> str:
        """By the first model's Youden threshold; empty without one."""
        name = next(iter(self.probabilities))
        probability, threshold = self.probabilities[name][film, label], self.thresholds[name][label]
        if np.isnan(probability) or np.isnan(threshold):
            return ""
        called = probability >= threshold
        return f"{'T' if called == self.truth[film, label] else 'F'}{'P' if called else 'N'}"

    def content(self) -> dict[str, Any]:
        """The list for json, undefined numbers as null. Probabilities are the file's own, so that outcomes are too."""
        return {
            "films": self.films,
            "paths": self.paths,
            "labels": LABELS,
            "tasks": [label_of(task) for task in TASKS],
            "truth": ["".join(str(int(value)) for value in row) for row in self.truth.tolist()],
            "models": [
                {"name": name, "probability": _listed(values), "threshold": _listed(self.thresholds[name])}
                for name, values in self.probabilities.items()
            ],
            "scores": {
                f"{protocol} {method}": {"hit": _listed(hit), "iou": _listed(iou, "%.4g")}
                for (protocol, method), (hit, iou) in self.scores.items()
            },
        }


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
        path = model.folder / "predictions_test.csv"
        if path.exists():
            predictions[model.name] = read_predictions(path)
        else:
            missing.append(f"{path}: missing; made by ./runEval.sh")
    if not predictions:
        return None
    first = next(iter(predictions.values()))
    films = tuple(film_id(path) for path in first.paths)
    thresholds = {}
    for model in results.models:
        if model.name in predictions:
            thresholds[model.name] = _thresholds(model.folder, missing)
    return CaseList(
        films,
        first.paths,
        first.labels,
        {name: _probabilities(of_model, films) for name, of_model in predictions.items()},
        thresholds,
        _scores(results, films),
        tuple(missing),
    )


def _probabilities(predictions: Predictions, films: Sequence[str]) -> np.ndarray:
    """(N, 14) in the order of `films`."""
    row_of = {film_id(path): row for row, path in enumerate(predictions.paths)}
    values = np.full((len(films), len(LABELS)), np.nan)
    for place, film in enumerate(films):
        if film in row_of:
            values[place] = predictions.probabilities[row_of[film]]
    return values


def _thresholds(folder: Path, missing: list[str]) -> np.ndarray:
    """(14,) Youden thresholds."""
    path = folder / "thresholds.json"
    if not path.exists():
        missing.append(f"{path}: missing, so no outcomes; made by python evalClassification.py --predictions {folder}")
        return np.full(len(LABELS), np.nan)
    content = read_json(path)
    try:
        found = [content[label]["threshold"] for label in LABELS]
        return np.array([np.nan if value is None else float(value) for value in found])
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: not a threshold per label ({error}); delete it and run again") from None


def _scores(results: Results, films: Sequence[str]) -> dict[tuple[str, str], tuple[np.ndarray, np.ndarray]]:
    scores = {}
    for method in METHODS:
        model = results.model_of(method)
        for protocol in PROTOCOLS:
            if model is None:
                continue
            folder = model.folder / "localization" / protocol / method
            hits, ious = (_per_film(folder / f"{kind}_results_per_cxr.csv", films) for kind in ("hitmiss", "iou"))
            if np.isfinite(hits).any() or np.isfinite(ious).any():
                scores[protocol, method] = hits, ious
    return scores


def _per_film(path: Path, films: Sequence[str]) -> np.ndarray:
    """(N, 10) in the order of `films`; NaN where there is no value."""
    if not path.exists():
        return np.full((len(films), len(TASKS)), np.nan)
    table = read_numbers(path, TASKS, text=("img_id",)).drop_duplicates("img_id").set_index("img_id")
    return table.reindex(films)[list(TASKS)].to_numpy(float)
