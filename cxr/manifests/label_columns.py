"""Labels of a table of films: which columns hold them, and the values of their cells."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd

from cxr.files import InputError, place, quoted
from cxr.labels import CHEXPERT, LabelSet, UncertainOrKept, is_label_name, positions
from cxr.manifests.dataset_file import DATASET, DataSet, read_dataset
from cxr.manifests.table import read_table
from cxr.tables import line_of, no_column

_FACTS = ("Film", "Patient", "Study", "View", "Sex", "Age", "Split")
_CHEXPERT_FACTS = ("Sex", "Age", "Frontal/Lateral", "AP/PA")
_NAME_LABELS = f'name the labels in {DATASET} beside it: {{"labels": [...]}}'
COLUMNS_ARE_LABELS = f"; if it should not be one, {_NAME_LABELS}"
"""The way out where a column is taken for a label because nothing says which are."""


def table_labels(content: pd.DataFrame, table: Path, dataset: DataSet) -> LabelSet:
    """The labels of a table: those of `dataset.json`; CheXpert's where it has one of their columns; else every column
    that is not a known fact. Raises InputError where CheXpert's are incomplete, and where no column is left.
    """
    if dataset.labels is not None:
        return dataset.labels
    if any(label in content.columns for label in CHEXPERT.names):
        missing = [label for label in CHEXPERT.names if label not in content.columns]
        if missing:
            named = ", ".join(map(quoted, missing))
            raise InputError(
                f"{place(table)}: no column named {named}, of CheXpert's 14 labels; if they are not its labels, "
                f"{_NAME_LABELS}"
            )
        return CHEXPERT
    known = {"Path", *_FACTS, *_CHEXPERT_FACTS}
    names = [name for name in content.columns if name not in known]
    unusable = [name for name in names if not is_label_name(name)]
    if unusable:
        reason = "cannot be a label, whose name is a part of files' names (printable, without / and \\)"
        raise InputError(f"{place(table)}: the column {quoted(unusable[0])} {reason}; rename it, or {_NAME_LABELS}")
    if not names:
        reason = "no column of a label beside those that say what a film is"
        raise InputError(f"{place(table)}: {reason}; the header has: {', '.join(map(quoted, content.columns))}")
    return LabelSet.of(names)


def shared_labels(table: Path, network: LabelSet) -> LabelSet:
    """The labels of a network that a table has columns of, in the order of the data set, with its groups and tasks.

    Raises InputError when there are none.
    """
    columns, labels = list(read_table(table).columns), read_dataset(table).labels
    order = dict.fromkeys((*CHEXPERT.names, *columns)) if labels is None else labels.names
    shared = [name for name in order if name in columns and name in network.names]
    if not shared:
        wanted, found = (", ".join(map(quoted, names[:20])) for names in (network.names, columns))
        reason = f"none of the network's labels ({wanted}) is a column; the header has: {found}"
        raise InputError(f"{place(table)}: {reason}; evalClassification.py --map knows labels of other names")
    return (labels or network).restrict(shared)


def is_chexpert(content: pd.DataFrame) -> bool:
    """Whether a table has all of CheXpert's labels."""
    return set(CHEXPERT.names) <= set(content.columns)


_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)")
_UNCERTAIN_VALUE = {"zeros": 0.0, "ones": 1.0, "ignore": np.nan}


def label_values(
    content: pd.DataFrame,
    table: Path,
    label_set: LabelSet,
    blank_is_negative: bool,
    uncertain: UncertainOrKept,
    hint: str = "",
) -> np.ndarray:
    """(N, C) float32 in the order of `label_set`, whatever the order of the columns: 0, 1, NaN; -1 where it is kept.

    hint: the end of the message about a cell. Raises InputError for a label without a column, and for a cell that is
    not 1, 0, -1 (uncertain) or blank.
    """
    missing = [name for name in label_set.names if name not in content.columns]
    if missing:
        way_out = f"each label of {DATASET}, or of the network, needs its column"
        raise InputError(f"{place(table)}: {no_column(missing, list(content.columns))}; {way_out}")
    columns = positions(label_set.names, list(content.columns), place(table))
    values = np.empty((len(content), len(columns)), dtype=np.float32)
    for place_of_label, column in enumerate(columns):
        cells = content.iloc[:, column]
        codes, texts = pd.factorize(cells)
        numbers = [_label_value(text.strip(), blank_is_negative) for text in texts]
        if None in numbers:
            bad = numbers.index(None)
            line = line_of(content, int(content.index[np.argmax(codes == bad)]))
            where = place(table, line, label_set.names[place_of_label])
            reason = f"{quoted(texts[bad])} is not a label; expected 1, 0, -1 (uncertain) or nothing{hint}"
            raise InputError(f"{where}: {reason}")
        values[:, place_of_label] = np.array(numbers, dtype=np.float32)[codes]
    if uncertain != "keep":
        values[values == -1] = _UNCERTAIN_VALUE[uncertain]
    return values


def _label_value(text: str, blank_is_negative: bool) -> float | None:
    """1, 0, -1, NaN for a blank that means "not labelled", None for anything else."""
    if not text:
        return 0.0 if blank_is_negative else float("nan")
    value = float(text) if _NUMBER.fullmatch(text) else None
    return value if value in (0.0, 1.0, -1.0) else None
