"""Evaluates a network: predictions, metrics with intervals, and CheXlocalize heat maps; or saved predictions alone.

With `--weights`, the films of `--data` are predicted and every table of `results/<model>/` is made; with
`--chexlocalize` the heat maps too. With `--predictions DIR` the tables are made again from the predictions saved there,
without a network and without films. What is complete is not done again. The network's outputs and the labels of a table
meet by name: the labels that both have are evaluated, whatever their order.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cli
from cxr.files import InputError, place, quoted, sha256
from cxr.names import METHODS, PROTOCOLS, RELATIVE, SPLITS, methods_of, predictions_file, reference_file

if TYPE_CHECKING:  # the functions import what is heavy after the options are parsed
    from torch import Tensor

    from cxr.dataset import FilmDataset
    from cxr.manifest import Films
    from cxr.pixels.grey import Grey
    from cxr.runs.run_record import RunRecord, Stage
    from models.patch_net import MedicalPatchNet
    from saliency.export import HeatMapExport
    from training.distributed import ProcessGroup

EXAMPLES = """
python evalClassification.py --weights savedModels/MedicalPatchNet --data CheXpert-1024 --chexlocalize chexlocalize
python evalClassification.py --weights MedicalPatchNet_weights.pt --patch-size 64 --data CheXpert-1024 --heatmaps none
python evalClassification.py --predictions results/MedicalPatchNet --resamples 10000 --resample-unit patient
python evalClassification.py --predictions results/MedicalPatchNet --compare results/EfficientNetB0 --margin 0.02
python evalClassification.py --predictions results/MedicalPatchNet --data CheXpert-1024
"""

ADDITIVITY_FILMS = 8
NOT_LABELLED = -1
"""Ground truth in the heat maps of a film that is not labelled."""
PRINTED = ("auroc", "accuracy", "sensitivity", "specificity")
"""Metrics whose means are printed."""


def main(argv: Sequence[str] | None = None) -> int:
    args = _parse(argv)
    from cxr.runs.folder_lock import locked
    from training.distributed import process_group

    device = cli.pick_device(args.device)
    resampling = {"resamples": args.resamples, "seed": args.seed, "unit": args.resample_unit}
    folder = args.predictions or args.output
    if args.weights is None and not folder.is_dir():
        raise InputError(f"--predictions {place(folder)}: no such folder")
    with process_group(device) as group, locked(folder) if group.is_main else nullcontext():
        if args.weights is not None:
            facts = cli.run_facts(args, device)
            model, record = _open_network(args.weights, args.patch_size, device, folder, facts, group)
            methods = _methods(args.heatmaps, model, args.steps_per_patch, args.pickles)
            _predict(model, args.data, record, group, batch_size=args.batch_size, workers=args.workers)
            options = {name: getattr(args, name) for name in ("steps_per_patch", "batch_size", "pickles", "protocols")}
            if methods and args.chexlocalize is None:
                group.print("no heat maps: --chexlocalize is not given")
            elif methods:
                _heat_maps(model, args.chexlocalize, args.data, record, group, methods, args.all_labels, options)
        if group.is_main:
            _statistics(folder, resampling)
            _tables_beside(folder, args.data, args.compare, args.margin, resampling)
    return 0


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = cli.parser(__doc__.splitlines()[0], EXAMPLES)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--weights", "-loadPath", help="folder, .pt or .safetensors file, or hf://owner/repo[@revision][/file]"
    )
    source.add_argument("--predictions", type=cli.path, metavar="DIR", help="work from DIR/predictions_*.csv alone")
    _add_network(parser.add_argument_group("what needs the network").add_argument)
    _add_statistics(parser.add_argument_group("statistics").add_argument)
    cli.add_workers(parser)
    cli.add_device(parser)
    cli.add_seed(parser)
    args = parser.parse_args(argv)
    if args.weights is not None and not args.weights.strip():
        parser.error("--weights is empty")
    if args.weights is not None and args.data is None:
        parser.error("--weights needs --data")
    if args.margin is not None and args.compare is None:
        parser.error("--margin needs --compare: the models that it is to hold for")
    if args.weights is not None and args.output is None:
        from models.hub import weights_name

        args.output = Path("results") / weights_name(args.weights)
    return args


def _add_network(add: Callable[..., argparse.Action]) -> None:
    add(
        "--data",
        type=cli.path,
        help="preprocessed CheXpert with valid.csv and test_labels.csv, or a manifest (films.csv)",
    )
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
    add("--heatmaps", nargs="+", choices=(*METHODS, "auto", "none"), default=["auto"],
        help="auto: raw, scaled and (--no-pickles) relative of a patch network, the CAMs of a baseline")  # fmt: skip
    add("--protocols", nargs="+", choices=PROTOCOLS, default=list(PROTOCOLS), help="published: bug for bug")
    add(
        "--steps-per-patch",
        type=cli.whole_number(1, 2**16),
        default=64,
        help="shifts of the patch grid per axis; a divisor of the patch size",
    )
    add("--all-labels", action="store_true", help="heat maps of all labels, not only of those with outlines")
    add("--no-pickles", dest="pickles", action="store_false", help="small evidence files instead of heat-map pickles")
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


# ---------------------------------------------------------------------------------------------- what needs the network


def _open_network(
    spec: str, patch_size: int | None, device: str, folder: Path, facts: Mapping[str, Any], group: ProcessGroup
) -> tuple[MedicalPatchNet, RunRecord]:
    """The network, and the record of the results folder, which must not be another network's."""
    import torch

    from cxr.runs.run_record import RunRecord
    from models.checkpoint import load_model
    from models.hub import resolve_weights
    from models.weights_folder import config_of, weights_file

    path = resolve_weights(spec)
    model = load_model(path, patch_size=patch_size, device=device).to(memory_format=torch.channels_last)
    weights = {"path": spec, "sha256": sha256(weights_file(path))}
    group.require_equal(f"--weights {spec}", weights)
    record = RunRecord(folder, group.rank)
    record.belongs_to(weights["sha256"], config_of(model))
    record.note({**facts, "model": config_of(model), "weights": weights, "label_set": model.label_set.to_json()})
    return model, record


