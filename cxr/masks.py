"""Masks as CheXlocalize stores them: run-length codes in a ground-truth json, and the polygons that annotators drew.

A code is COCO's compressed run-length code, `{"size": [height, width], "counts": string}`, runs in column-major order.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw
from pycocotools import mask as coco

from cxr.files import InputError, read_json
from cxr.labels import TASKS

Size = tuple[int, int]
"""(height, width) in pixels."""

Polygon = Sequence[Sequence[float]]
"""Vertices [x, y] in the film's pixels."""

_LONGEST_NUMBER = 6  # characters of 5 bits: a run of up to 2^29 pixels


def encode_mask(mask: np.ndarray) -> dict[str, Any]:
    """(H, W) bool, or any number of which non-zero means inside -> its code, ready for json."""
    code = coco.encode(np.asfortranarray(np.asarray(mask) != 0, dtype=np.uint8))
    return {"size": [int(side) for side in code["size"]], "counts": code["counts"].decode("ascii")}


def decode_mask(code: Mapping[str, Any]) -> np.ndarray:
    """A code -> (H, W) bool, contiguous. Raises ValueError when `counts` is not the code of a mask of that size.

    pycocotools would read and write past its memory there.
    """
    height, width = code["size"]
    runs = _run_lengths(code["counts"], (height, width))
    columns = np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(width, height)
    return np.ascontiguousarray(columns.T)


def _run_lengths(counts: Any, size: Sequence[int]) -> np.ndarray:
    """Pixels of the alternating runs, the first outside the mask. Raises ValueError with the reason.

    A number is written in 5-bit digits, lowest first, as the characters from "0" on; a digit's bit 5 says that another
    follows, bit 4 of the last one is the sign. From the fourth number on it is the difference to the last but one.
    """
    if not isinstance(counts, str) or not counts or not counts.isascii():
        raise ValueError("it is not a string of ASCII characters")
    codes = np.frombuffer(counts.encode(), np.uint8).astype(np.int64) - ord("0")
    if codes.min() < 0 or codes.max() > 63:
        raise ValueError("it holds a character that no code has")
    last = np.flatnonzero((codes & 32) == 0)  # index of each number's last digit
    if not len(last) or last[-1] != len(codes) - 1:
        raise ValueError("its last number is cut short")
    first = np.concatenate(([0], last[:-1] + 1))
    digits = last - first + 1
    if digits.max() > _LONGEST_NUMBER:
        raise ValueError("it holds a number that is too long")
    place = np.arange(len(codes)) - np.repeat(first, digits)
    runs = np.add.reduceat((codes & 31) << (5 * place), first)
    runs -= np.where(codes[last] & 16, 1 << (5 * digits), 0)
    runs[1::2] = runs[1::2].cumsum()
    runs[2::2] = runs[2::2].cumsum()
    if runs.min() < 0 or runs.sum() != size[0] * size[1]:
        raise ValueError(f"its runs do not make up {size[0]} x {size[1]} pixels")
    return runs


class GroundTruth:
    """The masks of a set of films, film x task, kept as codes and decoded one at a time."""

    def __init__(self, content: Any, source: str = "ground truth") -> None:
        """content: image id -> task -> code, as in CheXlocalize's json; `source` names it in errors.

        Raises InputError, in one line with image id and task, when one of the 10 tasks is missing, a size differs from
        that of the film's other masks, or a code is damaged.
        """
        self.source = source
        if not isinstance(content, dict) or not content:
            raise InputError(f"{source}: expected a json object of image id -> task -> mask, with at least one film")
        self._codes: dict[str, dict[str, dict[str, Any]]] = content
        self._sizes = {image_id: _checked_size(image_id, masks, source) for image_id, masks in content.items()}
        self._areas = {key: _checked_area(key, content[key[0]][key[1]], source) for key in self._keys()}
        self.image_ids = sorted(content)

    def _keys(self) -> list[tuple[str, str]]:
        return [(image_id, task) for image_id in self._codes for task in TASKS]

    def __contains__(self, image_id: str) -> bool:
        return image_id in self._codes

    def size(self, image_id: str) -> Size:
        """(height, width) of the film."""
        return self._sizes[image_id]

    def area(self, image_id: str, task: str) -> int:
        """Pixels inside the mask, known without decoding it."""
        return self._areas[image_id, task]

    def mask(self, image_id: str, task: str) -> np.ndarray:
        """(H, W) bool, contiguous."""
        if not self.area(image_id, task):
            return np.zeros(self.size(image_id), dtype=bool)
        return decode_mask(self._codes[image_id][task])


