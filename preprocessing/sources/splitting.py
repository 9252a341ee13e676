"""Splits by patient where a release has none, or none for validation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pandas as pd

from cxr.manifest import DRAWN_SHARES, SPLITS, drawn_split

VALIDATION_SHARES = {"val": 0.1, "test": 0.0}
"""Shares of the training patients where the official split has no validation part."""


@dataclass(frozen=True)
class Split:
    """Where the split of a manifest comes from. expected: its parts; shares, seed: of what was drawn."""

    origin: str
    expected: Sequence[str] = ()
    shares: Mapping[str, float] = field(default_factory=dict)
    seed: int | None = None

    def to_json(self) -> dict[str, object]:
        """For dataset.json."""
        return {"origin": self.origin} | ({} if self.seed is None else {"seed": self.seed, **self.shares})


def complete_split(films: pd.DataFrame, official: Sequence[str], seed: int) -> tuple[pd.DataFrame, Split]:
    """The films with `Split` filled where patients are known. official: the parts of the release's own split."""
    known = bool((films["Patient"] != "").all())
    if (films["Split"] != "").any():
        if "val" in official or "train" not in official or not known:
            return films, Split("official", official)
        shares, chosen = VALIDATION_SHARES, films["Split"] == "train"
        split = Split("official; val drawn from the patients of train", SPLITS, shares, seed)
    elif not known:
        return films, Split("none: patients are not known")
    else:
        shares, chosen = DRAWN_SHARES, pd.Series(True, index=films.index)
        split = Split("drawn by patient", SPLITS, shares, seed)
    patients = films["Patient"][chosen]
    places = {patient: drawn_split(patient, shares, seed) for patient in patients.unique()}
    return films.assign(Split=films["Split"].mask(chosen, patients.map(places))), split
