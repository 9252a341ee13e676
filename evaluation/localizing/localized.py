"""Localization of a whole results folder as stages of its record: every method, then the controls of every protocol.

A stage is complete while masks, views, patients, heat maps, reference and options are the same. Functions print a line
per stage.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import pandas as pd

from cxr.files import sha256
from cxr.heat_maps import HeatMapSource
from cxr.names import (
    ADDED_VALUE,
    BASELINES,
    BY_SIZE,
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
from evaluation.film_statistics import Resampling, result_files, write_results
from evaluation.localizing.control_tables import (
    HIT_RATE,
    IOU,
    MethodCells,
    added_value_rows,
    baseline_rows,
    cell_table,
    size_rows,
)
from evaluation.localizing.controls import OF_METHOD, OF_NO_METHOD, score_with_controls, without_method
from evaluation.localizing.heatmap_thresholds import (
    CURVE_FILE,
    TUNING_FILE,
    UNTUNED,
    TaskCurves,
    miou_curves_and_more,
    miou_curves_of_both,
    tune,
    write_tuning,
)
from evaluation.localizing.localization import Scores, score_maps_at
from evaluation.localizing.location_prior import LocationPrior, area_shares
from evaluation.localizing.outlined_films import OutlinedFilms
from evaluation.localizing.scored_tasks import unscored_lines
from evaluation.localizing.with_prior import FilmPriors, PosteriorMaps, floor_hits, floor_table, read_floor

ALL_CASES = "tp_fp_fn"
"""Folder of the IoU over true positives, false positives and false negatives; that of true positives lies above it."""
FLOOR_FILE, CELLS_FILE, NO_METHOD_FILE = "prior_floor.csv", "controls_per_film.csv", "baselines_per_film.csv"
PER_FILM = {HIT_RATE: "hitmiss_results_per_cxr.csv", IOU: "iou_results_per_cxr.csv"}

Sources = Callable[[str, str], HeatMapSource]
"""(split, method) -> its maps."""


@dataclass(frozen=True)
class Setting:
    """Masks, options and what all folders and protocols share. draw: makes the picture of a folder's curves."""

    validation: OutlinedFilms
    test: OutlinedFilms
    search: str
    resamples: int
    seed: int
    unit: str
    workers: int
    draw: Callable[[Path], object]

    @property
    def options(self) -> dict[str, Any]:
        return {
            "search": self.search,
            "resamples": self.resamples,
            "seed": self.seed,
            "resample_unit": self.unit,
        }

    @property
    def inputs(self) -> dict[str, Any]:
        return {"val": self.validation.fingerprint, "test": self.test.fingerprint}

    @property
    def tasks(self) -> list[str]:
        return sorted({*self.validation.truth.tasks, *self.test.truth.tasks})

    def draws(self, films: Sequence[str]) -> Resampling:
        """Raises InputError when patients are to be drawn and a film's patient is unknown."""
        return self.test.resampling(films, resamples=self.resamples, seed=self.seed, unit=self.unit)

    @cached_property
    def prior(self) -> LocationPrior:
        return LocationPrior.of(self.validation)

    @cached_property
    def without_method(self) -> pd.DataFrame:
        return without_method(self.prior, self.test, search=self.search, workers=self.workers)


# --------------------------------------------------------------------------------------------------------- one method


def stage_of(protocol: Protocol, method: str) -> str:
    return f"localization {protocol} {method}"


def localize(record: RunRecord, protocol: Protocol, method: str, setting: Setting, sources: Sources) -> list[str]:
    """Thresholds, IoU under both countings, hits, sizes and controls of one method, unless they are complete.

    Returns lines on the tasks that are not scored; they say the same for most methods of a folder.
    """
    target = localization_folder(record.folder, protocol, method)
    made_from: dict[str, Any] = {
        "inputs": setting.inputs
        | {"heat_maps": {split: _heat_maps(record, protocol, split, method) for split in ("val", "test")}},
        "options": setting.options,
        "outputs": _result_files(target, method),
    }
    stage = stage_of(protocol, method)
    if record.is_complete(stage, **made_from):
        print(f"{target}: complete")
        return []
    print(f"{target}: tuning on validation, scoring on test")
    with record.stage(stage, **made_from) as scoring:
        unscored = _tune_and_score(target, method, setting, sources)
        scoring.wrote(*made_from["outputs"])
    return unscored


