"""Evaluates a network: predictions, metrics with intervals, and CheXlocalize heat maps; or saved predictions alone.

With `--weights`, the films of `--data` are predicted and every table of `results/<model>/` is made; with
`--chexlocalize` the heat maps too. With `--predictions DIR` the tables are made again from the predictions saved there,
without a network and without films. What is complete is not done again.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

import cli
from cxr.dataset import FilmDataset
from cxr.files import InputError, sha256
from cxr.grey import Grey
from cxr.images import open_film, to_unit
from cxr.labels import LABELS, TASKS, task_of
from cxr.manifest import read_films
from cxr.names import PROTOCOLS
from cxr.predictions import Predictions, read_predictions, write_predictions
from cxr.run_record import RunRecord
from cxr.tables import write_csv
from cxr.thresholds import Thresholds, read_thresholds, write_thresholds
from evaluation.classification import calibration_points, classification_table, roc_points, youden_thresholds
from evaluation.comparison import compare
from models.checkpoint import config_of, load_model, weights_file
from models.hub import resolve_weights, weights_name
from models.patch_net import MedicalPatchNet
from saliency.cam import CAM_METHODS
from saliency.export import HeatMapExport, export_film
from saliency.patch_maps import PATCH_METHODS, evidence_grid
from training.distributed import ProcessGroup, process_group
from training.engine import predict_films

EXAMPLES = """
python evalClassification.py --weights savedModels/MedicalPatchNet --data CheXpert-1024 --chexlocalize chexlocalize
python evalClassification.py --weights MedicalPatchNet_weights.pt --patch-size 64 --data CheXpert-1024 --heatmaps none
python evalClassification.py --predictions results/MedicalPatchNet --resamples 10000 --resample-unit patient
python evalClassification.py --predictions results/MedicalPatchNet --compare results/EfficientNetB0
"""

SPLITS = {"val": "valid.csv", "test": "test_labels.csv"}
CHEXLOCALIZE_SPLITS = {"val": "val_labels.csv", "test": "test_labels.csv"}
ADDITIVITY_FILMS = 8


def main(argv: Sequence[str] | None = None) -> int:
    args = _parse(argv)
    if args.weights is not None:
        folder = args.output or Path("results") / weights_name(args.weights)
    else:
        folder = args.predictions
    with process_group(cli.pick_device(args.device)) as group:
        if args.weights is not None:
            _run_network(args, folder, group)
        if group.is_main:
            _statistics(args, folder)
            if args.compare is not None:
                _comparison(args, folder, args.compare)
    return 0


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = cli.parser(__doc__.splitlines()[0], EXAMPLES)
    add = parser.add_argument
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--weights", "-loadPath", help="folder, .pt or .safetensors file, or hf://owner/repo[@revision][/file]"
    )
    source.add_argument("--predictions", type=Path, metavar="DIR", help="work from DIR/predictions_*.csv alone")
    add("--data", type=Path, help="preprocessed CheXpert with valid.csv and test_labels.csv")
    add("--chexlocalize", type=Path, help="CheXlocalize's folder; its full-size films are needed for heat maps")
    add("--output", type=Path, help="folder of the results; results/<name of the weights> by default")
    add("--patch-size", "-patchSize", type=int, help="needed for published .pt files: 64, or 512 for the baseline")
    add("--heatmaps", nargs="+", choices=(*PATCH_METHODS, *CAM_METHODS, "auto", "none"), default=["auto"],
        help="auto: raw and scaled of a patch network, the three CAMs of a baseline")  # fmt: skip
    add("--protocols", nargs="+", choices=PROTOCOLS, default=list(PROTOCOLS), help="published: slip for slip")
    add(
        "--steps-per-patch", type=int, default=64, help="shifts of the patch grid per axis; a divisor of the patch size"
    )
    add("--all-labels", action="store_true", help="heat maps of all 14 labels instead of the 10 CheXlocalize tasks")
    add("--no-pickles", dest="pickles", action="store_false", help="small evidence files instead of heat-map pickles")
    add("--resamples", type=int, default=100_000, help="bootstrap resamples; 0 leaves the intervals out")
    add("--resample-unit", choices=("film", "patient"), default="film", help="what a resample draws")
    add("--compare", type=Path, metavar="DIR", help="compare with the predictions of another results folder")
    add("--batch-size", "-bs", type=int, default=16, help="films per batch; heat maps take as many pixels at once")
    cli.add_workers(parser)
    cli.add_device(parser)
    cli.add_seed(parser)
    args = parser.parse_args(argv)
    if args.weights is not None and args.data is None:
        parser.error("--weights needs --data")
    return args


# ---------------------------------------------------------------------------------------------- what needs the network


def _run_network(args: argparse.Namespace, folder: Path, group: ProcessGroup) -> None:
    device = cli.pick_device(args.device)
    path = resolve_weights(args.weights)
    model = load_model(path, patch_size=args.patch_size, device=device).to(memory_format=torch.channels_last)
    record = RunRecord(folder, writes=group.is_main)
    weights = {"path": args.weights, "sha256": sha256(weights_file(path))}
    group.require_equal(f"--weights {args.weights}", weights)
    record.belongs_to(weights["sha256"])
    record.note(cli.run_facts(args, device) | {"model": config_of(model), "weights": weights})
    methods = _methods(args, model)
    found = {split: args.data / name for split, name in SPLITS.items() if (args.data / name).is_file()}
    if not found:
        raise InputError(f"--data {args.data}: neither valid.csv nor test_labels.csv is in this folder")
    for split, csv in found.items():
        _predict_split(args, model, split, csv, record, group)
    if methods and args.chexlocalize is None:
        group.print("no heat maps: --chexlocalize is not given")
    elif methods:
        for split, name in CHEXLOCALIZE_SPLITS.items():
            csv = args.chexlocalize / "CheXpert" / name
            if csv.is_file():
                _heat_maps(args, model, split, csv, methods, record, group)
            else:
                group.print(f"no heat maps of {split}: {csv} is not there")


def _predict_split(
    args: argparse.Namespace, model: MedicalPatchNet, split: str, csv: Path, record: RunRecord, group: ProcessGroup
) -> None:
    """The predictions file of one split; its films are shared over the processes."""
    target = record.folder / f"predictions_{split}.csv"
    made_from = {"csv": str(csv), "csv_sha256": sha256(csv)}
    if group.broadcast(record.is_done(f"predictions_{split}", made_from, [target])):
        group.print(f"{target}: complete")
        return
    films = read_films(csv, args.data)
    dataset = FilmDataset(films, model.image_size)
    device = next(model.parameters()).device.type
    reading = {"batch_size": args.batch_size, "workers": args.workers, "title": f"predict {split}"}
    with record.stage(f"predictions_{split}", made_from):
        logits = predict_films(model, dataset, device, group=group, **reading)
        if group.is_main:
            probabilities = torch.sigmoid(logits.double()).numpy()
            write_predictions(
                target, Predictions(films.paths, probabilities, films.labels.astype(float), films.label_set)
            )
    if group.is_main:
        _describe(model, dataset, logits, record, split)


def _describe(
    model: MedicalPatchNet, dataset: FilmDataset, logits: torch.Tensor, record: RunRecord, split: str
) -> None:
    """Notes the films of a split, and how exactly the network's patches add up."""
    films = dataset.films
    counts = {label: int(films.labels[:, column].sum()) for column, label in enumerate(LABELS)}
    facts = {"csv": str(films.table), "films": len(films), "positives": counts}
    data = record.content.get("data", {}) | {split: facts}
    error = _additivity_error(model, dataset, logits)
    additivity = record.content.get("additivity", {}) | {split: error}
    record.note({"data": data, "additivity": additivity})
    exact = f"the patches' logits average to the film's within {error['max_error']:.1e}"
    print(f"{record.folder}, {split}: {len(films)} films; {exact}")


