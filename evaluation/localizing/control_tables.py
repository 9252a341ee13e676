"""Tables of localization beside its controls: baselines, added value over the location prior, and scores by size.

Cells are film-task pairs with an outline. A comparison is made over the cells that both sides define.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pandas as pd

from cxr.names import CENTRE, CHANCE, PRIOR, SHUFFLED, SHUFFLED_WITH_PRIOR, WITH_PRIOR
from evaluation.film_statistics import (
    Resampling,
    limits_of,
    mean_rows,
    paired_differences,
    resampled_ratios,
)

HIT_RATE, IOU = "hit_rate", "iou"
SIZE_BINS = (0.01, 0.03, 0.10)
"""Shares of the film between which lesions are counted apart."""
SIZE_NAMES = ("<1%", "1-3%", "3-10%", ">10%")
MAP = "map"

BASELINE_COLUMNS = ("control", "method", "metric", "name", "films", "value", "ci_low", "ci_high", "resamples", "note")
ADDED_COLUMNS = (
    *("method", "a", "b", "metric", "name", "films", "value_a", "value_b", "difference", "ci_low", "ci_high"),
    *("resamples", "floor", "note"),
)
SIZE_COLUMNS = ("size", "metric", "films", "value", "ci_low", "ci_high", "resamples", "note")


class Draws(Protocol):
    """How the films of a table are drawn."""

    def __call__(self, films: Sequence[str], /) -> Resampling: ...


@dataclass(frozen=True)
class MethodCells:
    """One method's tables film x task, all with the same films and tasks, NaN where undefined.

    own: hit_rate and iou (true positives only) of its maps; controls: columns of
    `evaluation.localizing.controls.OF_METHOD`. floor: of the location prior that its maps are multiplied with.
    """

    own: Mapping[str, pd.DataFrame]
    controls: Mapping[str, pd.DataFrame]
    floor: float


def cell_table(cells: pd.DataFrame, column: str, films: Sequence[str], tasks: Sequence[str]) -> pd.DataFrame:
    """(film, task) rows -> film x task. cells: with `img_id`, `task` and the column."""
    table = cells.pivot(index="img_id", columns="task", values=column)
    return table.reindex(index=list(films), columns=list(tasks)).astype(float)


def baseline_rows(
    without_method: Mapping[str, pd.DataFrame], methods: Mapping[str, MethodCells], draws: Draws
) -> pd.DataFrame:
    """Hit rate and IoU of every control, per task and as the mean over the tasks.

    without_method: columns of `evaluation.localizing.controls.OF_NO_METHOD` -> film x task. Chance's IoU is that of a
    mask that covers the whole film. `method` is empty for controls that belong to none.
    """
    shown: list[tuple[str, str, str, pd.DataFrame]] = []
    for metric in (HIT_RATE, IOU):
        shown.append((CHANCE, "", metric, without_method["chance"]))
    for control in (CENTRE, PRIOR):
        shown += [(control, "", metric, without_method[f"{control}_{kind}"]) for metric, kind in _KINDS.items()]
    for name, cells in methods.items():
        shown += [(SHUFFLED, name, metric, cells.controls[f"shuffled_{kind}"]) for metric, kind in _KINDS.items()]
        for control in (WITH_PRIOR, SHUFFLED_WITH_PRIOR):
            shown.append((control, name, HIT_RATE, cells.controls[f"{control}_hit"]))
    rows = []
    for control, method, metric, table in shown:
        exact = metric == HIT_RATE and control != CHANCE
        for row in mean_rows(table, draws(list(table.index)), hits=exact):
            reason = _WHY.get(control, "") if not row["films"] and row["name"] != "Mean" else ""
            rows.append(
                {"control": control, "method": method, "metric": metric} | row | ({"note": reason} if reason else {})
            )
    return pd.DataFrame(rows, columns=list(BASELINE_COLUMNS))


_KINDS = {HIT_RATE: "hit", IOU: "iou"}
_WHY = {
    PRIOR: "no validation film, or no test film, has an outline of it",
    SHUFFLED: "no other outlined film of the view has a map",
    WITH_PRIOR: "no validation film, or no test film, has an outline of it",
    SHUFFLED_WITH_PRIOR: "no prior, or no other outlined film of the view has a map",
}


def added_value_rows(
    without_method: Mapping[str, pd.DataFrame], methods: Mapping[str, MethodCells], draws: Draws
) -> pd.DataFrame:
    """Differences a - b of every method's maps, alone and times the prior, and of controls, over shared cells.

    Per task and as the mean over the tasks, with the interval of the paired resamples.
    """
    rows: list[dict[str, Any]] = []
    for name, cells in methods.items():
        for a, b, metric in COMPARED:
            first, second = (_table(side, metric, cells, without_method) for side in (a, b))
            both = first.notna() & second.notna()
            differences = paired_differences(first.where(both), second.where(both), draws(list(both.index)))
            counts = both.sum().to_dict() | {"Mean": int(both.to_numpy().sum())}
            for row in differences.to_dict(orient="records"):
                films = int(counts[row["name"]])
                facts = {"method": name, "a": a, "b": b, "metric": metric, "name": row["name"], "films": films}
                values = {"value_a": row["a"], "value_b": row["b"], "difference": row["difference"]}
                bounds = {"ci_low": row["lower"], "ci_high": row["upper"], "resamples": row["resamples"]}
                note = "" if films else "no film with both"
                rows.append(facts | values | bounds | {"floor": cells.floor, "note": note})
    return pd.DataFrame(rows, columns=list(ADDED_COLUMNS))


COMPARED = (
    (MAP, PRIOR, HIT_RATE),
    (MAP, PRIOR, IOU),
    (MAP, SHUFFLED, HIT_RATE),
    (MAP, SHUFFLED, IOU),
    (WITH_PRIOR, PRIOR, HIT_RATE),
    (WITH_PRIOR, SHUFFLED_WITH_PRIOR, HIT_RATE),
)
"""(a, b, metric): does the map beat habit; is it this film's; does it add to habit; does that come from this film."""


