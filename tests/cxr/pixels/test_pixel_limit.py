"""The limit of a film's size, in every format, before its pixels are allocated."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from cxr.files import InputError
from cxr.images import open_film
from tests.dicom_films import write_dicom


def refused(path) -> str:
    with pytest.raises(InputError) as caught:
        open_film(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("kind", ["png", "jpg", "tif", "bmp", "gif", "webp", "jp2", "pgm", "dcm"])
def test_the_limit_holds_for_every_format_and_can_be_set(tmp_path, monkeypatch, kind):
    pixels = np.random.default_rng(0).integers(0, 256, (1001, 1000), dtype=np.uint8)
    path = tmp_path / f"film.{kind}"
    write_dicom(path, pixels) if kind == "dcm" else Image.fromarray(pixels).save(path)
    monkeypatch.setenv("MAX_FILM_MEGAPIXELS", "1")
    assert refused(path) == (
        f"{path}: 1000 x 1001 pixels; the limit is 1 megapixels, which MAX_FILM_MEGAPIXELS=2 would raise"
    )
    monkeypatch.setenv("MAX_FILM_MEGAPIXELS", "2")
    assert open_film(path).size == (1000, 1001)
    monkeypatch.delenv("MAX_FILM_MEGAPIXELS")
    assert open_film(path).size == (1000, 1001)


def png_header(width: int, height: int) -> bytes:
    """A PNG of one bit a pixel that says how large it is, and of whose pixels only the first are there."""
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)), (b"IDAT", zlib.compress(b"\0" * 1000))]
    written = b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + written


@pytest.mark.parametrize("size", [(10_001, 10_000), (100_000, 100_000), (2**31 - 1, 2**31 - 1)])
def test_a_picture_larger_than_100_megapixels_is_refused(tmp_path, size):
    (tmp_path / "film.png").write_bytes(png_header(*size))
    assert "the limit is 100 megapixels" in refused(tmp_path / "film.png")


def test_a_small_tiff_of_giant_tiles_is_refused(tmp_path):
    tifffile = pytest.importorskip("tifffile")
    pytest.importorskip("imagecodecs")
    tifffile.imwrite(tmp_path / "film.tif", np.zeros((16, 16), np.uint8), tile=(16, 16), compression="deflate")
    content = bytearray((tmp_path / "film.tif").read_bytes())
    for tag in (322, 323):  # TileWidth, TileLength
        at = content.index(struct.pack("<HHI", tag, 4, 1)) if struct.pack("<HHI", tag, 4, 1) in content else None
        if at is None:
            at = content.index(struct.pack("<HHI", tag, 3, 1))
            content[at + 8 : at + 12] = struct.pack("<HH", 65520, 0)
        else:
            content[at + 8 : at + 12] = struct.pack("<I", 65520)
    (tmp_path / "film.tif").write_bytes(content)
    assert "65520 x 65520 pixels; the limit" in refused(tmp_path / "film.tif")


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "many", "1" * 5000, "٣", "nan"])
def test_a_limit_that_is_no_number_is_refused(tmp_path, monkeypatch, text):
    Image.new("L", (8, 8)).save(tmp_path / "film.png")
    monkeypatch.setenv("MAX_FILM_MEGAPIXELS", text)
    assert "expected a whole number of megapixels" in refused(tmp_path / "film.png")


def test_pillows_own_limit_is_left_as_it_was(tmp_path):
    Image.new("L", (8, 8)).save(tmp_path / "film.png")
    before = Image.MAX_IMAGE_PIXELS
    open_film(tmp_path / "film.png")
    assert before == Image.MAX_IMAGE_PIXELS is not None
