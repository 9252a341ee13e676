"""Films of one split as one uint8 array (N, S, S) in a `.npy` file, with a json manifest beside it.

`train.npy` holds the pixels, `train.json` says what they are: `size`, `count`, how they were made, the sha256 of the
label files, and under `films` the crc32 of every film in the order of the rows (null: it could not be read). A film is
found by its path, so every label file that lists it can be used, whatever its order. CheXpert's arrays are named after
the first folder of its paths, those of a manifest after its splits.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
from numpy.lib import format as npy

from cxr.files import InputError, flush, place, quoted, read_json, replacing, sha256, write_json

HEADER_BYTES = 128
"""The length of numpy's header of such an array; checked when one is opened."""

_JOURNAL_LINE = re.compile(r"(\d{1,9}) (\d{1,10})", re.ASCII)

AGAIN = "run the preprocessing with --packed again"


def split_of(film: str) -> str:
    """The array that a film belongs to: the first folder of its path inside the release (`train`, `valid`, `test`)."""
    return film.partition("/")[0]


def open_packed(folder: Path) -> PackedFilms | None:
    """The packed films of a preprocessed folder; None when it holds JPEG copies."""
    return PackedFilms(folder) if any(Path(folder).glob("*.npy")) else None


class PackedFilms:
    """Reads films of a packed folder by their path inside the release. Cheap to send to another process."""

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self._splits: dict[str, _Split] = {}

    def __contains__(self, film: str) -> bool:
        return self._holder(film) is not None

    def array(self, film: str) -> Path:
        """The file that holds the film, or would hold it; the folder where no array is named after its path."""
        holder, own = self._holder(film), self.folder / f"{split_of(film)}.npy"
        return holder.array if holder else own if own.is_file() else self.folder

    def pixels(self, film: str) -> np.ndarray:
        """(S, S) uint8, checked by its crc32 (0.3 ms for 1024 x 1024, a tenth of augmenting it).

        Raises InputError for a film that is not there, was not readable, is cut off, or holds other pixels.
        """
        split = self._holder(film)
        if split is None:
            raise InputError(f"{place(self.array(film))}: no film {quoted(film)}; {AGAIN}")
        reason, pixels = split.checked(film)
        if pixels is None:
            raise InputError(f"{place(split.array)}: {quoted(film)}: {reason}; {AGAIN}, with --verify")
        return pixels

    def crc(self, film: str) -> int | None:
        """The crc32 of the film's pixels; None for a film that is not there, or was not readable when packed."""
        split = self._holder(film)
        return None if split is None else split.films[film]

    def fingerprint(self, films: Iterable[str]) -> str:
        """One digest over the paths and crc32 of films, which changes with any of their pixels."""
        return hashlib.sha256(json.dumps({film: self.crc(film) for film in films}).encode()).hexdigest()

    def _holder(self, film: str) -> _Split | None:
        """The array with the film: the one named after its path's first folder, as CheXpert has them, else any."""
        own = split_of(film)
        for name in (own, *self._arrays):
            if name in self._arrays or name in self._splits or (self.folder / f"{name}.json").is_file():
                split = self._split(name)
                if film in split.rows:
                    return split
        return None

    @cached_property
    def _arrays(self) -> tuple[str, ...]:
        return tuple(sorted(path.stem for path in self.folder.glob("*.npy")))

    def _split(self, name: str) -> _Split:
        if name not in self._splits:
            self._splits[name] = _Split(self.folder, name)
        return self._splits[name]

    def __getstate__(self) -> dict[str, Any]:
        return {"folder": self.folder, "_splits": {}}


