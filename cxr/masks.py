"""Regions of films as CheXlocalize stores them: run-length codes in a json, and the polygons that annotators drew.

A run-length code is COCO's, `{"size": [height, width], "counts": string or list}`, runs in column-major order. An entry
may hold boxes in its place, `{"size": [height, width], "boxes": [[x, y, width, height], ...]}`: an outline that is no
closer than a rectangle, so tables that are made of it say `box`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw
from pycocotools import mask as coco

from cxr.files import InputError, composed, place, quoted, read_json
from cxr.labels import CHEXPERT, is_label_name
from cxr.pixels.pixel_limit import check_size

Size = tuple[int, int]
"""(height, width) in pixels."""

Polygon = Sequence[Sequence[float]]
"""Vertices [x, y] in the film's pixels."""

_LONGEST_NUMBER = 6  # characters of 5 bits: a run of up to 2^29 pixels
_FARTHEST = 10**6  # pixels from the film's corner that a vertex or box may lie


def encode_mask(mask: np.ndarray) -> dict[str, Any]:
    """(H, W) bool, or any number of which non-zero means inside -> its code, ready for json."""
    code = coco.encode(np.asfortranarray(np.asarray(mask) != 0, dtype=np.uint8))
    return {"size": [int(side) for side in code["size"]], "counts": code["counts"].decode("ascii")}


def decode_mask(code: Mapping[str, Any]) -> np.ndarray:
    """A run-length code -> (H, W) bool, contiguous. Raises ValueError when it is not the code of a mask of that size.

    pycocotools would read and write past its memory there.
    """
    height, width = code["size"]
    runs = _run_lengths(code["counts"], (height, width))
    mask = np.zeros((height, width), dtype=bool)  # memory is taken only where it is written: within the mask's columns
    ends = runs.cumsum()
    inside = np.flatnonzero(runs[1::2]) * 2 + 1
    if len(inside):
        first, last = int(ends[inside[0] - 1]) // height, (int(ends[inside[-1]]) - 1) // height
        kept = np.diff(ends.clip(first * height, (last + 1) * height), prepend=first * height)
        columns = np.repeat(np.arange(len(runs)) % 2 == 1, kept).reshape(last + 1 - first, height)
        mask[:, first : last + 1] = columns.T
    return mask


def _run_lengths(counts: Any, size: Sequence[int]) -> np.ndarray:
    """Pixels of the alternating runs, the first outside the mask. Raises ValueError with the reason."""
    runs = _listed_runs(counts, size[0] * size[1]) if isinstance(counts, list) else _packed_runs(counts)
    if not len(runs) or runs.min() < 0 or runs.sum() != size[0] * size[1]:
        raise ValueError(f"its runs do not make up {size[0]} x {size[1]} pixels")
    return runs


def _listed_runs(counts: Sequence[Any], pixels: int) -> np.ndarray:
    """Run lengths of an uncompressed code, which lists them."""
    if not all(type(run) is int and 0 <= run <= pixels for run in counts):
        raise ValueError(f"its list holds something else than whole numbers from 0 to {pixels}")
    return np.array(counts, dtype=np.int64)


def _packed_runs(counts: Any) -> np.ndarray:
    """A compressed code.

    A number is written in 5-bit digits, lowest first, as the characters from "0" on; a digit's bit 5 says that another
    follows, bit 4 of the last one is the sign. From the fourth number on it is the difference to the last but one.
    """
    if not isinstance(counts, str) or not counts or not counts.isascii():
        raise ValueError("it is not a string of ASCII characters, nor a list of run lengths")
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
    digit_in_number = np.arange(len(codes)) - np.repeat(first, digits)
    runs = np.add.reduceat((codes & 31) << (5 * digit_in_number), first)
    runs -= np.where(codes[last] & 16, 1 << (5 * digits), 0)
    runs[1::2] = runs[1::2].cumsum()
    runs[2::2] = runs[2::2].cumsum()
    return runs


def boxes_to_mask(boxes: Sequence[Sequence[float]], size: Size) -> np.ndarray:
    """(H, W) bool: the union of boxes [x, y, width, height], each cut to the film.

    A box covers the pixels whose centres lie in it, and at least one along each side. Raises ValueError with the
    reason for a box that is empty, outside the film, or not four numbers.
    """
    mask = np.zeros(size, dtype=bool)
    for rows, columns in (_covered(box, size) for box in boxes):
        mask[rows, columns] = True
    return mask


