"""DICOM films against pydicom-data's chest radiograph, pydicom's own window, and files made for the purpose."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.pixels import apply_windowing
from pydicom.uid import JPEGLosslessSV1, JPEGLSLossless, RLELossless

from cxr.dicom.grey_values import windowed
from cxr.dicom.reader import read_dicom
from cxr.files import InputError
from cxr.images import open_film, read_stored
from tests.dicom_films import CANARY, set_canaries, write_dicom


def chest(name: str) -> Path:
    """The chest radiograph of pydicom-data: Philips, PA, MONOCHROME1, 15 bit, window 15000 / 30000."""
    return Path(get_testdata_file(name, download=False))


def shown(path: Path) -> np.ndarray:
    """(rows, columns) in [0, 1]"""
    return np.asarray(open_film(path), dtype=float) / 255


def test_the_chest_film_has_its_window_and_bright_bones():
    film = shown(chest("RG1_UNCR.dcm"))
    stored = pydicom.dcmread(chest("RG1_UNCR.dcm")).pixel_array.astype(float)
    expected = 1 - np.clip((stored - 14999.5) / 29999 + 0.5, 0, 1)  # PS3.3 C.11.2.1.2, then MONOCHROME1
    np.testing.assert_allclose(film, expected, atol=1e-5)
    assert film.shape == (1955, 1841)
    spine, right_lung, left_lung = film[300:600, 870:950], film[450:600, 350:450], film[450:600, 1300:1400]
    assert spine.mean() > right_lung.mean() + 0.15
    assert spine.mean() > left_lung.mean() + 0.15
    neck, belly = film[20:100, 870:950], film[1700:1900, 500:700]
    assert belly.mean() > neck.mean()  # upright


@pytest.mark.parametrize(("compressed", "plain"), [("RG1_J2KR.dcm", "RG1_UNCR.dcm"), ("RG1_J2KI.dcm", "RG1_UNCI.dcm")])
def test_jpeg_2000_is_read_as_its_uncompressed_form(compressed, plain):
    np.testing.assert_array_equal(shown(chest(compressed)), shown(chest(plain)))


def test_rle_is_read_as_its_uncompressed_form(tmp_path):
    film = pydicom.dcmread(chest("RG1_UNCR.dcm"))
    film.compress(RLELossless)
    film.save_as(tmp_path / "rle.dcm")
    np.testing.assert_array_equal(shown(tmp_path / "rle.dcm"), shown(chest("RG1_UNCR.dcm")))


@pytest.mark.parametrize("syntax", [JPEGLosslessSV1, JPEGLSLossless])
def test_lossless_jpeg_is_read_as_its_uncompressed_form(tmp_path, syntax):
    transcode(chest("RG1_UNCR.dcm"), tmp_path / "film", syntax)  # no ending: known by its content
    assert pydicom.dcmread(tmp_path / "film").file_meta.TransferSyntaxUID == syntax
    np.testing.assert_array_equal(shown(tmp_path / "film"), shown(chest("RG1_UNCR.dcm")))


def transcode(source: Path, target: Path, syntax: str) -> None:
    import gdcm

    reader = gdcm.ImageReader()
    reader.SetFileName(str(source))
    assert reader.Read()
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(str(syntax))))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer = gdcm.ImageWriter()
    writer.SetFileName(str(target))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()


RAMP = np.arange(0, 4096, 16, dtype=np.uint16).reshape(16, 16)


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("bits", [8, 10, 12, 16])
def test_without_a_window_the_values_are_spread_and_monochrome1_is_turned_over(tmp_path, bits, photometric):
    pixels = (np.arange(256).reshape(16, 16) * (2**bits - 1) // 255).astype(np.uint8 if bits == 8 else np.uint16)
    write_dicom(tmp_path / "f.dcm", pixels, bits=bits, PhotometricInterpretation=photometric)
    expected = pixels / pixels.max()
    expected = expected if photometric == "MONOCHROME2" else 1 - expected
    np.testing.assert_allclose(shown(tmp_path / "f.dcm"), expected, atol=1e-5)


def test_padding_does_not_take_part_in_the_spread(tmp_path):
    pixels = np.array([[60000, 1000], [2000, 3000]], dtype=np.uint16)
    write_dicom(tmp_path / "f.dcm", pixels, PixelPaddingValue=60000)
    np.testing.assert_allclose(shown(tmp_path / "f.dcm"), [[0, 0], [0.5, 1]], atol=1e-5)


def test_signed_values_are_rescaled_before_the_window(tmp_path):
    pixels = np.array([[-100, 0], [50, 100]], dtype=np.int16)
    facts = {"RescaleSlope": 2, "RescaleIntercept": 10, "WindowCenter": [60, 7], "WindowWidth": [200, 7]}
    write_dicom(tmp_path / "f.dcm", pixels, VOILUTFunction="LINEAR_EXACT", **facts)  # the first of two windows counts
    np.testing.assert_allclose(shown(tmp_path / "f.dcm"), [[0, 0.25], [0.75, 1]], atol=1e-5)


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
def test_windows_agree_with_pydicom(function):
    dataset = Dataset()
    dataset.PhotometricInterpretation, dataset.PixelRepresentation, dataset.BitsStored = "MONOCHROME2", 0, 12
    dataset.WindowCenter, dataset.WindowWidth, dataset.VOILUTFunction = 1500, 900, function
    values = RAMP.astype(float)
    np.testing.assert_allclose(
        windowed(values, 1500, 900, function), apply_windowing(values, dataset) / 4095, atol=1e-12
    )


def test_a_voi_lut_comes_before_the_window_and_reaches_beyond_256_entries(tmp_path):
    """4096 values to 8 bit: the case in which pydicom's own function wraps around."""
    table = np.repeat(np.arange(256), 16)[::-1].astype(np.uint16)  # turns the film over
    lut = Dataset()
    lut.LUTDescriptor, lut.LUTData = [len(table), 0, 8], table.tolist()
    write_dicom(tmp_path / "f.dcm", RAMP, bits=12, VOILUTSequence=[lut], WindowCenter=5, WindowWidth=10)
    np.testing.assert_allclose(shown(tmp_path / "f.dcm"), (255 - RAMP // 16) / 255, atol=1e-5)


def test_values_beyond_a_voi_lut_take_its_ends(tmp_path):
    lut = Dataset()
    lut.LUTDescriptor, lut.LUTData = [3, 100, 10], [0, 512, 1023]
    pixels = np.array([[0, 100], [101, 5000]], dtype=np.uint16)
    write_dicom(tmp_path / "f.dcm", pixels, VOILUTSequence=[lut])
    np.testing.assert_allclose(shown(tmp_path / "f.dcm"), [[0, 0], [512 / 1023, 1]], atol=1e-5)


def test_a_modality_lut_is_applied(tmp_path):
    lut = Dataset()
    lut.LUTDescriptor, lut.LUTData, lut.ModalityLUTType = [4, 0, 16], [0, 10, 1000, 20], "US"
    pixels = np.array([[0, 1], [2, 3]], dtype=np.uint16)
    write_dicom(tmp_path / "f.dcm", pixels, ModalityLUTSequence=[lut])
    np.testing.assert_allclose(shown(tmp_path / "f.dcm"), [[0, 0.01], [1, 0.02]], atol=1e-5)


def test_colour_becomes_grey_as_in_other_images():
    path = Path(get_testdata_file("SC_rgb_small_odd.dcm", download=False))
    image = read_stored(path).image
    assert image.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(open_film(path)), np.asarray(image.convert("L")))


def test_a_tiff_whose_white_is_zero_is_turned_over(tmp_path):
    """Pillow does so for 8 bit, not for 16."""
    pixels = np.array([[0, 65535], [257, 65278]], dtype=np.uint16)
    Image.fromarray(pixels).save(tmp_path / "f.tif")
    content = bytearray((tmp_path / "f.tif").read_bytes())
    entry = content.index(b"\x06\x01\x03\x00")  # tag 262, photometric interpretation, SHORT
    assert content[entry + 8] == 1
    content[entry + 8] = 0
    (tmp_path / "white.tif").write_bytes(content)
    np.testing.assert_allclose(np.asarray(open_film(tmp_path / "white.tif")), [[255, 0], [254, 1]], atol=1e-4)
    np.testing.assert_allclose(np.asarray(open_film(tmp_path / "f.tif")), [[0, 255], [1, 254]], atol=1e-4)


# ---------------------------------------------------------------------------------------------- mistakes, and silence


def damaged(folder: Path, kind: str) -> Path:
    """A file that cannot be read as a film, with the canary in every element that has words."""
    path = folder / f"{kind}.dcm"
    facts: dict = {}
    if kind == "several frames":
        facts["NumberOfFrames"] = 2
    if kind == "palette":
        facts["PhotometricInterpretation"] = "PALETTE COLOR"
    if kind == "words for colours":
        facts["PhotometricInterpretation"] = CANARY
    pixels = np.zeros((32, 32), dtype=np.uint32 if kind == "32 bit" else np.uint16)
    write_dicom(path, pixels, bits=32 if kind == "32 bit" else 16, canaries=True, **facts)
    if kind == "cut":
        path.write_bytes(path.read_bytes()[:-500])
    elif kind == "no header":
        path.write_bytes(b"\0" * 200 + CANARY.encode())
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "missing":
        path.unlink()
    elif kind in ("no image", "unknown syntax", "undecodable"):
        film = pydicom.dcmread(path)
        if kind == "no image":
            del film.PixelData
        else:
            known = "1.2.840.10008.1.2.4.90" if kind == "undecodable" else f"1.2.3.{CANARY}"
            film.PixelData = pydicom.encaps.encapsulate([CANARY.encode() * 8])
            film["PixelData"].is_undefined_length = True
            film.file_meta.TransferSyntaxUID = pydicom.uid.UID(known, validation_mode=0)
        pydicom.dcmwrite(path, film, implicit_vr=False, little_endian=True, force_encoding=True)
    return path


KINDS = ("several frames", "palette", "words for colours", "32 bit", "cut", "no header", "empty", "missing", "no image")


@pytest.mark.parametrize("kind", [*KINDS, "unknown syntax", "undecodable"])
def test_what_is_no_film_is_refused_in_one_line_without_its_words(tmp_path, kind, caplog, capfd, recwarn):
    path = damaged(tmp_path, kind)
    caplog.clear()  # of what pydicom said about the writing
    recwarn.clear()
    with caplog.at_level(logging.DEBUG), pytest.raises(InputError) as caught:
        read_dicom(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and "\n" not in message
    assert caught.value.__suppress_context__ or caught.value.__context__ is None  # nor in a traceback
    printed = "".join(capfd.readouterr())
    for text in (message, caplog.text, printed, *(str(warning.message) for warning in recwarn.list)):
        assert CANARY not in text


def test_reading_is_silent_and_leaves_logging_and_warnings_as_they_were(tmp_path, caplog, recwarn):
    path = tmp_path / "f.dcm"
    write_dicom(path, RAMP, canaries=True)
    film = pydicom.dcmread(path)
    set_canaries(film, odd=True)  # values that pydicom remarks on
    film.save_as(path)
    with caplog.at_level(logging.DEBUG):
        read_dicom(path)
    assert not caplog.records and not recwarn.list
    with pytest.warns(UserWarning, match=CANARY):  # so there was something to be silent about
        warnings.simplefilter("always")
        str(pydicom.dcmread(path))
    assert not logging.getLogger("pydicom").disabled
