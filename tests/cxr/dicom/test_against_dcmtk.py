"""Every DICOM file of pydicom and pydicom-data that both this project and dcmtk read: equal pictures.

In CI one file of each kind; with ALL_DICOM_FILES=1 all of them, which takes half a minute.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import numpy as np
import pydicom
import pytest

from cxr.dicom.reader import read_dicom
from cxr.files import InputError
from tests.dcmtk import by_dcmtk

ROOTS = [Path(pydicom.__file__).parent / "data/test_files"]
SHORT = (
    "CT_small.dcm", "ExplVR_BigEnd.dcm", "JPEG-LL.dcm", "JPEG-lossy.dcm", "JPEGLSNearLossless_16.dcm",
    "JPGExtended.dcm", "MR-SIEMENS-DICOM-WithOverlays.dcm", "MR_small_RLE.dcm", "MR_small_padded.dcm",
    "SC_rgb.dcm", "SC_rgb_rle.dcm", "image_dfl.dcm", "mlut_18.dcm", "vlut_04.dcm",
)  # fmt: skip
JPEG_LS = ("1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81")


def dicom_files() -> list[Path]:
    roots = list(ROOTS)
    try:
        import data_store

        roots.append(Path(data_store.__file__).parent)
    except ImportError:  # pydicom-data is not installed
        pass
    files = sorted(path for root in roots for path in root.rglob("*") if path.suffix in ("", ".dcm") and path.is_file())
    return [path for path in files if os.environ.get("ALL_DICOM_FILES") or path.name in SHORT]


def as_shown(path: Path) -> list[str]:
    """dcmtk's options for what this project shows by itself."""
    film = pydicom.dcmread(path, force=True)
    if film.get("VOILUTSequence"):
        return ["--use-voi-lut", "1"]
    if film.get("WindowCenter") is not None and film.get("WindowWidth"):
        return ["--use-window", "1"]
    return ["--min-max-window"]


@pytest.mark.parametrize("path", dicom_files(), ids=lambda path: path.name)
def test_it_is_shown_as_by_dcmtk(tmp_path, path):
    try:
        image = read_dicom(path)
    except InputError as error:
        assert path.name not in SHORT
        pytest.skip(f"not a radiograph: {str(error).removeprefix(f'{path}: ')}")
    source = path
    if str(pydicom.dcmread(path, force=True).file_meta.get("TransferSyntaxUID")) in JPEG_LS:
        source = tmp_path / "plain.dcm"
        subprocess.run(["dcmdjpls", str(path), str(source)], capture_output=True, timeout=60, check=False)
    expected = by_dcmtk(source, *as_shown(path), folder=tmp_path)
    if expected is None:
        assert path.name not in SHORT
        pytest.skip("dcmtk does not show it")
    found = np.asarray(image, dtype=float) / (65535 if image.mode == "I;16" else 255)
    levels = 2.01 if image.mode == "RGB" else 1.2  # of 255: rounding, and that of the colours' conversion
    np.testing.assert_allclose(found, expected, atol=levels / 255)
