"""Figure 1 of the paper (AUROC per label, both models), ROC curves and reliability diagrams of a results folder."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from cxr.labels import LabelSet
from reporting.format import number
from reporting.label_words import means, ordered, renamed_note, sections, starred
from reporting.numbers import Estimate
from reporting.pictures.style import COLOURS, FULL_WIDTH, GREY, PALE, SHAPES, save, style
from reporting.results import Model, Results, Scores


def classification_figures(results: Results, folder: Path, dataset: str = "") -> list[Path]:
    """Writes every picture that the results allow, as PNG and PDF; returns the paths. `dataset` is named below."""
    paths = []
    with style():
        if results.scored_models:
            paths += save(auroc_figure(results, dataset), folder, "figure1")
        for role, model in results.roles.items():
            if model.labels is None:
                continue
            if model.roc is not None:
                paths += save(roc_figure(model, role, dataset), folder, f"roc_{model.folder.name}")
            if model.calibration is not None:
                paths += save(reliability_figure(model, role, dataset), folder, f"reliability_{model.folder.name}")
    return paths


_ROW, _ABOVE, _BELOW = 0.2394, 0.336, 0.476
"""Inches: a row of Figure 1, and what is above and below all rows."""


def auroc_figure(results: Results, dataset: str = "") -> Figure:
    """One row per label: each model's AUROC with its 95% interval, the values written beside, the higher one bold."""
    groups = sections(results.labels) | {"Means": tuple(means(results.labels))}
    models = {role: model for role, (model, _) in results.scored_models.items()}
    rows = sum(map(len, groups.values())) + 1.4 * len(groups) - 0.2  # of the axes, from -0.6
    height = round(_ABOVE + _BELOW + _ROW * rows, 3)
    figure = Figure(figsize=(FULL_WIDTH, height))
    axes = figure.add_axes((0.245, _BELOW / height, 0.56, 1 - (_ABOVE + _BELOW) / height))
    estimates = {
        label: {role: results.estimate(model, label, "auroc", "-") for role, model in models.items()}
        for labels in groups.values()
        for label in labels
    }
    _auroc_frame(axes, estimates)
    place = 0.0
    for heading, labels in groups.items():
        axes.text(-0.425, place, heading, transform=axes.get_yaxis_transform(), weight="bold", va="center")
        for label in labels:
            place += 1
            _auroc_row(axes, place, starred(label, results.labels), estimates[label])
        place += 1.4
    axes.set_ylim(place - 0.8, -0.6)
    handles = [_handle(role, model.name) for role, model in models.items()]
    figure.legend(handles=handles, loc="upper left", bbox_to_anchor=(0.235, 1.0), ncols=2, columnspacing=2)
    for role, where in _VALUE_COLUMNS.items():
        if role in models:
            (mark,) = axes.plot(where, 1.0, SHAPES[role], transform=axes.transAxes, clip_on=False)
            mark.set(color=COLOURS[role], markersize=4.5)
    _footnotes(figure, results.labels, dataset)
    return figure


def _footnotes(figure: Figure, labels: LabelSet, dataset: str) -> None:
    low = 0.012 * min(1, 5.6 / figure.get_figheight())
    if renamed_note(labels):
        figure.text(0.01, low, renamed_note(labels), size=6.5, color=GREY)
    if dataset:
        figure.text(0.99, low, f"Test films: {dataset}", size=6.5, color=GREY, ha="right")


_VALUE_COLUMNS = {"patch": 1.09, "baseline": 1.24}
"""Where the written values stand, in widths of the axes."""


def _auroc_frame(axes: Axes, estimates: dict[str, dict[str, Estimate]]) -> None:
    lowest = np.nanmin([0.85, *(x for row in estimates.values() for e in row.values() for x in (e.value, e.low))])
    axes.set_xlim(math.floor(lowest * 20) / 20, 1.0)
    axes.set_xlabel("AUROC with 95% interval")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=8, steps=[1, 2, 5, 10]))
    axes.tick_params(axis="y", length=0)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x", color=PALE, linewidth=0.5)
    axes.set_axisbelow(True)
    if lowest < 0.5:
        axes.axvline(0.5, color=GREY, linewidth=0.8, linestyle="--")


