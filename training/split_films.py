"""Films of a data folder for training and validation: read with the same labels, kept apart, and fingerprinted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from cxr.files import InputError, place, quoted, sha256
from cxr.manifests.dataset_file import DATASET
from cxr.manifests.films import Films, has_split, read_films
from cxr.manifests.label_columns import shared_labels
from cxr.manifests.leakage import check_apart
from cxr.manifests.splits import split_table
from cxr.paths import inside_release


def read_splits(data: Path, **chosen: Any) -> tuple[Films, Films]:
    """Films for training and for validation, with the same labels.

    chosen: options of `read_films` for the training films. Raises InputError for a missing table or an empty split, and
    for a patient or a film that is in two of training, validation and, where its table is there, test.
    """
    tables = [split_table(data, split) for split in ("train", "val")]
    for table in tables:
        if not table.is_file():
            raise InputError(f"--data {place(data)}: no {table.name} in this folder; is it what preprocessing wrote?")
    films = read_films(tables[0], data, split="train", **chosen)
    validation = read_films(tables[1], data, split="val", label_set=films.label_set)
    test = split_table(data, "test")
    if has_split(test, "test"):
        labels = shared_labels(test, films.label_set)
        check_apart(films, validation, read_films(test, data, split="test", label_set=labels))
    else:
        check_apart(films, validation)
    return films, validation


def one_sided_labels(films: Films) -> str:
    """Says which labels films cannot teach, because no film is positive, or none is negative; "" when there is none.

    Raises InputError when no film has any label at all.
    """
    if np.isnan(films.labels).all():
        raise InputError(f"{place(films.table)}: no film of training has a label; every label is blank")
    said = []
    for value, name in ((1, "positive"), (0, "negative")):
        there = (films.labels == value).any(axis=0)  # (C,)
        labels = [label for label, found in zip(films.label_set.names, there, strict=True) if not found]
        said += [f"no {name} film of {', '.join(map(quoted, labels))}"] if labels else []
    return f"{place(films.table)}: {'; '.join(said)} in training, which cannot be learnt" if said else ""


def fingerprints(films: Films, validation: Films) -> dict[str, Any]:
    """The part of the data that decides about the weights: tables, facts of the data set, labels, packed pixels."""
    facts = films.table.with_name(DATASET)
    packed = None if films.packed is None else films.packed.fingerprint(map(inside_release, films.paths))
    return {
        "labels": films.table.name,
        "labels_sha256": sha256(films.table),
        "validation_sha256": sha256(validation.table),
        "dataset_sha256": sha256(facts) if facts.is_file() else None,
        "label_set": list(films.label_set.names),
        "packed_films": packed,
    }
