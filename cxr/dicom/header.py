"""The first bytes of a DICOM file: whether it is one, and its meta information. Without pydicom, which loads slowly."""

from __future__ import annotations

import struct
from pathlib import Path

_LONG = (b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV")
_UNDEFINED = 0xFFFFFFFF


def is_dicom(path: Path) -> bool:
    """Whether a file is DICOM: by its ending, the letters DICM at byte 128, or first elements without any header.

    False for a file that cannot be read.
    """
    if path.suffix.lower() in (".dcm", ".dicom"):
        return True
    try:
        with open(path, "rb") as handle:
            return has_dicom_header(handle.read(4096))
    except OSError:
        return False


def has_dicom_header(head: bytes) -> bool:
    """Whether a file's first bytes hold DICM at byte 128, or begin with DICOM elements."""
    return head[128:132] == b"DICM" or is_bare(head)


def is_bare(head: bytes) -> bool:
    """Whether the bytes begin with two DICOM elements in order, the first of group 2 or 8: a file without preamble."""
    for order in ("<", ">"):
        first = _element(head, 0, order)
        if first is None or first[0] >> 16 not in (2, 8):
            continue
        second = _element(head, first[2], order)
        if second is not None and first[0] < second[0] <= 0x7FE00010:
            return True
    return False


def meta_information(content: bytes) -> tuple[dict[int, bytes], int]:
    """The file meta information (group 2, always explicit little endian): tag -> value, and the byte where it ends."""
    place = 132 if content[128:132] == b"DICM" else 0
    values: dict[int, bytes] = {}
    while (found := _element(content, place, "<")) is not None and found[0] >> 16 == 2:
        tag, start, place = found
        values[tag] = content[start:place]
    return values, place


def _element(content: bytes, start: int, order: str) -> tuple[int, int, int] | None:
    """(tag, first byte of the value, byte behind it) of the element at byte `start`, None if there cannot be one."""
    if len(content) < start + 12:
        return None
    group, number = struct.unpack_from(f"{order}HH", content, start)
    vr = content[start + 4 : start + 6]
    if not (vr.isalpha() and vr.isupper()):  # implicit: the length follows the tag
        length, value = struct.unpack_from(f"{order}I", content, start + 4)[0], start + 8
    elif vr in _LONG:
        length, value = struct.unpack_from(f"{order}I", content, start + 8)[0], start + 12
    else:
        length, value = struct.unpack_from(f"{order}H", content, start + 6)[0], start + 8
    if length == _UNDEFINED:
        return group << 16 | number, value, value
    return (group << 16 | number, value, value + length) if value + length <= len(content) else None


def frame_size(frame: bytes) -> tuple[int, int] | None:
    """(width, height) that a compressed frame announces: JPEG, JPEG-LS and JPEG 2000; None for others."""
    if frame[:4] == b"\xff\x4f\xff\x51" and len(frame) >= 16:  # JPEG 2000: its SIZ marker stands first
        width, height = struct.unpack_from(">II", frame, 8)
        return width, height
    place = 2 if frame[:2] == b"\xff\xd8" else len(frame)
    while place + 9 <= len(frame) and frame[place] == 0xFF:
        marker = frame[place + 1]
        if (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)) or marker == 0xF7:  # start of frame
            height, width = struct.unpack_from(">HH", frame, place + 5)
            return width, height
        place += 1 if marker == 0xFF else 2 + int.from_bytes(frame[place + 2 : place + 4], "big")
    return None
