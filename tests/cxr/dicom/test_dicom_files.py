"""DICOM files with parts left out, of other names and contents: read where possible, else named for what they are."""

from __future__ import annotations

import io
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.data import get_testdata_file
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from cxr.dicom.header import frame_size, is_dicom, meta_information
from cxr.dicom.reader import read_dicom
from cxr.files import InputError
from cxr.film_folder import find_films
from cxr.images import open_film
from tests.dcmtk import by_dcmtk
from tests.dicom_films import lookup_table, write_dicom

ROOT = Path(__file__).resolve().parents[3]
RAMP = np.arange(0, 4096, 16, dtype=np.uint16).reshape(16, 16)
WINDOW = {"WindowCenter": 1000, "WindowWidth": 1500, "VOILUTFunction": "LINEAR_EXACT"}
EXPECTED = np.clip((RAMP - 1000.0) / 1500 + 0.5, 0, 1)
SYNTAXES = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian)


def shown(path: Path) -> np.ndarray:
    """(rows, columns) in [0, 1]"""
    return np.asarray(open_film(path), dtype=float) / 255


def refused(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        open_film(path)
    assert "\n" not in str(caught.value)
    return str(caught.value).removeprefix(f"{path}: ")


@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize("left_out", ["preamble", "preamble and meta information", "transfer syntax", "nothing"])
@pytest.mark.parametrize("name", ["film.dcm", "FILM", "film.img"])
@pytest.mark.parametrize("first", [{}, {"SpecificCharacterSet": "ISO_IR 100"}, {"ImageType": "ORIGINAL\\PRIMARY"}])
def test_files_with_parts_left_out_are_read_by_any_name_and_found_in_folders(tmp_path, syntax, left_out, name, first):
    path = tmp_path / name
    write_dicom(path, RAMP, bits=12, syntax=syntax, **WINDOW, **first)
    content = path.read_bytes()
    if left_out == "preamble":
        content = content[132:]
    elif left_out == "preamble and meta information":
        content = content[meta_information(content)[1] :]
    elif left_out == "transfer syntax":
        content = without_syntax(content)
    path.write_bytes(content)
    np.testing.assert_allclose(shown(path), EXPECTED, atol=1e-5)
    (tmp_path / "notes.txt").write_text("\x08\x00 no film, but lines of text " * 10)
    assert [film.path for film in find_films([tmp_path], anonymous=False).films] == [path]
    if left_out == "preamble and meta information" and syntax.is_little_endian:  # dcmtk cannot know more of others
        np.testing.assert_allclose(by_dcmtk(path, "--use-window", "1"), EXPECTED, atol=1.5 / 255)


def without_syntax(content: bytes) -> bytes:
    """The file without (0002,0010); its group length is mended."""
    start = content.index(b"\x02\x00\x10\x00UI")
    length = int.from_bytes(content[start + 6 : start + 8], "little") + 8
    total = int.from_bytes(content[140:144], "little") - length
    return content[:140] + total.to_bytes(4, "little") + content[144:start] + content[start + length :]


def test_a_compressed_film_that_does_not_say_how_is_refused(tmp_path):
    content = Path(get_testdata_file("JPEG-LL.dcm", download=False)).read_bytes()
    (tmp_path / "f.dcm").write_bytes(content[meta_information(content)[1] :])
    assert "compressed, and it does not say how" in refused(tmp_path / "f.dcm")


@pytest.mark.parametrize("name", ["JPGExtended.dcm", "JPEG-lossy.dcm"])
def test_jpeg_extended_of_12_bit_is_read_as_by_dcmtk_and_in_silence(tmp_path, name, capfd):
    path = Path(get_testdata_file(name, download=False))
    image = np.asarray(read_dicom(path), dtype=float) / 65535
    assert capfd.readouterr() == ("", "")
    np.testing.assert_allclose(image, by_dcmtk(path, "--min-max-window", folder=tmp_path), atol=1.2 / 255)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "BMP", "GIF", "WEBP"])
