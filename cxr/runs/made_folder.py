"""Folders that a script makes as a whole: a run replaces the files of the run before it, and no others."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cxr.files import InputError, flush, place, read_json, write_json

_FILES = "files"


@contextmanager
def made_as_a_whole(folder: Path, listing: str) -> Iterator[Path]:
    """Yields an empty folder to write into; at the end its files replace those of the last run in `folder`.

    listing: name of a json file in `folder` that lists what a run wrote, by which the next run knows what to remove.
    Files that no run wrote stay. After an exception everything is as it was; after a kill the next run finishes the
    work. To be used under the folder's lock.

    Raises InputError when `listing` is not such a list.
    """
    earlier = _listed(folder / listing)
    making = folder / f".{listing}.making"
    shutil.rmtree(making, ignore_errors=True)  # of a killed run
    making.mkdir()
    try:
        yield making
        made = sorted(path.relative_to(making).as_posix() for path in making.rglob("*") if path.is_file())
        write_json(folder / listing, {_FILES: sorted({*earlier, *made})})  # before the first one lies there
        for name in made:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            os.replace(making / name, folder / name)
        _remove(folder, set(earlier) - set(made))
        flush(folder)
        write_json(folder / listing, {_FILES: made})
    finally:
        shutil.rmtree(making, ignore_errors=True)


def _listed(path: Path) -> list[str]:
    """The files of the last run, as paths below the folder; none without a list."""
    if not path.exists():
        return []
    names = read_json(path).get(_FILES)
    if not isinstance(names, list) or not all(isinstance(name, str) and _is_below(name) for name in names):
        raise InputError(f"{place(path)}: not a list of files of this program; choose another --output")
    return names


def _is_below(name: str) -> bool:
    parts = Path(name).parts
    is_path = bool(parts) and "\0" not in name and max(map(len, parts)) < 256
    return is_path and not os.path.isabs(name) and ".." not in parts


def _remove(folder: Path, names: Iterable[str]) -> None:
    """Removes files, and the folders that become empty."""
    for name in names:
        path = folder / name
        with suppress(FileNotFoundError, NotADirectoryError, IsADirectoryError):
            path.unlink()
        with suppress(OSError):
            while (path := path.parent) != folder:
                path.rmdir()
