"""Scores heat maps against radiologists' masks as CheXlocalize does: mean IoU or hit rate, with intervals.

    python evalLocalization.py --metric iou --map_dir results/patch/heatmaps/published/test/raw \\
        --gt_path data/CheXlocalize/gt_segmentations_test.json \\
        --threshold_path results/patch/localization/published/raw/tuning_results.csv \\
        --save_dir results/patch/localization/published/raw

Without a threshold file, Otsu's threshold is taken. Writes CheXlocalize's three files: per film, per resample, summary.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

import cli
from cxr.files import InputError
from cxr.heat_maps import HeatMapFolder
from cxr.masks import read_ground_truth
from evaluation.heatmap_thresholds import read_probability_cutoffs, read_thresholds
from evaluation.localization import human_hits, read_human_points, score_maps, write_results

EXAMPLES = """
python evalLocalization.py --metric iou --map_dir maps --gt_path gt.json --threshold_path tuning_results.csv
python evalLocalization.py --metric iou --map_dir maps --gt_path gt.json --true_pos_only False
python evalLocalization.py --metric hitmiss --map_dir maps --gt_path gt.json
python evalLocalization.py --metric hitmiss --human_points_path points.json --gt_path gt.json
"""


def main(argv: Sequence[str] | None = None) -> int:
    args = _parse(argv)
    prefix = "hitmiss_humanbenchmark" if args.human_points_path else args.metric
    per_film = _per_film(args)
    summary = write_results(args.save_dir, prefix, per_film, resamples=args.resamples, seed=args.seed)
    counts = per_film.count()
    films = [str(counts[name]) if name in counts else "" for name in summary["name"]]
    print(summary.assign(films=films).to_string(index=False, na_rep="-", float_format="{:.4f}".format))
    print(f"mean and 95% percentile interval of {args.resamples} resamples of {len(per_film)} films")
    print(f"wrote {args.save_dir / prefix}_summary_results.csv")
    return 0


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = cli.parser("Scores heat maps against radiologists' masks as CheXlocalize does.", EXAMPLES)
    parser.add_argument("--metric", choices=("iou", "hitmiss"), required=True, help="mean IoU, or hit rate")
    parser.add_argument("--gt_path", type=Path, required=True, help="CheXlocalize's gt_segmentations_*.json")
    maps = parser.add_mutually_exclusive_group(required=True)
    maps.add_argument("--map_dir", type=Path, help="folder of heat-map pickles (*_map.pkl)")
    maps.add_argument("--human_points_path", type=Path, help="score radiologists' points (json) instead, hitmiss only")
    parser.add_argument("--threshold_path", type=Path, help="tuning_results.csv; without it, Otsu's threshold")
    parser.add_argument("--probability_threshold_path", type=Path, help="below its cutoff a predicted mask is empty")
    parser.add_argument(
        "--true_pos_only",
        choices=("True", "False"),
        default="True",
        help="True: IoU of films with a true and a predicted mask; False: also of those with just one of them",
    )
    parser.add_argument("--save_dir", type=Path, default=Path("."), help="where the CSV files go")
    parser.add_argument("--resamples", type=int, default=1000, help="bootstrap resamples of the films")
    parser.add_argument("--workers", type=int, default=cli.usable_cores(), help="processes")
    cli.add_seed(parser)
    args = parser.parse_args(argv)
    if args.human_points_path and args.metric != "hitmiss":
        raise InputError("--human_points_path: points have no IoU; use --metric hitmiss")
    if args.resamples < 1:
        raise InputError(f"--resamples {args.resamples}: at least 1 is needed")
    return args


def _per_film(args: argparse.Namespace) -> pd.DataFrame:
    ground_truth = read_ground_truth(args.gt_path)
    if args.human_points_path:
        return human_hits(read_human_points(args.human_points_path, ground_truth), ground_truth)
    cutoffs = args.probability_threshold_path
    scores = score_maps(
        HeatMapFolder(args.map_dir),
        ground_truth,
        thresholds=read_thresholds(args.threshold_path) if args.threshold_path else None,
        cutoffs=read_probability_cutoffs(cutoffs) if cutoffs else None,
        masks=args.metric == "iou",
        workers=args.workers,
    )
    return scores.iou(true_pos_only=args.true_pos_only == "True") if args.metric == "iou" else scores.hits()


if __name__ == "__main__":
    cli.run(main)
