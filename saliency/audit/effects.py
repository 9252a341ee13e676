"""Stages of the audit that need the network: logits of filled patches, and forward passes of films."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor
from tqdm import tqdm

from cxr.dataset import network_input
from cxr.files import InputError, place, quoted
from cxr.images import open_film
from cxr.labels import LabelSet, positions
from cxr.manifests.films import Films, has_split
from cxr.manifests.full_size import full_size_grey, full_size_table, read_full_size
from cxr.names import faithfulness_folder
from cxr.paths import projection_of
from cxr.runs.fingerprints import films_fingerprint
from cxr.runs.run_record import RunRecord
from cxr.tables import line_of, read_csv, write_csv
from saliency.audit.audit_maps import AuditSource
from saliency.audit.occlusion import fill_logits, grey_of, occlusion_drops, patch_lines, signed_cam
from saliency.audit.occlusion_files import Occlusion, OcclusionFacts, occlusion_file, write_occlusion
from saliency.evidence.folded_network import PatchNetwork

_COLUMNS = ("Film", "fill", "grey")


def audit_inputs(record: RunRecord, source: AuditSource) -> dict[str, Any]:
    """Fingerprints of a results folder's network, of its test maps, and of their reference."""
    maps = record.outputs("heat_maps_test")
    return {
        "weights_sha256": record.content["weights"]["sha256"],
        "model": record.content["model"],
        "heat_maps": record.outputs_fingerprint("heat_maps_test") if maps else source.fingerprint(),
        "reference": record.outputs_fingerprint("reference"),
    }


# ------------------------------------------------------------------------------------------------------ filled patches


