"""Films of a data set with the labels that it shares with a network: under the same names, or by a label mapping."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from cxr.files import InputError, place, quoted
from cxr.labels import LabelSet
from cxr.manifests.dataset_file import DATASET, read_dataset
from cxr.manifests.films import Films, read_films
from cxr.manifests.label_columns import shared_labels
from cxr.manifests.table import read_table
from cxr.mappings import Mapping, known_mappings


def shared_films(
    table: Path, root: Path, split: str, network: LabelSet, mapping: Mapping | None = None
) -> tuple[Films, list[str]]:
    """The films of a split with the labels that table and network share, and lines that say what either lacks.

    With a mapping the labels of the table become those of the network: a label of which a film says nothing, or only
    something uncertain, stays not labelled. Raises InputError as `read_films`, and where no label is shared.
    """
    if mapping is not None:
        return _mapped_films(table, root, split, network, mapping)
    shared = shared_labels(table, network)
    films = read_films(table, root, split=split, label_set=shared)
    return films, _lacking(f"{place(table)}: no column of", network.names, shared.names)


def _mapped_films(table: Path, root: Path, split: str, network: LabelSet, mapping: Mapping) -> tuple[Films, list[str]]:
    labels, name = read_dataset(table).labels, read_dataset(table).name
    if name != mapping.name and name in known_mappings():
        reason = f"these are films of {quoted(name)}, not of {quoted(mapping.name)}; --map {name}"
        raise InputError(f"{place(table.with_name(DATASET), column='name')}: {reason}")
    names = tuple(read_table(table).columns) if labels is None else labels.names
    rules = mapping.present(names).to_labels(network.names)
    parts = rules.parts(names)
    own = LabelSet(tuple(dict.fromkeys(part for of_label in parts.values() for part in of_label)))
    films = read_films(table, root, split=split, label_set=own, uncertain="keep")
    made = rules.apply(films.labels, own.names)
    made[made == -1] = np.nan
    shared = replace(network.restrict(rules.labels), shared=True)
    if labels is not None:
        shared = replace(shared, tasks=_tasks(parts, labels))
    films = replace(films, labels=made, label_set=shared, mapping=rules.to_json(names))
    return films, [_renamed(mapping.name, parts), *_lacking(f"mapping {mapping.name}: no", network.names, shared.names)]


def _tasks(parts: dict[str, tuple[str, ...]], own: LabelSet) -> dict[str, str]:
    """Label -> the task by which the data set's outlines call it; a label joined of several has none."""
    single = {label: of[0] for label, of in parts.items() if len(of) == 1}
    return {label: own.tasks[part] for label, part in single.items() if part in own.tasks}


def _renamed(name: str, parts: dict[str, tuple[str, ...]]) -> str:
    made = [f"{label} = {' or '.join(of)}" for label, of in parts.items() if of != (label,)]
    same = [label for label, of in parts.items() if of == (label,)]
    return f"mapping {name}: {', '.join([*made, *([f'{len(same)} labels under their own names'] if same else [])])}"


def _lacking(what: str, wanted: Sequence[str], found: Sequence[str]) -> list[str]:
    missing = [name for name in wanted if name not in found]
    return [f"{what} {', '.join(map(quoted, missing))}, left out of the evaluation"] if missing else []
