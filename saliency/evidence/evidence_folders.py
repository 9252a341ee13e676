"""Folders of evidence files as sources of heat maps, in the place of folders of pickles."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from cxr.files import InputError, place, read_json
from cxr.heat_maps import HeatMap, HeatMapFolder, HeatMapSource
from cxr.images import Crop
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
from cxr.pixels.tensors import resize
from saliency.cam import CAMS
from saliency.evidence.evidence_facts import Facts, require_same
from saliency.evidence.evidence_files import (
    FILM,
    GRID,
    PAGE_FILM,
    PATCHES,
    SUFFIX,
    kind_of,
    read_facts,
    read_planes,
    unusable,
)
from saliency.evidence.npz import array_names, read_arrays
from saliency.evidence.page_film import decoded_film
from saliency.film_maps import NEEDS_LINEAR, Evidence, check_methods, film_maps
from saliency.patch_maps import check_stride
from saliency.reference import Reference, read_reference

_MAKE_REFERENCE = "evalClassification.py --heatmaps relative makes it of the validation films"


class _FilmPlanes(NamedTuple):
    """Arrays that the maps of one film are made of: task -> (1, h, w)."""

    film_id: str
    facts: Facts
    of_task: dict[str, Tensor]


class EvidenceFolder:
    """The evidence files of a folder as a source of one method's heat maps, like a folder of pickles.

    A film's file is read once while its maps are asked for one after the other; one film is kept in memory.
    """

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

        Raises InputError for an unknown method, a damaged file, a file without evidence of the method, or of another
        network or fineness than the first, relative maps without a reference, and published maps of evidence with a
        stride.
        """
        check_methods([method])
        if method == RELATIVE and reference is None:
            raise InputError(f"{place(folder)}: relative maps need {REFERENCE}; {_MAKE_REFERENCE}")
        self.reference = reference
        self.folder = Path(folder)
        self.method = method
        self.protocol = protocol
        self._tasks: dict[str, list[str]] = {}
        self._last: _FilmPlanes | None = None
        without = []
        paths = evidence_files(self.folder)
        if protocol == "published" and method not in CAMS:
            check_stride(protocol, read_facts(paths[0]).stride)
        _require_one_origin(paths, with_fineness=method not in CAMS)
        for path in paths:
            stored = set(array_names(path))
            held = [task for task in tasks if f"{kind_of(method)} {task}" in stored]
            self._tasks[path.name.removesuffix(SUFFIX)] = held
            if not any(name.startswith(f"{kind_of(method)} ") for name in stored):
                without.append(path.name)
        self.entries = sorted((film_id, task) for film_id, held in self._tasks.items() for task in held)
        again = f"run evalClassification.py --heatmaps {method}"
        if not self.entries:
            raise InputError(f"{place(folder)}: no file in it holds evidence of {method}; {again}")
        if without:
            raise InputError(f"{place(folder, None, without[0])}: {len(without)} files without {method}; {again}")

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
        facts, planes = read_planes(self._path(film_id), [FILM], np.uint8)
        pixels = planes[FILM].float() / 255  # (1, h, w)
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
        if PAGE_FILM not in array_names(path):
            return read_planes(path, [FILM], np.uint8)[1][FILM][0].numpy().astype(np.float32) / 255
        try:
            return decoded_film(read_arrays(path, [PAGE_FILM])[PAGE_FILM])
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise unusable(path, error) from None

    def patch_logits(self, film_id: str, task: str) -> np.ndarray:
        """(k, k) float32: the logits of the unshifted patches, whose mean is the film's logit.

        Raises InputError when the file is missing, damaged, or holds no evidence grid of the task.
        """
        facts = read_facts(self._path(film_id))
        kind = PATCHES if facts.stride > 1 else GRID
        _, planes = read_planes(self._path(film_id), [f"{kind} {task}"], np.float32)
        side = facts.image_size // facts.patch_size
        with self._naming(film_id):
            (values,) = planes[f"{kind} {task}"]  # (k, k) or (m, m)
            patches = values if facts.stride > 1 else facts.grid.shifts.unshifted(values)
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
        has_gaps = GRID in kinds and any(read_facts(path).stride > 1 for path in paths)
        methods = [m for m in METHODS if kind_of(m) in kinds and m not in lacking]
        pairs = ((protocol, method) for method in methods for protocol in METHODS[method].protocols)
        return sorted(pair for pair in pairs if pair[0] != "published" or kind_of(pair[1]) != GRID or not has_gaps)

    def _evidence(self, film_id: str, task: str) -> tuple[Evidence, Facts]:
        _, facts, planes = self._planes(film_id, task)
        values = planes[task]  # (1, m, m) or (1, h, w)
        if self.method not in CAMS:
            check_stride(self.protocol, facts.stride)
        grid, cams = (None, {self.method: values}) if self.method in CAMS else (values, {})
        reference = None
        if self.method == RELATIVE and self.reference is not None:
            self.reference.require(facts.settings, place(self._path(film_id)))
            reference = torch.from_numpy(self.reference.grid(facts.view, task))[None]
        settings = (facts.patch_size, facts.steps_per_patch, facts.image_size)
        return Evidence(facts.crop, *settings, grid, cams, reference, facts.stride), facts

    def _planes(self, film_id: str, task: str) -> _FilmPlanes:
        """The film's arrays of all tasks, read unless it is the film that was read last."""
        if self._last is None or self._last.film_id != film_id or task not in self._last.of_task:
            names = {of: f"{kind_of(self.method)} {of}" for of in (*self._tasks.get(film_id, ()), task)}
            facts, planes = read_planes(self._path(film_id), list(names.values()), np.float32)
            self._last = _FilmPlanes(film_id, facts, {of: planes[name] for of, name in names.items()})
        return self._last

    @contextmanager
    def _naming(self, film_id: str) -> Iterator[None]:
        """Adds the film's file to an error about content that does not fit together."""
        try:
            yield
        except (KeyError, ValueError, RuntimeError) as error:
            raise unusable(self._path(film_id), error) from None

    def _path(self, film_id: str) -> Path:
        return self.folder / f"{film_id}{SUFFIX}"


def _require_one_origin(paths: Sequence[Path], *, with_fineness: bool) -> None:
    """Raises InputError for a file of another network than the first, or of other steps or another stride."""
    shared = ("weights", "patch_size", "image_size", *(("steps_per_patch", "stride") if with_fineness else ()))
    first = read_facts(paths[0]) if len(paths) > 1 else None
    for path in paths[1:]:
        require_same(path, read_facts(path), {name: getattr(first, name) for name in shared})


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


def evidence_files(folder: Path) -> list[Path]:
    """The files of a folder, sorted. Raises InputError when there are none."""
    files = sorted(Path(folder).glob(f"*{SUFFIX}"))
    if not files:
        reason = f"no evidence files (*{SUFFIX}) in it; evalClassification.py --no-pickles writes them"
        raise InputError(f"{place(folder)}: {reason}")
    return files