def _auroc_row(axes: Axes, place: float, name: str, estimates: dict[str, Estimate]) -> None:
    across = axes.get_yaxis_transform()
    axes.text(-0.02, place, name, transform=across, ha="right", va="center")
    shown = {role: round(estimate.value, 3) for role, estimate in estimates.items()}
    if all(math.isnan(value) for value in shown.values()):
        axes.text(0.02, place, "undefined", transform=across, va="center", color=GREY)
    best = max(shown.values()) if len(set(shown.values())) == 2 else math.nan
    for role, estimate in estimates.items():
        where = place + (-0.17 if role == "patch" else 0.17)
        axes.plot([estimate.low, estimate.high], [where, where], color=COLOURS[role], linewidth=1.3)
        axes.plot(estimate.value, where, SHAPES[role], color=COLOURS[role], markersize=4.5, clip_on=False)
        weight = "bold" if shown[role] == best else "normal"
        text = axes.text(_VALUE_COLUMNS[role], place, number(estimate.value), transform=across, weight=weight)
        text.set(size=7.5, ha="center", va="center")


def _handle(role: str, name: str) -> Line2D:
    return Line2D([], [], color=COLOURS[role], marker=SHAPES[role], markersize=4.5, linewidth=1.3, label=name)


def roc_figure(model: Model, role: str, dataset: str = "") -> Figure:
    """One ROC curve per label, with the point at which the Youden threshold of the validation films lands.

    Raises ValueError for a model without curves or labels.
    """
    if model.roc is None or model.labels is None:
        raise ValueError(f"{model.folder}: no ROC curves or no labels were read")
    title = f"{model.name}: ROC curves and AUROC (95% interval) on the test films"
    names = ("False positive rate", "True positive rate")
    figure, panels, free = _small_multiples(title, model.labels, dataset, names)
    for label, axes in panels:
        curve = model.roc[model.roc["label"] == label]
        axes.plot([0, 1], [0, 1], color=GREY, linewidth=0.6, linestyle="--")
        if curve[["fpr", "tpr"]].dropna().empty:
            _say(axes, "undefined")
            continue
        axes.plot(curve["fpr"], curve["tpr"], color=COLOURS[role], linewidth=1.4, clip_on=False)
        if model.scores is not None:
            _operating_point(axes, model.scores, label, role)
    youden = Line2D([], [], color="black", marker=SHAPES[role], markersize=4, linewidth=0)
    youden.set_label("Youden threshold\nof validation")
    handles = [
        Line2D([], [], color=COLOURS[role], linewidth=1.4, label="ROC curve"),
        youden,
        Line2D([], [], color=GREY, linewidth=0.6, linestyle="--", label="chance"),
    ]
    _legend(figure, free, handles)
    return figure


def _operating_point(axes: Axes, scores: Scores, label: str, role: str) -> None:
    sensitivity, specificity = (scores.get(label, metric, "youden").value for metric in ("sensitivity", "specificity"))
    axes.plot(1 - specificity, sensitivity, SHAPES[role], color="black", markersize=4)
    _say(axes, _auroc_text(scores.get(label, "auroc", "-")))


def _auroc_text(estimate: Estimate) -> str:
    bounds = "" if math.isnan(estimate.low) else f"\n({number(estimate.low)}–{number(estimate.high)})"
    return f"{number(estimate.value)}{bounds}"


_COLUMNS = 5
_PANEL, _GAP, _EDGE = 1.0577, 0.32, 0.575
"""Height of a panel in inches, the gap between two rows in panels, and the room above and below all rows in inches."""


