"""Stored values of a DICOM radiograph -> grey in [0, 1], bones bright, as a viewer shows them when it opens the file.

The order of the steps is the standard's (PS3.4 N.2): modality LUT or rescale, then VOI LUT or window, then MONOCHROME1
(or an inverse presentation LUT) is inverted; padding is black. Tolerated are tables whose type or width is declared
wrongly and can be told from their values; a damaged number never is.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import numpy as np
from pydicom import DataElement, Dataset

_DECIMAL = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)  # PS3.5 6.2, value representation DS
_BINARY = ("FL", "FD", "SL", "SS", "SV", "UL", "US", "UV")

Range = tuple[float, float]
"""The least and the largest value that can come out of a step."""


class DamagedElement(ValueError):
    """A DICOM element with an unusable value. The text names the element and repeats none of its values."""


def shown(pixels: np.ndarray, dataset: Dataset) -> np.ndarray:
    """Stored values (rows, columns), whole numbers -> float (rows, columns) in [0, 1], 1 being bright.

    The first VOI LUT is applied, else the first window, else the values are spread from the least to the largest.
    Raises DamagedElement.
    """
    valid = ~_padding(pixels, dataset)
    values, domain = _modality(pixels, dataset)
    window = None if dataset.get("VOILUTSequence") else _window(dataset)
    if dataset.get("VOILUTSequence"):
        grey = LookUpTable.of(dataset.VOILUTSequence[0], domain, dataset).to_unit(values)
    elif window is not None:
        grey = windowed(values, *window)
    else:
        grey = _spread(values, valid)
    if _is_inverse(dataset):
        grey = 1 - grey
    return np.where(valid, grey, 0.0)


def _is_inverse(dataset: Dataset) -> bool:
    """Whether greys are inverted: by the presentation LUT shape, the last step of all; without one, by MONOCHROME1.

    The two agree in files that keep to the standard; dcmtk decides others in the same way.
    """
    shape = dataset.get("PresentationLUTShape")
    return (
        shape == "INVERSE" if shape in ("INVERSE", "IDENTITY") else dataset.PhotometricInterpretation == "MONOCHROME1"
    )


# -------------------------------------------------------------------------------------------------------------- numbers


def first_number(dataset: Dataset, keyword: str) -> float | None:
    """The first value of a decimal element, None when it is absent or empty. Raises DamagedElement for anything else.

    pydicom returns a value that it cannot read as text, whose first character is not its first number.
    """
    element = dataset.get_item(keyword)
    if element is None or element.value is None:
        return None
    if element.VR in _BINARY:
        values = np.atleast_1d(np.asarray(dataset[keyword].value, dtype=float))
        number = float(values[0]) if values.size else None
    else:
        text = _text(element.value).split("\\")
        if not "".join(text).strip(" \0"):
            return None
        word = text[0].strip(" \0")
        if not _DECIMAL.fullmatch(word):
            raise DamagedElement(f"its {keyword} is not a number")
        number = float(word)
    if number is not None and not math.isfinite(number):
        raise DamagedElement(f"its {keyword} is not a finite number")
    return number


def _text(value: object) -> str:
    """The value as the file has it: bytes as read, or what pydicom has made of them."""
    if isinstance(value, bytes):
        return value.decode("ascii", errors="replace")
    if isinstance(value, str) or not hasattr(value, "__iter__"):
        return str(value)
    return "\\".join(str(part) for part in value)


def _stored_range(dataset: Dataset) -> tuple[int, int]:
    bits = int(dataset.BitsStored)
    return (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if dataset.PixelRepresentation else (0, 2**bits - 1)


# ---------------------------------------------------------------------------------------------------------------- steps


def _padding(pixels: np.ndarray, dataset: Dataset) -> np.ndarray:
    """(rows, columns) bool: pixels that only fill the frame (PS3.3 C.7.5.1.1.2); none where all would be.

    The padding is one value or, with a limit, all from one to the other. Either may be written with the other sign.
    """
    value, limit = (_padding_end(dataset, name) for name in ("PixelPaddingValue", "PixelPaddingRangeLimit"))
    if value is None:
        return np.zeros(pixels.shape, bool)
    low, high = sorted((value, value if limit is None else limit))
    padding = (pixels >= low) & (pixels <= high)
    return np.zeros(pixels.shape, bool) if padding.all() else padding


def _padding_end(dataset: Dataset, keyword: str) -> int | None:
    """A 16-bit value with the sign of the stored pixels, where it lies outside of their range as it is written."""
    element = dataset[keyword] if keyword in dataset else None
    if element is None or element.value is None:
        return None
    (value,) = _words(element, dataset.original_encoding[1] is not False)
    low, high = _stored_range(dataset)
    return next((number for number in (int(value), int(value) - 65536) if low <= number <= high), int(value))


def _modality(pixels: np.ndarray, dataset: Dataset) -> tuple[np.ndarray, Range]:
    """The values of the modality LUT or the rescale, as float, and the range that they can have."""
    if dataset.get("ModalityLUTSequence"):
        table = LookUpTable.of(dataset.ModalityLUTSequence[0], _stored_range(dataset), dataset)
        return table.entry(pixels).astype(float), (float(table.entries.min()), float(table.entries.max()))
    values, ends = pixels.astype(float), _stored_range(dataset)  # whole numbers would wrap around
    slope, intercept = first_number(dataset, "RescaleSlope"), first_number(dataset, "RescaleIntercept")
    if slope is None or intercept is None:
        return values, ends
    if slope == 0:
        raise DamagedElement("its RescaleSlope is 0")
    low, high = sorted(end * slope + intercept for end in ends)
    return values * slope + intercept, (low, high)


def _window(dataset: Dataset) -> tuple[float, float, str] | None:
    """Center, width and function of the first window; None where there is none or its width is 0, as some write it."""
    center, width = first_number(dataset, "WindowCenter"), first_number(dataset, "WindowWidth")
    if center is None or not width:
        return None
    function = str(dataset.get("VOILUTFunction") or "LINEAR").upper()
    if function not in ("LINEAR", "LINEAR_EXACT", "SIGMOID"):
        raise DamagedElement("its VOILUTFunction is not one of the standard")
    if width < (1 if function == "LINEAR" else 0):
        raise DamagedElement("its WindowWidth is too small for the window's function")
    return center, width, function


def windowed(values: np.ndarray, center: float, width: float, function: str) -> np.ndarray:
    """A window's output in [0, 1] for float values (PS3.3 C.11.2.1.2 and 3): LINEAR, LINEAR_EXACT or SIGMOID."""
    if function == "SIGMOID":
        return 1 / (1 + np.exp(np.clip(-4 * (values - center) / width, -700, 700)))
    if function == "LINEAR":  # whose window ends in the middle of the outermost values
        center, width = center - 0.5, width - 1
    return np.clip((values - center) / max(width, np.finfo(float).tiny) + 0.5, 0, 1)


