"""Figure 1 of the paper (AUROC per label, both models), ROC curves and reliability diagrams, from a results folder."""

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

from cxr.labels import CHEXLOCALIZE_LABELS
from reporting.format import number
from reporting.results import LABEL_ORDER, MEAN_OF, Estimate, Model, Results
from reporting.style import COLOURS, FULL_WIDTH, GREY, PALE, SHAPES, save, style

_GROUPS = {
    "Labels of CheXlocalize": LABEL_ORDER[: len(CHEXLOCALIZE_LABELS)],
    "Other labels of CheXpert": LABEL_ORDER[len(CHEXLOCALIZE_LABELS) :],
    "Means": tuple(MEAN_OF),
}
_GRID = (3, 5)
"""Rows and columns of the small multiples: 14 labels and a place for the legend."""


def classification_figures(results: Results, folder: Path, dataset: str = "") -> list[Path]:
    """Writes every picture that the results allow, as PNG and PDF; returns the paths. `dataset` is named below."""
    paths = []
    with style():
        if any(model.scores for model in results.models):
            paths += save(auroc_figure(results, dataset), folder, "figure1")
        for role, model in results.roles.items():
            if model.roc is not None:
                paths += save(roc_figure(model, role, dataset), folder, f"roc_{model.folder.name}")
            if model.calibration is not None:
                paths += save(reliability_figure(model, role, dataset), folder, f"reliability_{model.folder.name}")
    return paths


def auroc_figure(results: Results, dataset: str = "") -> Figure:
    """One row per label: each model's AUROC with its 95% interval, the values written beside, the higher one bold."""
    scored = {role: model for role, model in results.roles.items() if model.scores}
    figure = Figure(figsize=(FULL_WIDTH, 5.6))
    axes = figure.add_axes((0.245, 0.085, 0.56, 0.855))
    estimates = {
        label: {role: model.scores.get(label, "auroc", "-") for role, model in scored.items() if model.scores}
        for labels in _GROUPS.values()
        for label in labels
    }
    _auroc_frame(axes, estimates)
    place = 0.0
    for heading, labels in _GROUPS.items():
        axes.text(-0.425, place, heading, transform=axes.get_yaxis_transform(), weight="bold", va="center")
        for label in labels:
            place += 1
            _auroc_row(axes, place, label, estimates[label])
        place += 1.4
    axes.set_ylim(place - 0.8, -0.6)
    handles = [_handle(role, model.name) for role, model in scored.items()]
    figure.legend(handles=handles, loc="upper left", bbox_to_anchor=(0.235, 1.0), ncols=2, columnspacing=2)
    for role, where in _VALUE_COLUMNS.items():
        if role in scored:
            (mark,) = axes.plot(where, 1.0, SHAPES[role], transform=axes.transAxes, clip_on=False)
            mark.set(color=COLOURS[role], markersize=4.5)
    _footnotes(figure, dataset)
    return figure


def _footnotes(figure: Figure, dataset: str) -> None:
    figure.text(0.01, 0.012, "* called Airspace Opacity in CheXlocalize", size=6.5, color=GREY)
    if dataset:
        figure.text(0.99, 0.012, f"Test films of {dataset}", size=6.5, color=GREY, ha="right")


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


def _auroc_row(axes: Axes, place: float, label: str, estimates: dict[str, Estimate]) -> None:
    across = axes.get_yaxis_transform()
    name = f"{label}*" if label == "Lung Opacity" else label
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
    """One ROC curve per label, with the point at which the Youden threshold of the validation films lands."""
    assert model.roc is not None
    title = f"{model.name}: ROC curves and AUROC (95% interval) on the test films"
    figure, panels = _small_multiples(title, dataset, ("False positive rate", "True positive rate"))
    for label, axes in panels:
        curve = model.roc[model.roc["label"] == label]
        axes.plot([0, 1], [0, 1], color=GREY, linewidth=0.6, linestyle="--")
        if curve[["fpr", "tpr"]].dropna().empty:
            _say(axes, "undefined")
            continue
        axes.plot(curve["fpr"], curve["tpr"], color=COLOURS[role], linewidth=1.4, clip_on=False)
        if model.scores is None:
            continue
        sensitivity, specificity = (model.scores.get(label, m, "youden").value for m in ("sensitivity", "specificity"))
        axes.plot(1 - specificity, sensitivity, SHAPES[role], color="black", markersize=4)
        _say(axes, _auroc_text(model.scores.get(label, "auroc", "-")))
    youden = Line2D([], [], color="black", marker=SHAPES[role], markersize=4, linewidth=0)
    youden.set_label("Youden threshold\nof validation")
    handles = [
        Line2D([], [], color=COLOURS[role], linewidth=1.4, label="ROC curve"),
        youden,
        Line2D([], [], color=GREY, linewidth=0.6, linestyle="--", label="chance"),
    ]
    _legend(figure, handles)
    return figure