def _covered(box: Any, size: Size) -> tuple[slice, slice]:
    """Rows and columns of a box."""
    if not isinstance(box, list) or len(box) != 4 or not all(map(_is_coordinate, box)):
        raise ValueError("a box is not [x, y, width, height] in pixels")
    x, y, width, height = box
    if min(width, height) <= 0 or not (-width < x < size[1] and -height < y < size[0]):
        shown = ", ".join(f"{number:g}" for number in box)
        raise ValueError(f"the box [{shown}] has no pixel of a film of {size[0]} x {size[1]} pixels")
    return _pixels(y, height, size[0]), _pixels(x, width, size[1])


def _pixels(start: float, length: float, side: int) -> slice:
    """The pixels along one side whose centres lie in [start, start + length), at least one."""
    first = min(max(int(np.ceil(start - 0.5)), 0), side - 1)
    return slice(first, max(min(int(np.ceil(start + length - 0.5)), side), first + 1))


def _union_area(boxes: Sequence[Any], size: Size) -> int:
    """Pixels of `boxes_to_mask`, on the grid of the boxes' own edges: nothing of the film's size is made."""
    covered = [_covered(box, size) for box in boxes]
    rows, columns = (np.unique([e for both in covered for e in (both[i].start, both[i].stop)]) for i in (0, 1))
    cells = np.zeros((max(len(rows) - 1, 0), max(len(columns) - 1, 0)), dtype=bool)
    for down, across in covered:
        (top, bottom), (left, right) = (
            np.searchsorted(edges, (part.start, part.stop)) for edges, part in ((rows, down), (columns, across))
        )
        cells[top:bottom, left:right] = True
    return int(np.diff(rows) @ cells @ np.diff(columns)) if covered else 0


class GroundTruth:
    """The regions of a set of films, film x task, kept as they were read and drawn one at a time.

    tasks: all that occur, in alphabetical order. A film need not have every task: one that is missing was not looked
    for in that film, and counts nowhere; an empty mask says that nothing is there.
    """

    def __init__(self, content: Any, source: str = "ground truth") -> None:
        """content: image id -> task -> code or boxes, as in CheXlocalize's json; `source` names it in errors.

        Raises InputError, in one line with image id and task, for a film without any task, a name that cannot be a
        task, a size that differs from that of the film's other masks or is above the limit, and a damaged code.
        """
        self.source = source
        if not isinstance(content, dict) or not content:
            raise InputError(f"{place(source)}: expected image id -> task -> mask, with at least one film")
        self._sizes = {composed(film): _checked_size(film, regions, source) for film, regions in content.items()}
        content = {composed(film): _composed_keys(regions) for film, regions in content.items()}
        self._regions: dict[str, dict[str, dict[str, Any]]] = content
        self._areas = {
            (image_id, task): _checked_area(region, _where(source, image_id, task))
            for image_id, regions in content.items()
            for task, region in regions.items()
        }
        self.image_ids = sorted(content)
        self.tasks = tuple(sorted({task for _, task in self._areas}))

    def __contains__(self, image_id: str) -> bool:
        return image_id in self._regions

    def of_films(self, image_ids: Collection[str]) -> GroundTruth:
        """The regions of some films. Raises InputError when it has none of them."""
        kept = {image_id: regions for image_id, regions in self._regions.items() if image_id in image_ids}
        if not kept:
            raise InputError(f"{place(self.source)}: no region of any of the {len(image_ids)} films")
        return GroundTruth(kept, self.source)

    def size(self, image_id: str) -> Size:
        """(height, width) of the film."""
        return self._sizes[image_id]

    def annotates(self, image_id: str, task: str) -> bool:
        """Whether the task was looked for in the film."""
        return (image_id, task) in self._areas

    def area(self, image_id: str, task: str) -> int:
        """Pixels inside the region, known without drawing it; 0 also for a task that was not looked for."""
        return self._areas.get((image_id, task), 0)

    def mask(self, image_id: str, task: str) -> np.ndarray:
        """(H, W) bool, contiguous."""
        if not self.area(image_id, task):
            return np.zeros(self.size(image_id), dtype=bool)
        region = self._regions[image_id][task]
        return boxes_to_mask(region["boxes"], self.size(image_id)) if "boxes" in region else decode_mask(region)

    @property
    def kinds(self) -> dict[str, str]:
        """Task -> `mask`, or `box` where any of its regions is made of boxes."""
        boxed = {task for regions in self._regions.values() for task, region in regions.items() if "boxes" in region}
        return {task: "box" if task in boxed else "mask" for task in self.tasks}


