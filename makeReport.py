"""Tables, figures and one HTML page of a results folder, in the paper's layout, beside its numbers. Reads files only.

RESULTS_DIR holds one folder per model, as evalClassification.py and evalLocalization.py fill them. Parts that are
missing are named, with the command that makes them, and the rest is made. The page, `report.html`, is one file that
needs no network; it also shows every case with its maps. Labels and tasks are those of the files.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import cli
from cxr.files import InputError, place, printable
from cxr.names import METHODS, PROTOCOLS, evidence_folder

if TYPE_CHECKING:  # the functions import what is heavy after the options are parsed
    from reporting.format import Table
    from reporting.page.case_pictures import MapSources
    from reporting.results import Results

EXAMPLES = """
python makeReport.py demo/results
python makeReport.py demo/results --output demo/report --dataset-name "synthetic demo films" --figures \\
    --gt-path demo/data/CheXlocalize/CheXlocalize/gt_segmentations_test.json
"""

PAGE = "report.html"
LISTING = "report.json"
"""The files of a report, by which the next one knows what to replace."""


def main(argv: Sequence[str] | None = None) -> int:
    args = _parse(argv)
    from cxr.runs.folder_lock import locked
    from cxr.runs.made_folder import made_as_a_whole
    from reporting.reading import read_results
    from reporting.summary import summary

    results = read_results(args.results_dir)
    folder = args.output or args.results_dir / "report"
    with locked(folder, depth=1), made_as_a_whole(folder, LISTING) as making:
        _report(results, making, args.dataset_name, args.heatmaps or args.results_dir, args.gt_path, args.figures)
    print(f"\n{summary(results)}\n\nTables (CSV, Markdown, LaTeX) and figures are in {folder}\n\nOpen {folder / PAGE}")
    return 0


def _report(
    results: Results, folder: Path, dataset: str, heatmaps: Path, gt_path: Path | None, case_grid: bool
) -> None:
    """Writes tables, figures and the page into an empty folder. Raises InputError when there is nothing to report."""
    from evaluation.map_pool import one_thread
    from reporting.format import write_table
    from reporting.page.page import write_page
    from reporting.pictures.figures import classification_figures

    tables = _tables(results, dataset)
    for table in tables:
        write_table(table, folder)
    pictures = classification_figures(results, folder, dataset)
    _print_missing(results.missing)
    if not tables and not pictures:
        raise InputError(f"{place(results.folder)}: nothing to report on yet; the lines above name the commands to run")
    sources = map_sources(results, heatmaps, gt_path)
    if case_grid:
        pictures += _method_figure(results, sources, folder / "figures", dataset)
        pictures += _case_figures(results, sources, folder / "figures", dataset)
    with one_thread():
        of_page = {"tables": tables, "pictures": pictures, "sources": sources, "dataset": dataset}
        _print_missing(write_page(folder / PAGE, results, **of_page))


def _print_missing(lines: Sequence[str]) -> None:
    for line in lines:
        print(f"missing: {printable(line)}")


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = cli.parser(__doc__.splitlines()[0], EXAMPLES)
    parser.add_argument("results_dir", type=cli.path, metavar="RESULTS_DIR", help="folder with one folder per model")
    parser.add_argument("--output", type=cli.path, help="where the report goes; RESULTS_DIR/report by default")
    parser.add_argument("--dataset-name", default="", help="named in captions and titles")
    parser.add_argument("--figures", action="store_true", help="also the pictures of cases, from heat maps")
    parser.add_argument("--heatmaps", type=cli.path, metavar="DIR",
        help="where <model>/heatmaps or <model>/evidence lie; RESULTS_DIR by default")  # fmt: skip
    parser.add_argument("--gt-path", type=cli.path, help="gt_segmentations_test.json; outlines the masks of the cases")
    return parser.parse_args(argv)


def _tables(results: Results, dataset: str) -> list[Table]:
    from reporting.paper import read_paper
    from reporting.tables.audit_tables import audit_tables
    from reporting.tables.control_tables import control_tables
    from reporting.tables.label_tables import comparison_table, table1_per_label
    from reporting.tables.localization_tables import table2, table3
    from reporting.tables.map_predictions_table import map_predictions_table
    from reporting.tables.paper_tables import table1
    from reporting.tables.statistics_tables import statistics_tables

    paper = read_paper()
    tables: list[Table] = []
    if any(model.scores for model in results.models):
        tables += [table1(results, paper, dataset), table1_per_label(results, paper, dataset)]
    for protocol in results.protocols:
        tables += [table2(results, protocol, paper, dataset), table3(results, protocol, paper, dataset)]
        tables += control_tables(results, protocol, dataset)
    if results.comparison is not None:
        tables.append(comparison_table(results, dataset))
    of_maps = map_predictions_table(results, results.patch, dataset) if results.patch is not None else None
    tables += [of_maps] if of_maps is not None else []
    return [*tables, *statistics_tables(results, dataset), *audit_tables(results, dataset)]


def _method_figure(results: Results, sources: MapSources, folder: Path, dataset: str) -> list[Path]:
    from reporting.pictures.method_figure import method_figure
    from reporting.pictures.style import save, style

    with style():
        figure, missing = method_figure(results, sources, dataset)
        if figure is None:
            _print_missing([missing])
            return []
        return save(figure, folder, "method", endings=("png",))


def _case_figures(results: Results, sources: MapSources, folder: Path, dataset: str) -> list[Path]:
    from reporting.pictures.case_grid import case_figure
    from reporting.pictures.style import save, style

    paths = []
    for protocol in PROTOCOLS:
        maps = {method: source for (of, method), source in sources.maps.items() if of == protocol}
        with style():
            figure, missing = case_figure(results, protocol, maps, sources.ground_truth, dataset, sources.outline)
            if figure is None:
                _print_missing([missing])
            else:
                paths += save(figure, folder, f"cases_{protocol}", endings=("png",))
    return paths


def map_sources(results: Results, heatmaps: Path, gt_path: Path | None) -> MapSources:
    """Maps of the test films, of every method and protocol; the patch model's patch logits; the masks.

    A method that the paper does not have may be absent: nothing is missing then.
    """
    from cxr.masks import read_ground_truth
    from reporting.outlines import TRUE_OUTLINE, outline_name
    from reporting.page.case_pictures import MapSources
    from saliency.evidence.evidence_folders import EvidenceFolder, heat_map_source

    tasks = [results.labels.task_of(label) for label in results.labels.names]
    maps, patches, missing = {}, None, []
    for method in METHODS:
        model = results.model_of(method)
        for protocol in METHODS[method].protocols if model is not None else ():
            try:
                maps[protocol, method] = heat_map_source(heatmaps / model.folder.name, protocol, "test", method, tasks)
            except InputError as error:
                if METHODS[method].in_paper:
                    missing.append(f"maps of the cases: {error}")
    if results.patch is not None:
        folder = evidence_folder(heatmaps / results.patch.folder.name, "test")
        try:
            patches = EvidenceFolder(folder, method="raw", protocol="corrected", tasks=tasks)
        except InputError as error:
            missing.append(f"contributions of the patches, which heat-map pickles do not hold: {error}")
    if gt_path is None:
        missing.append("outlines of the masks: give CheXlocalize's gt_segmentations_test.json as --gt-path")
    ground_truth = read_ground_truth(gt_path) if gt_path else None
    evidence = (source for source in (patches, *maps.values()) if isinstance(source, EvidenceFolder))
    of_whole_films = next((source for source in evidence if source.protocol == "corrected"), None)
    outline = outline_name(gt_path) if gt_path else TRUE_OUTLINE
    return MapSources(maps, patches, ground_truth, tuple(dict.fromkeys(missing)), of_whole_films, outline)


if __name__ == "__main__":
    cli.run(main)
