"""How DICOM films are shown: numbers, look-up tables and padding as real files write them, rightly and wrongly."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from cxr.files import InputError
from cxr.images import open_film
from tests.dcmtk import by_dcmtk
from tests.dicom_films import in_byte_order, lookup_table, write_dicom

RAMP = np.arange(0, 4096, 16, dtype=np.uint16).reshape(16, 16)
SYNTAXES = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian)


def shown(path: Path) -> np.ndarray:
    """(rows, columns) in [0, 1]"""
    return np.asarray(open_film(path), dtype=float) / 255


# -------------------------------------------------------------------------------------------------------------- numbers


@pytest.mark.parametrize(
    "number", ["2048,0", "2048 H", "2 048", "2048HU", "0x800", "1e", "--5", "NaN", "inf", "1e999", "٣", "-"]
)
@pytest.mark.parametrize("keyword", ["WindowCenter", "WindowWidth", "RescaleSlope", "RescaleIntercept"])
def test_a_damaged_number_is_refused_and_named_without_its_value(tmp_path, number, keyword):
    facts = {"WindowCenter": "2048", "WindowWidth": "4096", "RescaleSlope": "1", "RescaleIntercept": "0"}
    write_dicom(tmp_path / "f.dcm", RAMP, bits=12, **facts)
    film = pydicom.dcmread(tmp_path / "f.dcm")
    film[keyword] = pydicom.DataElement(film[keyword].tag, "LO", number)
    film.SpecificCharacterSet = "ISO_IR 192"
    film.save_as(tmp_path / "f.dcm")
    content = (tmp_path / "f.dcm").read_bytes()
    at = content.index(number.encode())
    (tmp_path / "f.dcm").write_bytes(content[: at - 4] + b"DS" + content[at - 2 :])
    with pytest.raises(InputError) as caught:
        open_film(tmp_path / "f.dcm")
    assert keyword in str(caught.value) and "number" in str(caught.value)
    assert number not in str(caught.value).removeprefix(str(tmp_path))


@pytest.mark.parametrize("center", ["2048", " 2048 ", "+2048.0", "2.048E3", "2048.", "2048\\7", "002048"])
@pytest.mark.parametrize("syntax", SYNTAXES)
def test_every_way_to_write_a_decimal_is_read_as_by_dcmtk(tmp_path, center, syntax):
    write_dicom(tmp_path / "f.dcm", RAMP, bits=12, syntax=syntax, WindowCenter=center, WindowWidth="1000\\8")
    expected = np.clip((RAMP - 2047.5) / 999 + 0.5, 0, 1)  # PS3.3 C.11.2.1.2
    np.testing.assert_allclose(shown(tmp_path / "f.dcm"), expected, atol=1e-5)
    np.testing.assert_allclose(by_dcmtk(tmp_path / "f.dcm", "--use-window", "1"), expected, atol=1.01 / 255)


@pytest.mark.parametrize(
    ("facts", "named"),
    [
        ({"WindowCenter": "5", "WindowWidth": "-10"}, "WindowWidth"),
        ({"WindowCenter": "5", "WindowWidth": "0.5"}, "WindowWidth"),
        ({"WindowCenter": "5", "WindowWidth": "10", "VOILUTFunction": "CUBIC"}, "VOILUTFunction"),
        ({"RescaleSlope": "0", "RescaleIntercept": "1"}, "RescaleSlope"),
    ],
)
def test_numbers_that_leave_no_picture_are_refused(tmp_path, facts, named):
    write_dicom(tmp_path / "f.dcm", RAMP, bits=12, **facts)
    with pytest.raises(InputError, match=named):
        open_film(tmp_path / "f.dcm")


@pytest.mark.parametrize(
    "facts", [{}, {"WindowCenter": "", "WindowWidth": ""}, {"WindowCenter": "0", "WindowWidth": "0"}]
)
def test_an_absent_window_is_no_damage(tmp_path, facts):
    write_dicom(tmp_path / "f.dcm", RAMP, bits=12, **facts)
    np.testing.assert_allclose(shown(tmp_path / "f.dcm"), RAMP / RAMP.max(), atol=1e-5)


# ------------------------------------------------------------------------------------------------------- look-up tables

CURVE = np.rint(255 * np.sqrt(np.arange(4096) / 4095)).astype(int)  # of 8 bit
DEEP_CURVE = np.rint(16383 * np.sqrt(np.arange(4096) / 4095)).astype(int)  # of 14 bit


def packed_bytes(entries: np.ndarray, data: str, syntax) -> bytes:
    """8-bit entries as they lie in a file: in OW two to a word, the first in its lower byte."""
    content = entries.astype(np.uint8).tobytes() + b"\0" * (len(entries) % 2)
    return in_byte_order(np.frombuffer(content, "<u2"), syntax) if data == "OW" else content


def hide_type(path: Path, vr: bytes) -> None:
    """Declares LUTData to be of unknown type (UN), which pydicom does not write for elements that it knows."""
    content = path.read_bytes()
    for tag in (b"\x28\x00\x06\x30", b"\x00\x28\x30\x06"):
        content = content.replace(tag + vr, tag + b"UN")
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("syntax", "data"),
    [(syntax, data) for syntax in SYNTAXES for data in ("OB", "OW", "UN") if syntax.is_little_endian or data != "UN"],
)
@pytest.mark.parametrize("odd", [False, True])
def test_entries_of_8_bit_packed_in_pairs(tmp_path, syntax, data, odd):
    curve = CURVE[:4095] if odd else CURVE
    item = lookup_table(packed_bytes(curve, data, syntax), 0, 8, count=len(curve), data=data.replace("UN", "OB"))
    write_dicom(tmp_path / "f.dcm", RAMP, bits=12, syntax=syntax, VOILUTSequence=[item])
    if data == "UN":
        hide_type(tmp_path / "f.dcm", b"OB")
    np.testing.assert_allclose(shown(tmp_path / "f.dcm"), CURVE[RAMP] / 255, atol=1e-5)
    if data == "OW":  # dcmtk takes no other type for a table
        np.testing.assert_allclose(
            by_dcmtk(tmp_path / "f.dcm", "--use-voi-lut", "1"), CURVE[RAMP] / 255, atol=1.01 / 255
        )


def test_entries_of_8_bit_packed_in_words_of_us(tmp_path):
    words = np.frombuffer(CURVE.astype(np.uint8).tobytes(), "<u2").tolist()
    write_dicom(tmp_path / "f.dcm", RAMP, bits=12, VOILUTSequence=[lookup_table(words, 0, 8, count=4096)])
    np.testing.assert_allclose(shown(tmp_path / "f.dcm"), CURVE[RAMP] / 255, atol=1e-5)
    np.testing.assert_allclose(by_dcmtk(tmp_path / "f.dcm", "--use-voi-lut", "1"), CURVE[RAMP] / 255, atol=1.01 / 255)


@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize("data", ["US", "OW", "SS", "UN"])
def test_entries_of_16_bit_in_either_byte_order(tmp_path, syntax, data):
    entries = {
        "US": DEEP_CURVE.tolist(),
        "SS": DEEP_CURVE.tolist(),
    }.get(data, in_byte_order(DEEP_CURVE.astype(np.uint16), syntax))
    item = lookup_table(entries, 0, 14, count=4096, data=data.replace("UN", "OW"))
    write_dicom(tmp_path / "f.dcm", RAMP, bits=12, syntax=syntax, VOILUTSequence=[item])
    if data == "UN":
        hide_type(tmp_path / "f.dcm", b"OW")
    np.testing.assert_allclose(shown(tmp_path / "f.dcm"), DEEP_CURVE[RAMP] / 16383, atol=1e-4)


@pytest.mark.parametrize("declared", [14, 16, 10, 0])
def test_entries_narrower_or_wider_than_declared_keep_their_own_width(tmp_path, declared):
    item = lookup_table(DEEP_CURVE.tolist(), 0, declared)
    write_dicom(tmp_path / "f.dcm", RAMP, bits=12, VOILUTSequence=[item])
    np.testing.assert_allclose(shown(tmp_path / "f.dcm"), DEEP_CURVE[RAMP] / 16383, atol=1e-4)


SIGNED_RAMP = RAMP.astype(np.int16) - 2048


@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize("descriptor", ["US", "SS"])
@pytest.mark.parametrize("how", ["signed pixels", "intercept", "modality table"])
def test_a_negative_first_value_in_either_sign(tmp_path, syntax, descriptor, how):
    """64000 written as US is -1536; the values of `how` reach from -2048 to 2047."""
    first = -1536 if descriptor == "SS" else 64000
    facts = {"RescaleSlope": 1, "RescaleIntercept": -2048} if how == "intercept" else {}
    tables = [lookup_table(DEEP_CURVE.tolist(), first, 14, descriptor=descriptor)]
    pixels = RAMP if how == "intercept" else SIGNED_RAMP
    sequence = "ModalityLUTSequence" if how == "modality table" else "VOILUTSequence"
    write_dicom(tmp_path / "f.dcm", pixels, bits=12, syntax=syntax, **facts, **{sequence: tables})
    expected = DEEP_CURVE[np.clip(SIGNED_RAMP + 1536, 0, 4095)]
    expected = expected / expected.max() if how == "modality table" else expected / 16383
    np.testing.assert_allclose(shown(tmp_path / "f.dcm"), expected, atol=1e-4)
    if descriptor == "SS" and how == "signed pixels":
        np.testing.assert_allclose(by_dcmtk(tmp_path / "f.dcm", "--use-voi-lut", "1"), expected, atol=1.01 / 255)


def test_a_large_first_value_written_as_ss_stays_positive(tmp_path):
    pixels = (RAMP + 40000).astype(np.uint16)
    item = lookup_table(DEEP_CURVE.tolist(), 40000 - 65536, 14, descriptor="SS")
    write_dicom(tmp_path / "f.dcm", pixels, bits=16, VOILUTSequence=[item])
    np.testing.assert_allclose(shown(tmp_path / "f.dcm"), DEEP_CURVE[RAMP] / 16383, atol=1e-4)


def test_a_table_of_65536_entries_counts_them_as_0(tmp_path):
    curve = np.arange(65536)[::-1]
    pixels = (RAMP * 16).astype(np.uint16)
    item = lookup_table(curve.astype("<u2").tobytes(), 0, 16, count=65536, data="OW")
    write_dicom(tmp_path / "f.dcm", pixels, VOILUTSequence=[item])
    np.testing.assert_allclose(shown(tmp_path / "f.dcm"), (65535 - pixels.astype(float)) / 65535, atol=1e-4)


@pytest.mark.parametrize("count", [4095, 4097, 2048, 8192])
def test_a_table_of_another_length_than_declared_is_refused(tmp_path, count):
    write_dicom(
        tmp_path / "f.dcm", RAMP, bits=12, VOILUTSequence=[lookup_table(DEEP_CURVE.tolist(), 0, 14, count=count)]
    )
    if count == 8192:  # would be right for entries of 8 bit
        assert open_film(tmp_path / "f.dcm").size == (16, 16)
        return
    with pytest.raises(InputError, match="another number of entries"):
        open_film(tmp_path / "f.dcm")


# -------------------------------------------------------------------------------------------------------------- padding


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("window", [{}, {"WindowCenter": 2048, "WindowWidth": 4096, "VOILUTFunction": "LINEAR_EXACT"}])
@pytest.mark.parametrize(
    ("kind", "value", "limit", "padding"),
    [
        ("uint16", 0, None, [0, 0]),
        ("uint16", 65535, None, [65535, 65535]),
        ("uint16", 4000, 4095, [4000, 4095]),
        ("uint16", 4095, 4000, [4000, 4095]),
        ("int16", -2000, None, [-2000, -2000]),
        ("int16", 63536, None, [-2000, -2000]),  # -2000 written as US
        ("int16", 63536, 63636, [-2000, -1900]),
        ("int16", -2000, -1900, [-2000, -1900]),
    ],
)
def test_padding_takes_no_part_and_is_black(tmp_path, photometric, window, kind, value, limit, padding):
    pixels = np.linspace(0, 1, 256).reshape(16, 16) * 2999 + 500
    pixels = np.rint(pixels).astype(kind)
    pixels[:2] = np.resize(padding, 16)
    facts = {"PixelPaddingValue": value} | ({} if limit is None else {"PixelPaddingRangeLimit": limit})
    write_dicom(tmp_path / "f.dcm", pixels, bits=16, PhotometricInterpretation=photometric, **window)
    film = pydicom.dcmread(tmp_path / "f.dcm")
    for keyword, number in facts.items():
        film.add(pydicom.DataElement(keyword, "US" if number >= 0 else "SS", number))
    film.save_as(tmp_path / "f.dcm")
    anatomy = pixels[2:].astype(float)
    expected = anatomy / 4096 if window else (anatomy - anatomy.min()) / (anatomy.max() - anatomy.min())
    if photometric == "MONOCHROME1":
        expected = 1 - expected
    found = shown(tmp_path / "f.dcm")
    np.testing.assert_allclose(found[2:], expected, atol=1e-4)
    assert (found[:2] == 0).all()


def test_a_film_of_nothing_but_padding_is_shown_as_it_is(tmp_path):
    write_dicom(tmp_path / "f.dcm", np.full((4, 4), 7, np.uint16), PixelPaddingValue=7, WindowCenter=7, WindowWidth=4)
    assert 0 < shown(tmp_path / "f.dcm").max() < 1


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("shape", ["INVERSE", "IDENTITY", "", "OTHER"])
def test_the_presentation_lut_decides_as_in_dcmtk(tmp_path, photometric, shape):
    facts = {"WindowCenter": 2048, "WindowWidth": 4096, "VOILUTFunction": "LINEAR_EXACT"}
    facts |= {"PhotometricInterpretation": photometric} | ({"PresentationLUTShape": shape} if shape else {})
    write_dicom(tmp_path / "f.dcm", RAMP, bits=12, **facts)
    inverse = shape == "INVERSE" if shape in ("INVERSE", "IDENTITY") else photometric == "MONOCHROME1"
    expected = 1 - RAMP / 4096 if inverse else RAMP / 4096
    np.testing.assert_allclose(shown(tmp_path / "f.dcm"), expected, atol=1e-4)
    np.testing.assert_allclose(by_dcmtk(tmp_path / "f.dcm", "--use-window", "1"), expected, atol=1.5 / 255)


# ----------------------------------------------------------------------------------------------------------------- bits


@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("shift", [0, 2, 4])
def test_pixels_anywhere_in_their_words_are_read_as_by_dcmtk(tmp_path, syntax, signed, shift):
    """HighBit says where the stored bits end; those above and below may hold anything, overlays for instance."""
    values = RAMP.astype(int) - (2048 if signed else 0)
    rest = np.random.default_rng(0).integers(0, 65536, RAMP.shape) & ~(4095 << shift)
    words = ((values & 4095) << shift | rest).astype(np.uint16)
    window = {"WindowCenter": 0 if signed else 2048, "WindowWidth": 4096, "VOILUTFunction": "LINEAR_EXACT"}
    write_dicom(
        tmp_path / "f.dcm",
        words.view(np.int16) if signed else words,
        bits=12,
        syntax=syntax,
        HighBit=11 + shift,
        **window,
    )
    expected = RAMP / 4096
    np.testing.assert_allclose(shown(tmp_path / "f.dcm"), expected, atol=1e-4)
    np.testing.assert_allclose(by_dcmtk(tmp_path / "f.dcm", "--use-window", "1"), expected, atol=1.5 / 255)