def _inputs(model: MedicalPatchNet, films: Films, grey: Grey, record: RunRecord) -> dict[str, Any]:
    """Fingerprints of the network, the table and the films that a stage is made from, and the films' grey rule."""
    from cxr.pixels.grey import Grey
    from cxr.runs.fingerprints import file_fingerprint, films_fingerprint

    network = {name: record.content[name] for name in ("model", "label_set")}
    inputs = {
        "weights_sha256": record.content["weights"]["sha256"],
        "network": network | {"grey": model.details.get("grey")},
        "table": file_fingerprint(films.table),
        "films": films_fingerprint(films.files, films.table.parent),
    }
    return inputs | ({} if grey == Grey.STORED else {"grey": grey.to_json()})


def _methods(chosen: Sequence[str], model: MedicalPatchNet, steps_per_patch: int, pickles: bool) -> tuple[str, ...]:
    """The methods whose maps are asked for. Raises InputError when the network cannot give them."""
    has_patches = model.patch_size < model.image_size
    if "none" in chosen:
        return ()
    if pickles and RELATIVE in chosen:
        raise InputError("--heatmaps relative: made from evidence files, after those of validation; add --no-pickles")
    methods = methods_of("patch" if has_patches else "baseline") if "auto" in chosen else tuple(dict.fromkeys(chosen))
    if "auto" in chosen and (pickles or model.aggregation.name != "mean"):
        methods = tuple(method for method in methods if method != RELATIVE)
    if not set(methods) & set(methods_of("patch")):
        return methods
    if not has_patches:
        raise InputError(f"--heatmaps {' '.join(methods)}: this network sees the whole film as one patch")
    if steps_per_patch < 1 or model.patch_size % steps_per_patch:
        raise InputError(f"--steps-per-patch {steps_per_patch} does not divide the patch size {model.patch_size}")
    return methods


