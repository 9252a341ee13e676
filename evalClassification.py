"""Evaluates a network: predictions, metrics with intervals, and CheXlocalize heat maps; or saved predictions alone.

With `--weights`, the films of `--data` are predicted and every table of `results/<model>/` is made; with
`--chexlocalize` the heat maps too. With `--predictions DIR` the tables are made again from the predictions saved there,
without a network and without films. What is complete is not done again. The network's outputs and the labels of a table
meet by name: the labels that both have are evaluated, whatever their order.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cli
from cxr.files import InputError, place
from cxr.names import DEFAULT_STRIDE, MAPS, METHODS, PROTOCOLS, SPLITS, predictions_file

if TYPE_CHECKING:  # the functions import what is heavy after the options are parsed
    from training.distributed import ProcessGroup

EXAMPLES = """
python evalClassification.py --weights demo/savedModels/MedicalPatchNet --data demo/data/CheXpert-256 \\
    --chexlocalize demo/data/CheXlocalize --heatmaps raw --stride 9 --output demo/maps --resamples 1000
python evalClassification.py --weights MedicalPatchNet_weights.pt --patch-size 64 --data data/CheXpert-1024 \\
    --resamples 1000
python evalClassification.py --weights savedModels/MedicalPatchNet --data nih-1024 --map nih --resamples 1000
python evalClassification.py --predictions demo/results/MedicalPatchNet --resamples 10000 --resample-unit patient
python evalClassification.py --predictions demo/results/MedicalPatchNet --data demo/data/CheXpert-256
python evalClassification.py --predictions demo/results/MedicalPatchNet --predict-from grid
python evalClassification.py --predictions demo/results/MedicalPatchNet --compare demo/results/EfficientNetB0 \\
    --margin 0.02
