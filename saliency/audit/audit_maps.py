"""The audit's view of a results folder, film by film: maps, their means per patch, and occlusion effects.

Maps are the corrected ones, of the crop, such that positive values speak for a label: neutral is 0 where a method is
signed. What a folder does not have is left out; no network is needed here.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from cxr.files import InputError, place
from cxr.heat_maps import HeatMapSource
from cxr.images import Crop
from cxr.names import (
    AUDITED,
    METHODS,
    PATCHES,
    PATCHES_RELATIVE,
    RELATIVE,
    SIGNED_CAM,
    SIGNED_CAM_RELATIVE,
    Protocol,
    evidence_folder,
    heat_map_folder,
)
from cxr.runs.fingerprints import films_fingerprint
from saliency.audit.curve_files import curve_file, read_curves
from saliency.audit.occlusion import closed_form_drops
from saliency.audit.occlusion_files import Occlusion, occlusion_file, read_occlusion
from saliency.cam import CAMS
from saliency.evidence.evidence_files import SUFFIX, read_facts, read_grids
from saliency.evidence.evidence_folders import EvidenceFolder, heat_map_source
from saliency.evidence.pixel_grid import PixelGrid
from saliency.evidence.shift_grid import ShiftGrid
from saliency.film_maps import crop_maps
from saliency.reference import Reference, RunningMeans, Settings

_PROTOCOL: Protocol = "corrected"
UNFILLED = "none"
"""Fill whose logit is 0: the patch's evidence is taken away. It stands for the others where no weights are at hand."""
VALIDATION = "validation"
"""Fill by the patches at that place of the validation films of the view, whose mean logit the reference holds."""


@dataclass(frozen=True)
class AuditedFilm:
    """A film of a results folder. pixels: (h, w) in [0, 1], the whole film in the frame of its maps; ground_truth:
    task -> 1, 0, or -1 where not labelled, of evidence files."""

    film_id: str
    crop: Crop
    pixels: np.ndarray
    ground_truth: Mapping[str, int]

    @property
    def crop_pixels(self) -> np.ndarray:
        """(S, S) in [0, 1]: the pixels under maps of the crop, to the nearest pixel."""
        return in_crop(self.pixels, self.crop)


