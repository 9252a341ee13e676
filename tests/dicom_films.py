"""Small DICOM films, plain or with a canary in every element that holds words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from pydicom._dicom_dict import DicomDictionary
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ComputedRadiographyImageStorage, ExplicitVRLittleEndian, generate_uid

CANARY = "CANARYBIRD"

_WORDS = ("AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT")
_ODD = ("AS", "DA", "DT", "TM", "UI")
_NEEDED = ("PhotometricInterpretation", "SpecificCharacterSet", "SOPClassUID")


def write_dicom(
    path: Path, pixels: np.ndarray, *, bits: int | None = None, canaries: bool = False, **facts: Any
) -> None:
    """Writes grey pixels (rows, columns), uncompressed; facts are elements by keyword, over the defaults."""
    film = Dataset()
    film.file_meta = FileMetaDataset()
    film.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    film.file_meta.MediaStorageSOPClassUID = film.SOPClassUID = ComputedRadiographyImageStorage
    film.file_meta.MediaStorageSOPInstanceUID = film.SOPInstanceUID = generate_uid()
    film.Modality, film.SamplesPerPixel, film.PhotometricInterpretation = "CR", 1, "MONOCHROME2"
    film.Rows, film.Columns = pixels.shape
    film.BitsAllocated = 8 * pixels.itemsize
    film.BitsStored = bits or film.BitsAllocated
    film.HighBit = film.BitsStored - 1
    film.PixelRepresentation = int(np.issubdtype(pixels.dtype, np.signedinteger))
    film.add_new("PixelData", "OW" if pixels.itemsize > 1 else "OB", pixels.tobytes())
    for keyword, value in facts.items():
        vr = dictionary_VR(keyword)
        vr = {"US or SS": "SS" if film.PixelRepresentation else "US"}.get(vr, vr)
        film[keyword] = DataElement(keyword, vr, value, validation_mode=0)
    for sequence in ("VOILUTSequence", "ModalityLUTSequence"):
        for item in film.get(sequence, ()):
            item["LUTDescriptor"].VR = item["LUTData"].VR = "US"
    if canaries:
        set_canaries(film)
    film.save_as(path, enforce_file_format=True)


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
