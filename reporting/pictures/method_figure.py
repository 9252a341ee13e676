"""The method in one picture: a film, the votes of its patches, their sum, the fine map, and the baseline's CAM beside.

The film is chosen by rule: of the films that have a finding, that the patch network calls, and whose fine map has its
maximum inside the outline, the one with the highest probability; outlines above `LARGE` of the square come last, since
a hit in them says little.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cxr.names import METHODS, RELATIVE, THRESHOLDS
from cxr.thresholds import read_thresholds
from reporting.format import number
from reporting.label_words import shortened
from reporting.outlines import DRAWN_OUTLINE
from reporting.page.case_pictures import MapSources
from reporting.pictures.case_grid import in_crop, mask_of, resized, square
from reporting.pictures.overlays import LOGIT_RANGE, OUTLINE, SIGNED, evidence_scale, tint
from reporting.pictures.style import GREY
from reporting.results import Results
from reporting.tables.paper_tables import of_dataset

FINE = (RELATIVE, "raw")
"""The map shown: the first of these that there is."""
CAM = "gradcam"
LARGE = 0.1
"""Share of the square."""

MOST_NUMBERS = 16
"""Patches per side, at most, whose numbers are written: more would not be legible."""

_SIZE = (10.12, 2.62)
_TOP, _BOTTOM = 0.845, 0.13


@dataclass(frozen=True)
class _Case:
    """film: (h, w) in [0, 1], the square that the network saw; votes: (k, k) patch logits; fine, cam: (h, w)."""

    film: np.ndarray
    outline: np.ndarray
    votes: np.ndarray
    fine: np.ndarray
    cam: np.ndarray | None
    probability: float
    threshold: float
    label: str
    method: str


def method_figure(results: Results, sources: MapSources, dataset: str = "") -> tuple[Figure | None, str]:
    """The picture of the chosen case, or None and what is missing. sources: maps of the test films."""
    if results.patch is None or sources.patches is None or sources.ground_truth is None:
        return None, "picture of the method: it needs a patch network's evidence files and the outlines (--gt-path)"
    case = _chosen(results, sources)
    if case is None:
        return None, "picture of the method: no film whose finding is called and hit by the fine map"
    figure = Figure(figsize=_SIZE)
    widths = [1, 1, 0.95, 1, 1] if case.cam is not None else [1, 1, 0.95, 1]
    axes = figure.subplots(1, len(widths), width_ratios=widths)
    figure.subplots_adjust(left=0.005, right=0.995, top=_TOP, bottom=_BOTTOM, wspace=0.06)
    _film(axes[0], case, "drawn film" if sources.outline == DRAWN_OUTLINE else f"film{of_dataset(dataset)}")
    _votes(axes[1], case)
    _sum(axes[2], case)
    logit = LOGIT_RANGE * evidence_scale(case.fine)
    _picture(axes[3], tint(case.film, case.fine, signed=True), case)
    axes[3].set_title(f"fine map ({case.method})", size=9)
    _under(axes[3], f"red for, blue against; full at ±{logit:.2g}")
    if case.cam is not None:
        _picture(axes[4], tint(case.film, case.cam, signed=False), case)
        axes[4].set_title(f"{METHODS[CAM].title} of the baseline", size=9)
        _under(axes[4], "from least to most; sums to nothing")
    return figure, ""


def _chosen(results: Results, sources: MapSources) -> _Case | None:
    """The surest case that the rule of this module allows; ties go to the first film id."""
    model = results.patch
    fine = next((method for method in FINE if ("corrected", method) in sources.maps), None)
    if model is None or model.predictions is None or fine is None or not (model.folder / THRESHOLDS).is_file():
        return None
    thresholds = read_thresholds(model.folder / THRESHOLDS, model.predictions.names)
    entries = sources.entries["corrected", fine] & sources.patch_entries
    found = []
    for column, label in enumerate(model.predictions.names):
        threshold, task = thresholds.get(label), results.labels.task_of(label)
        for row, film in enumerate(model.predictions.ids):
            p = float(model.predictions.probabilities[row, column])
            positive = model.predictions.labels[row, column] == 1
            if positive and threshold is not None and p >= threshold and (film, task) in entries:
                found.append((-p, film, task, label, threshold))
    large = None
    for p, film, task, label, threshold in sorted(found):
        case = _case(results, sources, film, task, fine, (label, -p, threshold))
        if case is not None and case.outline.mean() <= LARGE:
            return case
        large = large or case
    return large


def _case(
    results: Results, sources: MapSources, film: str, task: str, fine: str, decision: tuple[str, float, float]
) -> _Case | None:
    """The pictures of one film and task; None unless the fine map's maximum lies in the outline."""
    mask = mask_of(sources.ground_truth, film, task)
    if mask is None or sources.patches is None:
        return None
    source = sources.maps["corrected", fine]
    heat = source.load(film, task)
    pixels = square(source.film_pixels(film), heat.film_size, "corrected")
    outline = in_crop(mask, mask.shape[::-1])
    map_ = square(heat.map, heat.film_size, "corrected")
    y, x = np.unravel_index(map_.argmax(), map_.shape)
    place = tuple(int(at * of / size) for at, of, size in zip((y, x), outline.shape, map_.shape, strict=True))
    if not outline[place]:
        return None
    cams = sources.maps.get(("corrected", CAM))
    cam = None
    if cams is not None and (film, task) in sources.entries["corrected", CAM]:
        other = cams.load(film, task)
        cam = resized(square(other.map, other.film_size, "corrected"), pixels.shape)
    label, probability, threshold = decision
    votes = sources.patches.patch_logits(film, task)
    fine_map = resized(map_, pixels.shape)
    return _Case(pixels, outline, votes, fine_map, cam, probability, threshold, label, fine)


