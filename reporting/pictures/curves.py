"""Curves over a whole run: mean IoU per threshold and task, as threshold tuning writes it; loss and AUROC per epoch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reporting.label_words import shortened
from reporting.numbers import read_numbers
from reporting.pictures.panels import Panels
from reporting.pictures.style import COLOURS, FULL_WIDTH, GREY, PALE, save, style

MIOU_CURVE = "miou_curve"
_MOST_COLUMNS = 5


def draw_miou_curves(folder: Path) -> Path:
    """Reads `miou_curve.csv` and `tuning_results.csv` of a folder; writes `miou_curve.png` beside them.

    Raises InputError when one is missing, lacks a task, or holds values that are not numbers in [0, 1].
    """
    tuned = read_numbers(folder / "tuning_results.csv", ("threshold",), text=("task",), low=0, high=1)
    tasks = tuned["task"].tolist()
    curves = read_numbers(folder / f"{MIOU_CURVE}.csv", ("threshold", *tasks), text=(), low=0, high=1)
    highest = max(curves[tasks].max().max(), 0)
    high = 1.2 * highest if highest > 0 else 1.2  # room for the words
    columns = min(_MOST_COLUMNS, -(-len(tasks) // 2))
    names = {"x_name": "threshold of the normalised heat map", "y_name": "mean IoU"}
    with style():
        panels = Panels(len(tasks), columns, high, **names)
        _draw(panels, tasks, tuned["threshold"].tolist(), curves)
        return save(panels.figure, folder, MIOU_CURVE, endings=("png",))[0]


def _draw(panels: Panels, tasks: Sequence[str], best: Sequence[float], curves: pd.DataFrame) -> None:
    """A curve per task with its best threshold, or words where no film has an IoU."""
    lines, guides, points = [], [], []
    for panel, (task, threshold) in enumerate(zip(tasks, best, strict=True)):
        panels.title(panel, shortened(task, 30))
        at_best = curves[task][curves["threshold"] == threshold].max()  # NaN where the curve has no such threshold
        if math.isnan(at_best):
            middle = panels.at(panel, 0.5, panels.high / 2)
            panels.words(*middle, "no film to tune on", 8, ha="center", va="center", color=GREY)
            continue
        panels.note(panel, f"{at_best:.3f} at {threshold:.3f}")
        lines.append(panels.curve(panel, curves["threshold"].to_numpy(), curves[task].to_numpy()))
        guides.append([panels.at(panel, threshold, 0), panels.at(panel, threshold, panels.high)])
        points.append(panels.at(panel, threshold, at_best))
    if points:
        panels.lines(guides, colors=GREY, linewidths=0.6, linestyles=":")
        panels.lines(lines, colors=COLOURS["patch"], linewidths=1.2, joinstyle="round")
        panels.points(points, marker="o", color=COLOURS["baseline"], markersize=4)


LEARNING_CURVES = "learning_curves"
_ANY: Any = {"text": (), "low": -math.inf, "high": math.inf}  # the loss of a run that diverged


def draw_learning_curves(folder: Path) -> Path:
    """Writes `learning_curves.png` beside `history_steps.csv` and `history_epochs.csv` of `folder`; returns its path.

    Raises InputError when a table is missing or has a value that is not a number.
    """
    steps = read_numbers(folder / "history_steps.csv", ("step", "epoch", "loss", "learning_rate"), **_ANY)
    epochs = read_numbers(folder / "history_epochs.csv", ("epoch", "train_loss", "valid_mean_auroc"), **_ANY)
    per_epoch = len(steps) / max(steps["epoch"].max(), 1)
    with style():
        figure = Figure(figsize=(FULL_WIDTH, 2.2), layout="constrained")
        loss, rate, auroc = figure.subplots(1, 3)
        _loss(loss, steps, epochs, per_epoch)
        rate.plot(steps["step"] / per_epoch, steps["learning_rate"], color=GREY, linewidth=1)
        _name(rate, "learning rate", bottom=0)
        _auroc(auroc, epochs)
        return save(figure, folder, LEARNING_CURVES, endings=("png",))[0]


def _loss(axes: Axes, steps: pd.DataFrame, epochs: pd.DataFrame, per_epoch: float) -> None:
    axes.plot(steps["step"] / per_epoch, steps["loss"], color=PALE, linewidth=0.5, label="steps")
    axes.plot(epochs["epoch"] - 0.5, epochs["train_loss"], "o-", color=COLOURS["patch"], markersize=2.5, linewidth=1,
              label="mean of the epoch")  # fmt: skip
    axes.legend()
    _name(axes, "training loss")


def _auroc(axes: Axes, epochs: pd.DataFrame) -> None:
    values = epochs["valid_mean_auroc"]
    axes.plot(epochs["epoch"], values, "o-", color=COLOURS["patch"], markersize=2.5, linewidth=1)
    if values.notna().any():
        best = values.idxmax()
        axes.plot(epochs["epoch"][best], values[best], "o", color=COLOURS["baseline"], markersize=5)
        axes.annotate(f"{values[best]:.3f}", (epochs["epoch"][best], values[best]), xytext=(0, 6),
                      textcoords="offset points", ha="center")  # fmt: skip
        axes.margins(y=0.15)
    _name(axes, "validation AUROC (mean)")


def _name(axes: Axes, what: str, bottom: float | None = None) -> None:
    axes.set(xlabel="epoch", title=what)
    axes.set_xlim(left=0)
    if bottom is not None:
        axes.set_ylim(bottom=bottom)
