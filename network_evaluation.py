"""Stages of an evaluation that need the network: predictions of the copies, heat maps of the full-size films."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from cxr.ahead import read_ahead
from cxr.dataset import FilmDataset
from cxr.files import InputError, sha256
from cxr.images import open_film
from cxr.labels import positions
from cxr.manifests.films import Films, has_split
from cxr.manifests.full_size import full_size_grey, full_size_table
from cxr.manifests.leakage import check_apart
from cxr.manifests.shared_films import shared_films
from cxr.manifests.splits import split_table
from cxr.mappings import Mapping as LabelMapping
from cxr.mappings import chosen_mapping, mapping_facts
from cxr.names import DEFAULT_STRIDE, PROTOCOLS, RELATIVE, SPLITS, Protocol, methods_of, predictions_file
from cxr.paths import projection_of
from cxr.pixels.grey import Grey, recorded_grey
from cxr.predictions import Predictions, is_of, write_predictions
from cxr.runs.fingerprints import file_fingerprint, films_fingerprint
from cxr.runs.run_record import RunRecord, Stage
from models.checkpoint import load_model
from models.hub import resolve_weights
from models.patch_net import MedicalPatchNet
from models.weights_folder import config_of, weights_file
from saliency.additivity import additivity_error, some_films
from saliency.certificates import measure_certificates
from saliency.evidence.dense_grid import is_dense
from saliency.evidence.fineness import PUBLISHED_STEPS, Fineness, with_protocols
from saliency.evidence.folded_network import is_linear
from saliency.export import HeatMapExport, export_film, widened_by_lost
from saliency.film_maps import check_aggregation, methods_that_hold
from saliency.recorded_errors import make_map_errors
from saliency.recorded_stages import (
    make_map_predictions,
    make_recorded_reference,
    make_relative_pickles,
    recorded_certificates,
)
from training.distributed import ProcessGroup
from training.engine import predict_films

NOT_LABELLED = -1
"""Ground truth in the heat maps of a film that is not labelled."""


@dataclass(frozen=True)
class Evaluated:
    """The network that is evaluated, the record of its results folder, and the processes that share the work.

    mapping: of the data set's labels to the network's, where they have other names. said: lines printed already.
    """

    model: MedicalPatchNet
    record: RunRecord
    group: ProcessGroup
    mapping: LabelMapping | None = None
    said: set[str] = field(default_factory=set)

    @property
    def weights(self) -> str:
        """sha256 of the network's weights."""
        return str(self.record.content["weights"]["sha256"])

    def inputs(self, films: Films, grey: Grey) -> dict[str, Any]:
        """Fingerprints of the network, the table and the films that a stage is made from, and the films' grey rule."""
        network = {name: self.record.content[name] for name in ("model", "label_set")}
        inputs = {
            "weights_sha256": self.weights,
            "network": network | {"grey": self.model.details.get("grey")},
            "table": file_fingerprint(films.table),
            "films": films_fingerprint(films.files, films.table.parent),
        }
        inputs |= {} if films.mapping is None else {"mapping": films.mapping}
        return inputs | ({} if grey == Grey.STORED else {"grey": grey.to_json()})

    def films_of(self, table: Path, root: Path, split: str) -> Films:
        """The films of a split with the labels that table and network share; lines say, once, what either lacks."""
        films, lines = shared_films(table, root, split, self.model.label_set, self.mapping)
        for line in lines:
            if line not in self.said:
                self.group.print(line)
        self.said.update(lines)
        return films


def open_network(
    spec: str,
    patch_size: int | None,
    device: str,
    folder: Path,
    facts: Mapping[str, Any],
    group: ProcessGroup,
    mapping: str | None = None,
) -> Evaluated:
    """The network, and the record of the results folder, which must not be another network's.

    mapping: of the data set's labels to the network's, as `cxr.mappings.chosen_mapping` takes it.
    """
    chosen = None if mapping is None else chosen_mapping(mapping)
    path = resolve_weights(spec)
    model = load_model(path, patch_size=patch_size, device=device).to(memory_format=torch.channels_last)
    weights = {"path": spec, "sha256": sha256(weights_file(path))}
    group.require_equal(f"--weights {spec}", weights)
    record = RunRecord(folder, group.rank)
    record.belongs_to(weights["sha256"], config_of(model))
    labels = replace(model.label_set, shared=chosen is not None)
    mapped = None if mapping is None else mapping_facts(mapping)
    known = {"model": config_of(model), "weights": weights, "label_set": labels.to_json(), "mapping": mapped}
    record.note({**facts, **known})
    return Evaluated(model, record, group, chosen)


# --------------------------------------------------------------------------------------------------------- predictions