def _additivity_error(model: MedicalPatchNet, dataset: FilmDataset, logits: torch.Tensor) -> dict[str, Any]:
    """Largest |mean of separately computed patch logits - logits| over some films spread over the split."""
    chosen = np.unique(np.linspace(0, len(dataset) - 1, ADDITIVITY_FILMS).astype(int))
    errors = []
    for index in chosen:
        grid = evidence_grid(model, dataset.image(int(index))[0], steps_per_patch=1, batch_size=16)  # (C, n, n)
        errors.append(float((grid.mean(dim=(1, 2)).cpu() - logits[index]).abs().max()))
    return {"films": len(chosen), "max_error": max(errors)}


def _methods(args: argparse.Namespace, model: MedicalPatchNet) -> tuple[str, ...]:
    """The methods whose maps are asked for. Raises InputError when the network cannot give them."""
    patches = model.patch_size < model.image_size
    if "none" in args.heatmaps:
        return ()
    if "auto" in args.heatmaps:
        methods = PATCH_METHODS if patches else CAM_METHODS
    else:
        methods = tuple(args.heatmaps)
    if not set(methods) & set(PATCH_METHODS):
        return methods
    if not patches:
        raise InputError(f"--heatmaps {' '.join(methods)}: {args.weights} sees the whole film as one patch")
    if args.steps_per_patch < 1 or model.patch_size % args.steps_per_patch:
        raise InputError(f"--steps-per-patch {args.steps_per_patch} does not divide the patch size {model.patch_size}")
    return methods


