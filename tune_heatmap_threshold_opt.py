"""Finds each pathology's heat-map threshold: the one whose masks have the largest mean IoU on the validation films.

    python tune_heatmap_threshold_opt.py --map_dir results/patch/heatmaps/published/val/raw \\
        --gt_path data/CheXlocalize/gt_segmentations_val.json --save_dir results/patch/localization/published/raw

Takes the options of the published script of this name and writes what CheXlocalize's own scripts read.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cli
from cxr.heat_maps import HeatMapFolder
from cxr.masks import read_ground_truth
from evaluation.heatmap_thresholds import SEARCHES, TUNING_FILE, UNTUNED, miou_curves, tune, write_tuning
from reporting.curves import draw_miou_curves

EXAMPLES = """
python tune_heatmap_threshold_opt.py --map_dir heatmaps/val --gt_path gt_segmentations_val.json --save_dir tuned
python tune_heatmap_threshold_opt.py --map_dir heatmaps/val --gt_path gt_segmentations_val.json --search ternary
"""


def main(argv: Sequence[str] | None = None) -> int:
    parser = cli.parser("Tunes the heat-map threshold of each pathology on the validation films.", EXAMPLES)
    parser.add_argument("--map_dir", type=Path, required=True, help="folder of heat-map pickles (*_map.pkl)")
    parser.add_argument("--gt_path", type=Path, required=True, help="CheXlocalize's gt_segmentations_val.json")
    parser.add_argument("--save_dir", type=Path, default=Path("."), help="where the CSV files and the picture go")
    parser.add_argument(
        "--true_pos_only",
        choices=("True", "False"),
        default="True",
        help="True: only films with a true and a predicted mask; False: also those with just one of them",
    )
    parser.add_argument(
        "--search", choices=tuple(SEARCHES), default="exact", help="every threshold, or the published ternary search"
    )
    parser.add_argument("--workers", type=int, default=cli.usable_cores(), help="processes")
    args = parser.parse_args(argv)

    curves = miou_curves(
        HeatMapFolder(args.map_dir),
        read_ground_truth(args.gt_path),
        true_pos_only=args.true_pos_only == "True",
        workers=args.workers,
    )
    tuned = tune(curves, args.search)
    write_tuning(args.save_dir, curves, tuned)
    draw_miou_curves(args.save_dir)
    print(tuned.to_string(index=False, na_rep="-", float_format="{:.4f}".format))
    untuned = tuned.loc[tuned["miou"].isna(), "task"]
    if len(untuned):
        print(f"no film to tune on, threshold left at {UNTUNED}: {', '.join(untuned)}")
    print(f"wrote {args.save_dir / TUNING_FILE}")
    return 0


if __name__ == "__main__":
    cli.run(main)
