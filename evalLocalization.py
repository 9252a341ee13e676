"""Scores heat maps against radiologists' outlines as CheXlocalize does: mean IoU and hit rate, with intervals.

    python evalLocalization.py results/MedicalPatchNet results/EfficientNetB0 --chexlocalize data/CheXlocalize

tunes thresholds on validation and scores test for every protocol and method of whole results folders, in both of
CheXlocalize's countings, and compares the methods with each other on the same films; what is complete stays.
With `--metric`, CheXlocalize's own options score one folder of maps: Otsu's threshold without a threshold file, and
three files: per film, per resample, summary.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import cli
from cxr.files import InputError
from cxr.names import ADDED_VALUE, POSTERIOR, PROTOCOLS, RELATIVE, Protocol, controls_file

if TYPE_CHECKING:  # the functions import what is heavy after the options are parsed
    import pandas as pd

    from cxr.heat_maps import HeatMapSource
    from cxr.masks import GroundTruth
    from evaluation.localizing.setting import Setting

EXAMPLES = """
python evalLocalization.py demo/results/MedicalPatchNet demo/results/EfficientNetB0 \\
    --chexlocalize demo/data/CheXlocalize
python evalLocalization.py --metric iou --map_dir demo/maps/heatmaps/corrected/test/raw \\
    --gt_path demo/data/CheXlocalize/CheXlocalize/gt_segmentations_test.json --save_dir demo/tuned \\
    --threshold_path demo/tuned/tuning_results.csv --true_pos_only False
python evalLocalization.py --metric hitmiss --map_dir demo/maps/heatmaps/corrected/test/raw \\
    --gt_path demo/data/CheXlocalize/CheXlocalize/gt_segmentations_test.json --save_dir demo/tuned
python evalLocalization.py --metric hitmiss --human_points_path points.json \\
    --gt_path demo/data/CheXlocalize/CheXlocalize/gt_segmentations_test.json --save_dir demo/tuned
