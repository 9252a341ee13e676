"""Ratios of the training benchmark: how many times faster than the published way."""

from __future__ import annotations

import pandas as pd

GROUP = ["what", "backbone", "batch"]


def with_ratios(table: pd.DataFrame) -> pd.DataFrame:
    """Adds how many times faster than the fastest published row of the same group a row of ours is."""
    for ratio, measure in (("ratio", table["films_per_s"]), ("cpu_ratio", 1 / table["cpu_ms_per_film"])):
        published = measure.where(table["way"] == "published").groupby([table[name] for name in GROUP]).transform("max")
        table[ratio] = (measure / published).where(table["way"] == "ours")
    return table


def ratios(table: pd.DataFrame) -> dict[str, dict[str, float]]:
    """{"ratio", "cpu_ratio": {row of ours: number}}, of those rows that have one."""
    found: dict[str, dict[str, float]] = {"ratio": {}, "cpu_ratio": {}}
    for row in table.to_dict("records"):
        name = ", ".join(str(row[column]) for column in (*GROUP, "mode", "films") if row[column])
        for kind, of_kind in found.items():
            if row[kind] > 0:
                of_kind[name] = round(row[kind], 2)
    return found