def place_lines(
    model: PatchNetwork | None, side: int, outputs: Mapping[str, int]
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Task -> factors and offsets (side, side) of `patch_lines`; those of the mean without the network."""
    if model is None:
        return {task: (np.full((side, side), 1 / side**2), np.zeros((side, side))) for task in outputs}
    factors, offsets = (of.reshape(-1, side, side) for of in patch_lines(model, list(outputs.values())))
    return {task: (factors[row], offsets[row]) for row, task in enumerate(outputs)}


def fill_logits_of(
    source: AuditSource, record: RunRecord, model: PatchNetwork, fills: Sequence[str], outputs: Mapping[str, int]
) -> dict[tuple[str, str], dict[str, float]]:
    """(film id, fill) -> task -> logit of a filled patch, from `fills_test.csv`, which is made unless it is complete.

    outputs: task -> the network's output, of all tasks.
    """
    target = faithfulness_folder(record.folder) / "fills_test.csv"
    made_from: dict[str, Any] = {
        "inputs": audit_inputs(record, source),
        "options": {"fills": list(fills)},
        "outputs": [target],
    }
    if not record.is_complete("faithfulness fills", **made_from):
        films = (source.film(film_id) for film_id in source.film_ids)
        means = {film.film_id: float(film.crop_pixels.mean()) for film in films}
        of_tasks = {task: outputs[task] for task in source.tasks}
        with record.stage("faithfulness fills", **made_from) as stage:
            write_fill_logits(target, model, means, fills=fills, outputs=of_tasks)
            stage.wrote(target)
    return read_fill_logits(target, source.tasks)


def write_fill_logits(
    path: Path,
    model: PatchNetwork,
    crop_means: Mapping[str, float],
    *,
    fills: Sequence[str],
    outputs: Mapping[str, int],
) -> None:
    """A row per film and fill: the logits of a patch of that grey, per task.

    crop_means: film id -> mean grey of its crop; outputs: task -> the network's output.
    """
    rows = [(film, fill, grey_of(fill, mean)) for film, mean in crop_means.items() for fill in fills]
    greys = sorted({grey for _, _, grey in rows})
    logits = dict(zip(greys, fill_logits(model, greys)[:, list(outputs.values())], strict=True))
    values = pd.DataFrame([logits[grey] for _, _, grey in rows], columns=list(outputs))
    table = pd.concat([pd.DataFrame(rows, columns=list(_COLUMNS)), values], axis=1)
    write_csv(path, table.assign(note=""))


def read_fill_logits(path: Path, tasks: Sequence[str]) -> dict[tuple[str, str], dict[str, float]]:
    """(film id, fill) -> task -> logit. Raises InputError for a missing column and a cell that is not a number."""
    table = read_csv(path, [*_COLUMNS, *tasks])
    values = table[list(tasks)].apply(pd.to_numeric, errors="coerce")
    bad = values.isna().any(axis=1).to_numpy().nonzero()[0]
    if len(bad):
        raise InputError(f"{place(path, line_of(table, int(bad[0])))}: a logit is not a number; delete it, run again")
    keys = zip(table["Film"], table["fill"], strict=True)
    return {key: dict(row) for key, row in zip(keys, values.to_dict("records"), strict=True)}


# ------------------------------------------------------------------------------------------------------ whole films


def occlude(
    model: PatchNetwork,
    image: Tensor,
    *,
    weights: str,
    side: int,
    fills: Sequence[str],
    outputs: Mapping[str, int],
    view: str,
    batch_size: int,
) -> Occlusion:
    """Signed CAM and effects of one film, image (1, S, S) in [0, 1], from side² forward passes per fill.

    Without fills, the CAM alone. outputs: task -> the network's output.
    """
    greys = {fill: grey_of(fill, float(image.mean())) for fill in fills}
    drops: dict[tuple[str, str], np.ndarray] = {}
    for fill, grey in greys.items():
        _, of_outputs = occlusion_drops(model, image, side=side, grey=grey, batch_size=batch_size)
        drops |= {(fill, task): of_outputs[output] for task, output in outputs.items()}
    cams = signed_cam(model, image)
    facts = OcclusionFacts(weights, side if fills else 0, greys, list(outputs), view)
    return Occlusion(facts, drops, {task: cams[output] for task, output in outputs.items()})


@dataclass(frozen=True)
class FilmPasses:
    """The stages that run a network on the films of a split, with a file per film so that they can be resumed.

    root: the folder of the films; data: that of the square copies, which know the grey rule, or None.
    """

    source: AuditSource
    record: RunRecord
    model: PatchNetwork
    label_set: LabelSet
    root: Path
    data: Path | None
    batch_size: int

    def make(self, split: str, fills: Sequence[str]) -> None:
        """Makes what is missing of `occlusion_file` for the audited test films, or for all validation films.

        Raises InputError when an audited film is not in the table or cannot be read.
        """
        if split == "val" and not has_split(full_size_table(self.root, split), split):
            return
        films = self.films(split)
        index = {film_id: row for row, film_id in enumerate(films.ids)}
        ids = self.source.film_ids if split == "test" else list(films.ids)
        absent = next((film_id for film_id in ids if film_id not in index), None)
        if absent is not None:
            raise InputError(f"{place(films.table)}: no film {quoted(absent)}, which the folder has heat maps of")
        files = {film_id: occlusion_file(self.record.folder, split, film_id) for film_id in ids}
        name, options = f"faithfulness films {split}", {"fills": list(fills), "side": self.source.side}
        made_from: dict[str, Any] = {
            "inputs": self.inputs(films, ids),
            "options": options | {"tasks": self.source.tasks},
            "outputs": list(files.values()),
        }
        if self.record.is_complete(name, **made_from):
            return
        with self.record.stage(name, **made_from) as stage:
            left = [film_id for film_id in ids if not stage.holds(files[film_id])]
            for film_id in tqdm(left, desc=f"forward passes {split}", unit="film", disable=None):
                write_occlusion(files[film_id], self._occluded(films, index[film_id], fills))
                stage.wrote(files[film_id])

    def films(self, split: str) -> Films:
        """The full-size films of a split."""
        return read_full_size(self.root, split, self.label_set)

    def inputs(self, films: Films, ids: Sequence[str]) -> dict[str, Any]:
        """Fingerprints of the network and of these films, and how they are read."""
        grey = full_size_grey(self.root, self.data, films).to_json()
        index = {film_id: row for row, film_id in enumerate(films.ids)}
        read = films_fingerprint([films.files[index[film_id]] for film_id in ids], films.table.parent)
        content = self.record.content
        network = {"weights_sha256": content["weights"]["sha256"], "model": content["model"]}
        return network | {"films": read, "grey": grey}

    def image(self, films: Films, row: int) -> Tensor:
        """(1, S, S) in [0, 1]: the network's input."""
        grey = full_size_grey(self.root, self.data, films)
        return network_input(open_film(films.files[row], grey), self.model.image_size)[0]

    @property
    def outputs(self) -> dict[str, int]:
        """Task -> output of the network."""
        labels = [self.label_set.label_of(task) for task in self.source.tasks]
        return dict(zip(self.source.tasks, positions(labels, self.model.labels, "the network"), strict=True))

    def _occluded(self, films: Films, row: int, fills: Sequence[str]) -> Occlusion:
        return occlude(
            self.model,
            self.image(films, row),
            weights=self.record.content["weights"]["sha256"],
            side=self.source.side,
            fills=fills,
            outputs=self.outputs,
            view=projection_of(films.views[row]),
            batch_size=self.batch_size,
        )