def predict(of: Evaluated, data: Path, *, batch_size: int, workers: int) -> None:
    """The predictions file of every split that is there."""
    tables = {split: split_table(data, split) for split in SPLITS if has_split(split_table(data, split), split)}
    if not tables:
        raise InputError(
            f"--data {data}: neither valid.csv, test_labels.csv nor a films.csv with films of either split"
        )
    films = {split: of.films_of(table, data, split) for split, table in tables.items()}
    if len(films) == 2:
        check_apart(*films.values())
    for split, of_split in films.items():
        _predict_split(of, split, of_split, batch_size=batch_size, workers=workers)


def _predict_split(of: Evaluated, split: str, films: Films, *, batch_size: int, workers: int) -> None:
    """The predictions file of one split; its films are shared over the processes."""
    target = predictions_file(of.record.folder, split)
    inputs = of.inputs(films, recorded_grey(films.table.parent) or Grey.STORED)
    made_from: dict[str, Any] = {"inputs": inputs, "options": {}, "outputs": [target]}
    of_these = films.paths, films.label_set.names, films.labels
    if of.group.broadcast(of.record.is_complete(f"predictions_{split}", **made_from) and is_of(target, *of_these)):
        of.group.print(f"{target}: complete")
        return
    dataset = FilmDataset(films, of.model.image_size)
    device = next(of.model.parameters()).device.type
    reading: dict[str, Any] = {"batch_size": batch_size, "workers": workers, "title": f"predict {split}"}
    with of.record.stage(f"predictions_{split}", **made_from) as stage:
        logits = predict_films(of.model, dataset, device, group=of.group, **reading)  # (N, outputs)
        if of.group.is_main:
            outputs = positions(films.label_set.names, of.model.labels, "the network")
            probabilities = torch.sigmoid(logits[:, outputs].double()).numpy()
            labels = films.labels.astype(np.float64)
            made = Predictions(films.paths, probabilities, labels, films.label_set, films.ids, films.patients)
            write_predictions(target, made)
            stage.wrote(target)
            stage.note(_description(of, dataset, logits, split))


def _description(of: Evaluated, dataset: FilmDataset, logits: Tensor, split: str) -> dict[str, Any]:
    """The films of a split, how exactly the network's patches add up, and what its contributions promise."""
    films = dataset.films
    counts = dict(zip(films.label_set.names, np.nansum(films.labels, axis=0).astype(int).tolist(), strict=True))
    facts = {"csv": str(films.table), "films": len(films), "positives": counts, "mapping": films.mapping}
    error = additivity_error(of.model, lambda index: dataset.image(index)[0], logits)
    exact = f"patches alone give the film's logits ({of.model.aggregation.name}) within {error['max_error']:.1e}"
    certificates = measure_certificates(of.model, torch.stack([dataset.image(i)[0] for i in some_films(len(films))]))
    print(f"{of.record.folder}, {split}: {len(films)} films; {exact}; {certificates}")
    of_maps = recorded_certificates(of.record, split)
    measured = {"additivity": error, "certificates": of_maps | certificates.to_json()}
    return {"data": {split: facts}} | {name: {split: value} for name, value in measured.items()}


# ----------------------------------------------------------------------------------------------------------- heat maps


def chosen_methods(chosen: Sequence[str], model: MedicalPatchNet) -> tuple[str, ...]:
    """The methods whose maps are asked for. Raises InputError when the network cannot give them."""
    has_patches = model.patch_size < model.image_size
    if "none" in chosen:
        return ()
    methods = methods_of("patch" if has_patches else "baseline") if "auto" in chosen else tuple(dict.fromkeys(chosen))
    if "auto" in chosen:
        methods = methods_that_hold(model, methods)
    check_aggregation(model, methods)
    if not set(methods) & set(methods_of("patch")):
        return methods
    if not has_patches:
        raise InputError(f"--heatmaps {' '.join(methods)}: this network sees the whole film as one patch")
    return methods


def chosen_fineness(
    steps: int | None,
    stride: int | None,
    protocols: Sequence[Protocol] | None,
    model: MedicalPatchNet,
    methods: Sequence[str],
) -> dict[str, Any]:
    """The options steps_per_patch, stride and protocols of `HeatMapExport`.

    Class activation maps have neither steps nor a stride: of the steps that are noted with them, those that the
    network's patch allows. Raises InputError as `saliency.evidence.fineness.with_protocols` does.
    """
    if not set(methods) & set(methods_of("patch")):
        noted = math.gcd(steps or PUBLISHED_STEPS, model.patch_size)
        return {"steps_per_patch": noted, "protocols": protocols or PROTOCOLS}
    sizes = {"patch_size": model.patch_size, "image_size": model.image_size}
    default = 1 if is_dense(model) else DEFAULT_STRIDE  # a dense network gives every start in one pass
    fineness, protocols = with_protocols(steps, stride, protocols, default_stride=default, **sizes)
    return {"steps_per_patch": fineness.steps_per_patch, "stride": fineness.stride, "protocols": protocols}