def _result_files(target: Path, method: str) -> list[Path]:
    """Every file of one method: of both countings, the hits, and what its controls are made of."""
    tuning = [TUNING_FILE, CURVE_FILE, str(Path(CURVE_FILE).with_suffix(".png"))]
    of_countings = [
        path
        for folder in (target, target / ALL_CASES)
        for path in (*(folder / name for name in tuning), *result_files(folder, "iou"))
    ]
    of_controls = [] if method == POSTERIOR else [target / FLOOR_FILE, target / CELLS_FILE]
    return [*of_countings, *result_files(target, "hitmiss"), target / BY_SIZE, *of_controls]


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


def _tune_and_score(target: Path, method: str, setting: Setting, sources: Sources) -> list[str]:
    """Reads each map once: those of validation for the curves of both countings and the floor, those of test for all
    scores and controls. Returns lines on the tasks that are not scored."""
    if method == POSTERIOR:
        _tune_and_score_posterior(target, setting, sources)
        return []
    validation, test = sources("val", method), sources("test", method)
    look = partial(floor_hits, priors=FilmPriors(setting.prior, setting.validation))
    *curves, hits = miou_curves_and_more(validation, setting.validation.truth, look, workers=setting.workers)
    write_csv(target / FLOOR_FILE, floor_table(hits))
    of_both, cells = score_with_controls(
        test,
        setting.test,
        setting.prior,
        thresholds=_thresholds(target, curves, setting),
        floor=read_floor(target / FLOOR_FILE),
        seed=setting.seed,
        workers=setting.workers,
    )
    write_csv(target / CELLS_FILE, cells)
    _write_scores(target, of_both, setting)
    return unscored_lines(test, setting.test.truth)


def _tune_and_score_posterior(target: Path, setting: Setting, sources: Sources) -> None:
    """Relative maps times the prior, with the floor that was chosen for them."""
    floor = read_floor(target.with_name(RELATIVE) / FLOOR_FILE)
    films = {"val": setting.validation, "test": setting.test}
    validation, test = (
        PosteriorMaps(sources(split, RELATIVE), FilmPriors(setting.prior, of_split), floor)
        for split, of_split in films.items()
    )
    curves = miou_curves_of_both(validation, setting.validation.truth, workers=setting.workers)
    thresholds = _thresholds(target, curves, setting)
    of_both = score_maps_at(test, setting.test.truth, thresholds=thresholds, workers=setting.workers)
    _write_scores(target, of_both, setting)


def _thresholds(target: Path, curves_of_both: Sequence[TaskCurves], setting: Setting) -> list[dict[str, float]]:
    """Task -> threshold for either counting, whose files are written."""
    thresholds = []
    for counting, curves in zip((target, target / ALL_CASES), curves_of_both, strict=True):
        tuned = tune(curves, setting.search)
        write_tuning(counting, curves, tuned, setting.validation.truth.kinds)
        setting.draw(counting)
        found = dict(zip(tuned["task"], tuned["threshold"], strict=True))
        thresholds.append(dict.fromkeys(setting.tasks, UNTUNED) | found)
    return thresholds


def _write_scores(target: Path, of_both: Sequence[Scores], setting: Setting) -> None:
    true_pos, all_cases = of_both
    kinds = setting.test.truth.kinds
    own = {HIT_RATE: true_pos.hits(), IOU: true_pos.iou(true_pos_only=True)}
    of_all = all_cases.iou(true_pos_only=False)
    for folder, prefix, table in ((target, "iou", own[IOU]), (target / ALL_CASES, "iou", of_all)):
        write_results(folder, prefix, table, setting.draws(list(table.index)), kinds=kinds)
    hits = own[HIT_RATE]
    write_results(target, "hitmiss", hits, setting.draws(list(hits.index)), kinds=kinds, exact=True)
    write_csv(target / BY_SIZE, size_rows(own, area_shares(setting.test.truth), setting.draws))


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
