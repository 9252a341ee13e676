"""The depth that a file declares: PNG with sBIT, TIFF of 12 bit and other sample formats, JPEG 2000, PGM."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cxr.files import InputError
from cxr.images import open_film
from cxr.pixels.grey import Grey
from tests.films import film_pixels

FILM = film_pixels(96, 128).astype(float) / 255  # (rows, columns) in [0, 1]


def deep(bits: int) -> np.ndarray:
    """The film in whole numbers of `bits`."""
    return np.rint(FILM * (2**bits - 1)).astype(np.uint16)


def film(path: Path, grey: Grey = Grey.STORED) -> np.ndarray:
    """(rows, columns) in [0, 1]"""
    return np.asarray(open_film(path, grey), dtype=float) / 255


def refused(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        open_film(path)
    assert "\n" not in str(caught.value)
    return str(caught.value).removeprefix(f"{path}: ")


# ------------------------------------------------------------------------------------------------------------------ PNG


def write_sbit(path: Path, pixels: np.ndarray, significant: int) -> None:
    Image.fromarray(pixels).save(path, format="png")
    content = path.read_bytes()
    data = b"sBIT" + bytes([significant])
    chunk = struct.pack(">I", 1) + data + struct.pack(">I", zlib.crc32(data))
    path.write_bytes(content[:33] + chunk + content[33:])  # behind IHDR


@pytest.mark.parametrize("bits", [9, 10, 12, 14])
def test_unscaled_values_are_white_at_the_depth_of_sbit(tmp_path, bits):
    write_sbit(tmp_path / "f.png", deep(bits), bits)
    np.testing.assert_allclose(film(tmp_path / "f.png"), deep(bits) / (2**bits - 1), atol=1e-6)


@pytest.mark.parametrize("bits", [9, 10, 12, 14])
@pytest.mark.parametrize("how", ["zeros", "repeated bits", "linear"])
def test_values_scaled_as_the_standard_wants_are_white_at_the_full_depth(tmp_path, bits, how):
    values = deep(bits).astype(int)
    scaled = {
        "zeros": values << (16 - bits),
        "repeated bits": values << (16 - bits) | values >> (2 * bits - 16),
        "linear": np.rint(values * 65535 / (2**bits - 1)).astype(int),
    }[how]
    write_sbit(tmp_path / "f.png", scaled.astype(np.uint16), bits)
    np.testing.assert_allclose(film(tmp_path / "f.png"), FILM, atol=2**-bits * 1.6)


def test_a_dark_film_scaled_as_the_standard_wants_is_not_brightened(tmp_path):
    """Its values would fit into 12 bit, but end in four zeros: it is dark, and refused as such."""
    write_sbit(tmp_path / "f.png", (deep(8) // 2 << 4).astype(np.uint16), 12)
    assert "of 65535, too small a part" in refused(tmp_path / "f.png")


def test_sbit_in_a_film_of_8_bit(tmp_path):
    write_sbit(tmp_path / "f.png", deep(6).astype(np.uint8), 6)
    np.testing.assert_allclose(film(tmp_path / "f.png"), deep(6) / 63, atol=1e-6)
    write_sbit(tmp_path / "f.png", deep(8).astype(np.uint8), 8)
    np.testing.assert_array_equal(np.asarray(open_film(tmp_path / "f.png")), deep(8))


@pytest.mark.parametrize("significant", [0, 17, 255])
def test_an_impossible_sbit_says_nothing(tmp_path, significant):
    write_sbit(tmp_path / "f.png", deep(16), significant)
    np.testing.assert_allclose(film(tmp_path / "f.png"), FILM, atol=1e-4)


@pytest.mark.parametrize("channels", [2, 3, 4])
@pytest.mark.parametrize("kind", ["png", "tif"])
def test_colours_of_16_bit_that_hold_12_are_refused_and_full_ones_read(tmp_path, channels, kind):
    path = tmp_path / f"f.{kind}"
    for bits in (12, 16):
        pixels = np.repeat(deep(bits)[..., None], channels, axis=2)
        if channels in (2, 4):
            pixels[..., -1] = 65535
        if kind == "png":
            write_deep_png(path, pixels)
        elif channels == 2:
            return  # Pillow reads no TIFF of this kind
        else:
            extra = {"extrasamples": ["unassalpha"]} if channels == 4 else {}
            pytest.importorskip("tifffile").imwrite(path, pixels, photometric="rgb", **extra)
        if bits == 12:
            assert "16 bit that use a small part" in refused(path)
        else:
            np.testing.assert_allclose(film(path), FILM, atol=2 / 255)


def write_deep_png(path: Path, pixels: np.ndarray) -> None:
    """A PNG of 16 bit with 2, 3 or 4 channels, which Pillow does not write."""
    height, width, channels = pixels.shape
    colour = {2: 4, 3: 2, 4: 6}[channels]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + b"".join(
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
            for name, data in chunks
        )
    )


# ----------------------------------------------------------------------------------------------------------------- TIFF


def write_tiff(path: Path, pixels: np.ndarray, **options) -> np.ndarray:
    """Writes with tifffile and returns what it reads."""
    tifffile = pytest.importorskip("tifffile")
    pytest.importorskip("imagecodecs")
    tifffile.imwrite(path, pixels, **{"photometric": "minisblack"} | options)
    return tifffile.imread(path)


def test_packed_12_bit_is_white_at_4095(tmp_path):
    stored = write_tiff(tmp_path / "f.tif", deep(12), bitspersample=12)
    np.testing.assert_array_equal(stored, deep(12))
    np.testing.assert_allclose(film(tmp_path / "f.tif"), stored / 4095, atol=1e-6)


@pytest.mark.parametrize("bits", [9, 10, 11, 13, 14, 15])
def test_other_packed_depths_are_refused_and_named(tmp_path, bits):
    write_tiff(tmp_path / "f.tif", deep(bits), bitspersample=bits)
    assert f"a TIFF of {bits} bits (whole numbers) that is not supported; save it" in refused(tmp_path / "f.tif")


@pytest.mark.parametrize("kind", ["float16", "float64", "uint64"])
def test_unknown_sample_formats_are_refused_and_named(tmp_path, kind):
    write_tiff(tmp_path / "f.tif", FILM.astype(kind))
    name = "floating point" if kind.startswith("float") else "whole numbers"
    assert f"a TIFF of {np.dtype(kind).itemsize * 8} bits ({name}) that is not supported" in refused(tmp_path / "f.tif")


def test_white_is_zero_of_16_bit_in_big_endian_is_refused_and_named(tmp_path):
    write_tiff(tmp_path / "f.tif", deep(16), photometric="miniswhite", byteorder=">")
    assert "a TIFF of 16 bits (whole numbers) that is not supported" in refused(tmp_path / "f.tif")


@pytest.mark.parametrize("kind", ["int8", "int16", "int32", "uint32", "float32"])
@pytest.mark.parametrize("byte_order", ["<", ">"])
@pytest.mark.parametrize("photometric", ["minisblack", "miniswhite"])
def test_signed_32_bit_and_float_films_need_a_range_and_follow_it(tmp_path, kind, byte_order, photometric):
    low, high = {"int8": (-100, 100), "float32": (0, 1), "uint32": (0, 60000)}.get(kind, (-1000, 3000))
    path = tmp_path / "f.tif"
    values = (low + FILM * (high - low)).astype(kind)
    stored = write_tiff(path, values, byteorder=byte_order, photometric=photometric).astype(float)
    if (photometric == "miniswhite" and kind != "float32") or (kind, byte_order) == ("uint32", ">"):
        assert "not supported; save it as 8 or 16 bit grey" in refused(path)
        return
    assert "of which the file does not say what is white; give --grey range" in refused(path)
    expected = (stored - low) / (high - low)
    expected = 1 - expected if photometric == "miniswhite" else expected
    np.testing.assert_allclose(film(path, Grey("range", low, high)), expected, atol=1e-6)


@pytest.mark.parametrize("kind", ["int16", "int32", "float32"])
@pytest.mark.parametrize("byte_order", ["<", ">"])
@pytest.mark.parametrize("compression", [None, "deflate", "lzw"])
def test_compressed_big_endian_numbers_that_pillow_misreads_are_refused(tmp_path, kind, byte_order, compression):
    path = tmp_path / "f.tif"
    stored = write_tiff(path, (FILM * 3000).astype(kind), byteorder=byte_order, compression=compression)
    if compression is not None and byte_order == ">":
        assert "compressed, in big-endian order" in refused(path)
    else:
        np.testing.assert_allclose(film(path, Grey("range", 0, 3000)), stored / 3000.0, atol=1e-6)


def test_whole_numbers_beyond_31_bit_are_refused(tmp_path):
    write_tiff(tmp_path / "f.tif", (FILM * (2**32 - 1)).astype(np.uint32))
    assert "32-bit values beyond 2147483647" in refused(tmp_path / "f.tif")


@pytest.mark.parametrize("bits", [12, 16])
def test_white_is_zero_with_a_range(tmp_path, bits):
    stored = write_tiff(tmp_path / "f.tif", deep(bits), photometric="miniswhite")
    top = 2**bits - 1
    np.testing.assert_allclose(film(tmp_path / "f.tif", Grey("range", 0, top)), 1 - stored / top, atol=1e-6)


# ------------------------------------------------------------------------------------------------------ other formats


@pytest.mark.parametrize("bits", [10, 12, 14, 16])  # Pillow reads 9 bit as 8
def test_jpeg_2000_is_white_at_the_depth_of_its_codestream(tmp_path, bits):
    imagecodecs = pytest.importorskip("imagecodecs")
    path = tmp_path / "f.jp2"
    path.write_bytes(imagecodecs.jpeg2k_encode(deep(bits), level=0, reversible=True, bitspersample=bits))
    np.testing.assert_allclose(film(path), deep(bits) / (2**bits - 1), atol=1e-6)


@pytest.mark.parametrize("top", [255, 1023, 4095, 65535])
def test_pgm_is_white_at_its_maxval(tmp_path, top):
    pixels = np.rint(FILM * top).astype(">u2" if top > 255 else "u1")
    (tmp_path / "f.pgm").write_bytes(b"P5 128 96 %d\n" % top + pixels.tobytes())
    np.testing.assert_allclose(film(tmp_path / "f.pgm"), pixels.astype(float) / top, atol=1e-4)
