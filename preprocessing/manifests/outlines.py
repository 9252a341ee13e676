"""Boxes and run-length masks of the releases, as entries of regions.json."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from cxr.dicom.header import is_dicom
from cxr.files import InputError, place, quoted
from cxr.tables import line_of
from preprocessing.manifests.source import Regions

Size = tuple[int, int]
"""(height, width) in pixels."""

_OVERHANG = 1.0
"""Pixels by which a box may leave its film, by rounding; it is cut there. Beyond, the frame is another one."""


def add_boxes(
    regions: Regions,
    table: pd.DataFrame,
    boxes: np.ndarray,
    *,
    films: pd.Series,
    tasks: pd.Series,
    sizes: Mapping[str, Size | None] | Size,
) -> None:
    """Adds boxes (N, 4) of [x, y, width, height] in pixels, one per row of `table`, to `regions`.

    films, tasks: of each row; sizes: of all films, or by film, None for a film that is to be left out. Raises
    InputError, with the line, for a box outside its film.
    """
    for row, (film, task, box) in enumerate(zip(films, tasks, boxes.tolist(), strict=True)):
        where = place(table.attrs["file"], line_of(table, int(table.index[row])))
        size = sizes if isinstance(sizes, tuple) else size_of(film, sizes, where)
        if size is None:
            continue
        entry = regions.setdefault(film, {}).setdefault(task, {"size": list(size), "kind": "box", "boxes": []})
        entry["boxes"].append(_inside(box, size, f"{where}: film {quoted(film)}"))


def size_of(film: str, sizes: Mapping[str, Size | None], where: str) -> Size | None:
    """(height, width) of a film in pixels, None where it is left out. Raises InputError where it is not known."""
    try:
        return sizes[film]
    except KeyError:
        raise InputError(
            f"{where}: the size of film {quoted(film)} is unknown, and its boxes need it; "
            "put all films below the root, or give --only-present"
        ) from None


def _inside(box: Sequence[float], size: Size, where: str) -> list[float]:
    x, y, width, height = box
    film_height, film_width = size
    right, bottom = x + width, y + height
    inside = -_OVERHANG <= min(x, y) and right <= film_width + _OVERHANG and bottom <= film_height + _OVERHANG
    if not (inside and width > 0 and height > 0):  # put so that it is true of NaN
        raise InputError(
            f"{where}: box [{x:g}, {y:g}, {width:g}, {height:g}] is not inside the film's {film_width} x {film_height} "
            "pixels; is it of a resized copy?"
        )
    left, top = max(x, 0.0), max(y, 0.0)
    return [left, top, min(right, film_width) - left, min(bottom, film_height) - top]


def numbers(table: pd.DataFrame, columns: Sequence[str]) -> np.ndarray:
    """(N, len(columns)) float64. Raises InputError, with line and column, for what is not a finite number."""
    values = np.empty((len(table), len(columns)))
    for position, column in enumerate(columns):
        found = pd.to_numeric(table[column], errors="coerce").to_numpy(dtype=float)
        bad = ~np.isfinite(found)
        if bad.any():
            row = int(np.argmax(bad))
            where = place(table.attrs["file"], line_of(table, int(table.index[row])), column)
            raise InputError(f"{where}: {quoted(table[column].iloc[row])} is not a number; expected pixels")
        values[:, position] = found
    return values


def relative_runs(text: str, size: Size) -> np.ndarray:
    """Run-length code with relative starts, column by column -> (H, W) bool.

    The numbers alternate: pixels skipped since the last run, pixels of the run. Raises ValueError when they do not fit.
    """
    words = text.split()
    if len(words) % 2 or not all(word.isdecimal() and len(word) < 10 for word in words):
        raise ValueError("not a run-length code; expected pairs of start and length")
    runs = np.array(words, dtype=np.int64)
    rest = size[0] * size[1] - runs.sum()
    if rest < 0:
        raise ValueError(f"its runs leave the film's {size[1]} x {size[0]} pixels")
    inside = np.arange(len(runs) + 1) % 2 == 1
    columns = np.repeat(inside, np.append(runs, rest)).reshape(size[1], size[0])  # (W, H)
    return columns.T


class SizesOnDisk(Mapping[str, Size | None]):
    """Sizes of films, each read from its file's header when it is first asked for."""

    def __init__(self, files: Mapping[str, Path], *, leave_out: bool) -> None:
        """files: film id -> file, for the films below the root. leave_out: whether other films have size None."""
        self._files = files
        self._leave_out = leave_out
        self._sizes: dict[str, Size] = {}

    def __getitem__(self, film: str) -> Size | None:
        if self._leave_out and film not in self._files:
            return None
        if film not in self._sizes:
            self._sizes[film] = film_size(self._files[film])
        return self._sizes[film]

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)


def film_size(path: Path) -> Size:
    """(height, width) of a film from its header, without its pixels. Raises InputError for a damaged file."""
    if is_dicom(path):
        from pydicom import dcmread  # here, for pydicom takes a while and most sources need no sizes

        try:
            header = dcmread(path, stop_before_pixels=True, specific_tags=["Rows", "Columns"], force=True)
            return int(header.Rows), int(header.Columns)
        except Exception as error:  # whatever a damaged file makes of pydicom
            raise InputError(f"{place(path)}: no rows and columns to be read ({type(error).__name__})") from None
    try:
        with Image.open(path) as image:
            return image.height, image.width
    except (OSError, Image.DecompressionBombError, SyntaxError, ValueError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # of the disk, not of Pillow
            raise
        raise InputError(f"{place(path)}: not a readable image ({type(error).__name__})") from None
