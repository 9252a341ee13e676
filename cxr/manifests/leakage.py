"""Leakage between splits: patients, or films of the same content, that are in two of them."""

from __future__ import annotations

import hashlib
from itertools import combinations

import numpy as np

from cxr.files import InputError, place, quoted
from cxr.manifests.films import Films
from cxr.packed import PackedFilms
from cxr.paths import inside_release


def check_apart(*splits: Films) -> None:
    """Raises InputError, naming both rows, when two splits share a patient, or a film of the same content.

    Content is compared by the files' bytes, or by the pixels where both splits are packed. Films whose patient is
    unknown are compared by content only.
    """
    for a, b in combinations(splits, 2):
        _check_patients(a, b)
        twin = _same_content(a, b)
        if twin is not None:
            raise InputError(f"{b.where(twin[1])}: the same film as {a.where(twin[0])}; keep splits apart")


def _check_patients(a: Films, b: Films) -> None:
    lines = dict(zip(reversed(a.patients), reversed(a.lines), strict=True))
    for patient, line in zip(b.patients, b.lines, strict=True):
        if patient and patient in lines:
            other = place(a.table, lines[patient])
            raise InputError(f"{place(b.table, line)}: patient {quoted(patient)} is also in {other}; keep splits apart")


def _same_content(a: Films, b: Films) -> tuple[int, int] | None:
    """Indices of the first two films of the same content."""
    if a.packed is not None and b.packed is not None:
        return _same_pixels(a, a.packed, b, b.packed)
    return _same_bytes(a, b) if a.packed is None and b.packed is None else None


def _same_bytes(a: Films, b: Films) -> tuple[int, int] | None:
    """As `_same_content`, by sha256; only films of equal size in bytes are read."""
    sizes: dict[int, list[int]] = {}
    for index, file in enumerate(b.files):
        sizes.setdefault(file.stat().st_size, []).append(index)
    digests: dict[int, bytes] = {}
    for first, file in enumerate(a.files):
        for second in sizes.get(file.stat().st_size, ()):
            if second not in digests:
                digests[second] = hashlib.sha256(b.files[second].read_bytes()).digest()
            if hashlib.sha256(file.read_bytes()).digest() == digests[second]:
                return first, second
    return None


def _same_pixels(a: Films, packed_a: PackedFilms, b: Films, packed_b: PackedFilms) -> tuple[int, int] | None:
    """As `_same_content`, by pixels; only films of equal crc32 are read, since different films may share one."""
    crcs: dict[int | None, list[int]] = {}
    for index, path in enumerate(b.paths):
        crcs.setdefault(packed_b.crc(inside_release(path)), []).append(index)
    crcs.pop(None, None)  # films that could not be read when they were packed
    for first, path in enumerate(a.paths):
        film = inside_release(path)
        for second in crcs.get(packed_a.crc(film), ()):
            if np.array_equal(packed_a.pixels(film), packed_b.pixels(inside_release(b.paths[second]))):
                return first, second
    return None
