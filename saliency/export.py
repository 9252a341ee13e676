"""A film's heat maps written to files: CheXlocalize's pickles, or one evidence file that all of them follow from."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from cxr.dataset import network_input
from cxr.files import InputError, place
from cxr.heat_maps import heat_map_name, write_heat_map
from cxr.labels import LabelSet, positions
from cxr.names import RELATIVE, Protocol, evidence_folder, heat_map_folder, methods_of
from cxr.pixels.tensors import to_unit
from saliency.evidence.evidence_files import (
    SUFFIX,
    FilmLabels,
    held_evidence,
    holds_evidence,
    read_facts,
    write_evidence,
)
from saliency.evidence.folded_network import PatchNetwork, evaluating
from saliency.evidence.page_film import encoded_film
from saliency.film_maps import Evidence, film_in_frame, film_maps, gather_evidence


@dataclass(frozen=True)
class HeatMapExport:
    """Which maps of one split go where, below a model's results folder.

    Pickles: `heatmaps/<protocol>/<split>/<method>/<film id>_<task>_map.pkl`; without `pickles`, one file for both
    protocols, `evidence/<split>/<film id>.npz`. Patch methods have the evidence file in any case: the reference of
    relative maps and the predictions of fine maps are made from it, and pickles of relative maps after the reference.
    tasks: label -> its task. steps_per_patch, stride and batch_size as in `evidence_grid`; weights: sha256 of the
    network's weights, kept in the evidence files.
    """

    results: Path
    split: str
    methods: Sequence[str]
    protocols: Sequence[Protocol]
    tasks: Mapping[str, str]
    steps_per_patch: int
    batch_size: int
    pickles: bool = True
    weights: str = ""
    stride: int = 1

    def pickle_path(self, protocol: Protocol, method: str, film_id: str, task: str) -> Path:
        return heat_map_folder(self.results, protocol, self.split, method) / heat_map_name(film_id, task)

    def evidence_path(self, film_id: str) -> Path:
        return evidence_folder(self.results, self.split) / f"{film_id}{SUFFIX}"

    @property
    def keeps_evidence(self) -> bool:
        return not self.pickles or bool(set(self.methods) & set(methods_of("patch")))

    def pickle_paths(self, film_id: str) -> list[Path]:
        """The pickles of a film that need no reference."""
        kinds = [(protocol, method) for protocol in self.protocols for method in _without_relative(self.methods)]
        return [self.pickle_path(*kind, film_id, task) for kind in kinds for task in self.tasks.values()]

    def files(self, film_id: str) -> list[Path]:
        """Every file of a film."""
        evidence = [self.evidence_path(film_id)] if self.keeps_evidence else []
        return evidence + (self.pickle_paths(film_id) if self.pickles else [])

    def is_complete(self, film_id: str) -> bool:
        """Whether all files of a film are there; files appear whole.

        Raises InputError for an evidence file that is damaged or made with other settings. The settings behind pickles
        are for the caller to compare.
        """
        path, tasks = self.evidence_path(film_id), list(self.tasks.values())
        fineness = {"steps_per_patch": self.steps_per_patch, "stride": self.stride}
        if self.keeps_evidence and not holds_evidence(path, self.methods, tasks, **fineness, weights=self.weights):
            return False
        return not self.pickles or all(path.is_file() for path in self.pickle_paths(film_id))

    def says(self, film_id: str, labels: Mapping[str, float]) -> bool:
        """Whether an evidence file says a film's labels; so does none. `dataset.json` changes them under one table."""
        path = self.evidence_path(film_id)
        noted = read_facts(path).ground_truth if self.keeps_evidence and path.is_file() else {}
        return all(noted.get(task, labels[label]) == labels[label] for label, task in self.tasks.items())


def _without_relative(methods: Sequence[str]) -> list[str]:
    return [method for method in methods if method != RELATIVE]


def widened_by_lost(export: HeatMapExport, film_id: str, lost: Sequence[Path], label_set: LabelSet) -> HeatMapExport:
    """Removes a film's files that are to be made again; returns the export with all evidence that one of them held.

    Evidence of other methods and tasks lies in the same file, as of a run that was killed after adding to it.
    """
    methods, tasks = dict.fromkeys(export.methods), dict(export.tasks)
    for path in lost:
        if not export.pickles and path.is_file():
            held = held_evidence(path)
            methods |= dict.fromkeys(method for method, _ in held)
            labels = {label_set.label_of(task): task for _, task in held}
            tasks |= {label: task for label, task in labels.items() if label in label_set.names}
        path.unlink(missing_ok=True)
    return replace(export, methods=tuple(methods), tasks=tasks)


def export_film(
    export: HeatMapExport,
    model: PatchNetwork,
    film: Image.Image,
    film_id: str,
    ground_truth: Mapping[str, float],
    view: str = "",
) -> bool:
    """Writes a film's maps unless they are complete; returns whether it wrote.

    film: the whole film in grey, as `cxr.images.open_film` returns it. ground_truth: label -> 0 or 1, NaN where the
    film is not labelled, of at least the exported labels. view: frontal, lateral, or empty.
    Each file is written whole or not at all.
    Raises InputError when the model lacks a label, or the film cannot have maps.
    """
    if export.is_complete(film_id):
        return False
    image, crop = network_input(film, model.image_size)
    outputs = positions(list(export.tasks), model.labels, "the network")
    try:
        evidence = gather_evidence(
            model,
            image,
            crop,
            methods=export.methods,
            steps_per_patch=export.steps_per_patch,
            batch_size=export.batch_size,
            outputs=outputs,
            stride=export.stride,
        )
    except InputError as error:
        raise InputError(f"{place(film_id)}: {error}") from None
    labels = FilmLabels(
        film_id,
        list(export.tasks.values()),
        probabilities=_probabilities(model, image)[outputs].tolist(),
        ground_truth=[_whole(ground_truth[label]) for label in export.tasks],
        view=view,
    )
    pixels = to_unit(film)  # (1, H, W)
    if export.keeps_evidence:
        in_frame = film_in_frame(pixels, crop, model.image_size, "corrected")[0]
        path, page_film = export.evidence_path(film_id), encoded_film(pixels, model.image_size)
        write_evidence(path, evidence, labels, in_frame, export.weights, page_film)
    for protocol in export.protocols if export.pickles else ():
        _write_pickles(export, protocol, pixels, evidence, labels)
    return True


def _whole(label: float) -> int:
    return -1 if math.isnan(label) else int(label)


def _probabilities(model: PatchNetwork, image: Tensor) -> Tensor:
    """(C,) float64 on the CPU."""
    with evaluating(model), torch.inference_mode():
        logits = model(image[None].to(next(model.parameters()).device))
    return torch.sigmoid(logits[0].double().cpu())


def _write_pickles(
    export: HeatMapExport, protocol: Protocol, film: Tensor, evidence: Evidence, labels: FilmLabels
) -> None:
    pixels = film_in_frame(film, evidence.crop, evidence.image_size, protocol)[0]
    for method, maps in film_maps(evidence, _without_relative(export.methods), protocol).items():
        for row, task in enumerate(labels.tasks):
            write_heat_map(
                export.pickle_path(protocol, method, labels.film_id, task),
                map=maps[row],
                probability=labels.probabilities[row],
                task=task,
                ground_truth=labels.ground_truth[row],
                film_size=(evidence.crop.film_width, evidence.crop.film_height),
                film_pixels=pixels,
            )
