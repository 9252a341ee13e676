"""Curves over a whole run: mean IoU per threshold and task, as threshold tuning writes it; loss and AUROC per epoch."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reporting.label_words import shortened
from reporting.numbers import read_numbers
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
    columns = min(_MOST_COLUMNS, -(-len(tasks) // 2))
    rows = max(2, -(-len(tasks) // columns))
    with style():
        height = 1.7 * rows
        figure = Figure(figsize=(FULL_WIDTH, height))
        axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
        # Fixed margins (inches): a constrained layout would double the time of what is drawn for every set of maps.
        left, bottom, right, top = 0.55 / FULL_WIDTH, 0.45 / height, 1 - 0.1 / FULL_WIDTH, 1 - 0.25 / height
        figure.subplots_adjust(left, bottom, right, top, wspace=0.2, hspace=0.25)
        for panel, task, best in zip(axes.flat, tasks, tuned["threshold"], strict=False):
            _draw(panel, task, curves["threshold"], curves[task], best)
        for panel in axes.flat[len(tasks) :]:
            panel.set_axis_off()
        axes[0, 0].set_ylim(0, 1.2 * highest if highest > 0 else 1.2)  # room for the words
        axes[0, 0].set(xlim=(0, 1), xticks=(0, 0.5, 1))
        figure.supxlabel("threshold of the normalised heat map", fontsize=8, y=0.06 / height, va="bottom")
        figure.supylabel("mean IoU", fontsize=8, x=0.06 / FULL_WIDTH, ha="left")
        return save(figure, folder, MIOU_CURVE, endings=("png",))[0]


def _draw(panel: Axes, task: str, thresholds: pd.Series, mious: pd.Series, best: float) -> None:
    panel.set_title(shortened(task, 30), y=1)  # where it would be put anyway, after measuring all ticks
    at_best = mious[thresholds == best].max()  # NaN where the curve has no such threshold
    if math.isnan(at_best):
        panel.text(0.5, 0.5, "no film to tune on", transform=panel.transAxes, ha="center", color=GREY)
        return
    panel.plot(thresholds, mious, color=COLOURS["patch"], linewidth=1.2)
    panel.axvline(best, color=GREY, linewidth=0.6, linestyle=":")
    panel.plot([best], [at_best], "o", color=COLOURS["baseline"], markersize=4)
    panel.annotate(
        f"{at_best:.3f} at {best:.3f}", (0.97, 0.95), xycoords="axes fraction", ha="right", va="top", fontsize=7
    )


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
