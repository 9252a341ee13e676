"""Films of one split as one uint8 array (N, S, S) in a `.npy` file, with a json manifest beside it.

`train.npy` holds the pixels, `train.json` says what they are: `size`, `count`, how they were made, the sha256 of the
label files, and under `films` the crc32 of every film in the order of the rows (null: it could not be read). A film is
found by its path, so every label file that lists it can be used, whatever its order.
"""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy

from cxr.files import InputError, read_json, replacing, sha256, write_json

HEADER_BYTES = 128
"""The length of numpy's header of such an array; checked when one is opened."""

AGAIN = "run preProcCheXpert.py --packed again"


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
        return film in self._split(film).rows

    def array(self, film: str) -> Path:
        """The file that holds the film, or would hold it."""
        return self.folder / f"{split_of(film)}.npy"

    def pixels(self, film: str) -> np.ndarray:
        """(S, S) uint8. Raises InputError for a film that is not there, was not readable, or is cut off."""
        split = self._split(film)
        if film not in split.rows:
            raise InputError(f"{split.array}: no film {film!r}; {AGAIN}")
        if split.films[film] is None:
            raise InputError(f"{split.array}: {film!r} could not be read when the films were packed; {AGAIN}")
        return split.read(split.rows[film])

    def fingerprint(self, split: str) -> str:
        """Changes with any pixel of the split, by its films' crc32."""
        return hashlib.sha256(json.dumps(self._split(split).films).encode()).hexdigest()

    def _split(self, film: str) -> _Split:
        name = split_of(film)
        if name not in self._splits:
            self._splits[name] = _Split(self.folder, name)
        return self._splits[name]

    def __getstate__(self) -> dict[str, Any]:
        return {"folder": self.folder, "_splits": {}}


class _Split:
    def __init__(self, folder: Path, name: str) -> None:
        self.array, manifest = folder / f"{name}.npy", folder / f"{name}.json"
        content = read_json(manifest)
        try:
            self.size, self.films = int(content["size"]), dict(content["films"])
            self.labels = dict(content["labels"])
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{manifest}: not the manifest of packed films ({error!r})") from None
        self.rows = {film: row for row, film in enumerate(self.films)}
        _check_header(self.array, (len(self.films), self.size, self.size))

    @cached_property
    def _handle(self) -> int:
        return os.open(self.array, os.O_RDONLY)

    def read(self, row: int) -> np.ndarray:
        """One system call rather than a memory map: what is cut off is then an error and not a bus error."""
        count = self.size * self.size
        pixels = bytearray(count)
        if os.preadv(self._handle, [pixels], HEADER_BYTES + row * count) != count:
            raise InputError(f"{self.array}: cut off at film {row}; {AGAIN}")
        return np.frombuffer(pixels, dtype=np.uint8).reshape(self.size, self.size)

    def __del__(self) -> None:
        if "_handle" in self.__dict__:
            os.close(self._handle)


def _check_header(path: Path, shape: tuple[int, int, int]) -> None:
    try:
        with open(path, "rb") as handle:
            if npy.read_magic(handle) != (1, 0):
                raise ValueError("another version of the format")
            found, _, kind = npy.read_array_header_1_0(handle)
            start = handle.tell()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; {AGAIN}") from None
    except ValueError as error:
        raise InputError(f"{path}: not an array of packed films ({error})") from None
    if (found, kind, start) != (shape, np.dtype(np.uint8), HEADER_BYTES):
        raise InputError(f"{path}: holds {kind} {found}, where its manifest says uint8 {shape}; {AGAIN}")


def damaged_films(folder: Path) -> Iterator[tuple[Path, str, str]]:
    """Reads every packed film; yields (file, film, what is wrong), and label files that have changed (film empty).

    Raises InputError when the folder holds no packed films, or an array as a whole does not fit its manifest.
    """
    arrays = sorted(Path(folder).glob("*.npy"))
    if not arrays:
        raise InputError(f"{folder}: no packed films (*.npy) in this folder")
    for path in arrays:
        split = _Split(Path(folder), path.stem)
        for name, expected in split.labels.items():
            if not (path.parent / name).is_file() or sha256(path.parent / name) != expected:
                yield path.parent / name, "", "missing, or changed since the films were packed"
        for film, expected in split.films.items():
            reason = _damage(split, film, expected)
            if reason is not None:
                yield path, film, reason


def _damage(split: _Split, film: str, expected: int | None) -> str | None:
    if expected is None:
        return "could not be read when the films were packed"
    try:
        pixels = split.read(split.rows[film])
    except InputError:
        return "cut off"
    return None if zlib.crc32(pixels.tobytes()) == expected else "other pixels than were packed (crc32)"


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
            _flush(self.part)
            os.replace(self.part, self.array)
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
        if content.get("size") != self.size or tuple(content.get("films", ())) != self.films:
            return {}
        return {row: crc for row, crc in enumerate(content["films"].values()) if crc is not None}

    def _rows_of_journal(self) -> dict[int, int]:
        if not self._journal.is_file():
            return {}
        claim, *lines = self._journal.read_text(encoding="ascii").split("\n")
        if claim != self._claim:
            return {}
        pairs = [line.split() for line in lines[:-1]]  # the last is empty, or was being written
        return {int(row): int(crc) for row, crc in pairs}

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
            shape = (len(self.films), self.size, self.size)
            npy.write_array_header_1_0(array, {"descr": "|u1", "fortran_order": False, "shape": shape})
            array.truncate(
                HEADER_BYTES + len(self.films) * self.size * self.size
            )  # sparse: rows take space as they come

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


def _flush(path: Path) -> None:
    with open(path, "rb") as handle:
        os.fsync(handle.fileno())