class _Split:
    def __init__(self, folder: Path, name: str) -> None:
        self.array, manifest = folder / f"{name}.npy", folder / f"{name}.json"
        content = read_json(manifest)
        size, films, labels = (content.get(name) for name in ("size", "films", "labels"))
        if not (_is_whole(size) and _maps(films, _is_crc) and _maps(labels, _is_text)):
            raise InputError(f"{place(manifest)}: not the manifest of packed films; {AGAIN}")
        self.size: int = size
        self.films: dict[str, int | None] = films
        self.labels: dict[str, str] = labels
        self.rows = {film: row for row, film in enumerate(self.films)}
        _check_header(self.array, len(self.films), self.size)

    @cached_property
    def _handle(self) -> int:
        return os.open(self.array, os.O_RDONLY)

    def checked(self, film: str) -> tuple[str, np.ndarray | None]:
        """The film's pixels; or why there are none."""
        expected = self.films[film]
        if expected is None:
            return "could not be read when the films were packed", None
        pixels = self.read(self.rows[film])
        if pixels is None:
            return "cut off", None
        if zlib.crc32(pixels.data) != expected:
            return "other pixels than were packed (crc32)", None
        return "", pixels

    def read(self, row: int) -> np.ndarray | None:
        """(S, S) uint8; None where the array is cut off. One system call: a memory map would give a bus error there."""
        count = self.size * self.size
        pixels = bytearray(count)
        if os.preadv(self._handle, [pixels], HEADER_BYTES + row * count) != count:
            return None
        return np.frombuffer(pixels, dtype=np.uint8).reshape(self.size, self.size)

    def __del__(self) -> None:
        if "_handle" in self.__dict__:
            os.close(self._handle)


def _is_whole(value: object) -> TypeGuard[int]:
    return type(value) is int and 0 < value < 2**16


def _is_crc(value: object) -> bool:
    return value is None or (type(value) is int and 0 <= value < 2**32)


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _maps(value: object, check: Callable[[object], bool]) -> TypeGuard[dict[str, Any]]:
    return isinstance(value, dict) and all(map(check, value.values()))


def _header(films: int, size: int) -> bytes:
    """The header that numpy writes before an array (films, size, size) uint8: 128 bytes."""
    header = io.BytesIO()
    npy.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (films, size, size)})
    return header.getvalue()


def _check_header(path: Path, films: int, size: int) -> None:
    """Raises InputError unless the array is just the one that the manifest describes."""
    try:
        with open(path, "rb") as handle:
            found = handle.read(HEADER_BYTES)
    except FileNotFoundError:
        raise InputError(f"{place(path)}: no such file; {AGAIN}") from None
    if found != _header(films, size):
        what = "another array" if found.startswith(npy.MAGIC_PREFIX) else "not an array of packed films"
        raise InputError(f"{place(path)}: {what}, where its manifest says uint8 {(films, size, size)}; {AGAIN}")


def damaged_films(folder: Path) -> Iterator[tuple[Path, str, str]]:
    """Reads every packed film; yields (file, film, what is wrong), and label files that have changed (film empty).

    Raises InputError when the folder holds no packed films, or an array as a whole does not fit its manifest.
    """
    arrays = sorted(Path(folder).glob("*.npy"))
    if not arrays:
        raise InputError(f"{place(folder)}: no packed films (*.npy) in this folder")
    for path in arrays:
        split = _Split(Path(folder), path.stem)
        for name, expected in split.labels.items():
            if not (path.parent / name).is_file() or sha256(path.parent / name) != expected:
                yield path.parent / name, "", "missing, or changed since the films were packed"
        for film in split.films:
            reason, pixels = split.checked(film)
            if pixels is None:
                yield path, film, reason


