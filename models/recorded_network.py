"""The networks whose results lie in results folders, from their records and, where they are at hand, their weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cxr.files import InputError, place, quoted, sha256
from cxr.labels import LabelSet
from cxr.names import RUN_RECORD
from cxr.runs.run_record import RunRecord
from models.checkpoint import load_model
from models.hub import resolve_weights
from models.patch_net import MedicalPatchNet
from models.weights_folder import weights_file

PAPER_SIDE = 8
"""Patches per axis of the paper's network."""


@dataclass(frozen=True)
class RecordedNetwork:
    """A results folder and its network. facts: of `run.json`, with patch_size, image_size and labels.

    model: None where the weights are not at hand; `absent` then says why.
    """

    record: RunRecord
    label_set: LabelSet
    facts: Mapping[str, Any]
    model: MedicalPatchNet | None
    absent: str = ""

    @property
    def folder(self) -> Path:
        return self.record.folder

    @property
    def has_patches(self) -> bool:
        return bool(self.facts["patch_size"] < self.facts["image_size"])

    @property
    def patches_per_axis(self) -> int:
        return int(self.facts["image_size"] // self.facts["patch_size"])

    @property
    def aggregation(self) -> str:
        return str(self.facts.get("aggregation", "mean"))

    @property
    def is_linear(self) -> bool:
        """Whether the logits are known to be an affine function of the patch logits, with known factors."""
        return self.model.aggregation.linear if self.model is not None else self.aggregation == "mean"

    @property
    def outputs(self) -> dict[str, int]:
        """Task -> output of the network."""
        return {self.label_set.task_of(label): output for output, label in enumerate(self.facts["labels"])}


def open_networks(folders: Sequence[Path], specs: Sequence[str], device: str) -> list[RecordedNetwork]:
    """specs: weights, each told by its content to be those of a folder; a folder without takes them from where they
    lay when its results were made, if they are still the same.

    Raises InputError for a folder that does not say which network made it, and for weights that no folder is of.
    """
    records = [RunRecord(folder) for folder in folders]
    for record in records:
        _check(record)
    given = _given_weights(specs, records)
    return [_opened(record, given.get(record.folder), device) for record in records]


def patches_per_axis(networks: Sequence[RecordedNetwork]) -> int:
    """Of the audit of a baseline: as the first patch network has, else as it was audited before, else the paper's."""
    of_networks = [network.patches_per_axis for network in networks if network.has_patches]
    stages = [network.record.content.get("stages", {}).get("faithfulness films test", {}) for network in networks]
    before = [stage.get("options", {}).get("side") for stage in stages]
    return next(iter([*of_networks, *(side for side in before if type(side) is int and side > 0)]), PAPER_SIDE)


def _check(record: RunRecord) -> None:
    facts, weights = record.content.get("model"), record.content.get("weights")
    sizes = [facts.get(name) for name in ("patch_size", "image_size")] if isinstance(facts, dict) else []
    whole = bool(sizes) and all(type(size) is int and size > 0 for size in sizes)
    stages = record.content.get("stages", {})
    whole &= isinstance(stages, dict) and all(isinstance(stage, dict) for stage in stages.values())
    whole &= all(isinstance(stage.get("options", {}), dict) for stage in stages.values()) if whole else False
    if not whole or not isinstance(weights, dict) or "sha256" not in weights or "label_set" not in record.content:
        where = place(record.folder / RUN_RECORD)
        raise InputError(f"{where}: does not say which network made these results; run evalClassification.py --weights")


def _given_weights(specs: Sequence[str], records: Sequence[RunRecord]) -> dict[Path, str]:
    """Results folder -> its weights among those given."""
    found: dict[Path, str] = {}
    for spec in specs:
        digest = sha256(weights_file(resolve_weights(spec)))
        folders = [record.folder for record in records if record.content["weights"]["sha256"] == digest]
        if not folders:
            raise InputError(f"--weights {quoted(spec)}: none of the results folders was made with these weights")
        found |= dict.fromkeys(folders, spec)
    return found


def _opened(record: RunRecord, spec: str | None, device: str) -> RecordedNetwork:
    facts, recorded = record.content["model"], record.content["weights"]
    label_set = LabelSet.from_json(record.content["label_set"], place(record.folder / RUN_RECORD, column="label_set"))
    if list(label_set.names) != facts.get("labels"):
        raise InputError(f"{place(record.folder / RUN_RECORD)}: the labels of model and label_set differ")
    try:
        path = resolve_weights(spec or str(recorded.get("path", "")))
        if sha256(weights_file(path)) != recorded["sha256"]:
            raise InputError(f"{place(path)}: holds other weights now")
    except (InputError, OSError) as error:
        return RecordedNetwork(record, label_set, facts, None, f"its weights are not at hand ({error})")
    model = load_model(path, patch_size=facts["patch_size"], device=device)
    return RecordedNetwork(record, label_set, facts, model)