def make_heat_maps(
    of: Evaluated,
    root: Path,
    data: Path,
    methods: Sequence[str],
    *,
    all_labels: bool,
    options: Mapping[str, Any],
) -> None:
    """Maps of the full-size films of CheXlocalize or a manifest, for every split that is there.

    data: the same films as copies, which record the grey rule of the data set. root may be these copies, too, which
    are read as they are stored.
    """
    made: dict[str, tuple[Films, Mapping[str, str]]] = {}
    for split in SPLITS:
        table = full_size_table(root, split)
        if not has_split(table, split):
            of.group.print(f"no heat maps of {split}: {table} is not there, or has no films of it")
            continue
        films = of.films_of(table, table.parent, split)
        tasks = {label: films.label_set.task_of(label) for label in films.label_set.names}
        if not all_labels:
            outlined = films.label_set.tasks
            tasks = {label: tasks[label] for label in sorted(outlined, key=outlined.__getitem__)}
        if not tasks:
            of.group.print(f"no heat maps of {split}: of its labels none is outlined; --all-labels makes those of all")
            continue
        export = HeatMapExport(of.record.folder, split, methods, tasks=tasks, weights=of.weights, **options)
        _export_split(of, export, films, full_size_grey(root, data, films))
        made[split] = (films, tasks)
        if export.stride > 1 and of.group.is_main:
            for line in make_map_errors(of.record, split, films.ids):
                print(line)
    if made and of.group.is_main and set(methods) & set(methods_of("patch")):
        pickles = options["pickles"] and "corrected" in options["protocols"]
        for line in _from_evidence(of, made, relative=RELATIVE in methods, pickles=pickles):
            print(line)


def _from_evidence(
    of: Evaluated, made: Mapping[str, tuple[Films, Mapping[str, str]]], *, relative: bool, pickles: bool
) -> Iterator[str]:
    """The reference of relative maps, their pickles, and the fine maps' own predictions.

    made: split -> films, label -> task. Yields lines to print.
    """
    if relative and "val" in made:
        yield from make_recorded_reference(of.record, {split: films.ids for split, (films, _) in made.items()})
        for split, (films, tasks) in made.items() if pickles else ():
            yield from make_relative_pickles(of.record, split, films.ids, list(tasks.values()))
    elif relative:
        yield "no relative maps: their reference is the mean of validation films, and there are none"
    if not is_linear(of.model):
        yield f"no predictions of fine maps: their mean is no logit under the aggregation {of.model.aggregation.name}"
        return
    for split, (films, tasks) in made.items():
        yield from make_map_predictions(of.record, split, films, tasks)


def _export_split(of: Evaluated, export: HeatMapExport, films: Films, grey: Grey) -> None:
    """Maps of one split, for every method and protocol; each process takes its share of the films."""
    split = export.split
    name = f"heat_maps_{split}"
    fineness = Fineness(export.steps_per_patch, export.stride)
    if not set(export.methods) & set(methods_of("patch")):  # has none, and goes with whatever the folder has
        fineness = Fineness.recorded(of.record.options(name)) or fineness
        export = replace(export, steps_per_patch=fineness.steps_per_patch, stride=fineness.stride)
    options = fineness.options()
    of.record.check_options(name, options, f"heat maps of {split}")
    files = {index: export.files(films.ids[index]) for index in range(len(films))}
    outputs = [path for of_film in files.values() for path in of_film]
    with of.record.stage(name, inputs=of.inputs(films, grey), options=options, outputs=outputs) as stage:
        known = np.nan_to_num(films.labels, nan=NOT_LABELLED)
        labels = [dict(zip(films.label_set.names, of_film, strict=True)) for of_film in known]
        left = [index for index in files if not _is_whole(stage, export, films.ids[index], labels[index])]
        left = of.group.broadcast(left)
        own = left[of.group.rank :: of.group.world_size]
        films_ahead = read_ahead(lambda index: open_film(films.files[index], grey), own)
        progress = {"desc": f"heat maps {split}", "unit": "film", "disable": None if of.group.is_main else True}
        for index, film in tqdm(films_ahead, total=len(own), **progress):
            lost = [path for path in files[index] if not stage.holds(path)]  # other films, damaged, or not noted yet
            if export.evidence_path(films.ids[index]) not in lost and not export.says(films.ids[index], labels[index]):
                lost = files[index]
            of_film = widened_by_lost(export, films.ids[index], lost, films.label_set)
            view = projection_of(films.views[index])
            export_film(of_film, of.model, film, films.ids[index], labels[index], view)
            stage.wrote(*files[index])
        of.group.barrier()
    kinds = f"{split}; {', '.join(export.methods)}"
    of.group.print(f"{of.record.folder}: heat maps of {len(films)} films ({kinds}), {len(left)} of them new")


def _is_whole(stage: Stage, export: HeatMapExport, film_id: str, labels: Mapping[str, float]) -> bool:
    """Whether a film's files were made from the same inputs and hold all that is asked for."""
    return stage.holds(*export.files(film_id)) and export.is_complete(film_id) and export.says(film_id, labels)
