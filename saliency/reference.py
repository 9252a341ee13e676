"""The mean evidence of the validation films, per view: what an average film gives, so that a map shows what differs.

For a network whose logit is the mean over P patches, (patch logit - mean of that patch over the reference films) / P is
the exact interventional Shapley value of the patch with the reference films as background (Lundberg and Lee, NeurIPS
2017; Janzing et al., AISTATS 2020): no term of the logit holds two patches. No forward pass is needed for it.

`reference.npz` holds `facts` (json text) and one float32 array (m, m) per view and task, `<view> <task>`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from cxr.files import InputError, place, printable, quoted, replacing, sha256
from cxr.labels import LabelSet
from cxr.names import REFERENCE
from saliency.evidence.npz import read_arrays
from saliency.evidence.pixel_grid import PixelGrid
from saliency.evidence.shift_grid import ShiftGrid

ALL = "all"
"""The mean over all films; it stands for a view that has none."""
FEW_FILMS = 10
_FACTS = "facts"
_SETTINGS = ("weights", "patch_size", "steps_per_patch", "image_size", "stride")
_AGAIN = f"delete {REFERENCE} and run evalClassification.py --heatmaps relative again"


@dataclass(frozen=True)
class Settings:
    """Settings that the evidence of a film and the reference must share. weights: sha256, empty if not known."""

    weights: str
    patch_size: int
    steps_per_patch: int
    image_size: int
    stride: int = 1

    @property
    def grid(self) -> PixelGrid:
        """Where the starts of the evidence grids lie. Raises ValueError for sizes that do not go together."""
        return PixelGrid(ShiftGrid(self.patch_size, self.steps_per_patch, self.image_size), self.stride)

    def difference(self, other: Settings) -> str:
        """The first setting that differs, in words; empty for none."""
        differing = [name for name in _SETTINGS if getattr(self, name) != getattr(other, name)]
        if not differing:
            return ""
        ours, theirs = (quoted(getattr(settings, differing[0])) for settings in (self, other))
        return f"{differing[0].replace('_', ' ')} {theirs}, not {ours}"


@dataclass(frozen=True)
class Reference:
    """Mean evidence grids of F films.

    grids: (view, task) -> (m, m) float32, for `ALL` and every view that occurs; counts: view -> its films; films:
    sha256 over the films' ids.
    """

    settings: Settings
    tasks: tuple[str, ...]
    counts: Mapping[str, int]
    films: str
    grids: Mapping[tuple[str, str], np.ndarray]

    def view_for(self, view: str) -> str:
        """The view whose mean a film is compared with: its own, else `ALL`."""
        return view if view in self.counts else ALL

    def grid(self, view: str, task: str) -> np.ndarray:
        """(m, m) float32 for a film of this view. Raises InputError for a task without reference."""
        if task not in self.tasks:
            raise InputError(
                f"{REFERENCE}: no reference of {quoted(task)}; it has {', '.join(map(quoted, self.tasks))}, "
                "and that of all labels after evalClassification.py --all-labels"
            )
        return self.grids[self.view_for(view), task]

    def require(self, settings: Settings, where: str) -> None:
        """Raises InputError unless evidence with these settings may be compared with the reference."""
        difference = self.settings.difference(settings)
        if difference:
            raise InputError(
                f"{where}: evidence of another network or setting than {REFERENCE} ({difference}); {_AGAIN}"
            )

    def at_steps(self, steps_per_patch: int) -> Reference:
        """The reference of coarser shifts, whose starts are some of its own; those that a stride left out are filled.

        Raises InputError for steps that do not divide its own.
        """
        if self.settings.steps_per_patch % steps_per_patch:
            raise InputError(
                f"{REFERENCE}: has {self.settings.steps_per_patch} steps per patch, "
                f"which {quoted(steps_per_patch)} steps do not divide"
            )
        settings = replace(self.settings, steps_per_patch=steps_per_patch, stride=1)
        own, coarse = self.settings.grid.shifts, settings.grid.shifts
        first = own.lead - coarse.lead * (coarse.stride // own.stride)
        every = slice(first, None, coarse.stride // own.stride)
        grids = {key: self.settings.grid.fill(torch.from_numpy(grid)) for key, grid in self.grids.items()}
        return replace(self, settings=settings, grids={key: grid[every, every].numpy() for key, grid in grids.items()})

    def save_beside(self, weights: Path) -> bool:
        """Writes `reference.npz` beside a file of weights, when they are its own; returns whether it did."""
        if sha256(weights) != self.settings.weights:
            return False
        write_reference(weights.with_name(REFERENCE), self)
        return True

    def few(self, view: str) -> bool:
        return self.counts[view] < FEW_FILMS

    @property
    def warnings(self) -> list[str]:
        """One line per mean over fewer than `FEW_FILMS` films."""
        return [
            f"the reference of {'all views' if view == ALL else view} is the mean of {count} film{'s'[: count != 1]}; "
            f"relative maps need {FEW_FILMS} at least"
            for view, count in self.counts.items()
            if self.few(view)
        ]


class RunningMeans:
    """Means of evidence grids per view and of all films, float64, film by film: memory does not grow with the films."""

    def __init__(self, settings: Settings, tasks: Sequence[str]) -> None:
        self.settings, self.tasks = settings, tuple(tasks)
        self._counts: dict[str, int] = {}
        self._sums: dict[tuple[str, str], np.ndarray] = {}

    def add(self, view: str, grids: Iterable[np.ndarray]) -> None:
        """grids: (m, m) per task, in the order of the tasks; view: empty where it is not known."""
        values = [np.asarray(grid, np.float64) for grid in grids]
        for name in (ALL, view) if view else (ALL,):
            self._counts[name] = self._counts.get(name, 0) + 1
            for task, grid in zip(self.tasks, values, strict=True):
                self._sums[name, task] = self._sums.get((name, task), 0.0) + grid

    def result(self, films: str) -> Reference:
        """films: sha256 over the films' ids. Raises InputError when nothing was added."""
        if not self._counts:
            raise InputError(f"no {REFERENCE}: there are no validation films with evidence")
        grids = {key: (total / self._counts[key[0]]).astype(np.float32) for key, total in self._sums.items()}
        return Reference(self.settings, self.tasks, self._counts, films, grids)