def _heat_maps(
    args: argparse.Namespace,
    model: MedicalPatchNet,
    split: str,
    csv: Path,
    methods: Sequence[str],
    record: RunRecord,
    group: ProcessGroup,
) -> None:
    """Maps of CheXlocalize's own full-size films, for every method and protocol; each process takes its share."""
    films = read_films(csv, csv.parent)
    tasks = tuple(task_of(label) for label in LABELS) if args.all_labels else TASKS
    made_from = {"csv_sha256": sha256(csv), "steps_per_patch": args.steps_per_patch}
    record.keep_apart(f"heat maps of {split}", made_from)
    export = HeatMapExport(
        record.folder,
        split,
        methods,
        args.protocols,
        tasks,
        steps_per_patch=args.steps_per_patch,
        batch_size=args.batch_size,
        pickles=args.pickles,
    )
    left = group.broadcast([index for index in range(len(films)) if not export.is_complete(films.ids[index])])
    own = left[group.rank :: group.world_size]
    grey = Grey.from_json(model.details.get("grey"), "config.json, details")
    with record.stage(f"heat_maps_{split}", made_from):
        for index in tqdm(own, desc=f"heat maps {split}", unit="film", disable=not group.is_main):
            film = to_unit(open_film(films.files[index], grey))
            labels = dict(zip(LABELS, films.labels[index], strict=True))
            export_film(export, model, film, films.ids[index], labels)
        group.barrier()
    group.print(
        f"{record.folder}: heat maps of {len(films)} films ({split}; {', '.join(methods)}), {len(left)} of them new"
    )


# ------------------------------------------------------------------------------------------ what needs predictions only


def _statistics(args: argparse.Namespace, folder: Path) -> None:
    """Thresholds, metrics and curves of the predictions in `folder`."""
    saved = {split: path for split in SPLITS if (path := folder / f"predictions_{split}.csv").is_file()}
    if not saved:
        raise InputError(f"{folder}: no predictions_val.csv or predictions_test.csv in this folder")
    record = RunRecord(folder)
    made_from = {
        "predictions_sha256": {split: sha256(path) for split, path in saved.items()},
        "resamples": args.resamples,
        "resample_unit": args.resample_unit,
        "seed": args.seed,
    }
    kinds = ("classification", "roc", "calibration")
    files = [folder / "thresholds.json", *(folder / f"{kind}_{split}.csv" for kind in kinds for split in saved)]
    if record.is_done("statistics", made_from, files):
        print(f"{folder}: the tables are complete")
        return
    with record.stage("statistics", made_from):
        predictions = {split: read_predictions(path) for split, path in saved.items()}
        thresholds = _thresholds(folder, predictions.get("val"))
        for split, of_split in predictions.items():
            table = classification_table(
                of_split, thresholds, resamples=args.resamples, seed=args.seed, unit=args.resample_unit
            )
            write_csv(folder / f"classification_{split}.csv", table)
            write_csv(folder / f"roc_{split}.csv", roc_points(of_split))
            write_csv(folder / f"calibration_{split}.csv", calibration_points(of_split))
            _print_means(folder, split, table)


def _thresholds(folder: Path, validation: Predictions | None) -> Thresholds:
    """Youden thresholds of the validation films; without any, those that lie in the folder already."""
    path = folder / "thresholds.json"
    if validation is not None:
        thresholds = youden_thresholds(validation)
        write_thresholds(path, thresholds)
    elif path.is_file():
        thresholds = read_thresholds(path)
    else:
        reason = "no predictions_val.csv to take it from"
        thresholds = Thresholds(dict.fromkeys(LABELS), dict.fromkeys(LABELS, reason))
        write_thresholds(path, thresholds)
    for label, reason in thresholds.reasons.items():
        print(f"{label}: no Youden threshold ({reason})")
    return thresholds


def _print_means(folder: Path, split: str, table: pd.DataFrame) -> None:
    mean = table[(table["label"] == "Mean (14)") & table["rule"].isin(["-", "youden"])].set_index("metric")["value"]
    values = ", ".join(f"{metric} {mean[metric]:.3f}" for metric in ("auroc", "accuracy", "sensitivity", "specificity"))
    print(f"{folder}, {split}, mean of the 14 labels: {values}")


def _comparison(args: argparse.Namespace, folder: Path, other: Path) -> None:
    """`comparison_<a>_vs_<b>.csv` beside the two folders, on the test films."""
    target = folder.parent / f"comparison_{folder.name}_vs_{other.name}.csv"
    files = [where / "predictions_test.csv" for where in (folder, other)]
    table = compare(
        *(read_predictions(file) for file in files),
        *(read_thresholds(where / "thresholds.json") for where in (folder, other)),
        names=(str(files[0]), str(files[1])),
        resamples=args.resamples,
        seed=args.seed,
        unit=args.resample_unit,
    )
    write_csv(target, table)
    print(f"{target}: differences of {folder.name} and {other.name} on the same films")


if __name__ == "__main__":
    cli.run(main)
