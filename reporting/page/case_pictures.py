"""The pictures of the page's case viewer: films, their maps as one small grey picture, mask outlines, patch logits."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from contourpy import contour_generator
from PIL import Image

from cxr.files import InputError
from cxr.heat_maps import HeatMap, HeatMapSource
from cxr.images import Crop
from cxr.labels import LabelSet
from cxr.masks import GroundTruth
from cxr.names import METHODS, PROTOCOLS
from reporting.outlines import TRUE_OUTLINE
from reporting.page.case_list import OUTCOMES, CaseList
from reporting.page.film_sizes import FILM_SIDE, STEPS, FilmSize, film_uri
from reporting.page.pictures import data_uri
from reporting.pictures.case_grid import in_crop, mask_of, resized, square
from reporting.pictures.overlays import LOGIT_RANGE, NEUTRAL, evidence_scale

MAP_SIDE = 48
"""Pixels of a map: six per patch width of the published 8 x 8 patches; the browser interpolates."""

MASK_SIDE = 160
LEVELS = 127
"""An evidence map is stored as 128 + 127 * (distance from neutral / the largest one), a CAM as 255 * its value."""

ACROSS = 8
"""Maps side by side in the picture that holds all maps of a film."""


class PatchSource(Protocol):
    """Where the logits of the unshifted patches are known."""

    @property
    def entries(self) -> Sequence[tuple[str, str]]:
        """(image id, task) of every film and task."""

    def patch_logits(self, image_id: str, task: str) -> np.ndarray:
        """(k, k), rows from the top. Raises InputError when they cannot be had."""


class PageFilms(Protocol):
    """Where films are held larger than their maps."""

    @property
    def entries(self) -> Sequence[tuple[str, str]]:
        """(image id, task) of every film and task."""

    def page_film(self, image_id: str) -> np.ndarray:
        """(h, w) float32 in [0, 1]: the whole film. Raises InputError when it cannot be had."""


@dataclass(frozen=True)
class MapSources:
    """maps: (protocol, method) -> the test films' maps; patches, ground_truth, films_large: None where there are none;
    missing: a line on every part that is not there; outline: the name of an outline of `ground_truth`."""

    maps: Mapping[tuple[str, str], HeatMapSource]
    patches: PatchSource | None = None
    ground_truth: GroundTruth | None = None
    missing: tuple[str, ...] = ()
    films_large: PageFilms | None = None
    outline: str = TRUE_OUTLINE

    @cached_property
    def entries(self) -> dict[tuple[str, str], frozenset[tuple[str, str]]]:
        """(image id, task) of the maps of each protocol and method."""
        return {key: frozenset(source.entries) for key, source in self.maps.items()}

    @cached_property
    def patch_entries(self) -> frozenset[tuple[str, str]]:
        return frozenset(self.patches.entries) if self.patches is not None else frozenset()

    @cached_property
    def large(self) -> frozenset[str]:
        """Films that are held larger than their maps."""
        return frozenset(name for name, _ in self.films_large.entries) if self.films_large is not None else frozenset()

    @property
    def films(self) -> set[str]:
        return {name for entries in self.entries.values() for name, _ in entries}


def by_priority(cases: CaseList, films: set[str]) -> Iterator[int]:
    """Rows of the list that are in `films`, each once, those to be shown first.

    In turn over the pathologies and the outcomes the film of which the first model is surest, right or wrong; ties in
    the list's order. So a page that has no room for all films shows every kind of case.
    """
    first = next(iter(cases.probabilities.values()))
    queues: dict[tuple[str, str], list[int]] = {}
    for label in map(cases.labels.label_of, cases.tasks):
        if label not in cases.labels.names:
            continue
        column = cases.labels.index(label)
        order = np.argsort(-np.abs(first[:, column] - 0.5), kind="stable").tolist()  # NaN last
        for outcome in (*OUTCOMES, ""):
            queues[label, outcome] = [
                i for i in order if cases.films[i] in films and cases.outcome(i, column) == outcome
            ]
    taken: set[int] = set()
    waiting = [iter(queue) for queue in queues.values()]
    while waiting:
        for queue in list(waiting):
            row = next((i for i in queue if i not in taken), None)
            if row is None:
                waiting.remove(queue)
            else:
                taken.add(row)
                yield row


def film_pictures(name: str, sources: MapSources, labels: LabelSet, size: FilmSize = STEPS[0]) -> dict[str, Any]:
    """Everything that the viewer shows of a film, ready for json.

    film: a JPEG of this size; crop: left, top, width, height of the networks' square in shares of the film; sheet: a
    lossless WebP with all maps; maps: "protocol method" -> label -> place in the sheet, x and y of the maximum in
    thousandths of the map, and, of an evidence map, the logit of full colour;
    masks: label -> outlines in thousandths of the picture; patches: label -> rows of patch logits.
    Raises InputError when a file is damaged.
    """
    protocol, film, (width, height) = _film(name, sources)
    sheet: list[np.ndarray] = []
    maps: dict[str, dict[str, list[float]]] = {}
    for method in METHODS:
        _add_maps(name, method, sources, labels, sheet, maps)
    crop = Crop.centred(width, height)
    whole = protocol == "corrected"
    return {
        "film": film_uri(film, size),
        "shape": [round(side * FILM_SIDE / min(film.shape)) for side in (film.shape[1], film.shape[0])],
        "whole": whole,
        "crop": [crop.left / width, crop.top / height, crop.side / width, crop.side / height]
        if whole
        else [0, 0, 1, 1],
        "sheet": data_uri(_webp(_tiled(sheet)), "image/webp"),
        "maps": maps,
        "masks": _masks(name, whole, sources.ground_truth, labels),
        "patches": _patches(name, sources, labels),
    }


def _film(name: str, sources: MapSources) -> tuple[str, np.ndarray, tuple[int, int]]:
    """(protocol, pixels, film size): the whole film where corrected maps lie over it, else the square."""
    for protocol in PROTOCOLS:
        for key, source in sources.maps.items():
            task = next((task for film, task in sources.entries[key] if film == name), None)
            if key[0] == protocol and task is not None:
                return protocol, _pixels(name, protocol, source, sources), source.load(name, task).film_size
    raise InputError(f"{name}: no heat map of this film")


def larger_film(name: str, sources: MapSources, size: FilmSize) -> str:
    """The `film` of `film_pictures` in another size."""
    return film_uri(_film(name, sources)[1], size)


def _pixels(name: str, protocol: str, source: HeatMapSource, sources: MapSources) -> np.ndarray:
    """(h, w) in [0, 1], as large as it is held."""
    if protocol == "corrected" and sources.films_large is not None and name in sources.large:
        return sources.films_large.page_film(name)
    return source.film_pixels(name)


def _add_maps(
    name: str,
    method: str,
    sources: MapSources,
    labels: LabelSet,
    sheet: list[np.ndarray],
    maps: dict[str, dict[str, list[float]]],
) -> None:
    """Adds a method's maps to the sheet, and their places to `maps`.

    A CAM is the same in both protocols but for its place in the film, so its square is stored once; the published one,
    which needs no cutting out.
    """
    shared: dict[str, list[float]] = {}
    for protocol in ("published", "corrected"):
        key = protocol, method
        for label in labels.names if key in sources.maps else ():
            task = labels.task_of(label)
            if (name, task) not in sources.entries[key]:
                continue
            place = shared.get(task)
            if place is None:
                place = _add_map(sources.maps[key].load(name, task), protocol, METHODS[method].signed, sheet)
            if METHODS[method].network == "baseline":
                shared[task] = place
            maps.setdefault(f"{protocol} {method}", {})[label] = place


def _add_map(heat: HeatMap, protocol: str, signed: bool, sheet: list[np.ndarray]) -> list[float]:
    whole = square(heat.map, heat.film_size, protocol)
    small = resized(whole, (MAP_SIDE, MAP_SIDE))
    scale = evidence_scale(heat.map) if signed else 0.0
    if signed:
        levels = LEVELS + 1 + LEVELS * (small - NEUTRAL) / scale if scale else np.full_like(small, LEVELS + 1)
    else:
        levels = 255 * small
    plane = np.rint(np.clip(levels, 0, 255)).astype(np.uint8)
    place = next((i for i, other in enumerate(sheet) if np.array_equal(other, plane)), len(sheet))
    if place == len(sheet):  # Eigen-CAM is the same for every label
        sheet.append(plane)
    peak = np.unravel_index(np.argmax(whole), whole.shape)
    y, x = (round(1000 * (at + 0.5) / size) for at, size in zip(peak, whole.shape, strict=True))
    return [place, x, y, float(f"{LOGIT_RANGE * scale:.3g}")] if signed else [place, x, y]


def _tiled(planes: list[np.ndarray]) -> np.ndarray:
    """Squares side by side, `ACROSS` to a row."""
    rows = -(-len(planes) // ACROSS)
    sheet = np.zeros((rows * MAP_SIDE, ACROSS * MAP_SIDE), np.uint8)
    for place, plane in enumerate(planes):
        top, left = (MAP_SIDE * part for part in divmod(place, ACROSS))
        sheet[top : top + MAP_SIDE, left : left + MAP_SIDE] = plane
    return sheet


def _masks(name: str, whole: bool, ground_truth: GroundTruth | None, labels: LabelSet) -> dict[str, list[list[float]]]:
    """Label -> closed outlines [x, y, x, y, ...] in thousandths of the picture, of the masks that are not empty."""
    outlines = {}
    for label in sorted(labels.names, key=labels.task_of):
        mask = mask_of(ground_truth, name, labels.task_of(label))
        if mask is not None:
            outlines[label] = _outlines(mask if whole else in_crop(mask, mask.shape[::-1]))
    return outlines


def _outlines(mask: np.ndarray) -> list[list[float]]:
    height, width = mask.shape
    scale = MASK_SIDE / min(height, width)
    small = resized(mask.astype(np.float32), (max(1, round(height * scale)), max(1, round(width * scale))))
    framed = np.pad(small, 1)
    size = np.array(small.shape[::-1])
    lines = contour_generator(z=framed).lines(0.5)  # a pixel's centre is its index, and the frame is one pixel wide
    return [np.rint((np.asarray(line) - 0.5) / size * 1000).astype(int).ravel().tolist() for line in lines]


def _patches(name: str, sources: MapSources, labels: LabelSet) -> dict[str, list[list[float]]]:
    if sources.patches is None:
        return {}
    known = [label for label in labels.names if (name, labels.task_of(label)) in sources.patch_entries]
    logits = {label: sources.patches.patch_logits(name, labels.task_of(label)) for label in known}
    return {label: [[float(f"{v:.5g}") for v in row] for row in grid] for label, grid in logits.items()}


def _webp(plane: np.ndarray) -> bytes:
    """Losslessly: a quarter smaller than as PNG."""
    buffer = io.BytesIO()
    Image.fromarray(plane).save(buffer, format="WEBP", lossless=True, method=2)
    return buffer.getvalue()
