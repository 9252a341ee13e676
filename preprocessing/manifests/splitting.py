"""Splits by patient where a release has none, or none for validation."""

from __future__ import annotations

from typing import Any

import pandas as pd

from cxr.manifests.splits import DRAWN_SHARES, drawn_split

VALIDATION_SHARES = {"val": 0.1, "test": 0.0}
"""Shares of the training patients where the official split is one of train and test only."""


def complete_split(films: pd.DataFrame, seed: int) -> tuple[pd.DataFrame, dict[str, Any]]:
    """The films with `Split` filled where patients are known, and its origin, seed and shares for dataset.json."""
    known = bool((films["Patient"] != "").all())
    official = set(films["Split"]) - {""}
    if not official and not known:
        return films, {"origin": "none: patients are not known"}
    if official and not (official == {"train", "test"} and known):
        return films, {"origin": "official"}
    if official:
        origin, shares = "official; val drawn from the patients of train", VALIDATION_SHARES
    else:
        origin, shares = "drawn by patient", DRAWN_SHARES
    chosen = films["Split"] == ("train" if official else "")
    patients = films["Patient"][chosen]
    places = {patient: drawn_split(patient, shares, seed) for patient in patients.unique()}
    split = films["Split"].mask(chosen, patients.map(places))
    return films.assign(Split=split), {"origin": origin, "seed": seed, **shares}
