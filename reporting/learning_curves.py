"""A picture of a run from the tables it left: loss, learning rate and validation AUROC over the epochs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from chexpert.files import InputError, read_csv
from reporting.style import COLOURS, FULL_WIDTH, GREY, PALE, save, style

NAME = "learning_curves"


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
        return save(figure, folder, NAME, endings=("png",))[0]


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