def _films_of(table: Path, root: Path, split: str, model: MedicalPatchNet, group: ProcessGroup) -> Films:
    """The films of a split with the labels that table and network share; one line says what either lacks."""
    from cxr.manifest import read_films, shared_labels

    network = model.label_set
    shared = shared_labels(table, network)
    missing = [name for name in network.names if name not in shared.names]
    if missing:
        group.print(f"{place(table)}: no column of {', '.join(map(quoted, missing))}, left out of the evaluation")
    return read_films(table, root, split=split, label_set=shared)


def _predict(
    model: MedicalPatchNet, data: Path, record: RunRecord, group: ProcessGroup, *, batch_size: int, workers: int
) -> None:
    """The predictions file of every split that is there."""
    from cxr.leakage import check_apart
    from cxr.manifest import has_split
    from cxr.splits import split_table

    tables = {split: split_table(data, split) for split in SPLITS if has_split(split_table(data, split), split)}
    if not tables:
        raise InputError(
            f"--data {data}: neither valid.csv, test_labels.csv nor a films.csv with films of either split"
        )
    films = {split: _films_of(table, data, split, model, group) for split, table in tables.items()}
    if len(films) == 2:
        check_apart(*films.values())
    for split, of_split in films.items():
        _predict_split(model, split, of_split, record, group, batch_size=batch_size, workers=workers)


def _predict_split(
    model: MedicalPatchNet,
    split: str,
    films: Films,
    record: RunRecord,
    group: ProcessGroup,
    *,
    batch_size: int,
    workers: int,
) -> None:
    """The predictions file of one split; its films are shared over the processes."""
    import numpy as np
    import torch

    from cxr.dataset import FilmDataset
    from cxr.labels import positions
    from cxr.pixels.grey import Grey, recorded_grey
    from cxr.predictions import Predictions, write_predictions
    from training.engine import predict_films

    target = predictions_file(record.folder, split)
    inputs = _inputs(model, films, recorded_grey(films.table.parent) or Grey.STORED, record)
    made_from: dict[str, Any] = {"inputs": inputs, "options": {}, "outputs": [target]}
    if group.broadcast(record.is_complete(f"predictions_{split}", **made_from)):
        group.print(f"{target}: complete")
        return
    dataset = FilmDataset(films, model.image_size)
    device = next(model.parameters()).device.type
    reading: dict[str, Any] = {"batch_size": batch_size, "workers": workers, "title": f"predict {split}"}
    with record.stage(f"predictions_{split}", **made_from) as stage:
        logits = predict_films(model, dataset, device, group=group, **reading)  # (N, outputs)
        if group.is_main:
            outputs = positions(films.label_set.names, model.labels, "the network")
            probabilities = torch.sigmoid(logits[:, outputs].double()).numpy()
            labels = films.labels.astype(np.float64)
            made = Predictions(films.paths, probabilities, labels, films.label_set, films.ids, films.patients)
            write_predictions(target, made)
            stage.wrote(target)
            stage.note(_description(model, dataset, logits, record.folder, split))


def _description(
    model: MedicalPatchNet, dataset: FilmDataset, logits: Tensor, folder: Path, split: str
) -> dict[str, Any]:
    """The films of a split, how exactly the network's patches add up, and what its contributions promise."""
    import numpy as np
    import torch

    from saliency.certificates import measure_certificates

    films = dataset.films
    counts = dict(zip(films.label_set.names, np.nansum(films.labels, axis=0).astype(int).tolist(), strict=True))
    facts = {"csv": str(films.table), "films": len(films), "positives": counts}
    error = _additivity_error(model, dataset, logits)
    exact = f"patches alone give the film's logits ({model.aggregation.name}) within {error['max_error']:.1e}"
    certificates = measure_certificates(model, torch.stack([dataset.image(i)[0] for i in _some_films(dataset)]))
    print(f"{folder}, {split}: {len(films)} films; {exact}; {certificates}")
    measured = {"additivity": error, "certificates": certificates.to_json()}
    return {"data": {split: facts}} | {name: {split: value} for name, value in measured.items()}


