"""What the audit reads of a results folder, film by film: maps, their means per patch, and occlusion effects.

Maps are the corrected ones, in the film's frame, such that positive values speak for a label: neutral is 0 where a
method is signed. What a folder does not have is left out; no network is needed here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
    SIGNED_CAM,
    SIGNED_CAM_RELATIVE,
    Protocol,
    evidence_folder,
    heat_map_folder,
    reference_file,
)
from cxr.runs.fingerprints import films_fingerprint
from saliency.evidence_files import SUFFIX, EvidenceFolder, Facts, heat_map_source, read_grids
from saliency.film_maps import to_film_frame
from saliency.occlusion import closed_form_drops
from saliency.occlusion_files import Occlusion, occlusion_file, read_occlusion
from saliency.patch_maps import ShiftGrid
from saliency.reference import Reference, RunningMeans, Settings, read_reference

_PROTOCOL: Protocol = "corrected"
UNFILLED = "none"
"""Fill whose logit is 0: the patch's evidence is taken away. It stands for the others where no weights are at hand."""
VALIDATION = "validation"
"""Fill by the patches at that place of the validation films of the view, whose mean logit the reference holds."""


@dataclass(frozen=True)
class AuditedFilm:
    """A film of a results folder. pixels: (h, w) in [0, 1], the whole film in the frame of its maps."""

    film_id: str
    view: str
    crop: Crop
    pixels: np.ndarray

    @property
    def crop_box(self) -> tuple[float, float, float, float]:
        """(left, top, right, bottom) of the crop in pixels of the frame."""
        scale = self.pixels.shape[1] / self.crop.film_width, self.pixels.shape[0] / self.crop.film_height
        left, top, right, bottom = self.crop.box
        return left * scale[0], top * scale[1], right * scale[0], bottom * scale[1]

    @property
    def crop_slices(self) -> tuple[slice, slice]:
        """Rows and columns of the frame that show the crop, to the nearest pixel."""
        left, top, right, bottom = (round(edge) for edge in self.crop_box)
        return slice(top, bottom), slice(left, right)


@dataclass(frozen=True)
class TaskEvidence:
    """One film and task. maps: method -> (h, w); patches: method -> (k, k) means of the map over each patch; drops:
    fill -> (k, k), what the logit falls by when the patch is filled; grid: (k, k) contributions, or None."""

    maps: Mapping[str, np.ndarray]
    patches: Mapping[str, np.ndarray]
    drops: Mapping[str, np.ndarray]
    ground_truth: int


@dataclass(frozen=True)
class ClosedForm:
    """What turns patch logits into effects. factors: task -> (k, k); fills: (film id, fill) -> task -> logit."""

    factors: Mapping[str, np.ndarray]
    fills: Mapping[tuple[str, str], Mapping[str, float]]

    def drops(self, film_id: str, task: str, patch_logits: np.ndarray) -> dict[str, np.ndarray]:
        """Fill -> (k, k)."""
        found = {fill: logits[task] for (film, fill), logits in self.fills.items() if film == film_id}
        wanted = found or {UNFILLED: 0.0}
        return {fill: closed_form_drops(patch_logits, of, self.factors[task]) for fill, of in wanted.items()}