class Packing:
    """A split in the making: `.train.npy.part`, and a journal of its finished rows, until `finish` renames it.

    Killed at any moment, the next run goes on with the rows that are missing; it reads those in the journal once more
    and believes their crc32 only. A whole array is taken up again when films in it could not be read, or with `check`,
    when they are damaged. `facts` go into the manifest.
    """

    def __init__(
        self, folder: Path, split: str, films: Sequence[str], size: int, facts: Mapping[str, Any], check: bool = False
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.array, self.manifest = folder / f"{split}.npy", folder / f"{split}.json"
        self.part, self._journal = folder / f".{split}.npy.part", folder / f".{split}.journal"
        self.films, self.size, self.facts = tuple(films), size, dict(facts)
        self._claim = f"{size} {hashlib.sha256(json.dumps(self.films).encode()).hexdigest()}"
        self._crc = self._known_rows(check)

    @property
    def missing(self) -> list[int]:
        """The rows that are still to be written into `part`, with `write_row`, by any process."""
        return [row for row in range(len(self.films)) if row not in self._crc]

    def done(self, row: int, crc: int) -> None:
        """Notes that a row was written."""
        self._crc[row] = crc
        with open(self._journal, "a", encoding="ascii") as journal:
            journal.write(f"{row} {crc}\n")

    def finish(self) -> None:
        """Writes the manifest, in which rows that are not done are null, and puts the array into its place."""
        films = {film: self._crc.get(row) for row, film in enumerate(self.films)}
        write_json(self.manifest, {"size": self.size, "count": len(films), **self.facts, "films": films})
        if self.part.is_file():
            flush(self.part)
            os.replace(self.part, self.array)
            flush(self.array.parent)
        self._journal.unlink(missing_ok=True)

    def _known_rows(self, check: bool) -> dict[int, int]:
        """Brings the files into the state in which rows can be written, unless none is missing."""
        if self.array.is_file() and not self.part.is_file():
            crc = self._rows_of_manifest()
            if check:
                crc = self._still_true(crc, self.array)
            if len(crc) == len(self.films) and not self._journal.is_file():
                return crc
            if not self._journal.is_file():
                self._start_journal(crc)
            os.replace(self.array, self.part)
        crc = self._still_true(self._rows_of_journal(), self.part) if self.part.is_file() else {}
        if not crc:
            self._start_array()
        self._start_journal(crc)
        return crc

    def _rows_of_manifest(self) -> dict[int, int]:
        if not self.manifest.is_file():
            return {}
        content = read_json(self.manifest)
        films = content.get("films")
        if not isinstance(films, dict) or content.get("size") != self.size or tuple(films) != self.films:
            return {}
        return {row: crc for row, crc in enumerate(films.values()) if type(crc) is int}

    def _rows_of_journal(self) -> dict[int, int]:
        if not self._journal.is_file():
            return {}
        claim, *lines = self._journal.read_text(encoding="ascii", errors="replace").split("\n")
        if claim != self._claim:
            return {}
        found = map(_JOURNAL_LINE.fullmatch, lines[:-1])  # the last is empty, or was being written
        rows = {int(line[1]): int(line[2]) for line in found if line}
        return {row: crc for row, crc in rows.items() if row < len(self.films)}

    def _still_true(self, crc: Mapping[int, int], path: Path) -> dict[int, int]:
        """The rows whose pixels are what they were."""
        count = self.size * self.size
        kept = {}
        with open(path, "rb") as array:
            for row, expected in crc.items():
                array.seek(HEADER_BYTES + row * count)
                if zlib.crc32(array.read(count)) == expected:
                    kept[row] = expected
        return kept

    def _start_array(self) -> None:
        with open(self.part, "wb") as array:
            array.write(_header(len(self.films), self.size))
            array.truncate(HEADER_BYTES + len(self.films) * self.size**2)  # sparse: rows take space as they come

    def _start_journal(self, crc: Mapping[int, int]) -> None:
        with replacing(self._journal) as temporary:
            lines = [self._claim, *(f"{row} {value}" for row, value in crc.items()), ""]
            temporary.write_text("\n".join(lines), encoding="ascii")


def write_row(part: Path, row: int, pixels: np.ndarray) -> int:
    """Writes a film (S, S) uint8 into its row; returns its crc32. Raises OSError when the disk is full."""
    content = np.ascontiguousarray(pixels).tobytes()
    with open(part, "r+b") as array:
        array.seek(HEADER_BYTES + row * len(content))
        array.write(content)
    return zlib.crc32(content)
