"""The reference of a results folder, made of the evidence files of its validation films."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from pathlib import Path

import numpy as np

from cxr.files import InputError, place, quoted
from cxr.names import evidence_folder, reference_file
from saliency.evidence.evidence_files import SUFFIX, read_facts, read_grids
from saliency.evidence.evidence_folders import evidence_files
from saliency.map_predictions import logits_of
from saliency.reference import ALL, Reference, RunningMeans, write_reference


def make_reference(results: Path, *, validation: Collection[str], test: Collection[str] = ()) -> Reference:
    """Writes `reference.npz`: the mean evidence of `evidence/val`, per view; one film is in memory at a time.

    validation, test: ids of the films of either split. Raises InputError for evidence of a film that is not of
    validation, or also of test, for a film without evidence, and for evidence of different networks, settings or tasks.
    """
    folder = evidence_folder(results, "val")
    paths = evidence_files(folder)
    ids = [path.name.removesuffix(SUFFIX) for path in paths]
    _check_films(folder, ids, set(validation), set(test))
    means: RunningMeans | None = None
    for path in paths:
        facts, grids = read_grids(path)
        if means is None:
            means = RunningMeans(facts.settings, tuple(grids))
        difference = means.settings.difference(facts.settings)
        if difference or tuple(grids) != means.tasks:
            reason = difference or f"tasks {', '.join(map(quoted, grids))}, not {', '.join(map(quoted, means.tasks))}"
            raise InputError(f"{place(path)}: evidence of another network or setting ({reason}); delete it")
        means.add(facts.view, grids.values())
    if means is None:
        raise InputError(f"{place(folder)}: no evidence files in it")
    reference = means.result(hashlib.sha256("\n".join(ids).encode(errors="surrogateescape")).hexdigest())
    write_reference(reference_file(results), reference)
    return reference


def _check_films(folder: Path, ids: list[str], validation: set[str], test: set[str]) -> None:
    for film_id in ids:
        if film_id in test or film_id not in validation:
            reason = "a test film" if film_id in test else "not a validation film"
            raise InputError(
                f"{place(folder / (film_id + SUFFIX))}: {reason}; the reference is the mean of validation films alone"
            )
    missing = sorted(validation - set(ids))
    if missing:
        raise InputError(
            f"{place(folder)}: no evidence of {len(missing)} validation films, such as {quoted(missing[0])}"
        )


def reference_logits(results: Path) -> dict[tuple[str, str], float]:
    """(view, task) -> mean logit of the reference films in whole forward passes, as their evidence files note them.

    With `ALL` for the films of all views. NaN where a probability was rounded to 0 or 1.
    """
    found: dict[tuple[str, str], list[float]] = {}
    for path in evidence_files(evidence_folder(results, "val")):
        facts = read_facts(path)
        for task, logit in zip(facts.probability, logits_of(np.array([*facts.probability.values()])), strict=True):
            for view in {ALL, facts.view or ALL}:
                found.setdefault((view, task), []).append(float(logit))
    return {key: float(np.mean(logits)) for key, logits in found.items()}
