"""Localization of a whole results folder as stages of its record: every method, then the controls of every protocol.

A stage is complete while masks, views, patients, heat maps, reference and options are the same. Functions print a line
per stage.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from cxr.files import sha256
from cxr.heat_maps import HeatMapSource
from cxr.names import (
    ADDED_VALUE,
    BASELINES,
    POSTERIOR,
    RELATIVE,
    Protocol,
    controls_file,
    evidence_folder,
    heat_map_folder,
    localization_folder,
    reference_file,
)
from cxr.runs.fingerprints import films_fingerprint
from cxr.runs.run_record import RunRecord
from cxr.tables import read_csv, write_csv
from evaluation.localizing.control_tables import (
    HIT_RATE,
    IOU,
    MethodCells,
    added_value_rows,
    baseline_rows,
    cell_table,
)
from evaluation.localizing.controls import OF_METHOD, OF_NO_METHOD
from evaluation.localizing.method_scores import (
    CELLS_FILE,
    FLOOR_FILE,
    choose_floor,
    control_files,
    score_files,
    tune_and_score,
    tune_and_score_with_posterior,
)
from evaluation.localizing.scored_tasks import unscored_lines
from evaluation.localizing.setting import Setting
from evaluation.localizing.with_prior import read_floor

NO_METHOD_FILE = "baselines_per_film.csv"
PER_FILM = {HIT_RATE: "hitmiss_results_per_cxr.csv", IOU: "iou_results_per_cxr.csv"}

Sources = Callable[[str, str], HeatMapSource]
"""(split, method) -> its maps."""


# --------------------------------------------------------------------------------------------------------- one method


def stage_of(protocol: Protocol, method: str) -> str:
    return f"localization {protocol} {method}"


def localize(record: RunRecord, protocol: Protocol, method: str, setting: Setting, sources: Sources) -> list[str]:
    """Thresholds, IoU under both countings, hits, sizes and controls of one method, unless they are complete.

    Returns lines on the tasks that are not scored; they say the same for most methods of a folder.
    """
    stage = _Stage.of(record, protocol, method, setting)
    if stage.is_complete():
        print(f"{stage.target}: complete")
        return []
    validation, test = sources("val", method), sources("test", method)
    with stage.at_work():
        tune_and_score(stage.target, validation, test, setting)
    return unscored_lines(test, setting.test.truth)


def localize_with_posterior(record: RunRecord, protocol: Protocol, setting: Setting, sources: Sources) -> list[str]:
    """`localize` of relative maps and of their posterior in the same passes over the maps.

    Where only one of both is complete, both are made again.
    """
    relative = _Stage.of(record, protocol, RELATIVE, setting)
    if relative.is_complete():
        posterior = _Stage.of(record, protocol, POSTERIOR, setting)
        if posterior.is_complete():
            print(f"{relative.target}: complete")
            print(f"{posterior.target}: complete")
            return []
    validation, test = sources("val", RELATIVE), sources("test", RELATIVE)
    with relative.at_work():
        choose_floor(relative.target, validation, setting)
        posterior = _Stage.of(record, protocol, POSTERIOR, setting)  # made from the floor
        with posterior.at_work():
            tune_and_score_with_posterior(relative.target, posterior.target, validation, test, setting)
    return unscored_lines(test, setting.test.truth)


@dataclass(frozen=True)
class _Stage:
    """The stage of one method. made_from: inputs, options and outputs, as `RunRecord.is_complete` takes them."""

    record: RunRecord
    name: str
    target: Path
    made_from: Mapping[str, Any]

    @classmethod
    def of(cls, record: RunRecord, protocol: Protocol, method: str, setting: Setting) -> _Stage:
        """Raises InputError as `_heat_maps` does."""
        target = localization_folder(record.folder, protocol, method)
        maps = {split: _heat_maps(record, protocol, split, method) for split in ("val", "test")}
        made_from = {
            "inputs": setting.inputs | {"heat_maps": maps},
            "options": setting.options,
            "outputs": [*score_files(target), *(control_files(target) if method != POSTERIOR else [])],
        }
        return cls(record, stage_of(protocol, method), target, made_from)

    def is_complete(self) -> bool:
        return self.record.is_complete(self.name, **self.made_from)

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Within it the outputs are written; they are recorded when it ends without an exception."""
        print(f"{self.target}: tuning on validation, scoring on test")
        with self.record.stage(self.name, **self.made_from) as stage:
            yield
            stage.wrote(*self.made_from["outputs"])