def _table(side: str, metric: str, cells: MethodCells, without_method: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    if side == MAP:
        return cells.own[metric]
    column = f"{side}_{_KINDS[metric]}"
    return without_method[column] if column in without_method else cells.controls[column]


def size_rows(own: Mapping[str, pd.DataFrame], shares: pd.DataFrame, draws: Draws) -> pd.DataFrame:
    """Hit rate and IoU over all cells whose mask covers a share of the film within each bin of SIZE_BINS.

    own: film x task; shares: film x task, NaN without a mask. `films`: cells.
    """
    rows = []
    for metric, table in own.items():
        areas = shares.reindex(index=table.index, columns=table.columns).to_numpy(float)
        values = table.to_numpy(float)
        known = ~np.isnan(values) & ~np.isnan(areas)
        bins = np.where(known, np.digitize(areas, SIZE_BINS), -1)
        for place, size in enumerate(SIZE_NAMES):
            inside = np.where(bins == place, values, np.nan)
            rows.append(
                {"size": size, "metric": metric} | _pooled(inside, draws(list(table.index)), metric == HIT_RATE)
            )
    return pd.DataFrame(rows, columns=list(SIZE_COLUMNS))


def _pooled(values: np.ndarray, resampling: Resampling, hits: bool) -> dict[str, Any]:
    """Mean over all defined cells (film, task), with its interval; exact where all hits agree."""
    defined = ~np.isnan(values)
    sums, counts = np.where(defined, values, 0).sum(axis=1), defined.sum(axis=1)
    samples = resampled_ratios(sums[None], counts[None], resampling)[0]
    of_film = np.divide(sums, counts, out=np.full(len(sums), np.nan), where=counts > 0)
    low, high, resamples, note = limits_of(of_film, samples, resampling, hits=hits)
    value = float(values[defined].mean()) if defined.any() else np.nan
    cells = {"films": int(defined.sum()), "value": value, "ci_low": low, "ci_high": high}
    return cells | {"resamples": resamples, "note": note}
