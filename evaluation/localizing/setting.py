"""Masks and options of a localization, which all methods, protocols and results folders share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from evaluation.film_statistics import Resampling
from evaluation.localizing.controls import without_method
from evaluation.localizing.location_prior import LocationPrior
from evaluation.localizing.outlined_films import OutlinedFilms


@dataclass(frozen=True)
class Setting:
    """draw: makes the picture of a folder's curves."""

    validation: OutlinedFilms
    test: OutlinedFilms
    search: str
    resamples: int
    seed: int
    unit: str
    workers: int
    draw: Callable[[Path], object]

    @property
    def options(self) -> dict[str, Any]:
        return {
            "search": self.search,
            "resamples": self.resamples,
            "seed": self.seed,
            "resample_unit": self.unit,
        }

    @property
    def inputs(self) -> dict[str, Any]:
        return {"val": self.validation.fingerprint, "test": self.test.fingerprint}

    @property
    def tasks(self) -> list[str]:
        return sorted({*self.validation.truth.tasks, *self.test.truth.tasks})

    def draws(self, films: Sequence[str]) -> Resampling:
        """Raises InputError when patients are to be drawn and a film's patient is unknown."""
        return self.test.resampling(films, resamples=self.resamples, seed=self.seed, unit=self.unit)

    @cached_property
    def prior(self) -> LocationPrior:
        return LocationPrior.of(self.validation)

    @cached_property
    def without_method(self) -> pd.DataFrame:
        return without_method(self.prior, self.test, search=self.search, workers=self.workers)
