"""How exactly maps and predictions add up, measured over the films of a split."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cxr.files import place
from saliency.evidence.evidence_facts import Facts
from saliency.map_predictions import MapNumbers, logits_of, mean_of_map
from saliency.reference import Reference


@dataclass
class Largest:
    """The largest error over films and labels. films: on how many it was measured."""

    films: int = 0
    max_error: float = 0.0

    def add(self, errors: np.ndarray) -> None:
        """errors: (C,) of one film; NaN for labels whose probability was rounded to 0 or 1, which says no logit."""
        known = np.abs(errors[np.isfinite(errors)])
        self.films += 1
        self.max_error = max(self.max_error, *known.tolist(), 0.0)

    def to_json(self) -> dict[str, Any]:
        return {"films": self.films, "max_error": self.max_error}


@dataclass
class MapCertificates:
    """Identities of evidence grids, measured film by film.

    unshifted: mean of the unshifted patch logits = logit of the whole forward pass.
    fine: mean of the raw map, its pixels weighted by their number of patches = mean of all patch logits, weighted by
    the part of the patch inside the crop. border: that mean - the mean over shifts, which is a difference, no error.
    shapley: sum of the relative contributions = logit - mean logit of the reference films of the view.

    reference: None without relative maps; reference_logits: (view, task) -> mean logit of its films.
    """

    reference: Reference | None
    reference_logits: Mapping[tuple[str, str], float]
    unshifted: Largest = field(default_factory=Largest)
    fine: Largest = field(default_factory=Largest)
    border: Largest = field(default_factory=Largest)
    shapley: Largest = field(default_factory=Largest)
    average: Reference | None = field(init=False)

    def __post_init__(self) -> None:
        self.average = None if self.reference is None else self.reference.at_steps(1)  # (k, k)

    def add(
        self,
        path: Path,
        facts: Facts,
        grids: Mapping[str, np.ndarray],
        patches: Mapping[str, np.ndarray],
        numbers: MapNumbers,
        *,
        makes_map: bool,
    ) -> None:
        """grids: task -> (n, n), filled, of the evidence file `path`; patches: task -> the unshifted ones (k, k).

        numbers: of the grids. makes_map: for `fine`.

        Raises InputError for evidence of another network or setting than the reference's.
        """
        shifts = facts.grid.shifts
        logits = logits_of(np.array([facts.probability[task] for task in grids]))  # (C,)
        self.unshifted.add(np.array([patches[task].mean(dtype=np.float64) for task in grids]) - logits)
        self.border.add(numbers.inside - numbers.mean)
        if makes_map:
            self.fine.add(mean_of_map(np.stack(list(grids.values())), shifts) - numbers.inside)
        if self.reference is not None and self.average is not None:
            self.reference.require(facts.settings, place(path))
            view = self.reference.view_for(facts.view)
            average = [self.average.grid(view, task).mean(dtype=np.float64) for task in grids]
            of_films = np.array([self.reference_logits[view, task] for task in grids])
            self.shapley.add((numbers.unshifted - np.array(average)) - (logits - of_films))

    def to_json(self) -> dict[str, Any]:
        """As `run.json` holds them for a split."""
        found = {"unshifted_additivity": self.unshifted, "fine_additivity": self.fine, "shapley_identity": self.shapley}
        measured = {name: of.to_json() for name, of in found.items() if of.films}
        measured["fine_additivity"]["largest_border_effect"] = self.border.max_error
        return measured

    def __str__(self) -> str:
        shapley = f", relative ones to the difference from the average film within {self.shapley.max_error:.1e}"
        return (
            f"unshifted patches add up to the logit within {self.unshifted.max_error:.1e}"
            f"{shapley if self.shapley.films else ''}; fine maps to their own mean within {self.fine.max_error:.1e}, "
            f"which the border moves by {self.border.max_error:.2f} at most away from the mean of all shifts"
        )
