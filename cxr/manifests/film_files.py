"""Where the films of a table lie: images below a data folder, or arrays of packed films."""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import overload

from cxr.files import InputError, place
from cxr.packed import PackedFilms
from cxr.paths import copy_path, inside_release


class FilmFinder:
    """Finds the films of a table below a data folder.

    root: the folder that holds `train/`, or the one above the release folder, or the one that the official download was
    unpacked in (`CheXpert-v1.0 batch 2 (train 1)/...`). CheXlocalize lists its validation films as
    `CheXpert-v1.0/valid/...` and keeps them in `val/`. A folder of square copies holds every film as `.jpg`.
    """

    def __init__(self, root: Path) -> None:
        self.root, self._root = Path(root), str(root)
        if not self.root.is_dir():
            raise InputError(f"{self.root}: no such data folder")
        self._batches = [folder for folder in sorted(self.root.glob("CheXpert-v1.0 batch*")) if folder.is_dir()]

    def file(self, path: str) -> Path:
        """The first place of the film that exists, else the first that is tried. `path` as `relative_path` gives it."""
        return self.numbered(path, self.number(path) or 0)

    def number(self, path: str) -> int | None:
        """The first place of the film that exists, as its number in the order in which places are tried."""
        if os.path.isfile(f"{self._root}/{inside_release(path)}"):  # as text: a table has 200,000 paths
            return 0
        return next((number for number, file in enumerate(self._candidates(path)) if file.is_file()), None)

    def numbered(self, path: str, number: int) -> Path:
        """The place of the film that has this number."""
        return next(islice(self._candidates(path), number, None))

    def _candidates(self, path: str) -> Iterator[Path]:
        inside = inside_release(path)
        yield self.root / inside
        if inside.startswith("valid/"):
            yield self.root / "val" / inside.removeprefix("valid/")
        yield self.root / path
        split, _, rest = inside.partition("/")
        for batch in self._batches:
            if f"({split}" in batch.name:
                yield batch / rest
            yield batch / inside
        yield self.root / copy_path(path)


class FoundFiles(Sequence[Path]):
    """The files of N films as Paths, each made when it is asked for: 200,000 of them would take 150 MiB."""

    def __init__(self, finder: FilmFinder, paths: Sequence[str], numbers: Sequence[int]) -> None:
        """numbers: of the place of each film, as `FilmFinder.number` gives it."""
        self._finder, self._paths, self._numbers = finder, paths, numbers

    def __len__(self) -> int:
        return len(self._paths)

    @overload
    def __getitem__(self, index: int) -> Path: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Path, ...]: ...
    def __getitem__(self, index: int | slice) -> Path | tuple[Path, ...]:
        if isinstance(index, slice):
            return tuple(map(self._finder.numbered, self._paths[index], self._numbers[index]))
        return self._finder.numbered(self._paths[index], self._numbers[index])


def located(paths: Sequence[str], lines: Sequence[int], table: Path, root: Path) -> Sequence[Path]:
    """The image of each film of a table, below `root`. Raises InputError for one that is not there."""
    finder, numbers = FilmFinder(root), array("H")
    for path, line in zip(paths, lines, strict=True):
        number = finder.number(path)
        if number is None:
            raise InputError(f"{place(table, line, 'Path')}: no film at {finder.file(path)}; is {root} complete?")
        numbers.append(number)
    return FoundFiles(finder, paths, numbers)


def located_packed(paths: Sequence[str], lines: Sequence[int], table: Path, packed: PackedFilms) -> Sequence[Path]:
    """The array that holds each film. Raises InputError for a film that is in none."""
    files = []
    for path, line in zip(paths, lines, strict=True):
        film = inside_release(path)
        if film not in packed:
            raise InputError(f"{place(table, line, 'Path')}: not in {packed.array(film)}; was this table packed?")
        files.append(packed.array(film))
    return tuple(files)
