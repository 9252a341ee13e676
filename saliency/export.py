"""A film's heat maps into files: CheXlocalize's pickles, or one evidence file that all of them follow from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from cxr.files import InputError
from cxr.heat_maps import heat_map_name, write_heat_map
from cxr.images import Crop
from cxr.labels import label_of
from cxr.names import Protocol
from saliency.evidence_files import SUFFIX, FilmLabels, holds_evidence, write_evidence
from saliency.film_maps import Evidence, film_in_frame, film_maps, gather_evidence
from saliency.folded_network import PatchNetwork, evaluating


@dataclass(frozen=True)
class HeatMapExport:
    """Which maps of one split go where, below a model's results folder.

    Pickles: `heatmaps/<protocol>/<split>/<method>/<image id>_<task>_map.pkl`; without `pickles`, for both protocols
    `evidence/<split>/<image id>.npz`. steps_per_patch and batch_size as in `evidence_grid`.
    """

    results: Path
    split: str
    methods: Sequence[str]
    protocols: Sequence[Protocol]
    tasks: Sequence[str]
    steps_per_patch: int
    batch_size: int
    pickles: bool = True

    def pickle_path(self, protocol: Protocol, method: str, image_id: str, task: str) -> Path:
        return self.results / "heatmaps" / protocol / self.split / method / heat_map_name(image_id, task)

    def evidence_path(self, image_id: str) -> Path:
        return self.results / "evidence" / self.split / f"{image_id}{SUFFIX}"

    def files(self, image_id: str) -> list[Path]:
        """Every file of a film."""
        if not self.pickles:
            return [self.evidence_path(image_id)]
        kinds = [(protocol, method) for protocol in self.protocols for method in self.methods]
        return [self.pickle_path(*kind, image_id, task) for kind in kinds for task in self.tasks]

    def is_complete(self, image_id: str) -> bool:
        """Whether all files of a film are there. Files appear whole; their settings are for the caller to compare."""
        if not self.pickles:
            return holds_evidence(self.evidence_path(image_id), self.methods, self.tasks)
        return all(
            self.pickle_path(protocol, method, image_id, task).is_file()
            for protocol in self.protocols
            for method in self.methods
            for task in self.tasks
        )


def export_film(
    export: HeatMapExport, model: PatchNetwork, film: Tensor, image_id: str, ground_truth: Mapping[str, float]
) -> bool:
    """Writes a film's maps unless they are complete; returns whether it wrote.

    film: the whole film (1, H, W) in [0, 1]; ground_truth: CheXpert label -> 0 or 1, of at least the exported tasks.
    Each file is written whole or not at all. Raises InputError when the model does not know a task's label.
    """
    if export.is_complete(image_id):
        return False
    crop = Crop.centred(film.shape[2], film.shape[1])
    image = film_in_frame(film, crop, model.image_size, "published")  # (1, S, S), what the network sees
    outputs = _outputs(model, export.tasks)
    evidence = gather_evidence(
        model,
        image,
        crop,
        methods=export.methods,
        steps_per_patch=export.steps_per_patch,
        batch_size=export.batch_size,
        labels=outputs,
    )
    labels = FilmLabels(
        image_id,
        export.tasks,
        probabilities=_probabilities(model, image)[outputs].tolist(),
        ground_truth=[int(ground_truth[label_of(task)]) for task in export.tasks],
    )
    if not export.pickles:
        pixels = film_in_frame(film, crop, model.image_size, "corrected")[0]
        write_evidence(export.evidence_path(image_id), evidence, labels, pixels)
        return True
    for protocol in export.protocols:
        _write_pickles(export, protocol, film, evidence, labels)
    return True


def _outputs(model: PatchNetwork, tasks: Sequence[str]) -> list[int]:
    """The model's output of each task."""
    missing = [label_of(task) for task in tasks if label_of(task) not in model.labels]
    if missing:
        raise InputError(f"{missing[0]!r} is not a label of this network; its labels are {', '.join(model.labels)}")
    return [model.labels.index(label_of(task)) for task in tasks]


def _probabilities(model: PatchNetwork, image: Tensor) -> Tensor:
    """(C,) float64 on the CPU."""
    with evaluating(model), torch.inference_mode():
        logits = model(image[None].to(next(model.parameters()).device))
    return torch.sigmoid(logits[0].double().cpu())


def _write_pickles(
    export: HeatMapExport, protocol: Protocol, film: Tensor, evidence: Evidence, labels: FilmLabels
) -> None:
    pixels = film_in_frame(film, evidence.crop, evidence.image_size, protocol)[0]
    for method, maps in film_maps(evidence, export.methods, protocol).items():
        for row, task in enumerate(labels.tasks):
            write_heat_map(
                export.pickle_path(protocol, method, labels.image_id, task),
                map=maps[row],
                probability=labels.probabilities[row],
                task=task,
                ground_truth=labels.ground_truth[row],
                film_size=(evidence.crop.film_width, evidence.crop.film_height),
                film_pixels=pixels,
            )
