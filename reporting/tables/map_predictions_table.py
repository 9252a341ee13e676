"""The table of the two numbers that a patch network's maps decompose: the prediction, and the mean over all shifts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from cxr.calibration_lines import logit
from cxr.labels import LabelSet
from cxr.names import MAPS, predictions_file, table_file
from cxr.predictions import Predictions, read_deviations, read_predictions
from reporting.format import Block, Table, interval, number, plain
from reporting.label_words import marks_note, means, ordered
from reporting.numbers import Estimate, read_numbers
from reporting.results import Model, Results
from reporting.tables.label_tables import shown
from reporting.tables.paper_tables import of_dataset

_COLUMNS = ("AUROC, prediction", "AUROC, fine maps", "|logit difference|", "SD over shifts", "Opposite decisions")


@dataclass(frozen=True)
class MapPredictions:
    """The predictions of the fine maps of the test films.

    scores: label or mean -> AUROC; deviations: (N, C), standard deviation of the logit over the shifts.
    """

    scores: dict[str, Estimate]
    predictions: Predictions
    deviations: np.ndarray


def read_map_predictions(folder: Path, label_set: LabelSet | None) -> MapPredictions | None:
    """Those of a model's folder; None where it has none, or no table of them."""
    path, table = predictions_file(folder, "test", MAPS), table_file(folder, f"{MAPS}classification", "test")
    if not (path.is_file() and table.is_file()):
        return None
    columns = ("value", "ci_low", "ci_high")
    rows = read_numbers(table, columns, text=("label", "metric", "rule"))
    rows = rows[rows["metric"] == "auroc"]
    values = rows[list(columns)].to_numpy()
    scores = {label: Estimate(*row) for label, row in zip(rows["label"], values, strict=True)}
    predictions = read_predictions(path)
    return MapPredictions(scores, predictions, read_deviations(path, predictions.names))


def map_predictions_table(results: Results, model: Model, dataset: str = "") -> Table | None:
    """Per label: AUROC of prediction and fine maps, and how far their logits are apart; None where either is missing.

    Opposite decisions: share of the films on different sides of probability 0.5.
    """
    of_maps = read_map_predictions(model.folder, model.labels)
    if of_maps is None or model.scores is None or model.predictions is None:
        return None
    rows, records = [], []
    apart = _apart(model.predictions, of_maps)
    names = (*ordered(results.labels), *(mean for mean in means(results.labels) if mean in of_maps.scores))
    for label in (name for name in names if name in of_maps.scores):
        estimates = [model.scores.get(label, "auroc", "-"), of_maps.scores[label]]
        values = apart.get(label, [float("nan")] * 3)
        texts = [*(interval(*estimate) for estimate in estimates), *map(number, values)]
        rows.append(plain(shown(label, results), *texts))
        records.append([label, *(bound for estimate in estimates for bound in estimate), *values])
    bounds = [f"{name}{part}" for name in _COLUMNS[:2] for part in ("", " ci_low", " ci_high")]
    return Table(
        "map_predictions",
        "Predictions and fine maps",
        f"{model.name}, test films{of_dataset(dataset)}. The prediction is the mean of the unshifted patches, which "
        "the contributions of the patches decompose. A fine map averages over all shifts of the patch grid and "
        "decomposes their mean, which is another number: its AUROC stands beside that of the prediction, then the "
        "mean distance of the two logits, the mean standard deviation of the logit over the shifts, and the share of "
        "films that the two put on different sides of probability 0.5.",
        ("Label", *_COLUMNS),
        (Block("", tuple(rows)),),
        (
            *marks_note(results.labels),
            "Predictions are made from the preprocessed copies, maps from the full-size films; patches that reach "
            "over the border count in a map by their part inside (run.json, certificates, says how much that moves).",
        ),
        pd.DataFrame(records, columns=["Label", *bounds, *_COLUMNS[2:]]),
    )


def _apart(predictions: Predictions, of_maps: MapPredictions) -> dict[str, list[float]]:
    """Label -> mean |logit difference|, mean deviation, share of opposite decisions, over the films that both have."""
    place = {film_id: row for row, film_id in enumerate(predictions.ids)}
    both = [(place[film_id], row) for row, film_id in enumerate(of_maps.predictions.ids) if film_id in place]
    if not both:
        return {}
    ours, theirs = (list(rows) for rows in zip(*both, strict=True))
    found = {}
    for column, label in enumerate(of_maps.predictions.names):
        if label in predictions.names:
            p = predictions.probabilities[ours, predictions.names.index(label)]
            q = of_maps.predictions.probabilities[theirs, column]
            distance = np.abs(logit(p) - logit(q)).mean()
            deviation = of_maps.deviations[theirs, column].mean()
            found[label] = [float(distance), float(deviation), float(((p > 0.5) != (q > 0.5)).mean())]
    return found
