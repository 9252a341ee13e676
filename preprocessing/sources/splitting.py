"""Splits by patient where a release has none, or none for validation."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import pandas as pd

from preprocessing.sources.columns import SPLITS

DRAWN = {"train": 0.7, "val": 0.1, "test": 0.2}
"""Shares of the patients where there is no official split."""

VALIDATION = {"val": 0.1, "train": 0.9}
"""Shares of the training patients where the official split has no validation part."""


def complete_split(films: pd.DataFrame, official: Sequence[str], seed: int) -> tuple[pd.DataFrame, Sequence[str], str]:
    """The films with `Split` filled where patients are known, the splits that must have films, and their origin.

    official: the parts of the release's split. `seed` makes the draw; the same patient always has the same place in it.
    """
    known = bool((films["Patient"] != "").all())
    if (films["Split"] != "").any():
        if "val" in official or "train" not in official or not known:
            return films, official, "official"
        training = films["Split"] == "train"
        split = films["Split"].mask(training, drawn(films["Patient"], VALIDATION, seed))
        return films.assign(Split=split), SPLITS, f"official; val drawn from the training patients with seed {seed}"
    if not known:
        return films, (), "none: patients are not known"
    return films.assign(Split=drawn(films["Patient"], DRAWN, seed)), SPLITS, f"drawn by patient with seed {seed}"


def drawn(patients: pd.Series, shares: dict[str, float], seed: int) -> pd.Series:
    """A split for each patient by the sha256 of `seed` and id: independent of the other patients and of the order."""
    return patients.map({patient: _share(patient, shares, seed) for patient in patients.unique()})


def _share(patient: str, shares: dict[str, float], seed: int) -> str:
    digest = hashlib.sha256(f"{seed} {patient}".encode()).digest()
    position = int.from_bytes(digest[:8]) / 2**64
    for split, share in shares.items():
        if position < share:
            return split
        position -= share
    return next(reversed(shares))
