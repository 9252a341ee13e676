"""Radiographs in DICOM: the file, its checks and its pixels. `cxr.dicom.grey_values` says how the pixels are shown.

No message repeats anything that a file says in words: its elements name the patient.
"""

from __future__ import annotations

import logging
import os
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image
from pydicom import Dataset, FileDataset, dcmread
from pydicom.encaps import generate_frames
from pydicom.pixels import pixel_array
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGExtended12Bit,
    UID_dictionary,
)

from cxr.dicom.grey_values import DamagedElement, shown
from cxr.dicom.header import frame_size, has_dicom_header, meta_information
from cxr.files import InputError, place
from cxr.pixels.pixel_limit import LIMIT_VARIABLE, check_size, most_pixels

_GREY = ("MONOCHROME1", "MONOCHROME2")
_COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")

_ROOM = 2**24
"""Bytes of a file besides its pixels, and again behind them."""


def read_dicom(path: Path) -> Image.Image:
    """The film as a Pillow image: mode `I;16`, 0 black and 65535 white, bones bright; `RGB` for a picture in colour.

    Compressed files are decoded by GDCM. The first VOI LUT is applied, else the first window, else the pixels are
    spread from their least to their largest value; padding is black. Rows and columns stay as stored. Files without
    preamble, meta information or transfer syntax are read where their first elements show the encoding.
    Raises InputError for a missing, damaged, unsupported or too large file.
    """
    with _silent():
        dataset = _read(path)
        try:
            _check(dataset, path)
        except InputError:
            raise
        except Exception:  # pydicom reads an element when it is asked for
            raise InputError(f"{place(path)}: the description of its image is damaged") from None
        with _silent_codecs():
            pixels = _decode(dataset, path)
        if pixels.ndim == 3:
            return Image.fromarray(pixels)
        try:
            grey = shown(pixels, dataset)
        except DamagedElement as error:
            raise InputError(f"{place(path)}: {error}; how it is to be shown is unknown") from None
        except Exception:
            raise InputError(f"{place(path)}: its window or lookup table is damaged") from None
    return Image.fromarray(np.rint(grey * 65535).astype(np.uint16))


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


@contextmanager
def _silent_codecs() -> Iterator[None]:
    """The codecs below GDCM print what they find odd to file descriptor 2; their failures are told by `_decode`."""
    try:
        terminal, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    except OSError:  # a process without standard error
        yield
        return
    try:
        os.dup2(nothing, 2)
        yield
    finally:
        os.dup2(terminal, 2)
        os.close(terminal)
        os.close(nothing)


# ------------------------------------------------------------------------------------------------------------- the file


def _read(path: Path) -> FileDataset:
    content = _content(path)
    if not has_dicom_header(content):
        raise InputError(f"{place(path)}: {_other_format(content)}")
    try:
        meta, end = meta_information(content)
        if meta.get(0x00020010, b"").rstrip(b"\0 ") != DeflatedExplicitVRLittleEndian.encode():
            return dcmread(BytesIO(content), force=True)
        dataset = dcmread(BytesIO(_inflated(content[end:], path)), force=True)
    except InputError:
        raise
    except Exception:  # whatever a damaged file makes of the parser
        raise InputError(f"{place(path)}: not a readable DICOM file; is it complete?") from None
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return dataset


def _content(path: Path) -> bytes:
    """The file's bytes; a film of the largest size has at most six to a pixel."""
    try:
        if path.stat().st_size > 6 * most_pixels() + 2 * _ROOM:
            raise InputError(
                f"{place(path)}: a larger file than a film of {most_pixels() // 1_000_000} megapixels; "
                f"{LIMIT_VARIABLE} sets another limit"
            )
        return path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{place(path)}: no such film") from None
    except OSError as error:
        raise InputError(f"{place(path)}: cannot be read ({error.strerror})") from None


def _inflated(packed: bytes, path: Path) -> bytes:
    """The elements of a deflated file (PS3.5 A.5): those before the pixels first, then no more than these announce."""
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    content = inflater.decompress(packed, _ROOM)
    header = dcmread(BytesIO(content), force=True, stop_before_pixels=True)
    most = 2 * _ROOM + 6 * min(_whole(header, "Rows", 0) * _whole(header, "Columns", 0), most_pixels())
    content += inflater.decompress(inflater.unconsumed_tail, most - len(content))
    if not inflater.eof:
        if len(content) < most:
            raise ValueError("cut")
        raise InputError(f"{place(path)}: deflated, and unpacked much larger than the film that it announces")
    return content


def _other_format(content: bytes) -> str:
    """The message for a file that is not DICOM."""
    try:
        with Image.open(BytesIO(content)) as image:
            name = image.format
    except Exception:
        return "not a readable DICOM file; is it complete?"
    return f"a {name} image that is named like a DICOM file; give it the ending of its format"