def _some_films(dataset: FilmDataset) -> list[int]:
    """Indices of at most `ADDITIVITY_FILMS` films, spread over the split."""
    import numpy as np

    return np.unique(np.linspace(0, len(dataset) - 1, ADDITIVITY_FILMS).astype(int)).tolist()


def _additivity_error(model: MedicalPatchNet, dataset: FilmDataset, logits: Tensor) -> dict[str, Any]:
    """Largest |aggregated separately computed patch logits - logits| over some films spread over the split."""
    import torch

    from saliency.patch_maps import evidence_grid

    chosen = _some_films(dataset)
    errors = []
    for index in chosen:
        grid = evidence_grid(model, dataset.image(index)[0], steps_per_patch=1, batch_size=16)  # (C, n, n)
        patch_logits = grid.flatten(1).T[None].to(next(model.parameters()).device)  # (1, P, C)
        with torch.inference_mode():
            total = model.aggregation(patch_logits)[0].cpu()  # (C,)
        errors.append(float((total - logits[index]).abs().max()))
    return {"films": len(chosen), "max_error": max(errors)}


def _heat_maps(
    model: MedicalPatchNet,
    root: Path,
    data: Path,
    record: RunRecord,
    group: ProcessGroup,
    methods: Sequence[str],
    all_labels: bool,
    options: Mapping[str, Any],
) -> None:
    """Maps of the full-size films of CheXlocalize or a manifest, for every split that is there.

    data: the same films as copies, which record the grey rule of the data set. root may be these copies, too, which
    are read as they are stored.
    """
    from cxr.manifest import has_split
    from cxr.pixels.grey import recorded_grey
    from saliency.export import HeatMapExport

    weights = record.content["weights"]["sha256"]
    ids: dict[str, tuple[str, ...]] = {}
    for split in SPLITS:
        table = _heat_map_table(root, split)
        if not has_split(table, split):
            group.print(f"no heat maps of {split}: {table} is not there, or has no films of it")
            continue
        films = _films_of(table, table.parent, split, model, group)
        tasks = {label: films.label_set.task_of(label) for label in films.label_set.names}
        if not all_labels:
            outlined = films.label_set.tasks
            tasks = {label: tasks[label] for label in sorted(outlined, key=outlined.__getitem__)}
        export = HeatMapExport(record.folder, split, methods, tasks=tasks, weights=weights, **options)
        grey = None if recorded_grey(root) else recorded_grey(data)
        _export_split(model, export, films, grey or films.grey, record, group)
        ids[split] = films.ids
    if RELATIVE in methods and "val" in ids and group.is_main:
        _reference(record, ids)


def _reference(record: RunRecord, ids: Mapping[str, Sequence[str]]) -> None:
    """The mean evidence of the validation films, that relative maps are compared with."""
    from saliency.reference_films import make_reference

    target = reference_file(record.folder)
    made_from: dict[str, Any] = {
        "inputs": {split: record.outputs_fingerprint(f"heat_maps_{split}") for split in ids},
        "options": {},
        "outputs": [target],
    }
    if record.is_complete("reference", **made_from):
        print(f"{target}: complete")
        return
    with record.stage("reference", **made_from) as stage:
        reference = make_reference(record.folder, validation=ids["val"], test=ids.get("test", ()))
        stage.wrote(target)
    counts = ", ".join(f"{count} {view}" for view, count in reference.counts.items())
    print(f"{target}: mean evidence of the validation films ({counts})")
    for warning in reference.warnings:
        print(f"warning: {warning}")


def _heat_map_table(root: Path, split: str) -> Path:
    """The table of a split: of CheXlocalize's own films, or of a manifest."""
    from cxr.splits import split_table

    chexlocalize = root / "CheXpert" / f"{split}_labels.csv"
    manifest = split_table(root, split)
    return manifest if manifest.is_file() and not chexlocalize.is_file() else chexlocalize


