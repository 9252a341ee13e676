"""One film's prediction: logits, what each patch adds, what differs from the average film, and the entry of it all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
from scipy.special import expit

from cxr.calibration_lines import Line
from cxr.film_folder import ReadFilm
from cxr.names import RELATIVE
from cxr.paths import study_of, view_of
from medicalpatchnet import film_logits, task_names
from models.decision import DecisionRule
from models.patch_net import MedicalPatchNet
from saliency.contributions import Contributions
from saliency.relative import Comparison, compared

STRONGEST = 3
"""Patches listed for and against each label."""


@dataclass
class Prediction:
    """view: frontal, lateral, or empty where it is not known; compared: None without a reference of the weights.

    overlays: (label, method) -> the picture's file, and what its colours mean.
    """

    film: ReadFilm
    view: str
    parts: Contributions
    compared: Comparison | None = None
    overlays: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)

    @property
    def note(self) -> str:
        """A remark on the average film that this one is compared with; empty where all is well."""
        return "" if self.compared is None else self.compared.note


def predict_batch(films: Sequence[ReadFilm], model: MedicalPatchNet, view: str) -> Iterator[Prediction]:
    """view: of films whose path does not say it, as CheXpert's do; empty where it is not known.

    Raises InputError for logits that are not finite.
    """
    if not films:
        return
    images = torch.stack([film.image for film in films if film.image is not None])  # (B, 1, S, S)
    model.check_images(images)
    logits = film_logits(model, images)  # (B, C)
    crops = [film.crop for film in films if film.crop is not None]
    for film, crop, image, of_film in zip(films, crops, images, logits, strict=True):
        parts = Contributions.of(model, image, of_film, crop)
        path = film.file.as_posix()
        film_view = view_of(path) if study_of(path) else view
        comparison = None
        if model.reference is not None:
            comparison = compared(parts.values, model.reference, task_names(model), film_view)
        yield Prediction(replace(film, image=None), film_view, parts, comparison)  # all pixels need not fit into memory


def entry(prediction: Prediction, rule: DecisionRule) -> dict[str, Any]:
    """A film's entry in predictions.json, which `reporting.film_predictions` describes."""
    parts, crop = prediction.parts, prediction.parts.crop
    probabilities, positive = parts.probabilities, rule.positive(parts.probabilities)
    drawn = {label: facts for (label, method), facts in prediction.overlays.items() if method != RELATIVE}
    labels = [
        {
            "label": label,
            "probability": float(probabilities[i]),
            "threshold": float(rule.thresholds[i]),
            "positive": bool(positive[i]),
            "logit": float(parts.logits[i]),
            "sum_of_patches": float(parts.sums[i]),
            "strongest_for": [asdict(patch) for patch in parts.strongest(i, sign=1, count=STRONGEST)],
            "strongest_against": [asdict(patch) for patch in parts.strongest(i, sign=-1, count=STRONGEST)],
            "overlay": drawn.get(label),
            "relative": _relative(prediction, i, label),
            "calibrated": _calibrated(prediction, i, rule.lines.get(label)),
        }
        for i, label in enumerate(rule.labels)
    ]
    facts = {"width": crop.film_width, "height": crop.film_height, "warnings": list(prediction.film.warnings)}
    reference = None if prediction.compared is None else prediction.compared.facts()
    return {"film": prediction.film.name} | facts | {"reference": reference, "labels": labels}


def _calibrated(prediction: Prediction, place: int, line: Line | None) -> dict[str, Any] | None:
    """A label's calibrated probability and log-odds, which the calibrated log-odds of the patches (P,) sum to.

    None without a line. A patch's share of a difference between two films is the same with and without it.
    """
    if line is None:
        return None
    log_odds = float(line.logits(prediction.parts.logits[place]))
    values = prediction.parts.values[:, place]
    patches = line.contributions(values, len(values)).tolist() if prediction.parts.sum_to_logits else None
    return {"probability": float(expit(log_odds)), "log_odds": log_odds, "patches": patches}


def _relative(prediction: Prediction, place: int, label: str) -> dict[str, Any] | None:
    """A label's logit as that of the average film and what the patches add to it; None without a reference of it."""
    of = prediction.compared
    if of is None or not of.has(place):
        return None
    parts, shares = replace(prediction.parts, values=of.values), of.shares(place)
    n = round(len(shares) ** 0.5)
    strongest = {
        name: [
            asdict(patch) | {"share": float(shares[patch.row * n + patch.column])}
            for patch in parts.strongest(place, sign=sign, count=STRONGEST)
        ]
        for name, sign in (("strongest_for", 1), ("strongest_against", -1))
    }
    numbers = {"average_film": float(of.average[place]), "patches": float(of.sums[place])}
    return numbers | strongest | {"overlay": prediction.overlays.get((label, RELATIVE))}