def _check(dataset: FileDataset, path: Path) -> None:
    """Raises InputError unless the file holds one image of a kind and size that a radiograph can have."""
    if "PixelData" not in dataset:
        raise InputError(f"{place(path)}: a DICOM file without an image of whole numbers; expected a radiograph")
    if _whole(dataset, "NumberOfFrames", 1) > 1:
        raise InputError(f"{place(path)}: a DICOM file of several frames; save the one to be read as a file of its own")
    if dataset.get("PhotometricInterpretation") not in (*_GREY, *_COLOUR):
        raise InputError(f"{place(path)}: a DICOM image that is neither grey (MONOCHROME1, MONOCHROME2) nor RGB")
    if _whole(dataset, "BitsAllocated", 0) not in (8, 16):
        raise InputError(f"{place(path)}: a DICOM image of other than 8 to 16 bit")
    if not 1 <= _whole(dataset, "BitsStored", 0) <= dataset.BitsAllocated:
        raise InputError(f"{place(path)}: a DICOM image whose BitsStored is damaged")
    check_size(_whole(dataset, "Columns", 0), _whole(dataset, "Rows", 0), path)
    if not dataset.file_meta.get("TransferSyntaxUID"):
        _assume_syntax(dataset, path)


def _assume_syntax(dataset: FileDataset, path: Path) -> None:
    """Takes the encoding of the elements, as the parser found it, for that of the pixels."""
    if dataset["PixelData"].is_undefined_length:
        raise InputError(f"{place(path)}: its image is compressed, and it does not say how (no transfer syntax)")
    implicit, little_endian = dataset.original_encoding
    explicit = ExplicitVRLittleEndian if little_endian else ExplicitVRBigEndian
    dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else explicit


def _whole(dataset: Dataset, name: str, absent: int) -> int:
    try:
        return int(dataset.get(name) or absent)
    except (TypeError, ValueError):
        return absent


# ----------------------------------------------------------------------------------------------------------- the pixels


def _decode(dataset: FileDataset, path: Path) -> np.ndarray:
    """(rows, columns) as stored, or (rows, columns, 3) uint8 in RGB."""
    try:
        _check_frame(dataset)
        if _syntax(dataset) == JPEGExtended12Bit and dataset.BitsAllocated == 16:
            pixels = _decoded_by_gdcm(dataset)
        else:
            pixels = _lowest_bits(dataset)
    except Exception:
        raise InputError(
            f"{place(path)}: its image ({_syntax_name(dataset)}) is damaged or cannot be decoded"
        ) from None
    if pixels.ndim == 3 and pixels.dtype != np.uint8:
        raise InputError(f"{place(path)}: a DICOM image in colour of more than 8 bit")
    return pixels


def _check_frame(dataset: FileDataset) -> None:
    """Raises ValueError for a compressed frame much larger than its film: the codecs would allocate it all."""
    if not _syntax(dataset).is_encapsulated:
        return
    width, height = frame_size(_frame(dataset)) or (0, 0)
    if width * height > 4 * dataset.Columns * dataset.Rows:
        raise ValueError("a frame of another size")


def _frame(dataset: FileDataset) -> bytes:
    return next(generate_frames(dataset.PixelData, number_of_frames=1))


def _lowest_bits(dataset: FileDataset) -> np.ndarray:
    """The pixels of any other syntax; those that do not end at the lowest bit are shifted, which pydicom leaves out."""
    shift = _whole(dataset, "HighBit", dataset.BitsStored - 1) + 1 - dataset.BitsStored
    if shift <= 0 or _syntax(dataset).is_encapsulated:
        return pixel_array(dataset)
    dataset.BitsStored += shift
    pixels = pixel_array(dataset) >> shift
    dataset.BitsStored -= shift
    return pixels


def _decoded_by_gdcm(dataset: FileDataset) -> np.ndarray:
    """JPEG Extended of 12 bit, (rows, columns): GDCM decodes it, and pydicom does not ask it to."""
    import gdcm

    fragment, fragments = gdcm.Fragment(), gdcm.SequenceOfFragments.New()
    fragment.SetByteStringValue(_frame(dataset))
    fragments.AddFragment(fragment)
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetValue(fragments.__ref__())
    image = gdcm.Image()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((dataset.Columns, dataset.Rows, 1))
    image.SetDataElement(element)
    kind = gdcm.PhotometricInterpretation.GetPIType(dataset.PhotometricInterpretation)
    image.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(kind))
    image.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(str(JPEGExtended12Bit))))
    bits = dataset.BitsStored
    image.SetPixelFormat(gdcm.PixelFormat(1, dataset.BitsAllocated, bits, bits - 1, dataset.PixelRepresentation))
    decoded = image.GetBuffer().encode("utf-8", "surrogateescape")  # GDCM returns bytes as text
    pixels = np.frombuffer(decoded, np.int16 if dataset.PixelRepresentation else np.uint16)
    return pixels.reshape(dataset.Rows, dataset.Columns)


def _syntax(dataset: FileDataset) -> UID:
    return UID(str(dataset.file_meta.get("TransferSyntaxUID", "")))


def _syntax_name(dataset: FileDataset) -> str:
    """The transfer syntax in the standard's own words; what is not in the standard is not repeated."""
    uid = _syntax(dataset)
    return uid.name if uid in UID_dictionary else "an unknown transfer syntax"
