"""Small DICOM films, plain or with a canary in every element that holds words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from pydicom._dicom_dict import DicomDictionary
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ComputedRadiographyImageStorage, ExplicitVRLittleEndian, generate_uid

CANARY = "CANARYBIRD"

_WORDS = ("AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT")
_ODD = ("AS", "DA", "DT", "TM", "UI")
_NEEDED = ("PhotometricInterpretation", "SpecificCharacterSet", "SOPClassUID")


def write_dicom(
    path: Path,
    pixels: np.ndarray,
    *,
    bits: int | None = None,
    canaries: bool = False,
    syntax: UID = ExplicitVRLittleEndian,
    **facts: Any,
) -> None:
    """Writes grey pixels (rows, columns), uncompressed; facts are elements by keyword, over the defaults."""
    film = Dataset()
    film.file_meta = FileMetaDataset()
    film.file_meta.TransferSyntaxUID = syntax
    film.file_meta.MediaStorageSOPClassUID = film.SOPClassUID = ComputedRadiographyImageStorage
    film.file_meta.MediaStorageSOPInstanceUID = film.SOPInstanceUID = generate_uid()
    film.Modality, film.SamplesPerPixel, film.PhotometricInterpretation = "CR", 1, "MONOCHROME2"
    film.Rows, film.Columns = pixels.shape
    film.BitsAllocated = 8 * pixels.itemsize
    film.BitsStored = bits or film.BitsAllocated
    film.HighBit = film.BitsStored - 1
    film.PixelRepresentation = int(np.issubdtype(pixels.dtype, np.signedinteger))
    film.add_new("PixelData", "OW" if pixels.itemsize > 1 else "OB", in_byte_order(pixels, syntax))
    for keyword, value in facts.items():
        vr = dictionary_VR(keyword)
        vr = {"US or SS": "SS" if film.PixelRepresentation else "US"}.get(vr, vr)
        film[keyword] = DataElement(keyword, vr, value, validation_mode=0)
    for sequence in ("VOILUTSequence", "ModalityLUTSequence"):
        for item in film.get(sequence, ()):
            for element in (item["LUTDescriptor"], item["LUTData"]):
                element.VR = "US" if " or " in element.VR else element.VR
    if canaries:
        set_canaries(film)
    film.save_as(path, enforce_file_format=True)


def in_byte_order(values: np.ndarray, syntax: UID) -> bytes:
    """The bytes of values in a file of this syntax."""
    return values.astype(values.dtype.newbyteorder("<" if syntax.is_little_endian else ">")).tobytes()


def lookup_table(
    entries: Any, first: int, bits: int, *, count: int | None = None, descriptor: str = "US", data: str = "US"
) -> Dataset:
    """An item of a LUT sequence; entries: a list of numbers or bytes; descriptor, data: value representations."""
    item = Dataset()
    number = (len(entries) if count is None else count) % 65536
    words = [number, first, bits]
    if descriptor == "SS":
        words = [word - 65536 if word > 32767 else word for word in words]
    item.add(DataElement("LUTDescriptor", descriptor, words, validation_mode=0))
    item.add(DataElement("LUTData", data, entries, validation_mode=0))
    return item


def set_canaries(film: Dataset, *, odd: bool = False) -> None:
    """A canary in every element of the standard that holds words, in a nested item, in private tags and in the file's
    own header; `odd` puts it where no word may be: into dates, times and identifiers."""
    for tag, (vr, _, _, _, keyword) in DicomDictionary.items():
        if vr in (_ODD if odd else _WORDS) and tag >> 16 > 4 and keyword not in _NEEDED:
            film.add(DataElement(tag, vr, CANARY, validation_mode=0))
    film.file_meta.SourceApplicationEntityTitle = film.file_meta.ImplementationVersionName = CANARY
    item = Dataset()
    item.CodeMeaning = CANARY
    film.ProcedureCodeSequence = [item]
    block = film.private_block(0x0011, CANARY, create=True)
    block.add_new(0x01, "LO", CANARY)
    block.add_new(0x02, "UN", CANARY.encode())