class AuditSource:
    """Test films of one results folder, with every method of `AUDITED` that the folder has.

    methods, tasks, film_ids: what there is. lines: what is left out, for the user.
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
        self.lines: list[str] = []
        self._sources = self._open(tasks)
        if not self._sources:
            raise InputError(f"{place(results)}: no heat maps of the test films; evalClassification.py makes them")
        entries = {entry for source in self._sources.values() for entry in source.entries}
        self.film_ids = sorted({film for film, _ in entries})
        self.tasks = [task for task in tasks if any(task == of for _, of in entries)]
        self._reference = self._read_reference()
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

    def fingerprint(self) -> dict[str, Any]:
        """Of the files of the maps, where no record says what they are."""
        folders = [heat_map_folder(self.results, _PROTOCOL, "test", method) for method in self._sources]
        folders.append(evidence_folder(self.results, "test"))
        files = sorted(path for folder in folders for path in folder.glob("*") if path.is_file())
        return films_fingerprint(files, self.results)

    @property
    def has_grids(self) -> bool:
        return any(
            isinstance(source, EvidenceFolder) and AUDITED[method].network == "patch"
            for method, source in self._sources.items()
        )

    @property
    def methods(self) -> list[str]:
        """In the order of `AUDITED`."""
        found = set(self._sources)
        found |= {PATCHES} if self.has_grids else set()
        found |= {PATCHES_RELATIVE} if self.has_grids and self._reference is not None else set()
        found |= {SIGNED_CAM} if self._cams else set()
        found |= {SIGNED_CAM_RELATIVE} if self._cam_means is not None else set()
        return [method for method in AUDITED if method in found]

    @property
    def _cams(self) -> bool:
        return self.forward and any(AUDITED[method].network == "baseline" for method in self._sources)

    def _read_reference(self) -> Reference | None:
        path = reference_file(self.results)
        if self.has_grids and path.is_file():
            return read_reference(path)
        return None

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
        method, source = next(iter(self._sources.items()))
        if isinstance(source, EvidenceFolder):
            facts, _ = read_grids(source.folder / f"{film_id}{SUFFIX}")
            return AuditedFilm(film_id, facts.view, facts.crop, source.film_pixels(film_id))
        task = next(task for film, task in source.entries if film == film_id)
        crop = Crop.centred(*source.load(film_id, task).film_size)
        return AuditedFilm(film_id, "", crop, source.film_pixels(film_id))

    def evidence(self, film: AuditedFilm, task: str) -> TaskEvidence:
        """Raises InputError when a file is missing, damaged, or belongs to another network."""
        maps, patches, ground_truth = {}, {}, -1
        for method, source in self._sources.items():
            heat_map = source.load(film.film_id, task)
            maps[method] = heat_map.map - (0.5 if METHODS[method].signed else 0.0)
            ground_truth = heat_map.ground_truth
        own, drops = self._patches(film, task)
        maps |= {method: self._in_frame(values, film.crop, "nearest") for method, values in own.items()}
        if self.forward:
            occlusion = read_occlusion(occlusion_file(self.results, "test", film.film_id))
            drops = {fill: occlusion.drops[fill, task] for fill in occlusion.facts.greys}
            maps |= self._signed_cams(occlusion, film, task)
        for method, values in maps.items():
            patches[method] = own[method] if method in own else square_means(values, film.crop_box, self.side)
        return TaskEvidence(maps, patches, drops, ground_truth)

    def _patches(self, film: AuditedFilm, task: str) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """The patches of the unshifted grid, method -> (k, k), and their effects, fill -> (k, k)."""
        if not self.has_grids:
            return {}, {}
        folder = evidence_folder(self.results, "test")
        facts, grids = read_grids(folder / f"{film.film_id}{SUFFIX}")
        patch_logits = _unshifted(facts, grids[task])
        if self.closed_form is None:
            factors: np.ndarray | float = 1.0
            drops = {}
        else:
            factors = self.closed_form.factors[task]
            drops = self.closed_form.drops(film.film_id, task, patch_logits)
        found = {PATCHES: factors * patch_logits}
        if self._reference is not None:
            self._reference.require(facts.settings, place(folder / f"{film.film_id}{SUFFIX}"))
            mean = _unshifted(facts, self._reference.grid(facts.view, task))
            found[PATCHES_RELATIVE] = factors * (patch_logits - mean)
            drops |= {VALIDATION: found[PATCHES_RELATIVE]} if drops else {}
        return found, drops

    def _signed_cams(self, occlusion: Occlusion, film: AuditedFilm, task: str) -> dict[str, np.ndarray]:
        if not self._cams:
            return {}
        cam = occlusion.cams[task]
        maps = {SIGNED_CAM: self._in_frame(cam, film.crop, "bilinear")}
        if self._cam_means is not None:
            mean = self._cam_means.grid(occlusion.facts.view, task)
            maps[SIGNED_CAM_RELATIVE] = self._in_frame(cam - mean, film.crop, "bilinear")
        return maps

    def _in_frame(self, values: np.ndarray, crop: Crop, mode: str) -> np.ndarray:
        """(a, b) -> (h, w) float32: enlarged to the crop, at its place in the film."""
        size = (self.image_size, self.image_size)
        options = {} if mode == "nearest" else {"align_corners": False}
        enlarged = F.interpolate(torch.from_numpy(values)[None, None].float(), size, mode=mode, **options)[0]
        return to_film_frame(enlarged, crop, _PROTOCOL)[0].numpy()


def _unshifted(facts: Facts, grid: np.ndarray) -> np.ndarray:
    """(n, n) -> (k, k) float64."""
    shifts = ShiftGrid(facts.patch_size, facts.steps_per_patch, facts.image_size)
    return shifts.unshifted(torch.from_numpy(grid)).double().numpy()


def square_means(values: np.ndarray, box: tuple[float, float, float, float], side: int) -> np.ndarray:
    """(h, w) -> (side, side) float64: means over the squares of a box (left, top, right, bottom), in pixels.

    A pixel that lies in two squares counts in each with its share.
    """
    left, top, right, bottom = box
    down = _shares(top, bottom, side, values.shape[0])  # (side, h)
    across = _shares(left, right, side, values.shape[1])  # (side, w)
    return down @ values.astype(np.float64) @ across.T


def _shares(start: float, stop: float, side: int, length: int) -> np.ndarray:
    """(side, length): the weight of each pixel in the mean over each part of [start, stop]."""
    edges = np.linspace(start, stop, side + 1)
    pixels = np.arange(length)
    overlap = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)  # (side, length)
    overlap = np.clip(overlap, 0, None)
    return overlap / overlap.sum(axis=1, keepdims=True)
