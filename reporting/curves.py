"""The mean IoU of every threshold, a panel per pathology, as threshold tuning writes it."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cxr.files import InputError
from cxr.tables import read_csv
from reporting.style import COLOURS, FULL_WIDTH, GREY, PALE, save, style

MIOU_CURVE = "miou_curve"


def draw_miou_curves(folder: Path) -> Path:
    """Reads `miou_curve.csv` and `tuning_results.csv` of a folder; writes `miou_curve.png` beside them.

    Raises InputError when one is missing or lacks a task.
    """
    tuned = read_csv(folder / "tuning_results.csv", ("threshold", "task"))
    curves = read_csv(folder / f"{MIOU_CURVE}.csv", ("threshold", *tuned["task"]))
    thresholds = curves["threshold"].astype(float).to_list()
    mious = {task: [float(value or "nan") for value in curves[task]] for task in tuned["task"]}
    highest = max((value for values in mious.values() for value in values if value > 0), default=1.0)
    with style():
        figure = Figure(figsize=(FULL_WIDTH, 3.4), layout="constrained")
        axes = figure.subplots(2, -(-len(tuned) // 2), sharex=True, sharey=True, squeeze=False)
        for panel, task, best in zip(axes.flat, tuned["task"], tuned["threshold"], strict=False):
            _draw(panel, task, thresholds, mious[task], float(best))
        axes[0, 0].set_ylim(0, 1.2 * highest)  # room for the words
        axes[0, 0].set_xlim(0, 1)
        figure.supxlabel("threshold of the normalised heat map", fontsize=8)
        figure.supylabel("mean IoU", fontsize=8)
        return save(figure, folder, MIOU_CURVE, endings=("png",))[0]


def _draw(panel: Axes, task: str, thresholds: list[float], mious: list[float], best: float) -> None:
    panel.set_title(task)
    at_best = mious[thresholds.index(best)]
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


def draw_learning_curves(folder: Path) -> Path:
    """Writes `learning_curves.png` beside `history_steps.csv` and `history_epochs.csv` of `folder`; returns its path.

    Raises InputError when a table is missing or has a value that is no number.
    """
    steps = _numbers(folder / "history_steps.csv", ("step", "epoch", "loss", "learning_rate"))
    epochs = _numbers(folder / "history_epochs.csv", ("epoch", "train_loss", "valid_mean_auroc"))
    per_epoch = len(steps) / steps["epoch"].max()
    with style():
        figure = Figure(figsize=(FULL_WIDTH, 2.2), layout="constrained")
        loss, rate, auroc = figure.subplots(1, 3)
        _loss(loss, steps, epochs, per_epoch)
        rate.plot(steps["step"] / per_epoch, steps["learning_rate"], color=GREY, linewidth=1)
        _name(rate, "learning rate", bottom=0)
        _auroc(auroc, epochs)
        return save(figure, folder, LEARNING_CURVES, endings=("png",))[0]


def _numbers(path: Path, columns: tuple[str, ...]) -> pd.DataFrame:
    table = read_csv(path, columns=columns)[list(columns)]
    try:
        return table.replace("", "nan").astype(float)
    except ValueError as error:
        raise InputError(f"{path}: a value is no number ({error})") from None


def _loss(axes: Axes, steps: pd.DataFrame, epochs: pd.DataFrame, per_epoch: float) -> None:
    axes.plot(steps["step"] / per_epoch, steps["loss"], color=PALE, linewidth=0.5, label="steps")
    axes.plot(epochs["epoch"] - 0.5, epochs["train_loss"], "o-", color=COLOURS["patch"], markersize=2.5, linewidth=1,
              label="mean of the epoch")  # fmt: skip
    axes.legend()
    _name(axes, "training loss")


def _auroc(axes: Axes, epochs: pd.DataFrame) -> None:
    values = epochs["valid_mean_auroc"]
    axes.plot(epochs["epoch"], values, "o-", color=COLOURS["patch"], markersize=2.5, linewidth=1)
    if np.isfinite(values).any():
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
