"""Stages of a results folder that need its evidence files alone: no network, no films.

A stage is done once, and again when what it was made from changes. Every function returns lines to print.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cxr.names import reference_file
from cxr.runs.run_record import RunRecord
from saliency.reference_films import make_reference


def make_recorded_reference(record: RunRecord, ids: Mapping[str, Sequence[str]]) -> list[str]:
    """`reference.npz`: the mean evidence of the validation films. ids: split -> its films."""
    target = reference_file(record.folder)
    made_from: dict[str, Any] = {
        "inputs": {split: record.outputs_fingerprint(f"heat_maps_{split}") for split in ids},
        "options": {},
        "outputs": [target],
    }
    if record.is_complete("reference", **made_from):
        return [f"{target}: complete"]
    with record.stage("reference", **made_from) as stage:
        reference = make_reference(record.folder, validation=ids["val"], test=ids.get("test", ()))
        stage.wrote(target)
    counts = ", ".join(f"{count} {view}" for view, count in reference.counts.items())
    made = f"{target}: mean evidence of the validation films ({counts})"
    return [made, *(f"warning: {warning}" for warning in reference.warnings)]
