"""The mean IoU of every threshold, a panel per pathology, as threshold tuning writes it."""

from __future__ import annotations

import math
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from chexpert.files import read_csv
from reporting.style import COLOURS, FULL_WIDTH, GREY, save, style

NAME = "miou_curve"


def draw_miou_curves(folder: Path) -> Path:
    """Reads `miou_curve.csv` and `tuning_results.csv` of a folder; writes `miou_curve.png` beside them.

    Raises InputError when one is missing or lacks a task.
    """
    tuned = read_csv(folder / "tuning_results.csv", ("threshold", "task"))
    curves = read_csv(folder / f"{NAME}.csv", ("threshold", *tuned["task"]))
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
        return save(figure, folder, NAME, endings=("png",))[0]


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
