"""Stages of a results folder that need its evidence files alone: no network, no films.

A stage is done once, and again when what it was made from changes. Every function returns lines to print.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.special import expit
from tqdm import tqdm

from cxr.files import quoted, sha256
from cxr.heat_maps import heat_map_name, write_heat_map
from cxr.labels import LabelSet
from cxr.manifests.films import Films
from cxr.names import (
    MAPS,
    METHODS,
    RELATIVE,
    SPLITS,
    Protocol,
    evidence_folder,
    heat_map_folder,
    predictions_file,
    reference_file,
)
from cxr.predictions import Predictions, is_of, write_map_predictions
from cxr.runs.run_record import RunRecord
from saliency.evidence.evidence_files import SUFFIX, read_facts, read_grids, read_patches
from saliency.evidence.evidence_folders import EvidenceFolder
from saliency.evidence.npz import array_names
from saliency.map_certificates import MapCertificates
from saliency.map_predictions import MapNumbers
from saliency.reference import ALL, Reference, read_reference
from saliency.reference_films import make_reference, reference_logits

FINE_FILMS = 32
"""Films, spread over the split, whose maps are made to be compared with the numbers that they decompose."""


def make_recorded_reference(record: RunRecord, ids: Mapping[str, Sequence[str]]) -> list[str]:
    """`reference.npz`: the mean evidence of the validation films. ids: split -> its films."""
    target = reference_file(record.folder)
    made_from: dict[str, Any] = {
        "inputs": {split: record.outputs_fingerprint(f"heat_maps_{split}") for split in ids},
        "options": {},
        "outputs": [target],
    }
    if record.is_complete("reference", **made_from):
        return [f"{target}: complete", *_labels_without(record, read_reference(target))]
    with record.stage("reference", **made_from) as stage:
        reference = make_reference(record.folder, validation=ids["val"], test=ids.get("test", ()))
        stage.wrote(target)
        without = {
            split: _without_own_view(record.folder, split, reference, of_split) for split, of_split in ids.items()
        }
        stage.note({"reference": {"films": dict(reference.counts), "compared_with_all_views": without}})
    counts = ", ".join(f"{count} {view}" for view, count in reference.counts.items())
    lines = [f"{target}: mean evidence of the validation films ({counts})"]
    lines += [f"warning: {warning}" for warning in reference.warnings]
    lines += _labels_without(record, reference)
    for split, views in without.items():
        for view, count in views.items():
            lines.append(
                f"{count} {SPLITS[split]} films of view {view}: no validation film of that view; their relative maps "
                "compare with the mean of all validation films"
            )
    return lines


def _labels_without(record: RunRecord, reference: Reference) -> list[str]:
    """A line about the network's labels that the reference lacks: evidence is kept of labels whose maps are made."""
    if "label_set" not in record.content:
        return []
    label_set = LabelSet.from_json(record.content["label_set"], str(record.folder))
    without = [label for label in label_set.names if label_set.task_of(label) not in reference.tasks]
    names = ", ".join(map(quoted, without))
    reason = "maps are made of outlined labels alone; --all-labels makes them, the reference and relative maps of all"
    return [f"no reference of {names}: {reason}"] if without else []


def make_relative_pickles(record: RunRecord, split: str, ids: Sequence[str], tasks: Sequence[str]) -> list[str]:
    """The pickles of relative maps, from the evidence files and the reference of the folder."""
    protocol: Protocol = METHODS[RELATIVE].protocols[0]
    folder = heat_map_folder(record.folder, protocol, split, RELATIVE)
    files = {(film_id, task): folder / heat_map_name(film_id, task) for film_id in ids for task in tasks}
    name = f"relative_pickles_{split}"
    made_from: dict[str, Any] = {
        "inputs": {stage: record.outputs_fingerprint(stage) for stage in (f"heat_maps_{split}", "reference")},
        "options": {},
        "outputs": list(files.values()),
    }
    if record.is_complete(name, **made_from):
        return [f"{folder}: complete"]
    source = EvidenceFolder(
        evidence_folder(record.folder, split),
        method=RELATIVE,
        protocol=protocol,
        tasks=tasks,
        reference=read_reference(reference_file(record.folder)),
    )
    with record.stage(name, **made_from) as stage:
        for (film_id, task), path in tqdm(files.items(), desc=f"relative maps {split}", unit="map", disable=None):
            if not stage.holds(path):
                write_heat_map(path, **_content(source, film_id, task))
                stage.wrote(path)
    return [f"{folder}: relative maps of {len(ids)} films"]


def _content(source: EvidenceFolder, film_id: str, task: str) -> dict[str, Any]:
    """The arguments of `write_heat_map` for one map."""
    made = source.load(film_id, task)
    known = {name: getattr(made, name) for name in ("map", "probability", "task", "ground_truth", "film_size")}
    return known | {"film_pixels": source.film_pixels(film_id)}