def _export_split(
    model: MedicalPatchNet, export: HeatMapExport, films: Films, grey: Grey, record: RunRecord, group: ProcessGroup
) -> None:
    """Maps of one split, for every method and protocol; each process takes its share of the films."""
    import numpy as np
    from tqdm import tqdm

    from cxr.images import open_film
    from cxr.paths import projection_of
    from saliency.export import export_film

    split = export.split
    name, options = f"heat_maps_{split}", {"steps_per_patch": export.steps_per_patch}
    record.check_options(name, options, f"heat maps of {split}")
    files = {index: export.files(films.ids[index]) for index in range(len(films))}
    outputs = [path for of_film in files.values() for path in of_film]
    with record.stage(name, inputs=_inputs(model, films, grey, record), options=options, outputs=outputs) as stage:
        left = group.broadcast([index for index in files if not _is_whole(stage, export, films.ids[index])])
        own = left[group.rank :: group.world_size]
        for index in tqdm(own, desc=f"heat maps {split}", unit="film", disable=not group.is_main):
            for path in files[index]:
                if not stage.holds(path):  # of another network or other films, or damaged
                    path.unlink(missing_ok=True)
            film = open_film(films.files[index], grey)
            known = np.nan_to_num(films.labels[index], nan=NOT_LABELLED)
            labels = dict(zip(films.label_set.names, known, strict=True))
            view = projection_of(films.views[index])
            export_film(export, model, film, films.ids[index], labels, view)
            stage.wrote(*files[index])
        group.barrier()
    kinds = f"{split}; {', '.join(export.methods)}"
    group.print(f"{record.folder}: heat maps of {len(films)} films ({kinds}), {len(left)} of them new")


def _is_whole(stage: Stage, export: HeatMapExport, film_id: str) -> bool:
    """Whether a film's files were made from the same inputs and hold all that is asked for."""
    return stage.holds(*export.files(film_id)) and export.is_complete(film_id)


# ------------------------------------------------------------------------------------------ what needs predictions only


def _statistics(folder: Path, resampling: Mapping[str, Any]) -> None:
    """Thresholds, metrics and curves of the predictions in `folder`."""
    from cxr.runs.run_record import RunRecord
    from evaluation.recorded_tables import recorded_labels, statistics_inputs
    from evaluation.result_tables import read_saved, shared_patients, table_files, write_tables

    record = RunRecord(folder)
    inputs = statistics_inputs(record)
    options = {"resamples": resampling["resamples"], "resample_unit": resampling["unit"], "seed": resampling["seed"]}
    files = [path for path in table_files(folder) if path.name not in inputs]
    if record.is_complete("statistics", inputs=inputs, options=options, outputs=files):
        print(f"{folder}: the tables are complete")
        return
    with record.stage("statistics", inputs=inputs, options=options, outputs=files) as stage:
        predictions = read_saved(folder, recorded_labels(record))
        warning = shared_patients(predictions)
        if warning:
            print(f"warning: {folder}: {warning}")
        tables, thresholds = write_tables(folder, predictions, **resampling)
        stage.wrote(*files)
    for label, reason in thresholds.reasons.items():
        print(f"{label}: no Youden threshold ({reason})")
    for split, table in tables.items():
        mean, members = next(iter(predictions[split].label_set.means.items()))
        rows = table[(table["label"] == mean) & table["rule"].isin(["-", "youden"])].set_index("metric")["value"]
        values = ", ".join(f"{metric} {rows[metric]:.3f}" for metric in PRINTED)
        print(f"{folder}, {split}, mean of the {len(members)} labels: {values}")


def _tables_beside(
    folder: Path, data: Path | None, other: Path | None, margin: float | None, resampling: Mapping[str, Any]
) -> None:
    """Subgroups where the films' table is given, comparison with another folder, equivalence within a margin."""
    from evaluation.recorded_tables import make_comparison, make_equivalence, make_subgroups

    lines = []
    if data is not None:
        lines += make_subgroups(folder, data, resamples=resampling["resamples"], seed=resampling["seed"])
    if other is not None:
        lines += make_comparison(folder, other, resampling)
        if margin is not None:
            lines += make_equivalence(folder, other, margin, resampling)
    for line in lines:
        print(line)


if __name__ == "__main__":
    cli.run(main)
