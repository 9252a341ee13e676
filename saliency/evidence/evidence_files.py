"""One file per film with the evidence that all its maps follow from, in the place of its heat-map pickles.

`<film id>.npz` holds `facts` (json text: crop, settings, and per task probability and ground truth) and float32 arrays,
one per task so that reading one map reads little: `grid <task>` (m, m), with a stride also `patches <task>` (k, k), the
logits of the unshifted patches, and `<CAM method> <task>` (h, w). `film` is the whole film, uint8, at the size of the
corrected maps; `page film`, where the original has more pixels, is a JPEG for reports. Nothing in it is pickled.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from cxr.files import InputError, place, printable, read_json, replacing
from cxr.heat_maps import HeatMap, HeatMapFolder, HeatMapSource
from cxr.images import Crop, resize
from cxr.names import (
    METHODS,
    REFERENCE,
    RELATIVE,
    RUN_RECORD,
    Protocol,
    evidence_folder,
    heat_map_folder,
    reference_file,
)
from saliency.cam import CAMS
from saliency.evidence.evidence_facts import WAY_OUT, Facts, FilmLabels, require_same
from saliency.evidence.npz import array_names, read_arrays
from saliency.evidence.page_film import NAME as _PAGE_FILM
from saliency.evidence.page_film import decoded_film
from saliency.film_maps import NEEDS_LINEAR, Evidence, check_methods, film_maps
from saliency.patch_maps import check_stride
from saliency.reference import Reference, read_reference

SUFFIX = ".npz"
_MAKE_REFERENCE = "evalClassification.py --heatmaps relative makes it of the validation films"
_FACTS, _FILM, _GRID, _PATCHES = "facts", "film", "grid", "patches"


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
    grids = {_GRID: evidence.grid, _PATCHES: evidence.patches}
    planes = dict(evidence.cams) | {kind: values for kind, values in grids.items() if values is not None}
    arrays = {
        f"{kind} {task}": plane.numpy()
        for kind, values in planes.items()
        for task, plane in zip(labels.tasks, values, strict=True)
    }
    pixels = (film * 255).round().to(torch.uint8).numpy()
    shown = {} if page_film is None else {_PAGE_FILM: page_film}
    if path.exists():
        facts, arrays = _merged(path, facts, arrays, pixels)
        shown = {name: arrays[name] for name in (_PAGE_FILM,) if name in arrays} | shown
    kinds = (*CAMS, _GRID, _PATCHES)
    ordered = [name for kind in kinds for task in facts.probability if (name := f"{kind} {task}") in arrays]
    content = {_FACTS: np.array(facts.to_json()), _FILM: pixels} | shown | {name: arrays[name] for name in ordered}
    with replacing(path) as temporary, open(temporary, "wb") as handle:
        np.savez(handle, **content)


def _merged(
    path: Path, facts: Facts, arrays: dict[str, np.ndarray], pixels: np.ndarray
) -> tuple[Facts, dict[str, np.ndarray]]:
    """The facts and arrays of a file together with new ones, which replace those of the same name."""
    stored_arrays = read_arrays(path)
    stored = _facts(path, stored_arrays.pop(_FACTS, None))
    if not np.array_equal(stored_arrays.pop(_FILM, np.empty(0)), pixels):
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
    same_grid = _holds_grid(stored) and _GRID in map(_kind_of, methods)
    fineness = {"steps_per_patch": steps_per_patch, "stride": stride} if same_grid else {}
    require_same(path, read_facts(path), {"weights": weights} | fineness)
    return {f"{_kind_of(method)} {task}" for method in methods for task in tasks} <= stored


def held_evidence(path: Path) -> list[tuple[str, str]]:
    """(kind, task) of the evidence in a file: a CAM, or `raw` for the grid of all evidence maps. None when damaged."""
    try:
        names = [name.partition(" ") for name in array_names(path)]
    except InputError:
        return []
    return [("raw" if kind == _GRID else kind, task) for kind, _, task in names if kind in (_GRID, *CAMS) and task]


class EvidenceFolder:
    """The evidence files of a folder as a source of one method's heat maps, like a folder of pickles."""

    def __init__(
        self,
        folder: Path,
        *,
        method: str,
        protocol: Protocol,
        tasks: Sequence[str],
        reference: Reference | None = None,
    ) -> None:
        """reference: for relative maps.

        Raises InputError for an unknown method, a damaged file, a file without evidence of the method, relative maps
        without a reference, and published maps of evidence with a stride.
        """
        check_methods([method])
        if method == RELATIVE and reference is None:
            raise InputError(f"{place(folder)}: relative maps need {REFERENCE}; {_MAKE_REFERENCE}")
        self.reference = reference
        self.folder = Path(folder)
        self.method = method
        self.protocol = protocol
        self.entries: list[tuple[str, str]] = []
        without = []
        paths = evidence_files(self.folder)
        if protocol == "published" and method not in CAMS:
            check_stride(protocol, read_facts(paths[0]).stride)
        for path in paths:
            stored = set(array_names(path))
            found = [task for task in tasks if f"{_kind_of(method)} {task}" in stored]
            self.entries += [(path.name.removesuffix(SUFFIX), task) for task in found]
            if not any(name.startswith(f"{_kind_of(method)} ") for name in stored):
                without.append(path.name)
        again = f"run evalClassification.py --heatmaps {method}"
        if not self.entries:
            raise InputError(f"{place(folder)}: no file in it holds evidence of {method}; {again}")
        if without:
            raise InputError(f"{place(folder, None, without[0])}: {len(without)} files without {method}; {again}")
        self.entries.sort()

    def load(self, film_id: str, task: str) -> HeatMap:
        """Makes one map. Raises InputError when the file is missing or damaged."""
        evidence, facts = self._evidence(film_id, task)
        with self._naming(film_id):
            pixels = film_maps(evidence, [self.method], self.protocol)[self.method][0].numpy()
            probability, ground_truth = facts.probability[task], facts.ground_truth[task]
        film_size = (evidence.crop.film_width, evidence.crop.film_height)
        return HeatMap(film_id, task, pixels, probability, ground_truth, film_size)

    def evidence(self, film_id: str, task: str) -> Evidence:
        """The evidence of one map, with C = 1. Raises InputError when the file is missing or damaged."""
        return self._evidence(film_id, task)[0]

    def film_pixels(self, film_id: str) -> np.ndarray:
        """(h, w) float32 in [0, 1]: the whole film, or under published maps the crop that they show."""
        facts, film = _read(self._path(film_id), _FILM, np.uint8)
        pixels = film.float() / 255  # (1, h, w)
        if self.protocol == "published":
            crop = Crop.centred(pixels.shape[2], pixels.shape[1])
            left, top, right, bottom = crop.box
            pixels = resize(pixels[:, top:bottom, left:right], facts.image_size)
        return pixels[0].numpy()

    def page_film(self, film_id: str) -> np.ndarray:
        """(h, w) float32 in [0, 1]: the whole film as large as the file holds it.

        Raises InputError when the file is missing or damaged.
        """
        path = self._path(film_id)
        if _PAGE_FILM not in array_names(path):
            return _read(path, _FILM, np.uint8)[1][0].numpy().astype(np.float32) / 255
        try:
            return decoded_film(read_arrays(path, [_PAGE_FILM])[_PAGE_FILM])
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise _unusable(path, error) from None

    def patch_logits(self, film_id: str, task: str) -> np.ndarray:
        """(k, k) float32: the logits of the unshifted patches, whose mean is the film's logit.

        Raises InputError when the file is missing, damaged, or holds no evidence grid of the task.
        """
        facts = read_facts(self._path(film_id))
        kind = _PATCHES if facts.stride > 1 else _GRID
        _, values = _read(self._path(film_id), f"{kind} {task}", np.float32)
        side = facts.image_size // facts.patch_size
        with self._naming(film_id):
            patches = values[0] if facts.stride > 1 else facts.grid.shifts.unshifted(values[0])
            if patches.shape != (side, side):
                raise ValueError(f"expected patches ({side}, {side}), found {tuple(patches.shape)}")
            return patches.numpy()

    @staticmethod
    def kinds(folder: Path) -> list[tuple[Protocol, str]]:
        """(protocol, method) of all maps that a folder `evidence/<split>` gives, sorted.

        Relative maps only beside a reference, scaled ones only of a linear aggregation, and of patch maps the published
        ones only without a stride. Raises InputError when there are none.
        """
        paths = evidence_files(folder)
        kinds = {name.partition(" ")[0] for path in paths for name in array_names(path)}
        results = Path(folder).parent.parent
        lacking = set() if reference_file(results).is_file() else {RELATIVE}
        lacking |= set() if recorded_linear(results) else set(NEEDS_LINEAR)
        has_gaps = _GRID in kinds and any(read_facts(path).stride > 1 for path in paths)
        methods = [m for m in METHODS if _kind_of(m) in kinds and m not in lacking]
        pairs = ((protocol, method) for method in methods for protocol in METHODS[method].protocols)
        return sorted(pair for pair in pairs if pair[0] != "published" or _kind_of(pair[1]) != _GRID or not has_gaps)

    def _evidence(self, film_id: str, task: str) -> tuple[Evidence, Facts]:
        facts, values = _read(self._path(film_id), f"{_kind_of(self.method)} {task}", np.float32)
        if self.method not in CAMS:
            check_stride(self.protocol, facts.stride)
        grid, cams = (None, {self.method: values}) if self.method in CAMS else (values, {})
        reference = None
        if self.method == RELATIVE and self.reference is not None:
            self.reference.require(facts.settings, place(self._path(film_id)))
            reference = torch.from_numpy(self.reference.grid(facts.view, task))[None]
        settings = (facts.patch_size, facts.steps_per_patch, facts.image_size)
        return Evidence(facts.crop, *settings, grid, cams, reference, facts.stride), facts

    @contextmanager
    def _naming(self, film_id: str) -> Iterator[None]:
        """Adds the film's file to an error about content that does not fit together."""
        try:
            yield
        except (KeyError, ValueError, RuntimeError) as error:
            raise _unusable(self._path(film_id), error) from None

    def _path(self, film_id: str) -> Path:
        return self.folder / f"{film_id}{SUFFIX}"