def _where(source: str, image_id: str, *of_film: str) -> str:
    """Where in the file a mistake stands: image id and task."""
    return place(source, column=", ".join(name[:100] for name in (image_id, *of_film)))


def _composed_keys(regions: Mapping[str, Any]) -> dict[str, Any]:
    return {composed(task): region for task, region in regions.items()}


def _checked_size(image_id: str, regions: Any, source: str) -> Size:
    """The one size of a film's regions."""
    if not image_id or "/" in image_id:
        example = "patient64541_study1_view1_frontal"
        raise InputError(f"{place(source)}: {quoted(image_id)} is not an image id; expected one like {example}")
    if not isinstance(regions, dict) or not regions:
        raise InputError(f"{_where(source, image_id)}: expected an object of task -> mask")
    sizes: dict[str, Size] = {}
    for task, region in regions.items():
        where = _where(source, image_id, task)
        if not is_label_name(task):
            raise InputError(f"{where}: not the name of a task; expected printable text without / and \\")
        if not isinstance(region, dict) or not {"counts", "boxes"} & set(region):
            raise InputError(f'{where}: expected a mask {{"size", "counts"}} or {{"size", "boxes"}}')
        sizes[task] = _as_size(region.get("size"), where)
        first, (height, width) = next(iter(sizes.items()))
        if sizes[task] != (height, width):
            found = f"{sizes[task][0]} x {sizes[task][1]} pixels"
            raise InputError(f"{where}: {found}, but {first[:100]} has {height} x {width}; a film has one size")
    return next(iter(sizes.values()))


def _as_size(value: Any, where: str) -> Size:
    if not isinstance(value, list) or len(value) != 2 or not all(type(side) is int and side > 0 for side in value):
        shown = f"[{', '.join(map(quoted, value[:4]))}]" if isinstance(value, list) else quoted(value)
        raise InputError(f"{where}: size {shown}; expected [height, width] in pixels")
    check_size(value[1], value[0], where)
    return value[0], value[1]


def _checked_area(region: Mapping[str, Any], where: str) -> int:
    boxed = "boxes" in region
    try:
        if not boxed:
            return int(_run_lengths(region["counts"], region["size"])[1::2].sum())
        if "counts" in region or not isinstance(region["boxes"], list):
            raise ValueError("expected a list of [x, y, width, height], and no 'counts' beside it")
        return _union_area(region["boxes"], tuple(region["size"]))
    except ValueError as error:
        what = "'boxes'" if boxed else "'counts' is not a run-length code"
        raise InputError(f"{where}: {what}: {error}") from None


def read_ground_truth(path: Path) -> GroundTruth:
    """Reads CheXlocalize's `gt_segmentations_*.json` or a manifest's `regions.json`; or draws the polygons of
    CheXlocalize's `gt_annotations_*.json`.

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
    """Annotations (image id -> `img_size`, task -> polygons) -> codes.

    A task without polygons is left out of a film's annotations although it was looked for: it gets an empty mask.
    """
    codes: dict[str, dict[str, dict[str, Any]]] = {}
    for image_id, film in annotations.items():
        where = _where(source, image_id, "img_size")
        size = _as_size(film.get("img_size") if isinstance(film, dict) else None, where)
        codes[image_id] = {}
        for task in _annotated_tasks(annotations):
            polygons = film.get(task, [])
            if not _are_polygons(polygons):
                raise InputError(f"{_where(source, image_id, task)}: expected polygons [[[x, y], [x, y], ...], ...]")
            codes[image_id][task] = encode_mask(polygons_to_mask(polygons, size))
    return codes


def _annotated_tasks(annotations: Mapping[str, Any]) -> Sequence[str]:
    """CheXlocalize's where all that occur are its own, else those that occur."""
    found = {task for film in annotations.values() if isinstance(film, dict) for task in film} - {"img_size"}
    return CHEXPERT.task_names if found <= set(CHEXPERT.task_names) else sorted(found)


def _are_polygons(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(polygon, list) and len(polygon) >= 2 and all(map(_is_point, polygon)) for polygon in value
    )


def _is_point(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(map(_is_coordinate, value))


def _is_coordinate(value: Any) -> bool:
    """A number, not NaN, that can be a pixel of some film."""
    return type(value) in (int, float) and abs(value) <= _FARTHEST
