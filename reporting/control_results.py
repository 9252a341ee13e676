"""Controls of localization as the report reads them: `baselines.csv`, `added_value.csv` and `by_size.csv`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from cxr.names import (
    ADDED_VALUE,
    BASELINES,
    BY_SIZE,
    LOCALIZED,
    PRIOR,
    PROTOCOLS,
    SHUFFLED_WITH_PRIOR,
    WITH_PRIOR,
    controls_file,
    localization_folder,
)
from reporting.format import number
from reporting.numbers import Estimate, read_numbers

MEAN = "Mean"
MEASURES = {"hit_rate": "hit rate", "iou": "mIoU (TP only)"}
_BOUNDS = ("ci_low", "ci_high")


@dataclass(frozen=True)
class Controls:
    """Tables of one protocol, the rows of both networks' folders together; empty where nothing was scored.

    sizes: method -> `by_size.csv`.
    """

    baselines: pd.DataFrame
    added_value: pd.DataFrame
    sizes: Mapping[str, pd.DataFrame] = field(default_factory=dict)

    def of(self, control: str, method: str, metric: str) -> dict[str, Estimate]:
        """Task, and Mean -> value of a control; empty without it. method: also of one that belongs to no method."""
        table = self.baselines
        rows = table[(table["control"] == control) & table["method"].isin((method, "")) & (table["metric"] == metric)]
        rows = rows.drop_duplicates("name")
        numbers = rows[["value", *_BOUNDS]].to_numpy(float)
        return {name: Estimate(*map(float, row)) for name, row in zip(rows["name"], numbers, strict=True)}


def read_controls(folders: Mapping[str, Path]) -> dict[str, Controls]:
    """Protocol -> controls, of the protocols that have any. folders: network -> its results folder.

    Raises InputError when a file is damaged.
    """
    found: dict[str, Controls] = {}
    for protocol in PROTOCOLS:
        baselines = [controls_file(folder, protocol, BASELINES) for folder in folders.values()]
        added = [controls_file(folder, protocol, ADDED_VALUE) for folder in folders.values()]
        sizes = {
            path.parent.name: _read_sizes(path)
            for method in LOCALIZED
            for folder in folders.values()
            if (path := localization_folder(folder, protocol, method) / BY_SIZE).is_file()
        }
        tables = [read_baselines(path) for path in baselines if path.is_file()]
        differences = [read_added_value(path) for path in added if path.is_file()]
        if tables and differences:
            found[protocol] = Controls(pd.concat(tables), pd.concat(differences), sizes)
    return found


def read_baselines(path: Path) -> pd.DataFrame:
    text = ("control", "method", "metric", "name", "note")
    return read_numbers(path, ("films", "value", *_BOUNDS), text, low=0)


def read_added_value(path: Path) -> pd.DataFrame:
    numbers = ("films", "value_a", "value_b", "difference", *_BOUNDS, "floor")
    return read_numbers(path, numbers, ("method", "a", "b", "metric", "name", "note"), low=-1)


def _read_sizes(path: Path) -> pd.DataFrame:
    return read_numbers(path, ("films", "value", *_BOUNDS), ("size", "metric", "note"), low=0)


def title(method: str) -> str:
    return LOCALIZED[method].title if method in LOCALIZED else method


def mean_of(added: pd.DataFrame, method: str, a: str, b: str, metric: str) -> pd.Series | None:
    """The row of the mean over the tasks of one comparison; None without it."""
    keys = {"method": method, "a": a, "b": b, "metric": metric, "name": MEAN}
    rows = added[(added[list(keys)] == pd.Series(keys)).all(axis=1)]
    return None if rows.empty else rows.iloc[0]


def below_prior(added: pd.DataFrame, metric: str) -> list[str]:
    """The methods whose maps do not beat the location prior: the interval of the difference is not above 0.

    Methods without a film to compare are in no list.
    """
    rows = {method: mean_of(added, method, "map", PRIOR, metric) for method in dict.fromkeys(added["method"])}
    defined = {method: row for method, row in rows.items() if row is not None and not pd.isna(row["difference"])}
    return [method for method, row in defined.items() if not row["ci_low"] > 0]


def not_above_prior(added: pd.DataFrame, metrics: tuple[str, ...] = tuple(MEASURES)) -> Iterator[str]:
    """A sentence per metric and method of `below_prior`."""
    for metric in metrics:
        for method in below_prior(added, metric):
            row = mean_of(added, method, "map", PRIOR, metric)
            if row is not None:
                yield f"{title(method)} does not beat the location prior: {MEASURES[metric]} {_against(row)}."


def verdicts(added: pd.DataFrame) -> Iterator[str]:
    """The sentences of `not_above_prior`, and what every map adds to the prior."""
    yield from not_above_prior(added)
    for method in dict.fromkeys(added["method"]):
        alone = mean_of(added, method, WITH_PRIOR, PRIOR, "hit_rate")
        other = mean_of(added, method, WITH_PRIOR, SHUFFLED_WITH_PRIOR, "hit_rate")
        if alone is not None and other is not None:
            yield (
                f"{title(method)} × prior: hit rate {_against(alone)} of the prior alone; "
                f"{_against(other)} of another film's map × prior"
            )


def short_verdicts(added: pd.DataFrame) -> Iterator[str]:
    """For the terminal: a line per metric with the methods of `below_prior`, and one with maps times the prior."""
    for metric, name in MEASURES.items():
        below = list(_values(added, below_prior(added, metric), "map", metric))
        yield f"{name}, not above the location prior: {'; '.join(below) or 'no method'}"
    times = list(_values(added, list(dict.fromkeys(added["method"])), WITH_PRIOR, "hit_rate"))
    if times:
        yield f"{MEASURES['hit_rate']} of maps × prior: {'; '.join(times)} of the prior alone"


def _values(added: pd.DataFrame, methods: Sequence[str], a: str, metric: str) -> Iterator[str]:
    """`MedicalPatchNet (Raw) 0.125 against 0.533` of every method whose mean is defined."""
    for method in methods:
        row = mean_of(added, method, a, PRIOR, metric)
        if row is not None and not pd.isna(row["difference"]):
            yield f"{title(method)} {number(row['value_a'])} against {number(row['value_b'])}"


def _against(row: pd.Series) -> str:
    """`0.664 against 0.432 (difference 0.232, 95% interval 0.187 to 0.276)`"""
    value, other, difference, low, high = (
        number(row[name]) for name in ("value_a", "value_b", "difference", "ci_low", "ci_high")
    )
    return f"{value} against {other} (difference {difference}, 95% interval {low} to {high})"
