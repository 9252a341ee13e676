"""The threshold that turns a task's heat maps into masks: the one of the largest mean IoU on validation.

`exact` looks at every threshold k / 65536 of a curve of `miou_curves`. `ternary` is the published search (10 rounds
from 0.5, steps of 0.25 halved each time), whose thresholds are multiples of 1 / 2048 and thus lie on the same curve:
`exact` never scores below it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from cxr.files import InputError, number_in, place, quoted
from cxr.tables import line_of, read_csv, write_csv
from evaluation.localizing.miou_curves import STEPS
from evaluation.localizing.scored_tasks import with_kinds

UNTUNED = 0.5
"""Threshold of a task without any defined IoU, where the published search starts and then stays."""

CURVE_FILE, TUNING_FILE = "miou_curve.csv", "tuning_results.csv"

_WRITTEN_EVERY = 128  # thresholds of the curve file


def exact_search(curve: np.ndarray) -> float:
    """The threshold of the largest mean IoU; of several, the middle of their longest run (the first such run)."""
    best = np.flatnonzero(curve == np.nanmax(curve))
    runs = np.split(best, np.flatnonzero(np.diff(best) > 1) + 1)
    longest = max(runs, key=len)
    return float(longest[len(longest) // 2]) / STEPS


def ternary_search(curve: np.ndarray) -> float:
    """The published search: of the threshold and its neighbours a step away, the largest with the best mean IoU."""
    threshold, step = UNTUNED, 0.25
    for _ in range(10):
        tried = [threshold - step, threshold, threshold + step]
        defined = [t for t in tried if not np.isnan(curve[int(t * STEPS)])]
        if not defined:
            break
        threshold = max(reversed(defined), key=lambda t: curve[int(t * STEPS)])
        step /= 2
    return threshold


SEARCHES: Mapping[str, Callable[[np.ndarray], float]] = {"exact": exact_search, "ternary": ternary_search}


def tune(curves: Mapping[str, np.ndarray], search: str = "exact") -> pd.DataFrame:
    """One row per task: `threshold`, `task`, `miou` there; UNTUNED and NaN where no IoU is defined."""
    rows = []
    for task, curve in sorted(curves.items()):
        threshold = UNTUNED if np.isnan(curve).all() else SEARCHES[search](curve)
        rows.append((threshold, task, curve[int(threshold * STEPS)]))
    return pd.DataFrame(rows, columns=["threshold", "task", "miou"])


def write_tuning(
    folder: Path, curves: Mapping[str, np.ndarray], tuned: pd.DataFrame, kinds: Mapping[str, str] | None = None
) -> None:
    """Writes `tuning_results.csv`, as CheXlocalize reads it, and `miou_curve.csv`: `threshold`, one column per task.

    kinds: task -> kind of its regions; where some are boxes, `tuning_results.csv` says it in a column `kind`.

    The curve is written at every 128th threshold and at the tuned ones. Thresholds are written in full, not with 9
    digits: a map's pixel may equal one.
    """
    exact = {"threshold": [repr(float(t)) for t in tuned["threshold"]], "task": tuned["task"]}
    write_csv(folder / TUNING_FILE, with_kinds(pd.DataFrame(exact), "task", kinds or {}))
    kept = sorted({*range(0, STEPS, _WRITTEN_EVERY), *(int(t * STEPS) for t in tuned["threshold"])})
    columns = {"threshold": [repr(k / STEPS) for k in kept]} | {task: curves[task][kept] for task in sorted(curves)}
    write_csv(folder / CURVE_FILE, pd.DataFrame(columns))


def read_thresholds(path: Path, tasks: Sequence[str]) -> dict[str, float]:
    """Task -> threshold of `tasks`, from a file like CheXlocalize's `tuning_results.csv`.

    Raises InputError with file and line for a repeated task, a value that is not a number, and a missing task.
    """
    thresholds: dict[str, float] = {}
    for line, task, (threshold,) in _numbers_per_task(path, ("threshold",)):
        if task in thresholds:
            raise InputError(f"{place(path, line, 'task')}: a second threshold of {quoted(task)}; keep one of them")
        thresholds[task] = threshold
    return _of_tasks(thresholds, tasks, path)


def read_probability_cutoffs(path: Path, tasks: Sequence[str]) -> dict[str, float]:
    """Task -> the `prob_threshold` of its largest `mIoU` (the first), from CheXlocalize's probability tuning.

    Raises InputError with file and line for a value that is not a number, and for a missing task.
    """
    best: dict[str, tuple[float, float]] = {}
    for _, task, (cutoff, miou) in _numbers_per_task(path, ("prob_threshold", "mIoU")):
        if task not in best or miou > best[task][1]:
            best[task] = (cutoff, miou)
    return _of_tasks({task: cutoff for task, (cutoff, _) in best.items()}, tasks, path)


def _numbers_per_task(path: Path, columns: tuple[str, ...]) -> Iterator[tuple[int, str, tuple[float, ...]]]:
    """(line, task, values of `columns`) of every row."""
    table = read_csv(path, (*columns, "task"))
    for row, task in enumerate(table["task"]):
        line = line_of(table, row)
        yield line, task, tuple(_finite(table[column][row], place(path, line, column)) for column in columns)


def _finite(text: str, where: str) -> float:
    try:
        value = number_in(text)
    except ValueError:
        value = np.nan
    if not np.isfinite(value):
        raise InputError(f"{where}: {quoted(text)} is not a finite number")
    return value


def _of_tasks(values: Mapping[str, float], tasks: Sequence[str], path: Path) -> dict[str, float]:
    missing = [task for task in tasks if task not in values]
    if missing:
        raise InputError(f"{place(path)}: no row of {', '.join(map(quoted, missing))}; every task scored needs one")
    return {task: values[task] for task in tasks}
