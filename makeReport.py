"""Tables and figures of a results folder, in the layout of the paper and beside its numbers. Reads files only.

RESULTS_DIR holds one folder per model, as evalClassification.py and evalLocalization.py fill them. Parts that are
missing are named, with the command that makes them, and the rest is made.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import cli
from chexpert.files import InputError
from reporting.classification_figures import classification_figures
from reporting.format import Table, to_markdown, write_table
from reporting.localization_results import METHODS, PATCH_METHODS, PROTOCOLS
from reporting.localization_tables import mean_hit_rates, table2, table3
from reporting.results import Results, read_paper, read_results
from reporting.style import save, style
from reporting.tables import comparison_table, table1, table1_per_label

if TYPE_CHECKING:
    from chexpert.localize import HeatMapSource

EXAMPLES = """
python makeReport.py results
python makeReport.py results --output report --dataset-name "synthetic demo data"
python makeReport.py results --figures --gt-path chexlocalize/CheXlocalize/gt_segmentations_test.json
"""


def main(argv: Sequence[str] | None = None) -> int:
    args = _parse(argv)
    results = read_results(args.results_dir)
    folder = args.output or args.results_dir / "report"
    tables = _tables(results, args.dataset_name)
    for table in tables:
        write_table(table, folder)
    pictures = classification_figures(results, folder, args.dataset_name)
    for line in results.missing:
        print(f"missing: {line}")
    if args.figures:
        pictures += _case_figures(args, results, folder / "figures")
    if not tables and not pictures:
        raise InputError(f"{args.results_dir}: nothing to report on yet; the lines above name the commands to run")
    _print_summary(results, tables, pictures, folder)
    return 0


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = cli.parser(__doc__.splitlines()[0], EXAMPLES)
    parser.add_argument("results_dir", type=Path, metavar="RESULTS_DIR", help="folder with one folder per model")
    parser.add_argument("--output", type=Path, help="where the report goes; RESULTS_DIR/report by default")
    parser.add_argument("--dataset-name", default="", help="named in captions and titles")
    parser.add_argument("--figures", action="store_true", help="also the grid of cases, from heat maps")
    parser.add_argument("--heatmaps", type=Path, metavar="DIR",
        help="where <model>/heatmaps or <model>/evidence lie; RESULTS_DIR by default")  # fmt: skip
    parser.add_argument("--gt-path", type=Path, help="gt_segmentations_test.json; outlines masks in the grid of cases")
    args = parser.parse_args(argv)
    if not args.figures and (args.heatmaps or args.gt_path):
        parser.error("--heatmaps and --gt-path are for --figures, which is not given")
    return args


def _tables(results: Results, dataset: str) -> list[Table]:
    paper = read_paper()
    tables: list[Table] = []
    if any(model.scores for model in results.models):
        tables += [table1(results, paper, dataset), table1_per_label(results, paper, dataset)]
    for protocol in results.protocols:
        tables += [table2(results, protocol, paper, dataset), table3(results, protocol, paper, dataset)]
    if results.comparison is not None:
        tables.append(comparison_table(results, dataset))
    return tables


def _case_figures(args: argparse.Namespace, results: Results, folder: Path) -> list[Path]:
    from chexpert.masks import read_ground_truth  # heat maps need torch, whose import takes longer than the tables
    from reporting.cases import case_figure

    ground_truth = read_ground_truth(args.gt_path) if args.gt_path else None
    if ground_truth is None:
        print("missing: masks in the grid of cases; give CheXlocalize's gt_segmentations_test.json as --gt-path")
    paths = []
    for protocol in PROTOCOLS:
        sources = _sources(results, protocol, args.heatmaps or args.results_dir)
        with style():
            figure, missing = case_figure(results, protocol, sources, ground_truth, args.dataset_name)
            if figure is None:
                print(f"missing: {missing}")
            else:
                paths += save(figure, folder, f"cases_{protocol}", endings=("png",))
    return paths


def _sources(results: Results, protocol: str, heatmaps: Path) -> dict[str, HeatMapSource]:
    """Method -> its maps of the test films: evidence maps of the patch model, CAMs of the baseline."""
    from saliency.evidence_files import heat_map_source

    found = {}
    for method in METHODS:
        model = results.patch if method in PATCH_METHODS else results.baseline
        if model is not None:
            with suppress(InputError):  # said by the figure, with the command that makes them
                found[method] = heat_map_source(heatmaps / model.folder.name, protocol, "test", method)
    return found


def _print_summary(results: Results, tables: Sequence[Table], pictures: Sequence[Path], folder: Path) -> None:
    print()
    for table in tables:
        if table.name.startswith(("table1", "table2", "table3")) and table.name != "table1_per_label":
            print(to_markdown(table))
    for protocol in results.protocols:
        print(mean_hit_rates(results, protocol))
    if tables:
        print(f"tables: {folder}/{{{','.join(table.name for table in tables)}}}.{{csv,md,tex}}")
    print(f"pictures: {', '.join(str(path) for path in pictures if path.suffix == '.png')}")


if __name__ == "__main__":
    cli.run(main)
