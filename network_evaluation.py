"""The network under evaluation with the record of its results folder, and its predictions of the square copies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cxr.dataset import FilmDataset
from cxr.files import InputError, sha256
from cxr.labels import positions
from cxr.manifests.films import Films, has_split
from cxr.manifests.leakage import check_apart
from cxr.manifests.shared_films import shared_films
from cxr.manifests.splits import split_table
from cxr.mappings import Mapping as LabelMapping
from cxr.mappings import chosen_mapping, mapping_facts
from cxr.names import SPLITS, predictions_file
from cxr.pixels.grey import Grey, recorded_grey
from cxr.predictions import Predictions, is_of, write_predictions
from cxr.runs.fingerprints import file_fingerprint, films_fingerprint
from cxr.runs.run_record import RunRecord
from models.checkpoint import load_model
from models.hub import resolve_weights
from models.patch_net import MedicalPatchNet
from models.weights_folder import config_of, weights_file
from saliency.additivity import additivity_error, some_films
from saliency.certificates import measure_certificates
from saliency.recorded_stages import recorded_certificates
from training.distributed import ProcessGroup
from training.engine import predict_films


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
