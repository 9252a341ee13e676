"""Selection of films by patient."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from cxr.files import InputError, place


def chosen_patients(identity: pd.DataFrame, table: Path, fraction: float, among: np.ndarray) -> np.ndarray:
    """(N,) bool: the films of a share of the patients in `among`, spread evenly over the order of first appearance.

    fraction: in (0, 1]; with 1 nobody needs to be known. Raises InputError where a film's patient is not.
    """
    if not 0 < fraction <= 1:
        raise InputError(f"fraction of patients {fraction}: not in (0, 1]")
    if fraction == 1:
        return np.ones(len(identity), dtype=bool)
    units = identity["Patient"].to_numpy()[among]
    if (units == "").any():
        line = int(identity["line"].to_numpy()[among][int(np.argmax(units == ""))])
        reason = "no patient is known, so that no share of the patients can be chosen; fill in a column Patient"
        raise InputError(f"{place(table, line, 'Patient')}: {reason}")
    codes, names = pd.factorize(units)  # numbered in the order of first appearance
    position = np.arange(1, len(names) + 1)
    chosen = np.floor(position * fraction) > np.floor((position - 1) * fraction)
    kept = np.zeros(len(identity), dtype=bool)
    kept[among] = chosen[codes]
    return kept