def _spread(values: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """From the least to the largest valid value: [0, 1]; all 0 where they are equal."""
    low, high = float(values[valid].min()), float(values[valid].max())
    return np.clip((values - low) / (high - low), 0, 1) if high > low else np.zeros(values.shape)


# ------------------------------------------------------------------------------------------------------- look-up tables


@dataclass(frozen=True)
class LookUpTable:
    """A modality or VOI LUT (PS3.3 C.11.1.1, C.11.2.1.1). first: the value that `entries[0]` is for; entries: int64."""

    first: int
    entries: np.ndarray
    bits: int

    @classmethod
    def of(cls, item: Dataset, domain: Range, dataset: Dataset) -> LookUpTable:
        """The table of a sequence's item for values of `domain`. Raises DamagedElement.

        The descriptor's first value is read as signed or unsigned, whichever lets the table cover more of the domain.
        Its bits are taken from the entries where these need more or fewer, else the film would be cut off or dark.
        """
        if "LUTDescriptor" not in item or "LUTData" not in item:
            raise DamagedElement("its lookup table has no descriptor or no data")
        little_endian = dataset.original_encoding[1] is not False
        descriptor = _words(item["LUTDescriptor"], little_endian)
        if len(descriptor) != 3:
            raise DamagedElement("its lookup table has a damaged descriptor")
        count = int(descriptor[0]) or 65536
        entries = _entries(item["LUTData"], count, little_endian)
        unsigned = int(descriptor[1])
        declared_signed = item["LUTDescriptor"].VR == "SS" and unsigned >= 32768
        choices = (unsigned - 65536, unsigned) if declared_signed else (unsigned, unsigned - 65536)
        first = max(choices, key=lambda first: min(first + count - 1, domain[1]) - max(first, domain[0]))
        return cls(first, entries, max(int(entries.max()).bit_length(), 1))

    def entry(self, values: np.ndarray) -> np.ndarray:
        """The entries for values of any shape; those beyond the table's ends take the entry at that end."""
        return self.entries[np.clip(np.rint(values) - self.first, 0, len(self.entries) - 1).astype(int)]

    def to_unit(self, values: np.ndarray) -> np.ndarray:
        """As `entry`, in [0, 1]."""
        return self.entry(values) / (2**self.bits - 1)


def _words(element: DataElement, little_endian: bool) -> np.ndarray:
    """The value of an element of 16-bit words as uint16 (n,), whatever its type is declared to be."""
    value = element.value
    if isinstance(value, bytes):
        order = "<u2" if little_endian else ">u2"
        return np.frombuffer(value[: len(value) // 2 * 2], order).astype(np.uint16)
    return (np.atleast_1d(np.asarray(value, dtype=np.int64)) % 65536).astype(np.uint16)


def _entries(element: DataElement, count: int, little_endian: bool) -> np.ndarray:
    """The `count` entries of LUT data, of 16 bit, or of 8 bit packed in pairs, the lower byte first."""
    value = element.value
    in_bytes = isinstance(value, bytes) and element.VR != "OW"
    if isinstance(value, bytes) and len(value) == count and in_bytes:
        return np.frombuffer(value, np.uint8).astype(np.int64)
    words = _words(element, little_endian)
    if len(words) == count:
        return words.astype(np.int64)
    packed = np.frombuffer(value, np.uint8) if in_bytes else words.astype("<u2").view(np.uint8)
    if len(packed) not in (count, count + count % 2):
        raise DamagedElement("its lookup table has another number of entries than it declares")
    return packed[:count].astype(np.int64)
