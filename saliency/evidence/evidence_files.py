"""One file per film with the evidence that all its maps follow from, in the place of its heat-map pickles.

`<film id>.npz` holds `facts` (json text: crop, settings, and per task probability and ground truth) and float32 arrays,
one per task so that reading one map reads little: `grid <task>` (m, m), with a stride also `patches <task>` (k, k), the
logits of the unshifted patches, and `<CAM method> <task>` (h, w). `film` is the whole film, uint8, at the size of the
corrected maps; `page film`, where the original has more pixels, is a JPEG for reports. Nothing in it is pickled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cxr.files import InputError, place, printable, replacing
from saliency.cam import CAMS
from saliency.evidence.evidence_facts import WAY_OUT, Facts, FilmLabels, require_same
from saliency.evidence.npz import array_names, read_arrays
from saliency.evidence.page_film import NAME as PAGE_FILM
from saliency.film_maps import Evidence

SUFFIX = ".npz"
FILM, GRID, PATCHES = "film", "grid", "patches"
"""The film's array; first words of the names of the arrays of evidence grids and of unshifted patches."""
_FACTS = "facts"


def write_evidence(
    path: Path,
    evidence: Evidence,
    labels: FilmLabels,
    film: torch.Tensor,
    weights: str = "",
    page_film: np.ndarray | None = None,
) -> None:
    """Writes one film's evidence, atomically; the maps made of the file are those of `film_maps`, to the last bit.

    film: (h, w) in [0, 1], the whole film at the size of the corrected maps. weights: sha256 of the network's weights.
    page_film: as `saliency.evidence.page_film.encoded_film` makes it.
    Evidence of other methods or tasks in an existing file is kept. Raises InputError when the file is damaged, or
    belongs to another film, network or setting: nothing is written then.
    """
    facts = Facts(
        evidence.crop,
        evidence.patch_size,
        evidence.steps_per_patch,
        evidence.image_size,
        dict(zip(labels.tasks, labels.probabilities, strict=True)),
        dict(zip(labels.tasks, labels.ground_truth, strict=True)),
        weights,
        labels.view,
        evidence.stride,
    )
    grids = {GRID: evidence.grid, PATCHES: evidence.patches}
    planes = dict(evidence.cams) | {kind: values for kind, values in grids.items() if values is not None}
    arrays = {
        f"{kind} {task}": plane.numpy()
        for kind, values in planes.items()
        for task, plane in zip(labels.tasks, values, strict=True)
    }
    pixels = (film * 255).round().to(torch.uint8).numpy()
    shown = {} if page_film is None else {PAGE_FILM: page_film}
    if path.exists():
        facts, arrays = _merged(path, facts, arrays, pixels)
        shown = {name: arrays[name] for name in (PAGE_FILM,) if name in arrays} | shown
    kinds = (*CAMS, GRID, PATCHES)
    ordered = [name for kind in kinds for task in facts.probability if (name := f"{kind} {task}") in arrays]
    content = {_FACTS: np.array(facts.to_json()), FILM: pixels} | shown | {name: arrays[name] for name in ordered}
    with replacing(path) as temporary, open(temporary, "wb") as handle:
        np.savez(handle, **content)


def _merged(
    path: Path, facts: Facts, arrays: dict[str, np.ndarray], pixels: np.ndarray
) -> tuple[Facts, dict[str, np.ndarray]]:
    """The facts and arrays of a file together with new ones, which replace those of the same name."""
    stored_arrays = read_arrays(path)
    stored = _facts(path, stored_arrays.pop(_FACTS, None))
    if not np.array_equal(stored_arrays.pop(FILM, np.empty(0)), pixels):
        raise InputError(f"{place(path)}: evidence of a film with other pixels; {WAY_OUT}")
    has_grid = [_holds_grid(names) for names in (stored_arrays, arrays)]
    wanted = {name: getattr(facts, name) for name in ("patch_size", "image_size", "weights")}
    fineness = {name: getattr(facts, name) for name in ("steps_per_patch", "stride")}
    require_same(path, stored, wanted | (fineness if all(has_grid) else {}))
    of_grid = facts if has_grid[1] else stored
    together = replace(
        facts,
        steps_per_patch=of_grid.steps_per_patch,
        stride=of_grid.stride,
        probability={**stored.probability, **facts.probability},
        ground_truth={**stored.ground_truth, **facts.ground_truth},
        weights=facts.weights or stored.weights,
        view=facts.view or stored.view,
    )
    return together, stored_arrays | arrays