@dataclass(frozen=True)
class TaskEvidence:
    """One film and task. maps: method -> (S, S) float32, of the crop; patches: method -> (k, k), their means over each
    patch; drops: fill -> (k, k), what the logit falls by when the patch is filled; curves: as `curve_files` has them,
    (method, fill) -> (3, T + 1), where they were made by forward passes."""

    maps: Mapping[str, np.ndarray]
    patches: Mapping[str, np.ndarray]
    drops: Mapping[str, np.ndarray]
    curves: Mapping[tuple[str, str], np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class ClosedForm:
    """The step from contributions to effects. lines: task -> factors and offsets (k, k) of `patch_lines`; fills:
    (film id, fill) -> task -> logit of a filled patch."""

    lines: Mapping[str, tuple[np.ndarray, np.ndarray]]
    fills: Mapping[tuple[str, str], Mapping[str, float]]

    def drops(self, film_id: str, task: str, contributions: np.ndarray) -> dict[str, np.ndarray]:
        """Fill -> (k, k)."""
        found = {fill: logits[task] for (film, fill), logits in self.fills.items() if film == film_id}
        wanted = found or {UNFILLED: 0.0}
        return {fill: closed_form_drops(contributions, logit, *self.lines[task]) for fill, logit in wanted.items()}


class AuditSource:
    """Test films of one results folder, with every method of `AUDITED` that the folder has.

    methods, tasks, film_ids: what there is; curve_films: films with a file of `curve_files`. lines: what is left out,
    for the user.
    """

    def __init__(
        self,
        results: Path,
        *,
        side: int,
        image_size: int,
        tasks: Sequence[str],
        closed_form: ClosedForm | None = None,
        forward: bool = False,
    ) -> None:
        """side: patches per axis. closed_form: of a patch network; forward: effects lie in the files of
        `occlusion_files`, else there are none. Raises InputError when the folder has no maps, or for damaged files.
        """
        self.results, self.side, self.image_size = results, side, image_size
        self.closed_form, self.forward = closed_form, forward
        self.curve_films: frozenset[str] = frozenset()
        self.lines: list[str] = []
        self._sources = self._open(tasks)
        if not self._sources:
            raise InputError(f"{place(results)}: no heat maps of the test films; evalClassification.py makes them")
        entries = {entry for source in self._sources.values() for entry in source.entries}
        self.film_ids = sorted({film for film, _ in entries})
        self.tasks = [task for task in tasks if any(task == of for _, of in entries)]
        self._cam_means = self._mean_cams() if forward else None

    def _open(self, tasks: Sequence[str]) -> dict[str, HeatMapSource]:
        """Method -> its maps, of pickles where there are some, else of evidence files."""
        pickles = heat_map_folder(self.results, _PROTOCOL, "test", "")
        folder = evidence_folder(self.results, "test")
        names = {path.name for path in pickles.iterdir() if path.is_dir()} if pickles.is_dir() else set()
        if not names and folder.is_dir():
            names = {method for protocol, method in EvidenceFolder.kinds(folder) if protocol == _PROTOCOL}
        chosen = [method for method in METHODS if method in names]
        return {method: heat_map_source(self.results, _PROTOCOL, "test", method, tasks) for method in chosen}

    def with_curves(self, films: Collection[str]) -> AuditSource:
        """The same source, with the files of `curve_files` of these films."""
        found = copy.copy(self)
        found.curve_films = frozenset(films)
        return found

    def fingerprint(self) -> dict[str, Any]:
        """Of the files of the maps, where no record says what they are."""
        folders = [heat_map_folder(self.results, _PROTOCOL, "test", method) for method in self._sources]
        folders.append(evidence_folder(self.results, "test"))
        files = sorted(path for folder in folders for path in folder.glob("*") if path.is_file())
        return films_fingerprint(files, self.results)

    @property
    def has_grids(self) -> bool:
        """Whether the logits of the patches are there."""
        return self._grid_source is not None

    @property
    def methods(self) -> list[str]:
        """In the order of `AUDITED`."""
        found = set(self._sources)
        found |= {PATCHES} if self.has_grids else set()
        found |= {PATCHES_RELATIVE} if self.has_grids and RELATIVE in self._sources else set()
        found |= {SIGNED_CAM} if self._cams else set()
        found |= {SIGNED_CAM_RELATIVE} if self._cam_means is not None else set()
        return [method for method in AUDITED if method in found]

    @property
    def _cams(self) -> bool:
        return self.forward and any(AUDITED[method].network == "baseline" for method in self._sources)

    def _mean_cams(self) -> Reference | None:
        """The mean signed CAM of the validation films by view; None where there are none."""
        paths = sorted(occlusion_file(self.results, "val", "x").parent.glob(f"*{SUFFIX}"))
        if not paths or not self._cams:
            return None
        means: RunningMeans | None = None
        for path in paths:
            occlusion = read_occlusion(path)
            facts = occlusion.facts
            means = means or RunningMeans(Settings(facts.weights, 0, 0, 0), facts.tasks)
            means.add(facts.view, [occlusion.cams[task] for task in means.tasks])
        found = means.result("") if means is not None else None
        self.lines += [f"warning: signed CAM, {line}" for line in (found.warnings if found is not None else ())]
        return found

    # ------------------------------------------------------------------------------------------------ one film

    def film(self, film_id: str) -> AuditedFilm:
        """Raises InputError when its file is missing or damaged."""
        source = next(iter(self._sources.values()))
        if isinstance(source, EvidenceFolder):
            facts, _ = read_grids(source.folder / f"{film_id}{SUFFIX}")
            return AuditedFilm(film_id, facts.crop, source.film_pixels(film_id), facts.ground_truth)
        task = next(task for film, task in source.entries if film == film_id)
        found = AuditedFilm(
            film_id, Crop.centred(*source.load(film_id, task).film_size), source.film_pixels(film_id), {}
        )
        self._check_size(found.crop_pixels, f"film of {film_id}")
        return found

    def ground_truth(self, film_id: str) -> dict[str, int]:
        """Task -> 1, 0, or -1 where the film is not labelled. Raises InputError when its file is missing or damaged."""
        source = next(iter(self._sources.values()))
        if isinstance(source, EvidenceFolder):
            return dict(read_facts(source.folder / f"{film_id}{SUFFIX}").ground_truth)
        return {task: source.load(film_id, task).ground_truth for film, task in source.entries if film == film_id}

    def evidence(self, film: AuditedFilm, task: str) -> TaskEvidence:
        """Raises InputError when a file is missing, damaged, or belongs to another network."""
        maps = self._heat_maps(film, task)
        patches, drops = self._patches(film, task)
        maps |= {method: self._enlarged(values, "nearest") for method, values in patches.items()}
        if self.forward:
            occlusion = read_occlusion(occlusion_file(self.results, "test", film.film_id))
            drops = {fill: occlusion.drops[fill, task] for fill in occlusion.facts.greys}
            maps |= self._signed_cams(occlusion, task)
        patches |= {method: square_means(maps[method], self.side) for method in maps.keys() - patches.keys()}
        has_curves = film.film_id in self.curve_films
        curves = read_curves(curve_file(self.results, film.film_id)).of_task(task) if has_curves else {}
        return TaskEvidence({method: maps[method] for method in self.methods}, patches, drops, curves)

    def _heat_maps(self, film: AuditedFilm, task: str) -> dict[str, np.ndarray]:
        found: dict[str, np.ndarray] = {}
        for methods, source in self._together():
            if isinstance(source, EvidenceFolder):
                evidence = source.evidence(film.film_id, task)
                found |= {m: plane[0].numpy() for m, plane in crop_maps(evidence, methods, _PROTOCOL).items()}
            else:
                plane = in_crop(source.load(film.film_id, task).map, film.crop)
                self._check_size(plane, f"{methods[0]} map of {film.film_id}, {task}")
                found |= {methods[0]: np.ascontiguousarray(plane)}
        return {method: values - np.float32(0.5 * METHODS[method].signed) for method, values in found.items()}

    def _check_size(self, plane: np.ndarray, what: str) -> None:
        if len(plane) != self.image_size:
            reason = f"{len(plane)} px where the network has {self.image_size}; export the heat maps again"
            raise InputError(f"{place(self.results, column=what)}: {reason}")

    def _together(self) -> list[tuple[list[str], HeatMapSource]]:
        """Methods whose maps follow from the same evidence, with a source that has it: the grid, or each by itself."""
        grid = [method for method in self._sources if method not in CAMS] if self.has_grids else []
        groups = [(grid, self._grid_source)] if self._grid_source is not None else []
        return [*groups, *(([method], self._sources[method]) for method in self._sources if method not in grid)]

    @property
    def _grid_source(self) -> EvidenceFolder | None:
        """Evidence files with grids; those of relative maps come with the reference."""
        found = [self._sources[method] for method in (RELATIVE, *self._sources) if method in self._sources]
        return next((s for s in found if isinstance(s, EvidenceFolder) and s.method not in CAMS), None)

    def _patches(self, film: AuditedFilm, task: str) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """The contributions of the unshifted patches, method -> (k, k), and their effects, fill -> (k, k)."""
        if self._grid_source is None:
            return {}, {}
        source = self._grid_source
        contributions = source.patch_logits(film.film_id, task).astype(np.float64) / self.side**2
        found = {PATCHES: contributions}
        drops = {} if self.closed_form is None else self.closed_form.drops(film.film_id, task, contributions)
        evidence = source.evidence(film.film_id, task) if source.reference is not None else None
        if evidence is not None and evidence.reference is not None:
            shifts = ShiftGrid(evidence.patch_size, evidence.steps_per_patch, evidence.image_size)
            reference = PixelGrid(shifts, evidence.stride).fill(evidence.reference[0])
            found[PATCHES_RELATIVE] = contributions - shifts.unshifted(reference).double().numpy() / self.side**2
            drops |= {VALIDATION: found[PATCHES_RELATIVE]} if drops else {}
        return found, drops

    def _signed_cams(self, occlusion: Occlusion, task: str) -> dict[str, np.ndarray]:
        if not self._cams:
            return {}
        cam = occlusion.cams[task]
        maps = {SIGNED_CAM: self._enlarged(cam, "bilinear")}
        if self._cam_means is not None:
            mean = self._cam_means.grid(occlusion.facts.view, task)
            maps[SIGNED_CAM_RELATIVE] = self._enlarged(cam - mean, "bilinear")
        return maps

    def _enlarged(self, values: np.ndarray, mode: str) -> np.ndarray:
        """(a, b) -> (S, S) float32."""
        size = (self.image_size, self.image_size)
        options = {} if mode == "nearest" else {"align_corners": False}
        return F.interpolate(torch.from_numpy(values)[None, None].float(), size, mode=mode, **options)[0, 0].numpy()


def in_crop(plane: np.ndarray, crop: Crop) -> np.ndarray:
    """(h, w) in the film's frame, S on the short side -> (S, S) of the crop, to the nearest pixel."""
    size, scale = min(plane.shape), min(plane.shape) / crop.side
    left, top = (min(round(start * scale), length - size) for start, length in
                 ((crop.left, plane.shape[1]), (crop.top, plane.shape[0])))  # fmt: skip
    return plane[top : top + size, left : left + size]


def square_means(values: np.ndarray, side: int) -> np.ndarray:
    """(S, S) -> (side, side) float64: means over equal squares. Raises ValueError when `side` does not divide S."""
    size = len(values) // side
    if values.shape != (size * side, size * side):
        raise ValueError(f"{side} squares a side do not fill a map of {values.shape}")
    return values.reshape(side, size, side, size).mean(axis=(1, 3), dtype=np.float64)