def test_another_format_named_dcm_is_named(tmp_path, kind):
    Image.fromarray((RAMP // 16).astype(np.uint8)).save(tmp_path / "film.dcm", format=kind)
    assert refused(tmp_path / "film.dcm") == (
        f"a {kind} image that is named like a DICOM file; give it the ending of its format"
    )


@pytest.mark.parametrize(
    "content", [b"", b"\0" * 500, b"Path,No Finding\n" * 40, b"%PDF-1.7\n" + b"\x08\0" * 400, b"\x08\0\x05\0" * 200]
)
def test_other_contents_are_not_taken_for_dicom(tmp_path, content):
    (tmp_path / "film").write_bytes(content)
    assert not is_dicom(tmp_path / "film")
    (tmp_path / "film.dcm").write_bytes(content)
    assert refused(tmp_path / "film.dcm") == "not a readable DICOM file; is it complete?"


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "BMP", "GIF", "WEBP", "PPM", "JPEG2000"])
def test_images_are_not_taken_for_dicom(tmp_path, kind):
    Image.fromarray((RAMP // 16).astype(np.uint8)).save(tmp_path / "film", format=kind)
    assert not is_dicom(tmp_path / "film")


# ------------------------------------------------------------------------------------------------------------ deflated


def deflated(path: Path, zeros: int, **facts) -> None:
    """A deflated film of 16 x 16 whose elements are followed by `zeros` bytes of padding, as (FFFC,FFFC) has them."""
    write_dicom(path, RAMP, bits=12, syntax=ExplicitVRLittleEndian, **facts)
    content = path.read_bytes()
    _, end = meta_information(content)
    padding = b"\xfc\xff\xfc\xffOB\0\0" + zeros.to_bytes(4, "little")
    deflater = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = deflater.compress(content[end:] + padding)
    for _ in range(zeros >> 24):
        packed += deflater.compress(bytes(1 << 24))
    packed += deflater.flush()
    header = content[:end].replace(
        b"\x14\x001.2.840.10008.1.2.1\0", b"\x16\x00" + DeflatedExplicitVRLittleEndian.encode()
    )
    length = int.from_bytes(header[140:144], "little") + 2
    path.write_bytes(header[:140] + length.to_bytes(4, "little") + header[144:] + packed)


def test_a_deflated_film_is_read(tmp_path):
    deflated(tmp_path / "f.dcm", 0, **WINDOW)
    assert pydicom.dcmread(tmp_path / "f.dcm").file_meta.TransferSyntaxUID == DeflatedExplicitVRLittleEndian
    np.testing.assert_allclose(shown(tmp_path / "f.dcm"), EXPECTED, atol=1e-5)


@pytest.mark.parametrize("preamble", [True, False])
def test_a_small_file_that_unpacks_to_much_is_refused_before_it_is_allocated(tmp_path, preamble):
    path = tmp_path / "f.dcm"
    deflated(path, 2**29, **WINDOW)
    if not preamble:
        path.write_bytes(path.read_bytes()[132:])
    assert path.stat().st_size < 600_000
    script = (
        "import resource; from pathlib import Path\n"
        "from cxr.files import InputError; from cxr.dicom.reader import read_dicom\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        f"try: read_dicom(Path({str(path)!r}))\n"
        "except InputError as error: print(error)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, cwd=ROOT)
    message, kilobytes = done.stdout.splitlines()
    assert message == f"{path}: deflated, and unpacked much larger than the film that it announces"
    assert int(kilobytes) < 150_000


def test_a_cut_deflated_film_is_refused(tmp_path):
    deflated(tmp_path / "f.dcm", 0, **WINDOW)
    (tmp_path / "f.dcm").write_bytes((tmp_path / "f.dcm").read_bytes()[:-40])
    assert refused(tmp_path / "f.dcm") == "not a readable DICOM file; is it complete?"


# ---------------------------------------------------------------------------------------------------------------- size


@pytest.mark.parametrize(("rows", "columns"), [(60000, 60000), (1, 65535), (65535, 65535), (0, 16)])
def test_a_film_that_declares_more_pixels_than_it_has_is_refused(tmp_path, rows, columns):
    write_dicom(tmp_path / "f.dcm", RAMP, bits=12)
    film = pydicom.dcmread(tmp_path / "f.dcm")
    film.Rows, film.Columns = rows, columns
    film.save_as(tmp_path / "f.dcm")
    told = refused(tmp_path / "f.dcm")
    assert "megapixels" in told if rows * columns > 1e8 else "damaged" in told or "pixels" in told


@pytest.mark.parametrize("name", ["JPEG-LL.dcm", "JPGExtended.dcm", "emri_small_jpeg_ls_lossless.dcm", "JPEG2000.dcm"])
def test_a_frame_announces_its_size(name):
    film = pydicom.dcmread(get_testdata_file(name, download=False))
    frame = next(pydicom.encaps.generate_frames(film.PixelData, number_of_frames=film.get("NumberOfFrames", 1)))
    assert frame_size(frame) == (film.Columns, film.Rows)


@pytest.mark.parametrize(
    ("kind", "syntax", "side"),
    [("JPEG", pydicom.uid.JPEGBaseline8Bit, 3000), ("JPEG2000", pydicom.uid.JPEG2000Lossless, 3000)],
)
def test_a_frame_much_larger_than_its_film_is_not_decoded(tmp_path, monkeypatch, kind, syntax, side):
    content = io.BytesIO()
    Image.new("L", (side, side)).save(content, kind, **({"no_jp2": True} if kind == "JPEG2000" else {}))
    write_dicom(tmp_path / "f.dcm", np.zeros((16, 16), np.uint8))
    film = pydicom.dcmread(tmp_path / "f.dcm")
    film.PixelData = pydicom.encaps.encapsulate([content.getvalue()])
    film["PixelData"].is_undefined_length = True
    film.file_meta.TransferSyntaxUID = syntax
    film.save_as(tmp_path / "f.dcm")
    monkeypatch.setattr("cxr.dicom.reader.pixel_array", lambda dataset: pytest.fail("decoded"))
    assert "is damaged or cannot be decoded" in refused(tmp_path / "f.dcm")


@pytest.mark.parametrize(
    "keyword", ["Rows", "BitsStored", "PhotometricInterpretation", "PixelRepresentation", "LUTData"]
)
def test_an_element_of_an_unknown_type_is_damage(tmp_path, keyword):
    """pydicom raises NotImplementedError when such an element is looked at, not when the file is read."""
    write_dicom(tmp_path / "f.dcm", RAMP, bits=12, VOILUTSequence=[lookup_table([0, 9], 0, 8)])
    content = (tmp_path / "f.dcm").read_bytes()
    tag = pydicom.datadict.tag_for_keyword(keyword)
    at = content.index(tag.to_bytes(4, "little")[2:] + tag.to_bytes(4, "little")[:2])
    (tmp_path / "f.dcm").write_bytes(content[: at + 4] + b"U\3" + content[at + 6 :])
    assert "damaged" in refused(tmp_path / "f.dcm") or "complete" in refused(tmp_path / "f.dcm")