def holds_evidence(
    path: Path,
    methods: Sequence[str],
    tasks: Sequence[str],
    *,
    steps_per_patch: int,
    stride: int = 1,
    weights: str = "",
) -> bool:
    """Whether a film's file holds the evidence of all methods and tasks.

    Raises InputError when it is damaged, or was made by another network or with other steps or another stride.
    """
    if not path.is_file():
        return False
    stored = set(array_names(path))
    same_grid = _holds_grid(stored) and GRID in map(kind_of, methods)
    fineness = {"steps_per_patch": steps_per_patch, "stride": stride} if same_grid else {}
    require_same(path, read_facts(path), {"weights": weights} | fineness)
    return {f"{kind_of(method)} {task}" for method in methods for task in tasks} <= stored


def held_evidence(path: Path) -> list[tuple[str, str]]:
    """(kind, task) of the evidence in a file: a CAM, or `raw` for the grid of all evidence maps. None when damaged."""
    try:
        names = [name.partition(" ") for name in array_names(path)]
    except InputError:
        return []
    return [("raw" if kind == GRID else kind, task) for kind, _, task in names if kind in (GRID, *CAMS) and task]


def kind_of(method: str) -> str:
    """The first word of the names of the arrays that a method's maps follow from."""
    return method if method in CAMS else GRID


def _holds_grid(names: Any) -> bool:
    return any(name.startswith(f"{GRID} ") for name in names)


def read_grids(path: Path, tasks: Sequence[str] | None = None) -> tuple[Facts, dict[str, np.ndarray]]:
    """The facts of a file, and task -> evidence grid (m, m) float32, of `tasks` or of all that it has.

    Raises InputError when it is damaged, or lacks one of `tasks`.
    """
    facts = read_facts(path)
    if tasks is None:
        stored = set(array_names(path))
        tasks = [task for task in facts.probability if f"{GRID} {task}" in stored]
    return facts, _read_squares(path, GRID, tasks, facts.grid.m)


def read_patches(path: Path, tasks: Sequence[str]) -> dict[str, np.ndarray]:
    """Task -> values of the unshifted patches (k, k) float32. Raises InputError when the file is damaged."""
    facts = read_facts(path)
    k = facts.image_size // facts.patch_size
    if facts.stride > 1:
        return _read_squares(path, PATCHES, tasks, k)
    shifts = facts.grid.shifts
    grids = _read_squares(path, GRID, tasks, shifts.n)
    return {task: shifts.unshifted(torch.from_numpy(grid)).numpy() for task, grid in grids.items()}


def _read_squares(path: Path, kind: str, tasks: Sequence[str], m: int) -> dict[str, np.ndarray]:
    """Task -> the array of this kind (m, m)."""
    arrays = read_arrays(path, [f"{kind} {task}" for task in tasks])
    for name, values in arrays.items():
        if values.shape != (m, m) or values.dtype != np.float32 or not np.isfinite(values).all():
            raise unusable(path, f"{name}: expected finite values ({m}, {m}), found {values.dtype} {values.shape}")
    return {task: arrays[f"{kind} {task}"] for task in tasks}


def read_facts(path: Path) -> Facts:
    """The facts of a file alone. Raises InputError when it is missing or damaged."""
    return _facts(path, read_arrays(path, [_FACTS])[_FACTS])


def _facts(path: Path, text: np.ndarray | None) -> Facts:
    try:
        return Facts.from_json(str(text))
    except (AttributeError, KeyError, OverflowError, RecursionError, TypeError, ValueError) as error:
        raise unusable(path, error) from None


def read_planes(path: Path, names: Sequence[str], kind: type[np.generic]) -> tuple[Facts, dict[str, torch.Tensor]]:
    """The facts, and name -> array (h, w) of this kind, as (1, h, w), in one reading of the file.

    Raises InputError when the file is missing or damaged, or lacks one of the arrays.
    """
    arrays = read_arrays(path, [_FACTS, *names])
    facts = _facts(path, arrays.pop(_FACTS))
    for name, values in arrays.items():
        if values.ndim != 2 or not values.size or values.dtype != kind or not np.isfinite(values).all():
            raise unusable(path, f"{name}: kind {values.dtype}, shape {values.shape}, or values that are not finite")
    return facts, {name: torch.from_numpy(values)[None] for name, values in arrays.items()}


def unusable(path: Path, reason: object) -> InputError:
    """The error about a file whose content does not fit together."""
    line = printable(str(reason).partition("\n")[0][:200]) or type(reason).__name__
    return InputError(f"{place(path)}: not an evidence file of this program ({line}); delete it and run again")
