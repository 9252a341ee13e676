"""Bit depth: the largest value that a PNG, TIFF, JPEG 2000 or other file declares for its grey values.

Pillow opens these files but reports only the mode that it holds the pixels in, not the depth that the file declares.
"""

from __future__ import annotations

import struct
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from cxr.files import InputError, place
from cxr.pixels.grey import SMALL_PART, quantiles

_BITS_PER_SAMPLE, _COMPRESSION, _PHOTOMETRIC, _SAMPLE_FORMAT = 258, 259, 262, 339
_SIGNED = 2


def declared_grey(image: Image.Image, upright: Image.Image, path: Path) -> tuple[Image.Image, int | None, bool]:
    """(image, top, white_is_zero) of a loaded film: `upright` with its values as stored, as `StoredFilm` holds them.

    image: as opened, with the tags of its file. Raises InputError for pixels that Pillow has changed beyond recovery.
    """
    if image.format == "TIFF":
        return _tiff(image, upright, path)
    if upright.mode in ("L", "LA", "I;16", "I") and image.format == "PNG":
        return upright, _png_top(np.asarray(upright.getchannel(0) if upright.mode == "LA" else upright), path), False
    if image.format == "PNG" and _png_depth(path) == 16:
        _check_reduced(upright, path)
    if upright.mode == "F":
        return upright, None, False
    if upright.mode.startswith("I"):
        return upright, _jpeg2000_top(path) if image.format == "JPEG2000" else 65535, False
    return upright, 255, False


# ----------------------------------------------------------------------------------------------------------------- TIFF


def _tiff(image: Image.Image, upright: Image.Image, path: Path) -> tuple[Image.Image, int | None, bool]:
    tags = image.tag_v2  # type: ignore[attr-defined]
    bits = int(tags.get(_BITS_PER_SAMPLE, (1,))[0])
    signed = tags.get(_SAMPLE_FORMAT, (1,))[0] == _SIGNED
    white_is_zero = tags.get(_PHOTOMETRIC) == 0
    if upright.mode == "L" and signed:
        pixels = np.asarray(upright).view(np.int8).astype(np.int32)
        return Image.fromarray(pixels), None, white_is_zero
    if upright.mode in ("I", "F") and tags.prefix == b"MM" and tags.get(_COMPRESSION, 1) != 1:
        raise InputError(
            f"{place(path)}: {bits}-bit values, compressed, in big-endian order, which Pillow misreads; "
            "save it uncompressed"
        )
    if upright.mode == "I" and not signed and np.asarray(upright).min() < 0:
        raise InputError(f"{place(path)}: 32-bit values beyond {2**31 - 1}; save it in 16 bit grey")
    if upright.mode in ("I", "F"):
        return upright, None, white_is_zero
    if upright.mode.startswith("I;16"):
        return upright, 2**bits - 1, white_is_zero
    if bits == 16:
        _check_reduced(upright, path)
    return upright, 255, False  # Pillow has turned white-is-zero over


def unsupported_tiff(path: Path) -> str:
    """The kind of TIFF that Pillow does not recognise, in words; empty for other files."""
    try:
        with open(path, "rb") as handle, warnings.catch_warnings(action="ignore"):  # of damaged tags
            directory = ImageFileDirectory_v2(handle.read(8))
            handle.seek(directory.next)
            directory.load(handle)
        bits, kind = directory.get(_BITS_PER_SAMPLE, (1,)), directory.get(_SAMPLE_FORMAT, (1,))[0]
        name = {1: "whole numbers", 2: "signed numbers", 3: "floating point"}.get(kind, "unknown sample format")
        return f"a TIFF of {int(bits[0])} bits ({name}) that is not supported; save it as 8 or 16 bit grey"
    except Exception:  # whatever else the file is
        return ""


# ------------------------------------------------------------------------------------------------------ PNG, JPEG 2000


def _png_top(pixels: np.ndarray, path: Path) -> int:
    """The value that is white in a grey PNG: the largest of its depth, or of the fewer bits that sBIT declares.

    The standard (PNG 11.3.3.4) wants samples of fewer significant bits scaled up to the full depth; many writers
    leave them as they are. Scaled samples have their upper bits again, or zeros, in the lower ones: no others do.
    """
    depth = 8 * pixels.dtype.itemsize if pixels.dtype.itemsize < 4 else 16
    significant = next((data[0] for name, data in _png_chunks(path) if name == b"sBIT" and data), depth)
    if not 0 < significant < depth or pixels.max() >= 2**significant:
        return 2**depth - 1
    upper = pixels.astype(np.int64) >> (depth - significant)
    zeros = upper << (depth - significant)
    linear = np.rint(upper * ((2**depth - 1) / (2**significant - 1))).astype(np.int64)
    is_scaled = any(np.array_equal(pixels, scaled) for scaled in (zeros, linear, _repeated(upper, significant, depth)))
    return 2**depth - 1 if is_scaled else 2**significant - 1


def _repeated(upper: np.ndarray, significant: int, depth: int) -> np.ndarray:
    """Samples of `significant` bits scaled to `depth` by repeating their bits from above (PNG 12.4)."""
    repeated = np.zeros_like(upper)
    for shift in range(depth - significant, -significant, -significant):
        repeated |= upper << shift if shift >= 0 else upper >> -shift
    return repeated


def _png_depth(path: Path) -> int:
    return next((data[8] for name, data in _png_chunks(path) if name == b"IHDR" and len(data) > 8), 8)


def _png_chunks(path: Path) -> Iterator[tuple[bytes, bytes]]:
    """Name and first bytes of the chunks before the image data of a PNG that Pillow has read already."""
    with open(path, "rb") as handle:
        handle.seek(8)
        while len(head := handle.read(8)) == 8:
            length, name = struct.unpack(">I4s", head)
            if name == b"IDAT":
                return
            start = handle.tell()
            yield name, handle.read(min(length, 16))
            handle.seek(start + length + 4)


def _jpeg2000_top(path: Path) -> int:
    """The value to which Pillow shifts the largest one of a JPEG 2000 of 9 to 16 bit."""
    with open(path, "rb") as handle:
        bits = _jpeg2000_bits(handle)
    return (2**bits - 1) << (16 - bits) if 8 < bits <= 16 else 65535


def _jpeg2000_bits(handle: BinaryIO) -> int:
    head = handle.read(65536)
    size = head.find(b"\xff\x4f\xff\x51")  # start of the codestream, and its size marker with Ssiz at byte 38
    return (head[size + 42] & 0x7F) + 1 if 0 <= size < len(head) - 42 else 16


def _check_reduced(upright: Image.Image, path: Path) -> None:
    """Raises InputError for colours of 16 bit, read by Pillow as 8 bit, when these few bits have left nothing."""
    if quantiles(np.asarray(upright.convert("RGB").convert("L")), [0.99])[0] < 256 * SMALL_PART:
        raise InputError(
            f"{place(path)}: colours or transparency of 16 bit that use a small part of their range; "
            "save it in 16 bit grey"
        )
