"""Where the films of a table lie: images below a data folder, or arrays of packed films."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

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
        return self.found(path) or next(self._candidates(path))

    def found(self, path: str) -> Path | None:
        """The first place of the film that exists."""
        first = os.path.join(self._root, inside_release(path))
        if os.path.isfile(first):  # as text: a table has 200,000 paths
            return Path(first)
        return next((file for file in self._candidates(path) if file.is_file()), None)

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


def located(paths: Sequence[str], lines: Sequence[int], table: Path, root: Path) -> tuple[Path, ...]:
    """The image of each film of a table, below `root`. Raises InputError for one that is not there."""
    finder, files = FilmFinder(root), []
    for path, line in zip(paths, lines, strict=True):
        file = finder.found(path)
        if file is None:
            raise InputError(f"{place(table, line, 'Path')}: no film at {finder.file(path)}; is {root} complete?")
        files.append(file)
    return tuple(files)


def located_packed(paths: Sequence[str], lines: Sequence[int], table: Path, packed: PackedFilms) -> tuple[Path, ...]:
    """The array that holds each film. Raises InputError for a film that is in none."""
    films = [inside_release(path) for path in paths]
    for film, line in zip(films, lines, strict=True):
        if film not in packed:
            reason = f"not in {packed.array(film)}; was this table packed?"
            raise InputError(f"{place(table, line, 'Path')}: {reason}")
    return tuple(packed.array(film) for film in films)