"""

_PREDICT_FROM = {"unshifted": "", "grid": MAPS}
"""Choice of --predict-from -> how the names of its files begin."""

GONE = {
    "-wb": "use trainClassification.py --track wandb",
    "-wb_name": "use trainClassification.py --track wandb; the run is named after its --output folder",
    "-evalOnly": "nothing is needed, this script only evaluates",
    "-lrFactor": "nothing is needed, it had no effect",
    "-model": "use --weights, which say their network, and --patch-size with published .pt files",
    "-imgSize": "use --weights, which say their image size",
    "-savePath": "use --weights of the network, --output of the results",
    "-hpc": "nothing is needed; torchrun shares the films between GPUs",
}
"""Options of the published script, which also evaluated -> what replaces them here."""


def main(argv: Sequence[str] | None = None) -> int:
    args = _parse(argv)
    from cxr.runs.folder_lock import locked
    from evaluation.recorded_tables import make_statistics
    from training.distributed import process_group

    device = cli.pick_device(args.device)
    resampling = {"resamples": args.resamples, "seed": args.seed, "unit": args.resample_unit}
    folder = args.predictions or args.output
    if args.weights is None and not folder.is_dir():
        raise InputError(f"--predictions {place(folder)}: no such folder")
    with process_group(device) as group, locked(folder) if group.is_main else nullcontext():
        if args.weights is not None:
            _use_network(args, device, folder, group)
        if group.is_main:
            for start in _sources(args, folder):
                for line in make_statistics(folder, resampling, start):
                    print(line)
            for line in _tables_beside(folder, args.data, args.compare, args.margin, resampling):
                print(line)
    return 0


def _use_network(args: argparse.Namespace, device: str, folder: Path, group: ProcessGroup) -> None:
    """Predictions and heat maps: all that needs weights and films."""
    from heat_map_evaluation import chosen_fineness, chosen_methods, make_heat_maps
    from network_evaluation import open_network, predict

    of = open_network(args.weights, args.patch_size, device, folder, cli.run_facts(args, device), group, args.map)
    methods = chosen_methods(args.heatmaps, of.model)
    fineness = chosen_fineness(args.steps_per_patch, args.stride, args.protocols, of.model, methods)
    predict(of, args.data, batch_size=args.batch_size, workers=args.workers)
    options = {name: getattr(args, name) for name in ("batch_size", "pickles")} | fineness
    if methods and args.chexlocalize is None:
        group.print("no heat maps: --chexlocalize is not given")
    elif methods:
        make_heat_maps(of, args.chexlocalize, args.data, methods, all_labels=args.all_labels, options=options)


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = cli.parser(__doc__.splitlines()[0], EXAMPLES)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--weights",
        "-loadPath",
        type=cli.weights,
        help="folder, .pt or .safetensors file, or hf://owner/repo[@revision][/file]",
    )
    source.add_argument("--predictions", type=cli.path, metavar="DIR", help="work from DIR/predictions_*.csv alone")
    parser.add_argument("--predict-from", choices=tuple(_PREDICT_FROM),
        help="with --predictions: those of the unshifted patches (default), or with grid those of the fine maps, "
        "DIR/map_predictions_*.csv, whose tables are named map_*")  # fmt: skip
    _add_network(parser.add_argument_group("what needs the network"))
    _add_statistics(parser.add_argument_group("statistics").add_argument)
    cli.add_workers(parser)
    cli.add_device(parser)
    cli.add_seed(parser)
    cli.add_gone(parser, GONE)
    args = parser.parse_args(argv)
    if args.weights is not None and args.data is None:
        parser.error("--weights needs --data")
    if args.map is not None and args.weights is None:
        parser.error("--map needs --weights: saved predictions have their labels already")
    if args.predict_from is not None and args.weights is not None:
        parser.error("--predict-from is for --predictions; with --weights the tables of both are made")
    if args.predict_from == "grid" and (args.data or args.compare):
        parser.error("--predict-from grid: subgroups and comparisons are made of the unshifted predictions")
    if args.margin is not None and args.compare is None:
        parser.error("--margin needs --compare: the models that it is to hold for")
    if args.weights is not None and args.output is None:
        from models.weight_names import weights_name

        args.output = Path("results") / "-".join([weights_name(args.weights), *filter(None, [args.map])])
    return args


def _add_network(to: argparse._ActionsContainer) -> None:
    add = to.add_argument
    add(
        "--data",
        type=cli.path,
        help="preprocessed CheXpert with valid.csv and test_labels.csv, or a manifest (films.csv)",
    )
    add("--map", metavar="NAME", help="test on a set of other labels (nih, padchest, ...): those that match CheXpert's "
        "exactly, with NAME+approximate also the others; cxr/mappings.json lists them")  # fmt: skip
    add(
        "--chexlocalize", type=cli.path, help="CheXlocalize's folder, or a manifest; its full-size films give heat maps"
    )
    add("--output", type=cli.path, help="folder of the results; results/<name of the weights> by default")
    add(
        "--patch-size",
        "-patchSize",
        type=cli.whole_number(1, 2**16),
        help="needed for published .pt files: 64, or 512 for the baseline",
    )
    add("--heatmaps", nargs="+", choices=(*METHODS, "auto", "none"), default=["auto"], metavar="METHOD",
        help=f"{', '.join(METHODS)}, none, or auto: raw, scaled and relative of a patch network, "
        "the CAMs of a baseline")  # fmt: skip
    add("--protocols", nargs="+", choices=PROTOCOLS,
        help="published: bug for bug, needs steps; both with --steps-per-patch, else corrected")  # fmt: skip
    cli.add_fineness(to, DEFAULT_STRIDE)
    add("--all-labels", action="store_true", help="heat maps of all labels, not only of those with outlines")
    add(
        "--no-pickles",
        dest="pickles",
        action="store_false",
        help="evidence files alone, which all maps follow from",
    )
    add(
        "--batch-size",
        "-bs",
        type=cli.whole_number(1, 2**16),
        default=16,
        help="films per batch; heat maps take as many pixels at once",
    )


def _add_statistics(add: Callable[..., argparse.Action]) -> None:
    add(
        "--resamples",
        type=cli.whole_number(0, 10**8),
        default=100_000,
        help="bootstrap resamples; 0 leaves the intervals out",
    )
    add("--resample-unit", choices=("film", "patient"), default="film", help="what a resample draws")
    add("--compare", type=cli.path, metavar="DIR", help="compare with the predictions of another results folder")
    add(
        "--margin",
        type=cli.number(0, 0.5, above=True),
        help="with --compare: is the AUROC equivalent, or not inferior, within this margin? State it beforehand",
    )


def _sources(args: argparse.Namespace, folder: Path) -> list[str]:
    """Starts of the names of the predictions to make tables of; with a network, those of its maps where it has some."""
    if args.weights is None:
        return [_PREDICT_FROM[args.predict_from or "unshifted"]]
    return ["", *([MAPS] if any(predictions_file(folder, split, MAPS).is_file() for split in SPLITS) else [])]


def _tables_beside(
    folder: Path, data: Path | None, other: Path | None, margin: float | None, resampling: Mapping[str, Any]
) -> Iterator[str]:
    """Subgroups where the films' table is given, comparison with another folder, equivalence within a margin.

    Yields lines to print.
    """
    from evaluation.recorded_tables import make_comparison, make_equivalence, make_subgroups

    if data is not None:
        yield from make_subgroups(folder, data, resamples=resampling["resamples"], seed=resampling["seed"])
    if other is not None:
        yield from make_comparison(folder, other, resampling)
        if margin is not None:
            yield from make_equivalence(folder, other, margin, resampling)


if __name__ == "__main__":
    cli.run(main)
