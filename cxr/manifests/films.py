"""Films of a table: who and what each is, its labels, and the file that holds it.

A manifest is a folder with `films.csv` (or `.parquet`) and `dataset.json`. CheXpert's own tables are manifests as they
are: `train.csv`, `train_visualCheXbert.csv`, `valid.csv` (full and `-small` release), CheXlocalize's `val_labels.csv`
and `test_labels.csv`; so is the `metadata.csv` of a Hugging Face ImageFolder. Columns are found by name, in any order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cxr.files import InputError, place, quoted
from cxr.labels import LabelSet, UncertainOrKept
from cxr.manifests.dataset_file import DATASET, DataSet, read_dataset
from cxr.manifests.film_files import located, located_packed
from cxr.manifests.identity import film_identity
from cxr.manifests.label_columns import COLUMNS_ARE_LABELS, is_chexpert, label_values, table_labels
from cxr.manifests.selection import chosen_patients
from cxr.manifests.splits import holds_splits, in_split
from cxr.manifests.table import read_table
from cxr.packed import PackedFilms, open_packed
from cxr.paths import projection_of
from cxr.pixels.grey import PREPROCESSING, Grey
from cxr.tables import each_text


@dataclass(frozen=True)
class Films:
    """N films of a table, in its order.

    labels: (N, C) float32, C labels of `label_set`: 0, 1, or NaN where a film is not labelled or its label is ignored.
    ids, patients, studies, views, sexes, ages: text, empty where unknown; ids are unique. lines: each film's line in
    `table`. files: the images, or the arrays that hold them when the films are `packed`. grey: the rule to read them.
    mapping: what the labels were made of, where they are not the table's own, as `cxr.mappings` records it.
    """

    table: Path
    label_set: LabelSet
    paths: tuple[str, ...]
    ids: tuple[str, ...]
    patients: tuple[str, ...]
    studies: tuple[str, ...]
    views: tuple[str, ...]
    sexes: tuple[str, ...]
    ages: tuple[str, ...]
    lines: tuple[int, ...]
    files: Sequence[Path]
    labels: np.ndarray
    packed: PackedFilms | None = None
    grey: Grey = Grey.STORED
    mapping: Mapping[str, Any] | None = None

    def __len__(self) -> int:
        return len(self.paths)

    def where(self, index: int) -> str:
        """The file and line that a film comes from, for messages."""
        return place(self.table, self.lines[index])


_COLUMNS = {"ids": "Film", "patients": "Patient", "studies": "Study", "views": "View", "sexes": "Sex", "ages": "Age"}


def read_films(
    table: Path,
    root: Path,
    *,
    split: str | None = None,
    label_set: LabelSet | None = None,
    uncertain: UncertainOrKept = "zeros",
    frontal_only: bool = False,
    fraction: float = 1.0,
) -> Films:
    """Reads a table; film paths in it are below `root` (see `FilmFinder`).

    split: of a manifest that holds several, the one to keep; None keeps all rows. label_set: the labels wanted; None
    takes those of `dataset.json`, CheXpert's where the table has one of their columns, else every further column.
    uncertain: what -1 becomes; `ignore` gives NaN, `keep` leaves it. fraction: of the patients, spread evenly over
    their order in the table, in (0, 1].

    Raises InputError, naming file, line and column, for a missing column, an unknown label value, a repeated or unsafe
    path, two films with one id, a missing film, and for a selection that leaves nothing.
    """
    table, root = Path(table), Path(root)
    content, dataset = read_table(table), read_dataset(table)
    hint = COLUMNS_ARE_LABELS if label_set is None and dataset.labels is None and not is_chexpert(content) else ""
    label_set = label_set or table_labels(content, table, dataset)
    identity = film_identity(content, table)
    keep = np.ones(len(content), dtype=bool)
    if split is not None:
        keep &= in_split(identity, table, split, dataset.shares, dataset.seed)
    if not keep.any():
        raise InputError(f"{place(table)}: no film of split {quoted(split)}; put films into it in the column Split")
    keep &= chosen_patients(identity, table, fraction, keep)
    if frontal_only:
        keep &= (each_text(identity["View"], projection_of) != "lateral").to_numpy()
    if not keep.any():
        raise InputError(f"{place(table)}: no film is left of those chosen (frontal only, share of the patients)")
    negative = is_chexpert(content) if dataset.blank_is_negative is None else dataset.blank_is_negative
    labels = label_values(content, table, label_set, negative, uncertain, hint)
    if not keep.all():
        identity, labels = identity[keep], labels[keep]
    films = _located(table, root, identity, label_set, labels)
    return replace(films, grey=_grey(table, root, dataset))


def _grey(table: Path, root: Path, dataset: DataSet) -> Grey:
    """The data set's rule for films as they are; copies were made by it and are plain 8 bit."""
    if (root / PREPROCESSING).is_file():
        return Grey.STORED
    return Grey.from_json(dataset.grey, place(table.with_name(DATASET)))


def has_split(table: Path, split: str) -> bool:
    """Whether a table is there and holds films of a split."""
    table = Path(table)
    if not table.is_file() or not holds_splits(table):
        return table.is_file()
    dataset = read_dataset(table)
    return bool(in_split(film_identity(read_table(table), table), table, split, dataset.shares, dataset.seed).any())


def _located(table: Path, root: Path, identity: pd.DataFrame, label_set: LabelSet, labels: np.ndarray) -> Films:
    """Films with the files that hold them. Raises InputError for one that is not there."""
    packed = open_packed(root)
    paths = _texts(identity["Path"])
    lines = tuple(identity["line"].tolist())
    files = located(paths, lines, table, root) if packed is None else located_packed(paths, lines, table, packed)
    columns: dict[str, Any] = {field: _texts(identity[name]) for field, name in _COLUMNS.items()}
    return Films(table, label_set, paths, lines=lines, files=files, labels=labels, packed=packed, **columns)


def _texts(column: pd.Series) -> tuple[str, ...]:
    return tuple(column.to_numpy(dtype=object))
