"""One film compared with the average film of its view: contributions and maps of the difference.

For the mean aggregation, logit = logit of the average film + sum over the patches of (patch logit - average) / P,
exactly; the terms are the patches' Shapley values (see `saliency.reference`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from cxr.files import InputError, quoted
from cxr.names import RELATIVE
from saliency.film_maps import Evidence, film_maps
from saliency.reference import ALL, Reference

DEFAULT_STEPS = 8


@dataclass(frozen=True)
class Comparison:
    """view: whose mean the film is compared with, films: of how many; note: why it is not that of the film's own view.

    average: (C,), the logits of the average film; values: (P, C), what each patch adds to them, in row-major order.
    Both float64, NaN for a label without reference.
    """

    view: str
    films: int
    note: str
    average: np.ndarray
    values: np.ndarray

    @property
    def sums(self) -> np.ndarray:
        """(C,): logit - average."""
        return self.values.sum(axis=0)

    def facts(self) -> dict[str, Any]:
        """As json: whose mean the film is compared with, of how many films, and what is to be said about it."""
        return {"compared_with": self.view, "films": self.films, "note": self.note}

    def has(self, label: int) -> bool:
        """Whether there is a reference of a label."""
        return bool(np.isfinite(self.average[label]))

    def shares(self, label: int) -> np.ndarray:
        """(P,): each patch's part of the sum; they add up to 1. 0 where the sum is 0."""
        total = self.sums[label]
        return self.values[:, label] / total if total else np.zeros(len(self.values))


def compared(values: np.ndarray, reference: Reference, tasks: Sequence[str], view: str) -> Comparison:
    """values: (P, C), contributions of a film's patches; tasks: of the C labels; view: frontal, lateral, or empty."""
    chosen = reference.view_for(view)
    unshifted = reference.at_steps(1)
    average = np.full(values.shape, np.nan)
    for label, task in enumerate(tasks):
        if task in reference.tasks:
            average[:, label] = unshifted.grid(chosen, task).reshape(-1).astype(np.float64) / len(values)
    note = view_note(reference, view)
    return Comparison(chosen, reference.counts[chosen], note, average.sum(axis=0), values - average)


def view_note(reference: Reference, view: str) -> str:
    """Why a film of this view is not compared with its own view, or with few films; empty where all is well."""
    chosen = reference.view_for(view)
    if chosen == ALL:
        why = f"no reference film is {view}" if view else "the film's view is not known"
        return f"{why}: compared with the mean of all {reference.counts[ALL]} reference films"
    few = reference.few(chosen)
    return f"the reference of {chosen} films is the mean of {reference.counts[chosen]} only" if few else ""


def relative_maps(
    evidence: Evidence, labels: Sequence[str], tasks: Sequence[str], reference: Reference, view: str
) -> dict[str, np.ndarray]:
    """Label -> map (h, w) float32 in [0, 1] in the film's frame, 0.5 neutral, for the labels that have a reference.

    Raises InputError when the steps of the evidence do not divide those of the reference.
    """
    rows = [row for row, task in enumerate(tasks) if task in reference.tasks]
    if evidence.grid is None or not rows:
        return {}
    coarse = reference.at_steps(evidence.steps_per_patch)
    chosen = coarse.view_for(view)
    starts = evidence.pixels.starts
    means = torch.stack([torch.from_numpy(coarse.grid(chosen, tasks[row]))[starts][:, starts] for row in rows])
    part = replace(evidence, grid=evidence.grid[rows], cams={}, reference=means)
    maps = film_maps(part, [RELATIVE], "corrected")[RELATIVE].numpy()
    return {labels[row]: heat for row, heat in zip(rows, maps, strict=True)}


def fitting_steps(reference: Reference | None, steps_per_patch: int | None) -> int:
    """The steps of a film's maps: those asked for, else `DEFAULT_STEPS`, or with a reference the most that it allows.

    Raises InputError for steps that do not divide the reference's, which lacks patches that such maps would need.
    """
    if reference is None:
        return steps_per_patch or DEFAULT_STEPS
    steps = reference.settings.steps_per_patch
    if steps_per_patch is None:
        return max(s for s in range(1, DEFAULT_STEPS + 1) if steps % s == 0)
    if steps % steps_per_patch:
        raise InputError(
            f"{quoted(steps_per_patch)} steps per patch do not divide the {steps} of the weights' reference.npz, "
            "without which there are no relative maps; give a divisor, or leave the option out"
        )
    return steps_per_patch