def heat_map_source(results: Path, protocol: Protocol, split: str, method: str, tasks: Sequence[str]) -> HeatMapSource:
    """The maps of a model's results folder: its pickles where there are some, else its evidence files of `tasks`.

    Raises InputError when it has neither.
    """
    pickles = heat_map_folder(results, protocol, split, method)
    if pickles.is_dir():
        return HeatMapFolder(pickles, tasks)
    if method in METHODS and protocol not in METHODS[method].protocols:
        raise InputError(f"{place(results)}: there are no {method} maps of the {protocol} protocol")
    if method in NEEDS_LINEAR and not recorded_linear(results):
        raise InputError(f"{place(results)}: no {method} maps: the network's aggregation is not linear ({RUN_RECORD})")
    reference = read_reference(reference_file(results)) if method == RELATIVE else None
    folder = evidence_folder(results, split)
    return EvidenceFolder(folder, method=method, protocol=protocol, tasks=tasks, reference=reference)


def recorded_linear(results: Path) -> bool:
    """Whether the aggregation of a results folder's network is certified linear; yes where nothing is recorded."""
    path = Path(results) / RUN_RECORD
    of_splits = read_json(path).get("certificates") if path.is_file() else None
    measured = of_splits.values() if isinstance(of_splits, dict) else ()
    return all(of_split.get("linear", True) is True for of_split in measured if isinstance(of_split, dict))


