"""Stages that make heat maps of full-size films, and what follows from their evidence."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from cxr.ahead import read_ahead
from cxr.files import InputError
from cxr.images import open_film
from cxr.manifests.films import Films, has_split
from cxr.manifests.full_size import full_size_grey, full_size_table
from cxr.names import DEFAULT_STRIDE, PROTOCOLS, RELATIVE, SPLITS, Protocol, methods_of
from cxr.paths import projection_of
from cxr.pixels.grey import Grey
from cxr.runs.run_record import Stage
from models.patch_net import MedicalPatchNet
from network_evaluation import Evaluated
from saliency.evidence.dense_grid import is_dense
from saliency.evidence.fineness import PUBLISHED_STEPS, Fineness, with_protocols
from saliency.evidence.folded_network import is_linear
from saliency.export import HeatMapExport, export_film, widened_by_lost
from saliency.film_maps import check_aggregation, methods_that_hold
from saliency.recorded_errors import make_map_errors
from saliency.recorded_stages import make_map_predictions, make_recorded_reference, make_relative_pickles

NOT_LABELLED = -1
"""Ground truth in the heat maps of a film that is not labelled."""


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
