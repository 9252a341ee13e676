"""The paper's grid of cases from heat maps: which films are shown, by rule, and what each row shows."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from cxr.heat_maps import HeatMapSource
from cxr.images import Crop
from cxr.labels import LABELS, label_of
from cxr.masks import GroundTruth
from cxr.paths import film_id
from cxr.predictions import Predictions, read_predictions
from reporting.format import number
from reporting.overlays import CasePictures, case_grid
from reporting.paper_tables import of_dataset
from reporting.results import METHODS, PATCH_METHODS, Results

COLUMNS = ("raw", "gradcam", "gradcam++", "eigencam")
"""Those of the paper's picture; the scaled map has the colours of the raw one, stretched."""


@dataclass(frozen=True)
class Rule:
    """Which film stands for a task: the positive or negative one with the highest or lowest predicted probability."""

    task: str
    positive: bool
    highest: bool

    def __str__(self) -> str:
        return f"{'highest' if self.highest else 'lowest'} p, {'positives' if self.positive else 'negatives'}"


RULES = (
    Rule("Pleural Effusion", positive=True, highest=True),
    Rule("Pleural Effusion", positive=False, highest=False),
    Rule("Pneumothorax", positive=True, highest=True),
    Rule("Cardiomegaly", positive=True, highest=True),
    Rule("Support Devices", positive=True, highest=True),
    Rule("Support Devices", positive=False, highest=True),
)
"""Sure cases of the paper's findings and, last, the negative film that the model is most wrong about."""


def choose_cases(predictions: Predictions, available: Collection[tuple[str, str]]) -> list[tuple[Rule, str]]:
    """(rule, image id) for every rule that some film meets; no film twice while there is another.

    available: the (image id, task) of which there are maps. Ties go to the first image id, so the choice depends on
    nothing but the predictions and the maps that are there.
    """
    chosen: list[tuple[Rule, str]] = []
    ids = [film_id(path) for path in predictions.paths]
    for rule in RULES:
        column = LABELS.index(label_of(rule.task))
        truth, probability = predictions.labels[:, column], predictions.probabilities[:, column]
        taken = {name for _, name in chosen}
        meeting = [
            (name in taken, -p if rule.highest else p, name)
            for name, label, p in zip(ids, truth, probability, strict=True)
            if bool(label) == rule.positive and (name, rule.task) in available
        ]
        if meeting:
            chosen.append((rule, min(meeting)[2]))
    return chosen


def case_figure(
    results: Results,
    protocol: str,
    sources: Mapping[str, HeatMapSource],
    ground_truth: GroundTruth | None,
    dataset: str = "",
) -> tuple[Figure | None, str]:
    """The grid of cases of one protocol, or None and what is missing.

    sources: method -> its heat maps of the test films. The films are chosen by the probabilities of the patch model, or
    of the baseline where it stands alone.
    """
    shown = {method: sources[method] for method in COLUMNS if method in sources}
    models = ", ".join(str(model.folder) for model in results.models)
    if not shown:
        command = "python evalClassification.py --weights ... --data ... --chexlocalize ..."
        return None, f"{models}: no heat maps of the {protocol} protocol; made by {command}"
    predicted = results.models[0].folder / "predictions_test.csv"
    if not predicted.exists():
        return None, f"{predicted}: missing, so no cases can be chosen; made by ./runEval.sh"
    available = set.intersection(*(set(source.entries) for source in shown.values()))
    cases = choose_cases(read_predictions(predicted), available)
    if not cases:
        return None, f"{models}: no film has maps of all of {', '.join(shown)} ({protocol} protocol)"
    rows = [_pictures(rule, name, shown, results, protocol, ground_truth) for rule, name in cases]
    columns = {key: _heading(key, results) for key in COLUMNS}
    signed = [key for key in COLUMNS if key in PATCH_METHODS]
    title = f"Evidence and class activation maps, {protocol} protocol"
    caption = f"Test films{of_dataset(dataset)}. {_CAPTION[protocol]}"
    return case_grid(rows, columns, signed=signed, title=title, caption=caption), ""


_SQUARE = "Pictures show the central square of the film, which is what the networks see"
_CHOICE = (
    "Yellow: the radiologists' mask. Numbers at the left: predicted probability p. Films are chosen by rule, not by "
    "eye: the one with the highest or lowest p of the first model among the positive or negative films."
)
_CAPTION = {
    "corrected": f"{_SQUARE}. {_CHOICE}",
    "published": f"{_SQUARE}; scoring, in this protocol, stretches it over the whole film. {_CHOICE}",
}


def _heading(method: str, results: Results) -> str:
    model = results.model_of(method)
    name = "Raw evidence" if method == "raw" else METHODS[method]
    return f"{name}\n{model.name}" if model else name


def _pictures(
    rule: Rule,
    name: str,
    sources: Mapping[str, HeatMapSource],
    results: Results,
    protocol: str,
    ground_truth: GroundTruth | None,
) -> CasePictures:
    heats = {key: source.load(name, rule.task) for key, source in sources.items()}
    first = next(iter(sources))
    film = square(sources[first].film_pixels(name), heats[first].film_size, protocol)
    maps = {key: resized(square(heat.map, heat.film_size, protocol), film.shape) for key, heat in heats.items()}
    models = {key: model for key in heats if (model := results.model_of(key)) is not None}
    probabilities = {model.name: heats[key].probability for key, model in models.items()}
    outline = None
    if ground_truth is not None and name in ground_truth:
        mask = ground_truth.mask(name, rule.task)
        outline = in_crop(mask, mask.shape[::-1])
    lines = [
        label_of(rule.task),
        f"truth: {'present' if rule.positive else 'absent'}",
        *(f"{model} {number(p, 2)}" for model, p in probabilities.items()),
        name.partition("_")[0],
        f"({rule})",
    ]
    return CasePictures(film, outline, maps, lines)


def square(plane: np.ndarray, film_size: tuple[int, int], protocol: str) -> np.ndarray:
    """What the network saw: all of a published map and picture, the middle of the corrected ones."""
    return plane if protocol == "published" else in_crop(plane, film_size)


def in_crop(plane: np.ndarray, film_size: tuple[int, int]) -> np.ndarray:
    """The part of a plane (h, w) over the whole film that the centred square covers; film_size: (width, height)."""
    width, height = film_size
    left, top, right, bottom = Crop.centred(width, height).box
    x, y = plane.shape[1] / width, plane.shape[0] / height
    return plane[round(top * y) : round(bottom * y), round(left * x) : round(right * x)]


def resized(plane: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """(h, w) float32 -> `shape`, bilinear, antialiased where it shrinks."""
    if plane.shape == shape:
        return plane
    height, width = shape
    return np.asarray(Image.fromarray(plane.astype(np.float32)).resize((width, height), Image.Resampling.BILINEAR))