def _film(axes: Axes, case: _Case, title: str) -> None:
    _picture(axes, np.repeat(case.film[..., None], 3, axis=2), case)
    axes.set_title(title, size=9)
    _under(axes, f"yellow: {shortened(case.label, 26)}")


def _votes(axes: Axes, case: _Case) -> None:
    """The film's patches in their colours, each with its logit."""
    k = len(case.votes)
    scale = float(np.abs(case.votes).max()) or 1.0
    axes.imshow(SIGNED(case.votes / (2 * scale) + 0.5), extent=(0, k, k, 0), alpha=0.85)
    axes.set_xticks(range(k + 1), [])
    axes.set_yticks(range(k + 1), [])
    axes.tick_params(length=0)
    axes.grid(color="white", linewidth=0.8)
    axes.spines[:].set_visible(False)
    if k <= MOST_NUMBERS:
        for (row, column), vote in np.ndenumerate(case.votes):
            colour = "white" if abs(vote) > 0.62 * scale else "black"
            text = f"{vote:.1f}".replace("-0.0", "0.0").replace("-", "−")
            axes.text(
                column + 0.5, row + 0.5, text, ha="center", va="center", size=52 / k if k > 6 else 9, color=colour
            )
    axes.set_title(f"{k} x {k} patches vote alone", size=9)
    _under(axes, "the logit of each patch on its own")


def _sum(axes: Axes, case: _Case) -> None:
    """Votes for, votes against, and their sum: the logit, hence the probability."""
    shares = case.votes / case.votes.size
    bars = (shares[shares > 0].sum(), shares[shares < 0].sum(), shares.sum())
    colours = (SIGNED(0.85), SIGNED(0.15), "black")
    reach = max(map(abs, bars)) or 1.0
    axes.barh([2, 1, 0], bars, color=colours, height=0.36)
    axes.axvline(0, color=GREY, linewidth=0.8, ymin=0.2, ymax=0.93)
    for y, words, value in zip((2, 1, 0), ("votes for", "votes against", "mean = logit"), bars, strict=True):
        axes.text(-1.1 * reach, y + 0.42, words, size=8, va="center", ha="left", color=GREY)
        axes.text(1.1 * reach, y + 0.42, f"{value:+.2f}".replace("-", "−"), size=9, va="center", ha="right")
    axes.set(xlim=(-1.15 * reach, 1.15 * reach), ylim=(-0.95, 2.75))
    axes.set_axis_off()
    axes.set_title("their mean is the prediction", size=9)
    axes.text(0, -0.62, f"probability {number(case.probability, 2)}", size=9.5, weight="bold", ha="center", va="center")
    _under(axes, f"threshold {number(case.threshold, 2)}: called present")


def _picture(axes: Axes, picture: np.ndarray, case: _Case) -> None:
    axes.imshow(picture)
    _outline(axes, case)
    axes.set_axis_off()


def _outline(axes: Axes, case: _Case) -> None:
    sides = zip(case.outline.shape, case.film.shape, strict=True)
    y, x = ((np.arange(mask) + 0.5) * film / mask - 0.5 for mask, film in sides)  # in the film's pixels
    axes.contour(x, y, case.outline, levels=[0.5], colors=[OUTLINE], linewidths=1.0)


def _under(axes: Axes, words: str) -> None:
    axes.text(0.5, -0.04, words, transform=axes.transAxes, ha="center", va="top", size=7.5, color=GREY)
