"""Splits: the table and rows of the films of training, validation and test; no patient may be in two of them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from cxr.files import InputError, place, quoted
from cxr.tables import each_text

FILMS = "films.csv"
SPLITS = ("train", "val", "test")
DRAWN_SHARES = {"val": 0.1, "test": 0.2}
"""Shares of the patients that validation and test get where no table says who belongs where."""

_TABLES = {
    "train": ("train_visualCheXbert.csv", "train.csv"),
    "val": ("valid.csv",),
    "test": ("test_labels.csv",),
}
_MANIFESTS = ("films", "metadata")
"""Stems of the tables that hold all splits."""


def table_folders(root: Path) -> list[Path]:
    """Where CheXpert's tables may lie: the data folder, and the batches of the official download in it."""
    return [root, *sorted(folder for folder in root.glob("CheXpert-v1.0 batch*") if folder.is_dir())]


def split_table(root: Path, split: str) -> Path:
    """The table that lists a split's films: `films.csv` of a manifest, else CheXpert's.

    Of the training tables VisualCheXbert's is preferred, as published. The path need not exist: the last name is then
    returned. An official download as it unpacks keeps its tables in the folder of a batch.
    """
    for name in (FILMS, "films.parquet", "metadata.csv"):
        if (root / name).is_file():
            return root / name
    found = (folder / name for name in _TABLES[split] for folder in table_folders(root) if (folder / name).is_file())
    return next(found, root / _TABLES[split][-1])


def in_split(identity: pd.DataFrame, table: Path, split: str, shares: Mapping[str, float], seed: int) -> np.ndarray:
    """(N,) bool: the films of one split. CheXpert has a table per split, a manifest a column; else patients are drawn.

    identity: as `film_identity` gives it. Raises InputError for an unknown split, a patient in two splits,
    and where splits must be drawn and a film's patient is unknown.
    """
    if not holds_splits(table):
        return np.ones(len(identity), dtype=bool)
    splits = given_splits(identity, table)
    if (splits == "").all():
        if (identity["Patient"] == "").any():
            line = identity["line"].iloc[int(np.argmax(identity["Patient"] == ""))]
            reason = "no patient is known, so no splits can be drawn; fill in a column Patient or Split"
            raise InputError(f"{place(table, line, 'Patient')}: {reason}")
        splits = each_text(identity["Patient"], lambda patient: drawn_split(patient, shares, seed))
    check_patients_in_one_split(identity["Patient"], splits, identity["line"], table)
    return (splits == split).to_numpy()


def holds_splits(table: Path) -> bool:
    """Whether a table is a manifest's, which lists the films of all splits."""
    return table.stem in _MANIFESTS


_WRITTEN = {"valid": "val", "validation": "val", "validate": "val"}


def given_splits(identity: pd.DataFrame, table: Path) -> pd.Series:
    """(N,) train, val, test, or blank, of the column Split. Raises InputError for another word."""
    splits = each_text(identity["Split"], lambda split: _WRITTEN.get(split.lower(), split.lower()))
    unknown = np.flatnonzero(~splits.isin([*SPLITS, ""]))
    if len(unknown):
        line, text = identity["line"].iloc[unknown[0]], identity["Split"].iloc[unknown[0]]
        raise InputError(f"{place(table, line, 'Split')}: {quoted(text)}; expected train, val or test, or blank")
    return splits


def drawn_split(patient: str, shares: Mapping[str, float], seed: int) -> str:
    """The split of a patient, by a hash of (seed, patient): the same whoever else is in the table."""
    digest = hashlib.sha256(f"{seed}/{patient}".encode()).digest()
    position = int.from_bytes(digest[:8], "big") / 2**64  # uniform in [0, 1)
    if position < shares["test"]:
        return "test"
    return "val" if position < shares["test"] + shares["val"] else "train"


def check_patients_in_one_split(
    patients: Sequence[str] | pd.Series,
    splits: Sequence[str] | pd.Series,
    lines: Sequence[int] | pd.Series,
    table: Path,
) -> None:
    """Raises InputError, naming both lines, when a patient's films are in two splits."""
    named = pd.DataFrame({"patient": patients, "split": splits})
    named = named[(named["patient"] != "") & (named["split"] != "")]
    if len(named.drop_duplicates()) == named["patient"].nunique():
        return
    seen: dict[str, tuple[str, int]] = {}
    for patient, split, line in zip(patients, splits, lines, strict=True):
        if not patient or not split:
            continue
        first, first_line = seen.setdefault(patient, (split, line))
        if first != split:
            reason = f"patient {quoted(patient)} is in {split}, and in {first} on line {first_line}"
            raise InputError(f"{place(table, line, 'Split')}: {reason}; a patient belongs to one split")
