"""Selection of films: those of a split, of some patients, of one view."""

from __future__ import annotations

import numpy as np
import pandas as pd

from cxr.files import InputError


def chosen_patients(identity: pd.DataFrame, patients: slice, fraction: float, among: np.ndarray) -> np.ndarray:
    """(N,) bool. Raises InputError for a choice of patients where nobody's patient is known."""
    if not 0 < fraction <= 1:
        raise InputError(f"fraction of patients {fraction} is not in (0, 1]")
    if patients == slice(None) and fraction == 1:
        return np.ones(len(identity), dtype=bool)
    units = identity["Patient"].to_numpy()[among]
    if (units == "").any():
        line = int(identity["line"].to_numpy()[among][int(np.argmax(units == ""))])
        raise InputError(f"line {line}: no patient is known, so none can be chosen (fraction); add a column Patient")
    codes, names = pd.factorize(units)  # numbered in the order of first appearance
    in_range = np.zeros(len(names), dtype=bool)
    in_range[patients] = True
    position = np.cumsum(in_range)
    chosen = in_range & (np.floor(position * fraction) > np.floor((position - 1) * fraction))
    kept = np.zeros(len(identity), dtype=bool)
    kept[among] = chosen[codes]
    return kept
