"""The paper's grid of cases from heat maps: which films are shown, by rule, and what each row shows."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from cxr.heat_maps import HeatMapSource
from cxr.images import Crop
from cxr.labels import LabelSet
from cxr.masks import GroundTruth
from cxr.names import METHODS
from cxr.predictions import Predictions
from reporting.format import number
from reporting.label_words import shortened
from reporting.outlines import TRUE_OUTLINE
from reporting.paper import CaseRule, read_paper
from reporting.pictures.overlays import CasePictures, case_grid
from reporting.results import Results
from reporting.tables.paper_tables import of_dataset

COLUMNS = ("raw", "gradcam", "gradcam++", "eigencam")
"""Those of the paper's picture; the scaled map has the colours of the raw one, stretched."""


def columns(sources: Collection[str]) -> tuple[str, ...]:
    """The methods to show: the paper's, and those that it does not have but of which there are maps."""
    return (*COLUMNS, *(name for name, method in METHODS.items() if not method.in_paper and name in sources))


def case_rules(predictions: Predictions, labels: LabelSet, tasks: Collection[str]) -> tuple[CaseRule, ...]:
    """The rules of the paper's picture.

    tasks: of which there are maps. In the place of a task that is not among them, or not a label's, stands the one with
    the most positive films that no rule is about yet; without one left, the rule goes.
    """
    positives = {task: np.nansum(predictions.labels[:, column]) for task, column in _columns_of(predictions, labels)}
    rules = read_paper().case_rules
    stands_in = {rule.task: rule.task for rule in rules if rule.task in positives and rule.task in tasks}
    others = [task for task in positives if task in tasks and task not in stands_in]
    others.sort(key=lambda task: -positives[task])
    for rule in rules:
        if rule.task not in stands_in and others:
            stands_in[rule.task] = others.pop(0)
    return tuple(replace(rule, task=stands_in[rule.task]) for rule in rules if rule.task in stands_in)


def _columns_of(predictions: Predictions, labels: LabelSet) -> list[tuple[str, int]]:
    """(task, column of its label) of the predictions."""
    return [(labels.task_of(name), column) for column, name in enumerate(predictions.names)]


def choose_cases(
    predictions: Predictions, labels: LabelSet, available: Collection[tuple[str, str]]
) -> list[tuple[CaseRule, str]]:
    """(rule, film id) for every rule that some film meets; no film twice while there is another.

    available: the (film id, task) of which there are maps. Ties go to the first film id, so the choice depends on
    nothing but the predictions and the maps that are there. A film that is not labelled meets no rule.
    """
    chosen: list[tuple[CaseRule, str]] = []
    column_of = dict(_columns_of(predictions, labels))
    for rule in case_rules(predictions, labels, {task for _, task in available}):
        column = column_of[rule.task]
        truth, probability = predictions.labels[:, column], predictions.probabilities[:, column]
        taken = {name for _, name in chosen}
        meeting = [
            (name in taken, -p if rule.highest else p, name)
            for name, label, p in zip(predictions.ids, truth, probability, strict=True)
            if label == rule.positive and (name, rule.task) in available
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
    outline: str = TRUE_OUTLINE,
) -> tuple[Figure | None, str]:
    """The grid of cases of one protocol, or None and what is missing.

    sources: method -> its heat maps of the test films. outline: the name of a mask's outline. The films are chosen by
    the probabilities of the patch model, or of the baseline where it stands alone.
    """
    order = columns(sources)
    shown = {method: sources[method] for method in order if method in sources}
    models = ", ".join(str(model.folder) for model in results.models)
    if not shown:
        command = "python evalClassification.py --weights ... --data ... --chexlocalize ..."
        return None, f"{models}: no heat maps of the {protocol} protocol; made by {command}"
    predictions = results.models[0].predictions
    if predictions is None:
        missing = results.models[0].folder / "predictions_test.csv"
        return None, f"{missing}: missing, so no cases can be chosen; made by ./runEval.sh"
    available = set.intersection(*(set(source.entries) for source in shown.values()))
    cases = choose_cases(predictions, results.labels, available)
    if not cases:
        return None, f"{models}: no film has maps of all of {', '.join(shown)} ({protocol} protocol)"
    rows = [_pictures(rule, name, shown, results, protocol, ground_truth) for rule, name in cases]
    headings = {key: _heading(key, results) for key in order}
    signed = [key for key in order if METHODS[key].signed]
    title = f"Evidence and class activation maps, {protocol} protocol"
    caption = f"Test films{of_dataset(dataset)}. {_CAPTION[protocol].format(outline=outline)}"
    return case_grid(rows, headings, signed=signed, title=title, caption=caption), ""


_SQUARE = "Pictures show the central square of the film, which is what the networks see"
_CHOICE = (
    "Yellow: the {outline}. Numbers at the left: predicted probability p. Films are chosen by rule, not by "
    "eye: the one with the highest or lowest p of the first model among the positive or negative films."
)
_CAPTION = {
    "corrected": f"{_SQUARE}. {_CHOICE}",
    "published": f"{_SQUARE}; scoring, in this protocol, stretches it over the whole film. {_CHOICE}",
}


def _heading(method: str, results: Results) -> str:
    model = results.model_of(method)
    kind = METHODS[method].title.partition("(")[2].rstrip(")")  # "MedicalPatchNet (Raw)"; a CAM's title has none
    name = f"{kind} evidence" if kind else METHODS[method].title
    return f"{name}\n{shortened(model.name, 20)}" if model else name


def _pictures(
    rule: CaseRule,
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
    mask = mask_of(ground_truth, name, rule.task)
    outline = None if mask is None else in_crop(mask, mask.shape[::-1])
    return CasePictures(film, outline, maps, _lines(rule, name, results.labels, probabilities))


def _lines(rule: CaseRule, name: str, labels: LabelSet, probabilities: Mapping[str, float]) -> Sequence[str]:
    return [
        shortened(labels.label_of(rule.task), 20),
        f"truth: {'present' if rule.positive else 'absent'}",
        *(f"{shortened(model, 17)} {number(p, 2)}" for model, p in probabilities.items()),
        shortened(name.partition("_")[0], 20),
        f"({rule})",
    ]


def mask_of(ground_truth: GroundTruth | None, name: str, task: str) -> np.ndarray | None:
    """(H, W) bool, at the film's size; None where the film has no mask of the task, or an empty one."""
    try:
        known = ground_truth is not None and name in ground_truth and ground_truth.area(name, task) > 0
    except KeyError:  # a task that nobody outlined
        known = False
    return ground_truth.mask(name, task) if known and ground_truth is not None else None


def square(plane: np.ndarray, film_size: tuple[int, int], protocol: str) -> np.ndarray:
    """The square that the network saw: all of a published map and picture, the middle of the corrected ones."""
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
