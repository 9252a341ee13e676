"""Localization scores of a results folder: CheXlocalize's files, per protocol, method and measure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from cxr.files import InputError, place, quoted
from cxr.names import LOCALIZED, PROTOCOLS, SPLITS, heat_map_folder, localization_folder
from cxr.tables import read_csv
from reporting.numbers import Estimate, read_numbers, to_numbers

HIT_RATE = "hit rate"
MIOU_ALL = "TP, FP, FN"
MIOU_TP = "TP only"
MEASURES = {HIT_RATE: ("hitmiss", ""), MIOU_ALL: ("iou", "tp_fp_fn"), MIOU_TP: ("iou", "")}
"""Measure -> CheXlocalize's file prefix and the folder below that of the method."""

Key = tuple[str, str, str]
"""(protocol, method, measure)"""

_FILM = "img_id"
_NETWORKS = {"patch": "patch network", "baseline": "baseline"}


@dataclass(frozen=True)
class Localization:
    """One measure of one method: per task the mean over the films that define it, and the mean over the tasks."""

    tasks: Mapping[str, Estimate]
    films: Mapping[str, int]
    mean: Estimate

    def of(self, task: str) -> Estimate:
        """Undefined for a task that the method was not scored on."""
        return self.tasks.get(task, Estimate())

    @property
    def covered(self) -> frozenset[str]:
        """The tasks that are defined, and so enter the mean."""
        return frozenset(task for task, estimate in self.tasks.items() if not math.isnan(estimate.value))

    def mean_over(self, tasks: frozenset[str]) -> Estimate:
        """The mean over these tasks; with its interval where they are all that are defined, undefined where one is
        not."""
        if tasks == self.covered:
            return self.mean
        if not tasks or not tasks <= self.covered:
            return Estimate()
        return Estimate(sum(self.tasks[task].value for task in tasks) / len(tasks))


def read_localization(folders: Mapping[str, Path], missing: list[str]) -> dict[Key, Localization]:
    """Scores of every method, from the folder of the network that it explains.

    folders: network (`patch`, `baseline`) -> its results folder. `missing` gets a line for everything that is not
    there, and for every folder that is left out. Raises InputError when a file is damaged.
    """
    found: dict[Key, Localization] = {}
    for network, folder in folders.items():
        for protocol in PROTOCOLS:
            read: dict[Key, Localization | None] = {
                (protocol, method, measure): _read_measure(localization_folder(folder, protocol, method), measure)
                for measure in MEASURES
                for method, facts in LOCALIZED.items()
                if facts.network == network
            }
            found |= {key: item for key, item in read.items() if item is not None}
            absent = [key for key, item in read.items() if item is None and _is_expected(key, read)]
            missing += _not_scored(folder / "localization" / protocol, absent)
        missing += _left_out(folder, network)
    return found


def _is_expected(key: Key, read: Mapping[Key, Localization | None]) -> bool:
    """Whether a measure is missed: any of the paper's methods, of the others those that were scored in part."""
    protocol, method, _ = key
    return LOCALIZED[method].in_paper or any(read[protocol, method, measure] is not None for measure in MEASURES)


def _not_scored(folder: Path, keys: Sequence[Key]) -> Iterator[str]:
    """One line per measure, or a single one where the whole folder is missing."""
    if keys and not folder.is_dir():
        yield f"{folder}: nothing scored; made by ./runEval.sh"
        return
    for measure, (prefix, _) in MEASURES.items():
        methods = ", ".join(method for _, method, missing in keys if missing == measure)
        if methods:
            option = "" if measure == HIT_RATE else f" --true_pos_only {measure == MIOU_TP}"
            command = f"python evalLocalization.py --metric {prefix}{option}"
            yield f"{folder}: no {prefix} results ({measure}) of {methods}; made by {command} ..."


def _left_out(folder: Path, network: str) -> Iterator[str]:
    """A line for every folder whose name is not a protocol's, or not that of a method that explains the network."""
    for parent in (folder / "localization", folder / "heatmaps"):
        for path in _folders(parent):
            if path.name not in PROTOCOLS:
                yield f"{path}: left out; the protocols are {', '.join(PROTOCOLS)}"
    parents = [localization_folder(folder, protocol, "") for protocol in PROTOCOLS]
    parents += [heat_map_folder(folder, protocol, split, "") for protocol in PROTOCOLS for split in SPLITS]
    for path in (path for parent in parents for path in _folders(parent)):
        method = LOCALIZED.get(path.name)
        if method is None:
            yield f"{path}: left out; cxr/names.py has no method of this name"
        elif method.network != network:
            yield f"{path}: left out; {method.title} explains the {_NETWORKS[method.network]}"


def _folders(parent: Path) -> list[Path]:
    return sorted(path for path in parent.iterdir() if path.is_dir()) if parent.is_dir() else []


def _read_measure(folder: Path, measure: str) -> Localization | None:
    """From CheXlocalize's files of one metric; None without the per-film one.

    The value of a task is the mean over the films that define it. The intervals, also that of the mean over the tasks,
    stand in the summary; CheXlocalize's own has no row for the mean, whose interval is then undefined.
    """
    prefix, below = MEASURES[measure]
    path = folder / below / f"{prefix}_results_per_cxr.csv"
    if not path.exists():
        return None
    films = read_per_film(path)
    bounds = _read_bounds(path.with_name(f"{prefix}_summary_results.csv"))
    means = films.mean()
    estimates = {str(task): Estimate(float(value), *bounds.get(str(task), ())) for task, value in means.items()}
    mean = Estimate(float(means.mean()), *bounds.get("Mean", ()))
    return Localization(estimates, {str(task): int(count) for task, count in films.count().items()}, mean)


def read_per_film(path: Path) -> pd.DataFrame:
    """A row per film id, a column per task: values in [0, 1], NaN where undefined.

    Raises InputError for a value out of range, a film that is there twice, and a file without tasks.
    """
    table = read_csv(path, [_FILM])
    tasks = [column for column in table.columns if column != _FILM and not column.startswith("Unnamed")]
    if not tasks:
        raise InputError(f"{path}: no column of a task beside {_FILM}; delete the file and make it again")
    repeated = table[_FILM][table[_FILM].duplicated()]
    if len(repeated):
        film = quoted(repeated.iloc[0])
        raise InputError(f"{place(path, column=_FILM)}: {film} is there twice; delete the file and make it again")
    values = {task: to_numbers(path, table[task], low=0, high=1) for task in tasks}
    return pd.DataFrame(values).set_axis(pd.Index(table[_FILM]), axis=0)


def _read_bounds(path: Path) -> dict[str, tuple[float, float]]:
    if not path.exists():
        return {}
    table = read_numbers(path, ("lower", "upper"), text=("name",), low=0, high=1)
    return {name: (low, high) for name, low, high in zip(table["name"], table["lower"], table["upper"], strict=True)}
