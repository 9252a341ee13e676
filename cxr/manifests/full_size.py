"""The films that heat maps are made of: CheXlocalize's at full size, or those of a manifest."""

from __future__ import annotations

from pathlib import Path

from cxr.files import InputError, place
from cxr.labels import LabelSet
from cxr.manifests.films import Films, has_split, read_films
from cxr.manifests.label_columns import shared_labels
from cxr.manifests.splits import split_table
from cxr.pixels.grey import Grey, recorded_grey


def full_size_table(root: Path, split: str) -> Path:
    """The table of a split: of CheXlocalize's own films, or of a manifest. It need not exist."""
    chexlocalize = root / "CheXpert" / f"{split}_labels.csv"
    manifest = split_table(root, split)
    return manifest if manifest.is_file() and not chexlocalize.is_file() else chexlocalize


def full_size_grey(root: Path, data: Path | None, films: Films) -> Grey:
    """The rule to read them by: that of the copies in `data`, unless `root` holds copies, which are plain 8 bit."""
    recorded = None if data is None or recorded_grey(root) else recorded_grey(data)
    return recorded or films.grey


def read_full_size(root: Path, split: str, network: LabelSet) -> Films:
    """The films of a split with the labels that table and network share. Raises InputError when there are none."""
    table = full_size_table(root, split)
    if not has_split(table, split):
        reason = f"no films of {split} in it" if table.is_file() else "no such table"
        raise InputError(f"{place(table)}: {reason}; give the folder of full-size films that the heat maps are made of")
    return read_films(table, table.parent, split=split, label_set=shared_labels(table, network))