def _kind_of(method: str) -> str:
    """The first word of the names of the arrays that a method's maps follow from."""
    return method if method in CAMS else _GRID


def _holds_grid(names: Any) -> bool:
    return any(name.startswith(f"{_GRID} ") for name in names)


def evidence_files(folder: Path) -> list[Path]:
    """The files of a folder, sorted. Raises InputError when there are none."""
    files = sorted(Path(folder).glob(f"*{SUFFIX}"))
    if not files:
        reason = f"no evidence files (*{SUFFIX}) in it; evalClassification.py --no-pickles writes them"
        raise InputError(f"{place(folder)}: {reason}")
    return files


def read_grids(path: Path, tasks: Sequence[str] | None = None) -> tuple[Facts, dict[str, np.ndarray]]:
    """The facts of a file, and task -> evidence grid (m, m) float32, of `tasks` or of all that it has.

    Raises InputError when it is damaged, or lacks one of `tasks`.
    """
    facts = read_facts(path)
    if tasks is None:
        stored = set(array_names(path))
        tasks = [task for task in facts.probability if f"{_GRID} {task}" in stored]
    return facts, _read_squares(path, _GRID, tasks, facts.grid.m)


def read_patches(path: Path, tasks: Sequence[str]) -> dict[str, np.ndarray]:
    """Task -> values of the unshifted patches (k, k) float32. Raises InputError when the file is damaged."""
    facts = read_facts(path)
    k = facts.image_size // facts.patch_size
    if facts.stride > 1:
        return _read_squares(path, _PATCHES, tasks, k)
    shifts = facts.grid.shifts
    grids = _read_squares(path, _GRID, tasks, shifts.n)
    return {task: shifts.unshifted(torch.from_numpy(grid)).numpy() for task, grid in grids.items()}


def _read_squares(path: Path, kind: str, tasks: Sequence[str], m: int) -> dict[str, np.ndarray]:
    """Task -> the array of this kind (m, m)."""
    arrays = read_arrays(path, [f"{kind} {task}" for task in tasks])
    for name, values in arrays.items():
        if values.shape != (m, m) or values.dtype != np.float32 or not np.isfinite(values).all():
            raise _unusable(path, f"{name}: expected finite values ({m}, {m}), found {values.dtype} {values.shape}")
    return {task: arrays[f"{kind} {task}"] for task in tasks}


def read_facts(path: Path) -> Facts:
    """The facts of a file alone. Raises InputError when it is missing or damaged."""
    return _facts(path, read_arrays(path, [_FACTS])[_FACTS])


def _facts(path: Path, text: np.ndarray | None) -> Facts:
    try:
        return Facts.from_json(str(text))
    except (AttributeError, KeyError, OverflowError, RecursionError, TypeError, ValueError) as error:
        raise _unusable(path, error) from None


def _read(path: Path, name: str, kind: type[np.generic]) -> tuple[Facts, torch.Tensor]:
    """The facts and one array (h, w) of this kind, as (1, h, w)."""
    arrays = read_arrays(path, [_FACTS, name])
    facts, values = _facts(path, arrays[_FACTS]), arrays[name]
    if values.ndim != 2 or not values.size or values.dtype != kind or not np.isfinite(values).all():
        raise _unusable(path, f"{name}: kind {values.dtype}, shape {values.shape}, or values that are not finite")
    return facts, torch.from_numpy(values)[None]


def _unusable(path: Path, reason: object) -> InputError:
    line = printable(str(reason).partition("\n")[0][:200]) or type(reason).__name__
    return InputError(f"{place(path)}: not an evidence file of this program ({line}); delete it and run again")