"""


def main(argv: Sequence[str] | None = None) -> int:
    args = _parse(argv)
    drawing = {"resamples": args.resamples, "seed": args.seed}
    if not args.results:
        paths = {name: getattr(args, name) for name in ("gt_path", "map_dir", "human_points_path", "save_dir")}
        files = {"threshold_path": args.threshold_path, "cutoff_path": args.probability_threshold_path}
        counting = {"true_pos_only": args.true_pos_only == "True"}
        _score_folder(args.metric, **paths, **files, **counting, workers=args.workers, drawing=drawing)
        return 0
    from cxr.runs.folder_lock import locked
    from evaluation.localizing.location_prior import outlined
    from evaluation.localizing.method_differences import write_differences
    from evaluation.localizing.outlined_films import read_outlined_films
    from evaluation.localizing.setting import Setting
    from reporting.pictures.curves import draw_miou_curves

    validation, test = (read_outlined_films(args.chexlocalize, split) for split in ("val", "test"))
    setting = Setting(
        validation, test, args.search, **drawing, unit=args.resample_unit, workers=args.workers, draw=draw_miou_curves
    )
    setting.draws(test.truth.image_ids)  # whether the patients are known shows before hours of work
    prior = {task for _, task in outlined(validation.truth)}
    found = {folder: _found(folder, prior, setting.tasks) for folder in args.results}
    for folder, of_folder in found.items():
        with locked(folder):
            _localize_folder(folder, of_folder, setting)
    write_differences(found, setting)
    return 0


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = cli.parser("Scores heat maps against radiologists' outlines: mean IoU and hit rate.", EXAMPLES)
    whole = parser.add_argument_group("whole results folders")
    whole.add_argument("results", type=cli.path, nargs="*", help="as evalClassification.py makes them, with heat maps")
    whole.add_argument("--chexlocalize", type=cli.path, help="CheXlocalize's folder, or a manifest with regions.json")
    whole.add_argument(
        "--search", choices=("exact", "ternary"), help="every threshold (default), or the published search"
    )
    whole.add_argument(
        "--resample-unit", choices=("film", "patient"), default="film", help="what a resample of whole folders draws"
    )
    single = _add_single(parser.add_argument_group("one folder of maps, with CheXlocalize's options").add_argument)
    parser.add_argument("--resamples", type=cli.whole_number(1, 10**8), default=1000, help="bootstrap resamples")
    parser.add_argument("--workers", type=cli.whole_number(0, 1024), default=cli.usable_cores(), help="processes")
    cli.add_seed(parser)
    args = parser.parse_args(argv)
    given = [option for option, name in single.items() if getattr(args, name) is not None]
    if args.results and given:
        parser.error(f"{given[0]} is for one folder of maps, not for whole results folders")
    if args.results and args.chexlocalize is None:
        parser.error("whole results folders need --chexlocalize")
    if not args.results and (args.metric is None or args.gt_path is None):
        parser.error("give results folders and --chexlocalize, or --metric and --gt_path with --map_dir")
    if not args.results and (args.map_dir is None) == (args.human_points_path is None):
        parser.error("give either --map_dir or --human_points_path")
    if args.human_points_path and args.metric != "hitmiss":
        raise InputError("--human_points_path: points have no IoU; use --metric hitmiss")
    args.search = args.search or "exact"
    args.true_pos_only = args.true_pos_only or "True"
    args.save_dir = args.save_dir or Path(".")
    return args


def _add_single(add: Callable[..., argparse.Action]) -> dict[str, str]:
    """Returns option -> its name among the arguments."""
    actions = [
        add("--metric", choices=("iou", "hitmiss"), help="mean IoU, or hit rate"),
        add("--gt_path", type=cli.path, help="CheXlocalize's gt_segmentations_*.json"),
        add("--map_dir", type=cli.path, help="folder of heat-map pickles (*_map.pkl)"),
        add("--human_points_path", type=cli.path, help="score radiologists' points (json) instead, hitmiss only"),
        add("--threshold_path", type=cli.path, help="tuning_results.csv; without it, Otsu's threshold"),
        add("--probability_threshold_path", type=cli.path, help="below its cutoff a predicted mask is empty"),
        add(
            "--true_pos_only",
            choices=("True", "False"),
            help="True (default): IoU of films with a true and a predicted mask; False: also with just one of them",
        ),
        add("--save_dir", type=cli.path, help="where the CSV files go; here by default"),
    ]
    return {action.option_strings[0]: action.dest for action in actions}


# -------------------------------------------------------------------------------------------------- one folder of maps


def _score_folder(
    metric: str,
    *,
    gt_path: Path,
    map_dir: Path,
    human_points_path: Path | None,
    threshold_path: Path | None,
    cutoff_path: Path | None,
    true_pos_only: bool,
    save_dir: Path,
    workers: int,
    drawing: Mapping[str, int],
) -> None:
    """CheXlocalize's three files of one folder of maps, or of radiologists' points."""
    from cxr.heat_maps import HeatMapFolder
    from cxr.masks import read_ground_truth
    from cxr.runs.folder_lock import locked
    from evaluation.film_statistics import of_films, write_results
    from evaluation.localizing.localization import human_hits, read_human_points

    truth = read_ground_truth(gt_path)
    if human_points_path is not None:
        prefix, per_film = "hitmiss_humanbenchmark", human_hits(read_human_points(human_points_path, truth), truth)
    else:
        maps = HeatMapFolder(map_dir, truth.tasks)
        prefix = metric
        per_film = _scores_per_film(metric, maps, truth, threshold_path, cutoff_path, true_pos_only, workers)
    with locked(save_dir, depth=0):
        summary = write_results(save_dir, prefix, per_film, of_films(len(per_film), **drawing), kinds=truth.kinds)
    counts = per_film.count()
    films = [str(counts[name]) if name in counts else "" for name in summary["name"]]
    print(summary.assign(films=films).to_string(index=False, na_rep="-", float_format="{:.4f}".format))
    print(f"mean and 95% percentile interval of {drawing['resamples']} resamples of {len(per_film)} films")
    print(f"wrote {save_dir / prefix}_summary_results.csv")


def _scores_per_film(
    metric: str,
    maps: HeatMapSource,
    truth: GroundTruth,
    threshold_path: Path | None,
    cutoff_path: Path | None,
    true_pos_only: bool,
    workers: int,
) -> pd.DataFrame:
    """Film x task: IoU or hits of the maps."""
    from evaluation.localizing.heatmap_thresholds import read_probability_cutoffs, read_thresholds
    from evaluation.localizing.localization import score_maps
    from evaluation.localizing.scored_tasks import scored_entries, unscored_lines

    tasks = sorted({task for _, task in scored_entries(maps, truth)})
    scores = score_maps(
        maps,
        truth,
        thresholds=read_thresholds(threshold_path, tasks) if threshold_path else None,
        cutoffs=read_probability_cutoffs(cutoff_path, tasks) if cutoff_path else None,
        masks=metric == "iou",
        workers=workers,
    )
    for line in unscored_lines(maps, truth):
        print(line)
    return scores.iou(true_pos_only=true_pos_only) if metric == "iou" else scores.hits()


# ------------------------------------------------------------------------------------------------ whole results folders


def _found(folder: Path, prior: Collection[str], tasks: Sequence[str]) -> list[tuple[Protocol, str]]:
    """(protocol, method) of every set of test maps in the folder, as pickles or as evidence files.

    prior: those of `tasks` that have a location prior; with relative maps of one of them there is a posterior too.
    """
    from saliency.evidence.evidence_folders import EvidenceFolder

    folders = ((protocol, path) for protocol in PROTOCOLS for path in folder.glob(f"heatmaps/{protocol}/test/*"))
    found = sorted((protocol, path.name) for protocol, path in folders if path.is_dir())
    if not found and (folder / "evidence" / "test").is_dir():
        found = EvidenceFolder.kinds(folder / "evidence" / "test")
    if not found:
        raise InputError(f"{folder}: no heat maps of the test films; evalClassification.py --heatmaps makes them")
    relative = [protocol for protocol, method in found if method == RELATIVE and prior]
    maps = {protocol: _sources(folder, protocol, tasks)("test", RELATIVE).entries for protocol in relative}
    return found + [(protocol, POSTERIOR) for protocol in relative if any(task in prior for _, task in maps[protocol])]


def _localize_folder(folder: Path, found: Sequence[tuple[Protocol, str]], setting: Setting) -> None:
    """Every method, then the controls of every protocol, with a line on what the maps say beyond them."""
    from cxr.runs.run_record import RunRecord
    from evaluation.localizing.localized import localize, localize_with_posterior, write_controls
    from reporting.control_results import read_added_value, short_verdicts

    record = RunRecord(folder)
    unscored: dict[str, None] = {}
    for protocol, method in found:
        sources = _sources(folder, protocol, setting.tasks)
        if method == RELATIVE and (protocol, POSTERIOR) in found:
            lines = localize_with_posterior(record, protocol, setting, sources)
        elif method != POSTERIOR:
            lines = localize(record, protocol, method, setting, sources)
        else:
            continue  # was made with the relative maps
        unscored |= dict.fromkeys(lines)
    for line in unscored:
        print(f"{folder}: {line}")
    for protocol in dict.fromkeys(protocol for protocol, _ in found):
        methods = [method for of, method in found if of == protocol and method != POSTERIOR]
        write_controls(record, protocol, methods, setting)
        for line in short_verdicts(read_added_value(controls_file(folder, protocol, ADDED_VALUE))):
            print(f"{folder}, {protocol}: {line}")


def _sources(folder: Path, protocol: Protocol, tasks: Sequence[str]) -> Callable[[str, str], HeatMapSource]:
    """(split, method) -> the maps of a results folder."""
    from saliency.evidence.evidence_folders import heat_map_source

    return lambda split, method: heat_map_source(folder, protocol, split, method, tasks)


if __name__ == "__main__":
    cli.run(main)