def _small_multiples(
    title: str, labels: LabelSet, dataset: str, axis_names: tuple[str, str]
) -> tuple[Figure, list[tuple[str, Axes]], Axes]:
    """A grid of unit squares, five to a row, one per label, and the free place after the last, for a legend."""
    shown = ordered(labels)
    rows = -(-(len(shown) + 1) // _COLUMNS)
    height = round(_PANEL * (rows + _GAP * (rows - 1)) + 2 * _EDGE, 3)
    figure = Figure(figsize=(FULL_WIDTH, height))
    grid = figure.subplots(rows, _COLUMNS, sharex=True, sharey=True, squeeze=False)
    edge = _EDGE / height
    figure.subplots_adjust(left=0.075, right=0.985, bottom=edge, top=1 - edge, wspace=0.14, hspace=_GAP)
    panels = list(zip(shown, grid.flat, strict=False))
    for label, axes in panels:
        axes.set_title(starred(label, labels, longest=18), size=7.5, pad=5)
        axes.set(xlim=(0, 1), ylim=(0, 1), xticks=[0, 0.5, 1], yticks=[0, 0.5, 1], aspect="equal")
        axes.set_xticklabels(["0", "0.5", "1"])
        axes.set_yticklabels(["0", "0.5", "1"])
    for axes in grid.flat[len(panels) :]:
        axes.set_axis_off()
    for _, axes in panels[-_COLUMNS:]:  # those with nothing below them
        axes.tick_params(labelbottom=True)
    figure.suptitle(title, size=9, x=0.075, y=1 - 0.1 / height, ha="left", weight="bold")
    figure.supxlabel(axis_names[0], size=8, y=0.175 / height)
    figure.supylabel(axis_names[1], size=8, x=0.008)
    _footnotes(figure, labels, dataset)
    return figure, panels, grid.flat[len(panels)]


def _say(axes: Axes, text: str) -> None:
    axes.text(0.97, 0.05, text, ha="right", va="bottom", size=7, linespacing=1.15)


def _legend(figure: Figure, free: Axes, handles: list[Line2D]) -> None:
    place = free.get_position()
    figure.legend(
        handles=handles, loc="center", bbox_to_anchor=(place.x0, place.y0, place.width, place.height), fontsize=6.5
    )


def reliability_figure(model: Model, role: str, dataset: str = "") -> Figure:
    """Share of positive films against mean predicted probability, per bin, with Wilson's 95% interval.

    Raises ValueError for a model without calibration or labels.
    """
    if model.calibration is None or model.labels is None:
        raise ValueError(f"{model.folder}: no calibration or no labels were read")
    title = f"{model.name}: reliability on the test films"
    names = ("Mean predicted probability", "Share of positive films")
    figure, panels, free = _small_multiples(title, model.labels, dataset, names)
    most = max(model.calibration["count"].max(), 1)
    for label, axes in panels:
        bins = model.calibration[(model.calibration["label"] == label) & (model.calibration["count"] > 0)]
        axes.plot([0, 1], [0, 1], color=GREY, linewidth=0.6, linestyle="--")
        low, high = wilson(bins["fraction_positive"].to_numpy(), bins["count"].to_numpy())
        axes.vlines(bins["mean_probability"], low, high, color=COLOURS[role], linewidth=0.9)
        dots = axes.scatter(bins["mean_probability"], bins["fraction_positive"], s=_area(bins["count"], most))
        dots.set(color=COLOURS[role], edgecolor="white", linewidth=0.4, zorder=3, clip_on=False)
    _legend(figure, free, list(_reliability_handles(role, most)))
    return figure


def wilson(share: np.ndarray, count: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Wilson's 95% interval of a proportion (doi 10.1080/01621459.1927.10502953), which stays inside [0, 1]."""
    z = 1.959964
    centre = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z / (1 + z**2 / count) * np.sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
    return centre - half, centre + half


def _area(count: pd.Series | float, most: float) -> pd.Series | float:
    """Area of a bin's dot in square points; it grows linearly with the number of films."""
    return 3 + 45 * count / most


def _reliability_handles(role: str, most: float) -> Iterator[Line2D]:
    for count in sorted({1, max(1, round(most / 4)), round(most)}):
        size = math.sqrt(float(_area(float(count), most)))
        dot = Line2D([], [], color=COLOURS[role], marker="o", markersize=size, linewidth=0)
        dot.set_label(f"{count} film{'s' * (count > 1)}")
        yield dot
    yield Line2D([], [], color=COLOURS[role], linewidth=0.9, label="95% interval")
    yield Line2D([], [], color=GREY, linewidth=0.6, linestyle="--", label="perfect")