def _checked_size(image_id: str, masks: Any, source: str) -> Size:
    if not image_id or "/" in image_id:
        raise InputError(f"{source}: {image_id!r} is no image id; expected one like patient64541_study1_view1_frontal")
    if not isinstance(masks, dict):
        raise InputError(f"{source}: {image_id}: expected an object of task -> mask")
    sizes: dict[str, Size] = {}
    for task in TASKS:
        code = masks.get(task)
        if not isinstance(code, dict) or "counts" not in code:
            raise InputError(f"{source}: {image_id}: no mask of {task!r}; every film needs one of each of the 10 tasks")
        sizes[task] = _as_size(code.get("size"), f"{source}: {image_id}, {task}")
        if sizes[task] != sizes[TASKS[0]]:
            (height, width), (h, w) = sizes[task], sizes[TASKS[0]]
            raise InputError(f"{source}: {image_id}, {task}: {height} x {width} pixels, but {TASKS[0]} has {h} x {w}")
    return sizes[TASKS[0]]


def _as_size(value: Any, where: str) -> Size:
    if isinstance(value, list) and len(value) == 2 and all(type(side) is int and side > 0 for side in value):
        return value[0], value[1]
    raise InputError(f"{where}: size {value!r}; expected [height, width] in pixels")


def _checked_area(key: tuple[str, str], code: dict[str, Any], source: str) -> int:
    try:
        return int(_run_lengths(code["counts"], code["size"])[1::2].sum())
    except ValueError as error:
        raise InputError(f"{source}: {key[0]}, {key[1]}: 'counts' is not a run-length code: {error}") from None


def read_ground_truth(path: Path) -> GroundTruth:
    """Reads CheXlocalize's `gt_segmentations_*.json`; or its `gt_annotations_*.json`, drawing the polygons.

    Raises InputError, one line with file, image id and task.
    """
    content = read_json(path)
    if isinstance(content, dict) and any(isinstance(film, dict) and "img_size" in film for film in content.values()):
        content = _drawn(content, str(path))
    return GroundTruth(content, str(path))


def polygons_to_mask(polygons: Sequence[Polygon], size: Size) -> np.ndarray:
    """(H, W) bool: the union of the polygons with their outlines, as Pillow draws them and CheXlocalize does."""
    height, width = size
    canvas = Image.new("1", (width, height))
    draw = ImageDraw.Draw(canvas)
    for polygon in polygons:
        draw.polygon([(x, y) for x, y in polygon], outline=1, fill=1)
    return np.array(canvas, dtype=bool)


def _drawn(annotations: dict[str, Any], source: str) -> dict[str, dict[str, dict[str, Any]]]:
    """Annotations (image id -> `img_size`, task -> polygons; a task without polygons is left out) -> codes."""
    codes: dict[str, dict[str, dict[str, Any]]] = {}
    for image_id, film in annotations.items():
        size = _as_size(film.get("img_size") if isinstance(film, dict) else None, f"{source}: {image_id}, img_size")
        codes[image_id] = {}
        for task in TASKS:
            polygons = film.get(task, [])
            if not _are_polygons(polygons):
                raise InputError(f"{source}: {image_id}, {task}: expected polygons [[[x, y], [x, y], ...], ...]")
            codes[image_id][task] = encode_mask(polygons_to_mask(polygons, size))
    return codes


def _are_polygons(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(polygon, list) and len(polygon) >= 2 and all(map(_is_point, polygon)) for polygon in value
    )


def _is_point(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 2
        and all(type(number) in (int, float) and math.isfinite(number) for number in value)
    )
