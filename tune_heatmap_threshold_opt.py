"""Finds each pathology's heat-map threshold: the one whose masks have the largest mean IoU on the validation films.

    python tune_heatmap_threshold_opt.py --map_dir results/patch/heatmaps/published/val/raw \\
        --gt_path data/CheXlocalize/gt_segmentations_val.json --save_dir results/patch/localization/published/raw

Takes the options of the published script of this name and writes what CheXlocalize's own scripts read.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

try:
    import cli
except ModuleNotFoundError as error:  # copied into CheXlocalize, as the published README asks
    if error.name != "cli":
        raise
    here = Path(__file__).resolve().parent
    print(f"error: {here}: not this project's folder; run the script where it was, uncopied", file=sys.stderr)
    raise SystemExit(2) from None

EXAMPLES = """
python tune_heatmap_threshold_opt.py --map_dir demo/maps/heatmaps/corrected/val/raw \\
    --gt_path demo/data/CheXlocalize/CheXlocalize/gt_segmentations_val.json --save_dir demo/tuned
python tune_heatmap_threshold_opt.py --map_dir demo/maps/heatmaps/corrected/val/raw \\
    --gt_path demo/data/CheXlocalize/CheXlocalize/gt_segmentations_val.json --save_dir demo/ternary --search ternary
"""


def main(argv: Sequence[str] | None = None) -> int:
    args = _parse(argv)
    _tune(args.map_dir, args.gt_path, args.save_dir, args.true_pos_only == "True", args.search, args.workers)
    return 0


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = cli.parser("Tunes the heat-map threshold of each task on the validation films.", EXAMPLES)
    parser.add_argument("--map_dir", type=cli.path, required=True, help="folder of heat-map pickles (*_map.pkl)")
    parser.add_argument("--gt_path", type=cli.path, required=True, help="CheXlocalize's gt_segmentations_val.json")
    parser.add_argument("--save_dir", type=cli.path, default=Path("."), help="where the CSV files and the picture go")
    parser.add_argument(
        "--true_pos_only",
        choices=("True", "False"),
        default="True",
        help="True: only films with a true and a predicted mask; False: also those with just one of them",
    )
    parser.add_argument(
        "--search",
        choices=("exact", "ternary"),
        default="exact",
        help="every threshold, or the published ternary search",
    )
    parser.add_argument("--workers", type=cli.whole_number(0, 1024), default=cli.usable_cores(), help="processes")
    return parser.parse_args(argv)


def _tune(map_dir: Path, gt_path: Path, save_dir: Path, true_pos_only: bool, search: str, workers: int) -> None:
    """Writes the thresholds and their curves, and prints the thresholds."""
    from cxr.heat_maps import HeatMapFolder
    from cxr.masks import read_ground_truth
    from cxr.runs.folder_lock import locked
    from evaluation.localizing.heatmap_thresholds import TUNING_FILE, UNTUNED, tune, write_tuning
    from evaluation.localizing.miou_curves import miou_curves
    from evaluation.localizing.scored_tasks import unscored_lines
    from reporting.pictures.curves import draw_miou_curves

    truth = read_ground_truth(gt_path)
    maps = HeatMapFolder(map_dir, truth.tasks)
    curves = miou_curves(maps, truth, true_pos_only=true_pos_only, workers=workers)
    tuned = tune(curves, search)
    with locked(save_dir, depth=0):
        write_tuning(save_dir, curves, tuned, truth.kinds)
        draw_miou_curves(save_dir)
    print(tuned.to_string(index=False, na_rep="-", float_format="{:.4f}".format))
    untuned = tuned.loc[tuned["miou"].isna(), "task"]
    if len(untuned):
        print(f"no film to tune on, threshold left at {UNTUNED}: {', '.join(untuned)}")
    for line in unscored_lines(maps, truth):
        print(line)
    print(f"wrote {save_dir / TUNING_FILE}")


if __name__ == "__main__":
    cli.run(main)