def _auroc_text(estimate: Estimate) -> str:
    bounds = "" if math.isnan(estimate.low) else f"\n({number(estimate.low)}–{number(estimate.high)})"
    return f"{number(estimate.value)}{bounds}"


def _small_multiples(title: str, dataset: str, axis_names: tuple[str, str]) -> tuple[Figure, list[tuple[str, Axes]]]:
    """A 3 x 5 grid of unit squares, one per label; the fifteenth place stays free for the legend."""
    figure = Figure(figsize=(FULL_WIDTH, 5.0))
    grid = figure.subplots(*_GRID, sharex=True, sharey=True)
    figure.subplots_adjust(left=0.075, right=0.985, bottom=0.115, top=0.885, wspace=0.14, hspace=0.32)
    panels = list(zip(LABEL_ORDER, grid.flat, strict=False))
    for label, axes in panels:
        axes.set_title(_SHORT.get(label, label) + ("*" if label == "Lung Opacity" else ""), size=7.5, pad=5)
        axes.set(xlim=(0, 1), ylim=(0, 1), xticks=[0, 0.5, 1], yticks=[0, 0.5, 1], aspect="equal")
        axes.set_xticklabels(["0", "0.5", "1"])
        axes.set_yticklabels(["0", "0.5", "1"])
    grid.flat[-1].set_axis_off()
    grid.flat[len(LABEL_ORDER) - _GRID[1]].tick_params(labelbottom=True)
    figure.suptitle(title, size=9, x=0.075, ha="left", weight="bold")
    figure.supxlabel(axis_names[0], size=8, y=0.035)
    figure.supylabel(axis_names[1], size=8, x=0.008)
    _footnotes(figure, dataset)
    return figure, panels


_SHORT = {"Enlarged Cardiomediastinum": "Enlarged Card."}


def _say(axes: Axes, text: str) -> None:
    axes.text(0.97, 0.05, text, ha="right", va="bottom", size=7, linespacing=1.15)


def _legend(figure: Figure, handles: list[Line2D]) -> None:
    free = figure.axes[-1].get_position()
    figure.legend(
        handles=handles, loc="center", bbox_to_anchor=(free.x0, free.y0, free.width, free.height), fontsize=6.5
    )


def reliability_figure(model: Model, role: str, dataset: str = "") -> Figure:
    """Share of positive films against mean predicted probability, per bin, with Wilson's 95% interval."""
    assert model.calibration is not None
    title = f"{model.name}: reliability on the test films"
    figure, panels = _small_multiples(title, dataset, ("Mean predicted probability", "Share of positive films"))
    most = model.calibration["count"].max()
    for label, axes in panels:
        bins = model.calibration[(model.calibration["label"] == label) & (model.calibration["count"] > 0)]
        axes.plot([0, 1], [0, 1], color=GREY, linewidth=0.6, linestyle="--")
        low, high = wilson(bins["fraction_positive"].to_numpy(), bins["count"].to_numpy())
        axes.vlines(bins["mean_probability"], low, high, color=COLOURS[role], linewidth=0.9)
        axes.scatter(
            bins["mean_probability"],
            bins["fraction_positive"],
            s=_area(bins["count"], most),
            color=COLOURS[role],
            edgecolor="white",
            linewidth=0.4,
            zorder=3,
            clip_on=False,
        )
    _legend(figure, list(_reliability_handles(role, most)))
    return figure


def wilson(share: np.ndarray, count: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Wilson's 95% interval of a proportion (doi 10.1080/01621459.1927.10502953), which stays inside [0, 1]."""
    z = 1.959964
    centre = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z / (1 + z**2 / count) * np.sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
    return centre - half, centre + half


def _area(count: pd.Series | float, most: float) -> pd.Series | float:
    """Square points: a bin's film count goes with the area of its dot."""
    return 3 + 45 * count / most


def _reliability_handles(role: str, most: float) -> Iterator[Line2D]:
    for count in sorted({1, max(1, round(most / 4)), round(most)}):
        size = math.sqrt(float(_area(float(count), most)))
        yield Line2D(
            [],
            [],
            color=COLOURS[role],
            marker="o",
            markersize=size,
            linewidth=0,
            label=f"{count} film{'s' * (count > 1)}",
        )
    yield Line2D([], [], color=COLOURS[role], linewidth=0.9, label="95% interval")
    yield Line2D([], [], color=GREY, linewidth=0.6, linestyle="--", label="perfect")