def write_reference(path: Path, reference: Reference) -> None:
    """Writes `reference.npz`, atomically; no film can be recognised in it."""
    facts = {
        **asdict(reference.settings),
        "tasks": list(reference.tasks),
        "counts": dict(reference.counts),
        "films": reference.films,
    }
    grids = {f"{view} {task}": grid for (view, task), grid in reference.grids.items()}
    content: dict[str, Any] = {_FACTS: np.array(json.dumps(facts))} | grids
    with replacing(path) as temporary, open(temporary, "wb") as handle:
        np.savez(handle, **content)


def read_reference(path: Path) -> Reference:
    """Raises InputError in one line when the file is missing, damaged, or holds something else."""
    arrays = read_arrays(path)
    try:
        facts = json.loads(str(arrays.pop(_FACTS)))
        sizes = {name: _size(facts.get(name, 1 if name == "stride" else None)) for name in _SETTINGS[1:]}
        settings = Settings(str(facts["weights"]), **sizes)
        m = settings.grid.m
        tasks, counts = tuple(map(str, facts["tasks"])), {str(view): _size(c) for view, c in facts["counts"].items()}
        grids = {(view, task): _grid(arrays[f"{view} {task}"], m) for view in counts for task in tasks}
        if ALL not in counts or not tasks:
            raise ValueError("no mean over all films, or no task")
        return Reference(settings, tasks, counts, str(facts["films"]), grids)
    except (AttributeError, KeyError, OverflowError, RecursionError, TypeError, ValueError) as error:
        line = printable(str(error).partition("\n")[0][:200])
        raise InputError(f"{place(path)}: not a reference of this program ({line}); {_AGAIN}") from None


class LabelledNetwork(Protocol):
    """Facts about a network that say which references are its own; `models.patch_net.MedicalPatchNet` has them."""

    patch_size: int
    image_size: int
    label_set: LabelSet


def reference_of(path: Path, model: LabelledNetwork, weights: Path) -> Reference | None:
    """Reads the reference of a network from `path`; None when there is none. weights: the file with its tensors.

    Raises InputError when the reference is of other weights, sizes or labels.
    """
    if not path.is_file():
        return None
    reference = read_reference(path)
    sizes = {"patch_size": model.patch_size, "image_size": model.image_size}
    expected = replace(reference.settings, weights=sha256(weights), **sizes)
    difference = expected.difference(reference.settings)
    known = {model.label_set.task_of(label) for label in model.label_set.names}
    unknown = [task for task in reference.tasks if task not in known]
    if difference or unknown:
        reason = difference or f"{quoted(unknown[0])} is not a label of the weights"
        raise InputError(
            f"{place(path)}: the reference of other weights than {place(weights)} ({reason}); delete it, or run "
            "convertWeights.py describe with the results of these weights"
        )
    return reference


def _size(value: Any) -> int:
    if type(value) is not int or not 0 < value <= 2**20:
        raise ValueError(f"{quoted(value)} is not a whole positive number")
    return value


def _grid(values: np.ndarray, m: int) -> np.ndarray:
    if values.shape != (m, m) or values.dtype != np.float32 or not np.isfinite(values).all():
        raise ValueError(f"expected finite float32 grids ({m}, {m}), found {values.dtype} {values.shape}")
    return values