def _without_own_view(folder: Path, split: str, reference: Reference, ids: Sequence[str]) -> dict[str, int]:
    """View -> number of films of a split whose view the reference lacks; they are compared with all its films."""
    found: dict[str, int] = {}
    for film_id in ids:
        view = read_facts(evidence_folder(folder, split) / f"{film_id}{SUFFIX}").view
        if reference.view_for(view) == ALL:
            found[view or "unknown"] = found.get(view or "unknown", 0) + 1
    return found


def _held(record: RunRecord, split: str, films: Films) -> dict[str, str]:
    """Label -> task of which all films have evidence, in the order of the labels."""
    files = (evidence_folder(record.folder, split) / f"{film_id}{SUFFIX}" for film_id in films.ids)
    held = set.intersection(*(set(array_names(path)) for path in files))
    tasks = {label: films.label_set.task_of(label) for label in films.label_set.names}
    return {label: task for label, task in tasks.items() if f"grid {task}" in held}


def make_map_predictions(record: RunRecord, split: str, films: Films, tasks: Mapping[str, str]) -> list[str]:
    """`map_predictions_<split>.csv`, and in the record how exactly maps and predictions add up.

    films: of the split, all with evidence; tasks: label -> task of the evidence just made. Labels whose evidence was
    made before, for every film, are kept.
    """
    tasks = _held(record, split, films) or tasks
    target = predictions_file(record.folder, split, MAPS)
    reference_path = reference_file(record.folder)
    made_from: dict[str, Any] = {
        "inputs": {
            "evidence": record.outputs_fingerprint(f"heat_maps_{split}"),
            "reference": sha256(reference_path) if reference_path.is_file() else "",
            "table": sha256(films.table),
        },
        "options": {"labels": list(tasks)},
        "outputs": [target],
    }
    of_these = films.paths, list(tasks), _truth(films, list(tasks))
    if record.is_complete(f"map_predictions_{split}", **made_from) and is_of(target, *of_these):
        return [f"{target}: complete"]
    reference = read_reference(reference_path) if reference_path.is_file() else None
    with record.stage(f"map_predictions_{split}", **made_from) as stage:
        numbers, certificates = _read_maps(record.folder, split, films, list(tasks.values()), reference)
        _write(target, films, list(tasks), numbers)
        stage.wrote(target)
        stage.note({"certificates": {split: recorded_certificates(record, split) | certificates.to_json()}})
    return [f"{target}: {certificates}"]


def recorded_certificates(record: RunRecord, split: str) -> dict[str, Any]:
    """The certificates of a split that the record holds already."""
    known = record.content.get("certificates")
    of_split = known.get(split) if isinstance(known, dict) else None
    return of_split if isinstance(of_split, dict) else {}


def _read_maps(
    folder: Path, split: str, films: Films, tasks: Sequence[str], reference: Reference | None
) -> tuple[list[MapNumbers], MapCertificates]:
    """The numbers of every film, in order, and the errors over all of them; one film is in memory at a time."""
    logits = reference_logits(folder) if reference is not None else {}
    certificates = MapCertificates(reference, logits)
    spread = set(np.linspace(0, len(films) - 1, FINE_FILMS).astype(int).tolist())
    numbers = []
    for index, film_id in enumerate(tqdm(films.ids, desc=f"numbers of maps {split}", unit="film", disable=None)):
        path = evidence_folder(folder, split) / f"{film_id}{SUFFIX}"
        facts, sampled = read_grids(path, tasks)
        grids = {task: facts.grid.fill(torch.from_numpy(grid)).numpy() for task, grid in sampled.items()}
        numbers.append(MapNumbers.of(np.stack(list(grids.values())), facts.grid.shifts))
        certificates.add(path, facts, grids, read_patches(path, tasks), numbers[-1], makes_map=index in spread)
    return numbers, certificates


def _write(target: Path, films: Films, labels: Sequence[str], numbers: Sequence[MapNumbers]) -> None:
    mean, deviation, inside = (
        np.stack([getattr(of_film, name) for of_film in numbers]) for name in ("mean", "deviation", "inside")
    )  # (N, C) each
    label_set = films.label_set.restrict(labels)
    predictions = Predictions(films.paths, expit(mean), _truth(films, labels), label_set, films.ids, films.patients)
    write_map_predictions(target, predictions, deviation, inside)


def _truth(films: Films, labels: Sequence[str]) -> np.ndarray:
    """(N, C) float64, NaN where a film is not labelled."""
    return films.labels[:, [films.label_set.names.index(label) for label in labels]].astype(np.float64)
