"""Tunes and scores every heat map of whole results folders: thresholds on validation, mIoU and hit rate on test.

One command does for each protocol and method of each folder what tune_heatmap_threshold_opt.py and evalLocalization.py
do for one, and compares the methods with each other on the same films. What is complete is not done again.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import pandas as pd

import cli
from cxr.files import InputError, sha256
from cxr.labels import TASKS
from cxr.masks import GroundTruth, read_ground_truth
from cxr.names import Protocol
from cxr.run_record import RunRecord
from cxr.tables import write_csv
from evaluation.heatmap_thresholds import SEARCHES, miou_curves, tune, write_tuning
from evaluation.localization import paired_differences, score_maps, write_results
from reporting.curves import draw_miou_curves
from saliency.evidence_files import EvidenceFolder, heat_map_source

EXAMPLES = """
python evalHeatmaps.py results/MedicalPatchNet results/EfficientNetB0 --chexlocalize data/CheXlocalize
"""

ALL_CASES = "tp_fp_fn"
"""Folder of the IoU over true positives, false positives and false negatives; that of true positives lies above it."""


def main(argv: Sequence[str] | None = None) -> int:
    args = _parse(argv)
    masks = {split: args.chexlocalize / "CheXlocalize" / f"gt_segmentations_{split}.json" for split in ("val", "test")}
    truth = {split: read_ground_truth(path) for split, path in masks.items()}
    sha = {split: sha256(path) for split, path in masks.items()}
    for folder in args.results:
        record = RunRecord(folder)
        for protocol, method in _found(folder):
            _localize(args, record, protocol, method, truth, sha)
    _differences(args)
    return 0


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = cli.parser(__doc__.splitlines()[0], EXAMPLES)
    add = parser.add_argument
    add("results", type=Path, nargs="+", help="results folders with heat maps, as evalClassification.py makes them")
    add("--chexlocalize", type=Path, required=True, help="CheXlocalize's folder; CheXlocalize/gt_segmentations_*.json")
    add("--search", choices=tuple(SEARCHES), default="exact", help="every threshold, or the published ternary search")
    add("--resamples", type=int, default=1000, help="bootstrap resamples of the films, as CheXlocalize takes")
    add("--workers", type=int, default=cli.usable_cores(), help="processes")
    cli.add_seed(parser)
    return parser.parse_args(argv)


def _found(folder: Path) -> Iterator[tuple[Protocol, str]]:
    """(protocol, method) of every set of test maps in the folder, as pickles or as evidence files."""
    found = sorted({(path.parts[-3], path.name) for path in folder.glob("heatmaps/*/test/*") if path.is_dir()})
    if not found and (folder / "evidence" / "test").is_dir():
        found = EvidenceFolder.kinds(folder / "evidence" / "test")
    if not found:
        raise InputError(f"{folder}: no heat maps of the test films; evalClassification.py --heatmaps makes them")
    yield from found


def _localize(
    args: argparse.Namespace,
    record: RunRecord,
    protocol: Protocol,
    method: str,
    truth: Mapping[str, GroundTruth],
    sha: Mapping[str, str],
) -> None:
    """Thresholds, IoU under both countings, and hits of one method."""
    target = record.folder / "localization" / protocol / method
    maps = {split: record.content.get("stages", {}).get(f"heat_maps_{split}", {}).get("made_from") for split in truth}
    made_from: dict[str, Any] = {"ground_truth_sha256": dict(sha), "heat_maps": maps}
    made_from |= {name: getattr(args, name) for name in ("search", "resamples", "seed")}
    stage = f"localization {protocol} {method}"
    if record.is_done(stage, made_from, [target / "hitmiss_summary_results.csv"]):
        print(f"{target}: complete")
        return
    print(f"{target}: tuning on validation, scoring on test")
    drawing = {"resamples": args.resamples, "seed": args.seed}
    with record.stage(stage, made_from):
        validation, test = (heat_map_source(record.folder, protocol, split, method) for split in ("val", "test"))
        for true_pos_only, folder in ((True, target), (False, target / ALL_CASES)):
            curves = miou_curves(validation, truth["val"], true_pos_only=true_pos_only, workers=args.workers)
            tuned = tune(curves, args.search)
            write_tuning(folder, curves, tuned)
            draw_miou_curves(folder)
            thresholds = dict(zip(tuned["task"], tuned["threshold"], strict=True))
            scores = score_maps(test, truth["test"], thresholds=thresholds, workers=args.workers)
            write_results(folder, "iou", scores.iou(true_pos_only=true_pos_only), **drawing)
        write_results(target, "hitmiss", scores.hits(), **drawing)


def _differences(args: argparse.Namespace) -> None:
    """`localization_differences.csv` beside the folders: every two methods of a protocol, on the same films."""
    scored = [(folder, protocol, method) for folder in args.results for protocol, method in _found(folder)]
    tables = []
    for (a, protocol, method_a), (b, other, method_b) in combinations(scored, 2):
        for metric in ("iou", "hitmiss") if protocol == other else ():
            films = [
                pd.read_csv(folder / "localization" / protocol / method / f"{metric}_results_per_cxr.csv")
                for folder, method in ((a, method_a), (b, method_b))
            ]
            per_film = [table.set_index("img_id")[list(TASKS)] for table in films]
            table = paired_differences(*per_film, resamples=args.resamples, seed=args.seed)
            names = {"protocol": protocol, "metric": metric, "method_a": method_a, "method_b": method_b}
            tables.append(table.assign(**names)[[*names, *table.columns]])
    if tables:
        target = args.results[0].parent / "localization_differences.csv"
        write_csv(target, pd.concat(tables))
        print(f"{target}: the methods compared with each other, true positives only")


if __name__ == "__main__":
    cli.run(main)
