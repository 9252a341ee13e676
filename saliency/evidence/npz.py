"""npz files read without trusting them: kind and size of an array are checked before anything is allocated.

Only arrays that `np.savez` stores uncompressed are read: float32, uint8, and texts without axes.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from cxr.files import InputError, place, printable, quoted

_SUFFIX = ".npy"
_KINDS = ("f4", "u1")


def array_names(path: Path) -> list[str]:
    """Names of the arrays in a file, from its directory alone. Raises InputError as `read_arrays` does."""
    with _opened(path) as archive:
        return [name.removesuffix(_SUFFIX) for name in archive.namelist()]


def read_arrays(path: Path, names: Iterable[str] | None = None) -> dict[str, np.ndarray]:
    """The arrays of these names, or all; a text is an array without axes.

    Raises InputError, in one line with the file, for a file that is missing or damaged, and for a name that is not
    there, there twice, or stands for another kind of array.
    """
    with _opened(path) as archive:
        stored = [name.removesuffix(_SUFFIX) for name in archive.namelist()]
        wanted = stored if names is None else list(names)
        for name in wanted:
            if stored.count(name) != 1:
                raise ValueError(f"{stored.count(name)} arrays are called {quoted(name)}")
        return {name: _read(archive, name) for name in wanted}


def _read(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    member = archive.getinfo(f"{name}{_SUFFIX}")
    held = Path(archive.filename or "").stat().st_size
    if member.compress_type != zipfile.ZIP_STORED or not member.file_size == member.compress_size <= held:
        raise ValueError(f"array {quoted(name)} is compressed or larger than its file")
    with archive.open(member) as handle:
        if np.lib.format.read_magic(handle) != (1, 0):
            raise ValueError(f"array {quoted(name)} has another version of npy")
        shape, fortran, kind = np.lib.format.read_array_header_1_0(handle)
        expected = (kind.kind == "U" and shape == ()) or (kind.str[1:] in _KINDS and not fortran)
        if not expected or kind.itemsize * math.prod(shape) != member.file_size - handle.tell():
            raise ValueError(f"array {quoted(name)} of kind {quoted(kind.str)} and shape {quoted(str(shape))}")
        return np.frombuffer(bytearray(handle.read()), kind).reshape(shape)  # a bytearray, for bytes are read-only


@contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    """Opens the archive; whatever a damaged file provokes meanwhile becomes an InputError that names it."""
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except FileNotFoundError:
        raise InputError(f"{place(path)}: no such file") from None
    except (OSError, MemoryError):
        raise
    except Exception as error:  # zipfile, numpy and struct raise many kinds for damaged bytes
        reason = printable(str(error).partition("\n")[0][:200]) or type(error).__name__
        raise InputError(f"{place(path)}: damaged ({reason}); delete it and run again") from None
