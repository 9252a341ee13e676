"""A method's maps, tuned on validation and scored on test: thresholds, IoU under both countings, hits, sizes, controls.

Relative maps are also scored times the location prior (the posterior), in the same passes: every map is made once, but
those of outlined validation films twice, for the prior's floor is chosen from them before anything is multiplied.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from cxr.heat_maps import HeatMapSource
from cxr.names import BY_SIZE
from cxr.tables import write_csv
from evaluation.film_statistics import result_files, write_results
from evaluation.localizing.control_tables import HIT_RATE, IOU, size_rows
from evaluation.localizing.controls import score_with_controls
from evaluation.localizing.heatmap_thresholds import CURVE_FILE, TUNING_FILE, UNTUNED, tune, write_tuning
from evaluation.localizing.localization import Scores
from evaluation.localizing.location_prior import area_shares
from evaluation.localizing.miou_curves import TaskCurves, as_it_is, miou_curves_and_more, miou_curves_of_versions
from evaluation.localizing.setting import Setting
from evaluation.localizing.with_prior import (
    FilmPriors,
    floor_hits,
    floor_table,
    outlined_floor_hits,
    posterior_map,
    read_floor,
)

ALL_CASES = "tp_fp_fn"
"""Folder of the IoU over true positives, false positives and false negatives; that of true positives lies above it."""
FLOOR_FILE, CELLS_FILE = "prior_floor.csv", "controls_per_film.csv"


def score_files(target: Path) -> list[Path]:
    """Every file of the scores of maps: of both countings, the hits, and by size."""
    tuning = [TUNING_FILE, CURVE_FILE, str(Path(CURVE_FILE).with_suffix(".png"))]
    of_countings = [
        path
        for folder in (target, target / ALL_CASES)
        for path in (*(folder / name for name in tuning), *result_files(folder, "iou"))
    ]
    return [*of_countings, *result_files(target, "hitmiss"), target / BY_SIZE]


def control_files(target: Path) -> list[Path]:
    """Files that the controls of a method are made of."""
    return [target / FLOOR_FILE, target / CELLS_FILE]


def tune_and_score(target: Path, validation: HeatMapSource, test: HeatMapSource, setting: Setting) -> None:
    """Writes the files of a method; each map is read once."""
    look = partial(floor_hits, priors=FilmPriors(setting.prior, setting.validation))
    *curves, hits = miou_curves_and_more(validation, setting.validation.truth, look, workers=setting.workers)
    write_csv(target / FLOOR_FILE, floor_table(hits))
    _score(test, {target: curves}, target, setting)


def choose_floor(target: Path, validation: HeatMapSource, setting: Setting) -> None:
    """Writes the floor of the prior that the maps are multiplied with; reads the maps of outlined films."""
    hits = outlined_floor_hits(validation, FilmPriors(setting.prior, setting.validation), workers=setting.workers)
    write_csv(target / FLOOR_FILE, floor_table(hits))


def tune_and_score_with_posterior(
    target: Path, posterior: Path, validation: HeatMapSource, test: HeatMapSource, setting: Setting
) -> None:
    """Writes the files of a method and of its maps times the prior, with the floor of `choose_floor`; each map is read
    once."""
    priors = FilmPriors(setting.prior, setting.validation)
    product = partial(posterior_map, priors=priors, floor=read_floor(target / FLOOR_FILE))
    curves = miou_curves_of_versions(validation, setting.validation.truth, [as_it_is, product], workers=setting.workers)
    _score(test, dict(zip((target, posterior), curves, strict=True)), target, setting)


def _score(test: HeatMapSource, curves: Mapping[Path, Sequence[TaskCurves]], target: Path, setting: Setting) -> None:
    """Thresholds, scores and controls of the maps. curves: of both countings, by folder: `target`, then perhaps that of
    the posterior."""
    thresholds, *posterior = (_thresholds(folder, of_both, setting) for folder, of_both in curves.items())
    scored = score_with_controls(
        test,
        setting.test,
        setting.prior,
        thresholds=thresholds,
        floor=read_floor(target / FLOOR_FILE),
        seed=setting.seed,
        workers=setting.workers,
        posterior=posterior[0] if posterior else (),
    )
    write_csv(target / CELLS_FILE, scored.cells)
    for folder, of_both in zip(curves, (scored.own, scored.posterior), strict=False):
        _write_scores(folder, of_both, setting)


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