def _heat_maps(record: RunRecord, protocol: Protocol, split: str, method: str) -> dict[str, Any]:
    """Fingerprint of the maps of a split. Raises InputError when they are not complete, or were changed since."""
    if method == POSTERIOR:
        floor = localization_folder(record.folder, protocol, RELATIVE) / FLOOR_FILE
        return _heat_maps(record, protocol, split, RELATIVE) | {"floor": sha256(floor)}
    record.require_whole(f"heat_maps_{split}", f"heat maps of {split}", "run evalClassification.py again")
    folder = heat_map_folder(record.folder, protocol, split, method)
    folder = folder if folder.is_dir() else evidence_folder(record.folder, split)
    maps = films_fingerprint(sorted(path for path in folder.rglob("*") if path.is_file()), record.folder)
    if method != RELATIVE:
        return maps
    for stage in ("reference", f"relative_pickles_{split}"):
        record.require_whole(stage, "relative maps", "run evalClassification.py again")
    return {"evidence": maps, "reference": sha256(reference_file(record.folder))}


# ------------------------------------------------------------------------------------------------------ one protocol


def write_controls(record: RunRecord, protocol: Protocol, methods: Sequence[str], setting: Setting) -> None:
    """`baselines.csv` and `added_value.csv` of a protocol, unless they are complete. methods: without the posterior."""
    folder = localization_folder(record.folder, protocol, "")
    names = (*PER_FILM.values(), CELLS_FILE, FLOOR_FILE)
    read = {method: [sha256(folder / method / name) for name in names] for method in methods}
    targets = [controls_file(record.folder, protocol, name) for name in (BASELINES, ADDED_VALUE, NO_METHOD_FILE)]
    made_from: dict[str, Any] = {
        "inputs": setting.inputs | {"scores": read},
        "options": setting.options,
        "outputs": targets,
    }
    stage = f"controls {protocol}"
    if record.is_complete(stage, **made_from):
        print(f"{targets[0]}: complete")
        return
    print(f"{targets[0]}: maps that never saw the film")
    films, tasks = setting.test.truth.image_ids, setting.test.truth.tasks
    with record.stage(stage, **made_from) as writing:
        cells = setting.without_method
        of_none = {column: cell_table(cells, column, films, tasks) for column in OF_NO_METHOD}
        of_methods = {method: read_cells(folder / method, films, tasks) for method in methods}
        write_csv(targets[0], baseline_rows(of_none, of_methods, setting.draws))
        write_csv(targets[1], added_value_rows(of_none, of_methods, setting.draws))
        write_csv(targets[2], cells)
        writing.wrote(*targets)


def read_cells(folder: Path, films: Sequence[str], tasks: Sequence[str]) -> MethodCells:
    """One method's scores per film and task, and those of its controls."""
    own = {
        metric: read_per_film(folder / name).reindex(index=films, columns=tasks) for metric, name in PER_FILM.items()
    }
    cells = read_cells_file(folder / CELLS_FILE, OF_METHOD)
    controls = {column: cell_table(cells, column, films, tasks) for column in OF_METHOD}
    return MethodCells(own, controls, read_floor(folder / FLOOR_FILE))


def read_cells_file(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    """Rows of film and task with `columns` as numbers, blanks as NaN; all else is text."""
    table = read_csv(path, ("img_id", "task", *columns), may_be_empty=True)
    return table.assign(**{column: pd.to_numeric(table[column]) for column in columns})


def read_per_film(path: Path) -> pd.DataFrame:
    """Film x task, NaN where undefined."""
    return read_csv(path, ("img_id",), may_be_empty=True).set_index("img_id").apply(pd.to_numeric).astype(float)
