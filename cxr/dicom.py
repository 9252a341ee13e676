"""Radiographs in DICOM -> grey pixels with bones bright, as a viewer shows them when it opens the file.

The order of the steps is the standard's (PS3.4 N.2): modality LUT or rescale, then VOI LUT or window, then
MONOCHROME1 is inverted. No message repeats anything that a file says in words: its elements name the patient.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image
from pydicom import Dataset, FileDataset, dcmread
from pydicom.pixels import apply_modality_lut, pixel_array
from pydicom.uid import UID, UID_dictionary

from cxr.files import InputError

_GREY = ("MONOCHROME1", "MONOCHROME2")
_COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")


def read_dicom(path: Path) -> Image.Image:
    """The film as a Pillow image: mode `I;16`, 0 black and 65535 white, bones bright; `RGB` for a picture in colour.

    Compressed files are decoded by GDCM. The first VOI LUT is applied, else the first window, else the pixels are
    spread from their least to their largest value (padding left out). Rows and columns stay as stored.
    Raises InputError for a missing, damaged or unsupported file.
    """
    with _silent():
        dataset = _read(path)
        _check(dataset, path)
        pixels = _decode(dataset, path)
        if pixels.ndim == 3:
            return Image.fromarray(pixels)
        try:
            shown = _shown(pixels, dataset)
        except Exception:
            raise InputError(f"{path}: its window or lookup table is damaged") from None
    return Image.fromarray(np.rint(shown * 65535).astype(np.uint16))


@contextmanager
def _silent() -> Iterator[None]:
    """pydicom's warnings and log lines quote the elements that it finds odd."""
    logger = logging.getLogger("pydicom")
    disabled = logger.disabled
    logger.disabled = True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.disabled = disabled


def _read(path: Path) -> FileDataset:
    try:
        return dcmread(path)
    except FileNotFoundError:
        raise InputError(f"{path}: no such film") from None
    except Exception:  # whatever a damaged file makes of the parser
        raise InputError(f"{path}: not a readable DICOM file; is it complete?") from None


def _check(dataset: FileDataset, path: Path) -> None:
    """Raises InputError unless the file holds one image of a kind that a radiograph can be."""
    if "PixelData" not in dataset:
        raise InputError(f"{path}: a DICOM file without an image of whole numbers; expected a radiograph")
    if _whole(dataset, "NumberOfFrames", 1) > 1:
        raise InputError(f"{path}: a DICOM file of several frames; save the one to be read as a file of its own")
    if dataset.get("PhotometricInterpretation") not in (*_GREY, *_COLOUR):
        raise InputError(f"{path}: a DICOM image that is neither grey (MONOCHROME1, MONOCHROME2) nor RGB")
    if _whole(dataset, "BitsAllocated", 0) not in (8, 16):
        raise InputError(f"{path}: a DICOM image of other than 8 to 16 bit")


def _whole(dataset: Dataset, name: str, absent: int) -> int:
    try:
        return int(dataset.get(name) or absent)
    except (TypeError, ValueError):
        return absent


def _decode(dataset: FileDataset, path: Path) -> np.ndarray:
    """(rows, columns) as stored, or (rows, columns, 3) uint8 in RGB."""
    try:
        pixels = pixel_array(dataset)
    except Exception:
        raise InputError(f"{path}: its image ({_syntax(dataset)}) is damaged or cannot be decoded") from None
    if pixels.ndim == 3 and pixels.dtype != np.uint8:
        raise InputError(f"{path}: a DICOM image in colour of more than 8 bit")
    return pixels


def _syntax(dataset: FileDataset) -> str:
    """The transfer syntax in the standard's own words; what is not in the standard is not repeated."""
    uid = UID(str(dataset.file_meta.get("TransferSyntaxUID", "")))
    return uid.name if uid in UID_dictionary else "an unknown transfer syntax"


def _shown(pixels: np.ndarray, dataset: Dataset) -> np.ndarray:
    """Stored values (rows, columns) -> (rows, columns) in [0, 1], 1 being bright."""
    values = apply_modality_lut(pixels, dataset).astype(float)  # whole numbers would wrap around below
    if dataset.get("VOILUTSequence"):
        shown = _looked_up(values, dataset.VOILUTSequence[0])
    elif dataset.get("WindowCenter") is not None and dataset.get("WindowWidth"):
        shown = windowed(
            values,
            _first(dataset.WindowCenter),
            _first(dataset.WindowWidth),
            str(dataset.get("VOILUTFunction") or "LINEAR").upper(),
        )
    else:
        shown = _spread(values, pixels != dataset.get("PixelPaddingValue"))
    return 1 - shown if dataset.PhotometricInterpretation == "MONOCHROME1" else shown


def _first(value: object) -> float:
    return float(value[0] if hasattr(value, "__getitem__") else value)  # type: ignore[arg-type]


def windowed(values: np.ndarray, center: float, width: float, function: str) -> np.ndarray:
    """A window's output in [0, 1] for float values (PS3.3 C.11.2.1.2 and 3): LINEAR, LINEAR_EXACT or SIGMOID."""
    if function == "SIGMOID":
        return 1 / (1 + np.exp(-4 * (values - center) / width))
    if function == "LINEAR":  # whose window ends in the middle of the outermost values
        center, width = center - 0.5, width - 1
    return np.clip((values - center) / max(width, np.finfo(float).tiny) + 0.5, 0, 1)


def _looked_up(values: np.ndarray, lut: Dataset) -> np.ndarray:
    """A VOI LUT's output in [0, 1] (PS3.3 C.11.2.1.1): values beyond its ends take the entry at that end."""
    _, first, bits = (int(number) for number in lut.LUTDescriptor)
    data = lut.LUTData
    table = np.frombuffer(data, np.uint16) if isinstance(data, bytes) else np.asarray(data)
    places = np.clip(np.rint(values) - first, 0, len(table) - 1).astype(int)
    return table[places] / max(2**bits - 1, int(table.max()))


def _spread(values: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """From the least to the largest valid value: [0, 1]; all 0 where they are equal."""
    known = values[valid] if valid.any() else values
    low, high = float(known.min()), float(known.max())
    return np.clip((values - low) / (high - low), 0, 1) if high > low else np.zeros(values.shape)
