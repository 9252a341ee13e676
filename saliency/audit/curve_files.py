"""One npz per film with its deletion and insertion curves, where these need forward passes of the film.

`<film id>.npz` holds `facts` (json text) and float32 arrays (3, T + 1), `<method> <fill> <task>`: numbers of patches,
and the change of the logit after that many were filled, or came back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cxr.names import faithfulness_folder
from saliency.audit.film_arrays import film_arrays, write_film_arrays


def curve_file(results: Path, film_id: str) -> Path:
    return faithfulness_folder(results) / "curves" / "test" / f"{film_id}.npz"


@dataclass(frozen=True)
class CurveFacts:
    """weights: sha256; methods: those that have an order, and chance, whose order is random."""

    weights: str
    fills: Sequence[str]
    methods: Sequence[str]
    tasks: Sequence[str]


@dataclass(frozen=True)
class FilmCurves:
    """curves: (method, fill, task) -> (3, T + 1)."""

    facts: CurveFacts
    curves: Mapping[tuple[str, str, str], np.ndarray]

    def of_task(self, task: str) -> dict[tuple[str, str], np.ndarray]:
        """(method, fill) -> (3, T + 1); empty for a task without curves."""
        return {(method, fill): curve for (method, fill, of), curve in self.curves.items() if of == task}


def write_curves(path: Path, film: FilmCurves) -> None:
    """Writes one film's file, atomically."""
    write_film_arrays(path, film.facts, {" ".join(key): curve for key, curve in film.curves.items()})


def read_curves(path: Path) -> FilmCurves:
    """Raises InputError in one line when the file is missing, damaged, or holds something else."""
    with film_arrays(path) as (known, arrays):
        facts = CurveFacts(**known)
        keys = [(m, f, t) for m in facts.methods for f in facts.fills for t in facts.tasks]
        return FilmCurves(facts, {key: _curve(arrays[" ".join(key)]) for key in keys})


def _curve(values: np.ndarray) -> np.ndarray:
    if values.ndim != 2 or len(values) != 3 or values.dtype != np.float32 or not np.isfinite(values).all():
        raise ValueError(f"expected finite float32 (3, T + 1), found {values.dtype} {values.shape}")
    if values.shape[1] < 2 or values[0, 0] != 0 or (np.diff(values[0]) <= 0).any():
        raise ValueError("numbers of patches that do not rise from 0")
    return values.astype(np.float64)
