"""Scores heat maps against radiologists' outlines as CheXlocalize does: mean IoU and hit rate, with intervals.

    python evalLocalization.py results/MedicalPatchNet results/EfficientNetB0 --chexlocalize data/CheXlocalize

tunes thresholds on validation and scores test for every protocol and method of whole results folders, in both of
CheXlocalize's countings, and compares the methods with each other on the same films; what is complete stays.
With `--metric`, CheXlocalize's own options score one folder of maps: Otsu's threshold without a threshold file, and
three files: per film, per resample, summary.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import cli
from cxr.files import InputError, sha256
from cxr.names import PROTOCOLS, RELATIVE, Protocol, localization_folder, reference_file

if TYPE_CHECKING:  # the functions import what is heavy after the options are parsed
    import pandas as pd

    from cxr.heat_maps import HeatMapSource
    from cxr.masks import GroundTruth
    from cxr.runs.run_record import RunRecord

EXAMPLES = """
python evalLocalization.py results/MedicalPatchNet results/EfficientNetB0 --chexlocalize data/CheXlocalize
python evalLocalization.py --metric iou --map_dir maps --gt_path gt.json --threshold_path tuning_results.csv
python evalLocalization.py --metric iou --map_dir maps --gt_path gt.json --true_pos_only False
python evalLocalization.py --metric hitmiss --map_dir maps --gt_path gt.json
python evalLocalization.py --metric hitmiss --human_points_path points.json --gt_path gt.json
"""

SPLITS = ("val", "test")
ALL_CASES = "tp_fp_fn"
"""Folder of the IoU over true positives, false positives and false negatives; that of true positives lies above it."""


METRICS = ("iou", "hitmiss")

Scored = tuple[Path, Protocol, str]
"""Results folder, protocol and method."""


class Outlines(NamedTuple):
    """The ground truth of a split, and the sha256 of its file."""

    truth: GroundTruth
    sha256: str


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

    outlines = {split: _outlines(args.chexlocalize, split) for split in SPLITS}
    for folder in args.results:
        found = list(_found(folder))
        with locked(folder):
            for protocol, method in found:
                _localize(folder, protocol, method, outlines, args.search, drawing, args.workers)
    _write_differences(args.results, outlines["test"].truth.kinds, drawing)
    return 0


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = cli.parser("Scores heat maps against radiologists' outlines: mean IoU and hit rate.", EXAMPLES)
    whole = parser.add_argument_group("whole results folders")
    whole.add_argument("results", type=cli.path, nargs="*", help="as evalClassification.py makes them, with heat maps")
    whole.add_argument("--chexlocalize", type=cli.path, help="CheXlocalize's folder, or a manifest with regions.json")
    whole.add_argument(
        "--search", choices=("exact", "ternary"), help="every threshold (default), or the published search"
    )
    single = _add_single(parser.add_argument_group("one folder of maps, with CheXlocalize's options").add_argument)
    parser.add_argument(
        "--resamples", type=cli.whole_number(1, 10**8), default=1000, help="bootstrap resamples of the films"
    )
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
    from evaluation.localization import human_hits, read_human_points, write_results

    truth = read_ground_truth(gt_path)
    if human_points_path is not None:
        prefix, per_film = "hitmiss_humanbenchmark", human_hits(read_human_points(human_points_path, truth), truth)
    else:
        maps = HeatMapFolder(map_dir, truth.tasks)
        prefix = metric
        per_film = _scores_per_film(metric, maps, truth, threshold_path, cutoff_path, true_pos_only, workers)
    with locked(save_dir, depth=0):
        summary = write_results(save_dir, prefix, per_film, **drawing, kinds=truth.kinds)
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
    from evaluation.heatmap_thresholds import read_probability_cutoffs, read_thresholds
    from evaluation.localization import score_maps
    from evaluation.scored_tasks import scored_entries, unscored_lines

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


def _outlines(root: Path, split: str) -> Outlines:
    """CheXlocalize's ground truth of a split; else the films of the split in a manifest's regions.json."""
    from cxr.manifest import REGIONS, read_films
    from cxr.masks import read_ground_truth
    from cxr.splits import split_table

    path = root / "CheXlocalize" / f"gt_segmentations_{split}.json"
    regions = root / REGIONS
    if path.is_file() or not regions.is_file():
        return Outlines(read_ground_truth(path), sha256(path))
    films = read_films(split_table(root, split), root, split=split)
    return Outlines(read_ground_truth(regions).of_films(set(films.ids)), sha256(regions))


def _found(folder: Path) -> Iterator[tuple[Protocol, str]]:
    """(protocol, method) of every set of test maps in the folder, as pickles or as evidence files."""
    from saliency.evidence_files import EvidenceFolder

    folders = ((protocol, path) for protocol in PROTOCOLS for path in folder.glob(f"heatmaps/{protocol}/test/*"))
    found = sorted((protocol, path.name) for protocol, path in folders if path.is_dir())
    if not found and (folder / "evidence" / "test").is_dir():
        found = EvidenceFolder.kinds(folder / "evidence" / "test")
    if not found:
        raise InputError(f"{folder}: no heat maps of the test films; evalClassification.py --heatmaps makes them")
    yield from found


def _localize(
    folder: Path,
    protocol: Protocol,
    method: str,
    outlines: Mapping[str, Outlines],
    search: str,
    drawing: Mapping[str, int],
    workers: int,
) -> None:
    """Thresholds, IoU under both countings, and hits of one method, unless they are complete."""
    from cxr.runs.run_record import RunRecord

    record = RunRecord(folder)
    target = localization_folder(folder, protocol, method)
    made_from: dict[str, Any] = {
        "inputs": {
            "ground_truth_sha256": {split: outlines[split].sha256 for split in SPLITS},
            "heat_maps": {split: _heat_maps(record, protocol, split, method) for split in SPLITS},
        },
        "options": {"search": search, **drawing},
        "outputs": _result_files(target),
    }
    stage = _stage(protocol, method)
    if record.is_complete(stage, **made_from):
        print(f"{target}: complete")
        return
    print(f"{target}: tuning on validation, scoring on test")
    with record.stage(stage, **made_from) as scoring:
        _tune_and_score(folder, protocol, method, outlines, search, drawing, workers)
        scoring.wrote(*made_from["outputs"])


def _stage(protocol: Protocol, method: str) -> str:
    return f"localization {protocol} {method}"


def _result_files(target: Path) -> list[Path]:
    """Every file of one method: of both countings, and the hits."""
    from evaluation.heatmap_thresholds import TUNING_FILE
    from evaluation.localization import result_files
    from reporting.curves import MIOU_CURVE

    tuning = [TUNING_FILE, f"{MIOU_CURVE}.csv", f"{MIOU_CURVE}.png"]
    of_countings = [
        path
        for folder in (target, target / ALL_CASES)
        for path in (*(folder / name for name in tuning), *result_files(folder, "iou"))
    ]
    return [*of_countings, *result_files(target, "hitmiss")]


def _heat_maps(record: RunRecord, protocol: Protocol, split: str, method: str) -> dict[str, Any]:
    """Fingerprint of the maps of a split. Raises InputError when they are not complete, or were changed since."""
    from cxr.names import evidence_folder, heat_map_folder
    from cxr.runs.fingerprints import films_fingerprint

    record.require_whole(f"heat_maps_{split}", f"heat maps of {split}", "run evalClassification.py again")
    folder = heat_map_folder(record.folder, protocol, split, method)
    folder = folder if folder.is_dir() else evidence_folder(record.folder, split)
    maps = films_fingerprint(sorted(path for path in folder.rglob("*") if path.is_file()), record.folder)
    if method != RELATIVE:
        return maps
    record.require_whole("reference", "reference of relative maps", "run evalClassification.py again")
    return {"evidence": maps, "reference": sha256(reference_file(record.folder))}


def _tune_and_score(
    folder: Path,
    protocol: Protocol,
    method: str,
    outlines: Mapping[str, Outlines],
    search: str,
    drawing: Mapping[str, int],
    workers: int,
) -> None:
    """Reads each map once: those of validation for the curves of both countings, those of test for all scores."""
    from evaluation.heatmap_thresholds import UNTUNED, miou_curves_of_both, tune, write_tuning
    from evaluation.localization import score_maps_at, write_results
    from evaluation.scored_tasks import unscored_lines
    from reporting.curves import draw_miou_curves
    from saliency.evidence_files import heat_map_source

    truths = {split: outlines[split].truth for split in SPLITS}
    tasks = sorted({task for truth in truths.values() for task in truth.tasks})
    validation, test = (heat_map_source(folder, protocol, split, method, tasks) for split in SPLITS)
    target = localization_folder(folder, protocol, method)
    for line in unscored_lines(test, truths["test"]):
        print(line)
    thresholds = []
    for counting, curves in zip(
        (target, target / ALL_CASES), miou_curves_of_both(validation, truths["val"], workers=workers), strict=True
    ):
        tuned = tune(curves, search)
        write_tuning(counting, curves, tuned, truths["val"].kinds)
        draw_miou_curves(counting)
        thresholds.append(dict.fromkeys(tasks, UNTUNED) | dict(zip(tuned["task"], tuned["threshold"], strict=True)))
    true_pos, all_cases = score_maps_at(test, truths["test"], thresholds=thresholds, workers=workers)
    kinds = truths["test"].kinds
    write_results(target, "iou", true_pos.iou(true_pos_only=True), **drawing, kinds=kinds)
    write_results(target / ALL_CASES, "iou", all_cases.iou(true_pos_only=False), **drawing, kinds=kinds)
    write_results(target, "hitmiss", true_pos.hits(), **drawing, kinds=kinds)


def _write_differences(folders: Sequence[Path], kinds: Mapping[str, str], drawing: Mapping[str, int]) -> None:
    """`localization_differences.csv` beside the folders: every two methods of a protocol, on the same films.

    Recorded with the first folder, unless complete already. Raises InputError when scores are not complete any more.
    """
    from cxr.runs.folder_lock import locked
    from cxr.runs.run_record import RunRecord

    scored = [(folder, protocol, method) for folder in folders for protocol, method in _found(folder)]
    pairs = [(a, b) for a, b in combinations(scored, 2) if a[1] == b[1]]
    if not pairs:
        return
    for folder, protocol, method in scored:
        RunRecord(folder).require_whole(_stage(protocol, method), f"scores of {method}", "start this again")
    target = folders[0].parent / "localization_differences.csv"
    record, name = RunRecord(folders[0]), " ".join(["differences with", *(folder.name for folder in folders[1:])])
    read = [[folder.name, *map(sha256, _per_film(folder, protocol, method))] for folder, protocol, method in scored]
    made_from: dict[str, Any] = {
        "inputs": {"scores": read, "methods": [list(names) for _, *names in scored], "kinds": dict(kinds)},
        "options": dict(drawing),
        "outputs": [target],
    }
    if record.is_complete(name, **made_from):
        print(f"{target}: complete")
        return
    with locked(record.folder), record.stage(name, **made_from) as stage:
        _compare_methods(target, pairs, kinds, drawing)
        stage.wrote(target)
    print(f"{target}: the methods compared with each other, true positives only")


def _per_film(folder: Path, protocol: Protocol, method: str) -> list[Path]:
    """The files of a method's scores per film, in the order of METRICS."""
    return [localization_folder(folder, protocol, method) / f"{metric}_results_per_cxr.csv" for metric in METRICS]


def _compare_methods(
    target: Path, pairs: Sequence[tuple[Scored, Scored]], kinds: Mapping[str, str], drawing: Mapping[str, int]
) -> None:
    import pandas as pd

    from cxr.tables import write_csv
    from evaluation.localization import paired_differences
    from evaluation.scored_tasks import with_kinds

    tables = []
    for a, b in pairs:
        for metric, *files in zip(METRICS, _per_film(*a), _per_film(*b), strict=True):
            per_film = (pd.read_csv(file, dtype={"img_id": str}).set_index("img_id") for file in files)
            table = paired_differences(*per_film, **drawing)
            names = {"protocol": a[1], "metric": metric, "method_a": a[2], "method_b": b[2]}
            tables.append(with_kinds(table.assign(**names)[[*names, *table.columns]], "name", kinds))
    write_csv(target, pd.concat(tables))


if __name__ == "__main__":
    cli.run(main)
