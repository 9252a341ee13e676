"""Every two methods of a protocol on the same films, of several results folders: `localization_differences.csv`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import pandas as pd

from cxr.files import sha256
from cxr.names import Protocol, localization_folder
from cxr.runs.folder_lock import locked
from cxr.runs.run_record import RunRecord
from cxr.tables import write_csv
from evaluation.film_statistics import paired_differences
from evaluation.localizing.localized import read_per_film, stage_of
from evaluation.localizing.scored_tasks import with_kinds
from evaluation.localizing.setting import Setting

METRICS = ("iou", "hitmiss")

Scored = tuple[Path, Protocol, str]
"""Results folder, protocol and method."""


def write_differences(found: Mapping[Path, Sequence[tuple[Protocol, str]]], setting: Setting) -> None:
    """`localization_differences.csv` beside the folders, true positives only.

    found: folder -> protocol and method of what is scored. Recorded with the first folder, unless complete already.
    Raises InputError when scores are not complete any more.
    """
    scored = [(folder, protocol, method) for folder, of_folder in found.items() for protocol, method in of_folder]
    pairs = [(a, b) for a, b in combinations(scored, 2) if a[1] == b[1]]
    if not pairs:
        return
    for folder, protocol, method in scored:
        RunRecord(folder).require_whole(stage_of(protocol, method), f"scores of {method}", "start this again")
    first, *others = found
    target = first.parent / "localization_differences.csv"
    record, name = RunRecord(first), " ".join(["differences with", *(folder.name for folder in others)])
    read = [[folder.name, *map(sha256, _per_film(folder, protocol, method))] for folder, protocol, method in scored]
    methods, kinds = [list(names) for _, *names in scored], dict(setting.test.truth.kinds)
    made_from: dict[str, Any] = {
        "inputs": {"scores": read, "methods": methods, "kinds": kinds, "test": setting.test.fingerprint},
        "options": setting.options,
        "outputs": [target],
    }
    if record.is_complete(name, **made_from):
        print(f"{target}: complete")
        return
    with locked(record.folder), record.stage(name, **made_from) as stage:
        write_csv(target, _compared(pairs, setting))
        stage.wrote(target)
    print(f"{target}: the methods compared with each other, true positives only")


def _per_film(folder: Path, protocol: Protocol, method: str) -> list[Path]:
    """The files of a method's scores per film, in the order of METRICS."""
    return [localization_folder(folder, protocol, method) / f"{metric}_results_per_cxr.csv" for metric in METRICS]


def _compared(pairs: Sequence[tuple[Scored, Scored]], setting: Setting) -> pd.DataFrame:
    tables = []
    for a, b in pairs:
        for metric, *files in zip(METRICS, _per_film(*a), _per_film(*b), strict=True):
            first, second = map(read_per_film, files)
            table = paired_differences(first, second, setting.draws(list(first.index)))
            names = {"protocol": a[1], "metric": metric, "method_a": a[2], "method_b": b[2]}
            named = table.assign(**names)[[*names, *table.columns]]
            tables.append(with_kinds(named, "name", setting.test.truth.kinds))
    return pd.concat(tables)
