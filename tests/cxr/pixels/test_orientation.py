"""Films turned by their orientation tag, 1 to 8, in every format that has one, against tifffile and numpy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cxr.images import open_film

tifffile = pytest.importorskip("tifffile")
pytest.importorskip("imagecodecs")  # for tifffile's compressions

UPRIGHT = {  # TIFF 6.0, page 36: what the first stored row and column show -> how they come upright
    1: lambda stored: stored,
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.swapaxes(0, 1),
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: stored[::-1, ::-1].swapaxes(0, 1),
    8: lambda stored: np.rot90(stored, 1),
}
ORIENTATION_TAG = 274
NOISE = np.random.default_rng(0)
SHAPE = (40, 56)  # (rows, columns)
PICTURES = {
    "grey": (NOISE.integers(0, 256, SHAPE, dtype=np.uint8), "minisblack"),
    "grey, white is zero": (NOISE.integers(0, 256, SHAPE, dtype=np.uint8), "miniswhite"),
    "grey of 16 bit": (NOISE.integers(0, 65536, SHAPE, dtype=np.uint16), "minisblack"),
    "grey of 16 bit, white is zero": (NOISE.integers(0, 65536, SHAPE, dtype=np.uint16), "miniswhite"),
    "bilevel": (NOISE.integers(0, 2, SHAPE).astype(bool), "minisblack"),
    "bilevel, white is zero": (NOISE.integers(0, 2, SHAPE).astype(bool), "miniswhite"),
    "palette": (NOISE.integers(0, 256, SHAPE, dtype=np.uint8), "palette"),
    "colour": (NOISE.integers(0, 256, (*SHAPE, 3), dtype=np.uint8), "rgb"),
}
LAYOUTS = {"one strip": {"rowsperstrip": 40}, "strips": {"rowsperstrip": 7}, "tiles": {"tile": (16, 32)}}


def in_grey(stored: np.ndarray, photometric: str) -> np.ndarray:
    """(rows, columns) in [0, 255] from values as stored."""
    if stored.ndim == 3:
        return np.asarray(Image.fromarray(np.ascontiguousarray(stored)).convert("L"), dtype=float)
    grey = stored * (255 / {"bool": 1, "uint8": 255, "uint16": 65535}[stored.dtype.name])
    return 255 - grey if photometric == "miniswhite" else grey


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("compression", [None, "lzw", "deflate", "packbits", "zstd"])
@pytest.mark.parametrize("kind", PICTURES)
def test_tiff_in_every_layout_and_byte_order(tmp_path, kind, compression, orientation):
    pixels, photometric = PICTURES[kind]
    path = tmp_path / "film.tif"
    options = {"photometric": photometric, "compression": compression}
    if photometric == "palette":
        options["colormap"] = np.stack([np.arange(256, dtype=np.uint16) * 257] * 3)
    for layout in LAYOUTS.values():
        for byte_order in "<>":
            if kind == "grey of 16 bit, white is zero" and byte_order == ">":
                continue  # Pillow does not know it: refused, see test_bit_depth
            turned = [(ORIENTATION_TAG, "H", 1, orientation, True)]
            tifffile.imwrite(path, pixels, byteorder=byte_order, extratags=turned, **options, **layout)
            stored = tifffile.imread(path)
            np.testing.assert_array_equal(stored, pixels)
            expected = in_grey(UPRIGHT[orientation](stored), photometric)
            np.testing.assert_allclose(np.asarray(open_film(path)), expected, atol=1e-3)


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("kind", ["grey", "grey of 16 bit", "bilevel", "colour"])
@pytest.mark.parametrize("ending", ["png", "webp", "jpg", "tif"])
def test_exif_of_other_formats(tmp_path, ending, kind, orientation):
    if ending != "png" and kind == "grey of 16 bit":
        ending = "tif"
    pixels, photometric = PICTURES[kind]
    image = Image.fromarray(pixels)
    exif = Image.Exif()
    exif[ORIENTATION_TAG] = orientation
    options = {"jpg": {"quality": 100, "subsampling": 0}, "webp": {"lossless": True}}.get(ending, {})
    path = tmp_path / f"film.{ending}"
    (image.convert("L") if ending in ("jpg", "webp") and kind == "bilevel" else image).save(path, exif=exif, **options)
    with Image.open(path) as saved:
        assert saved.getexif().get(ORIENTATION_TAG) == orientation
    expected = in_grey(UPRIGHT[orientation](pixels), photometric)
    np.testing.assert_allclose(np.asarray(open_film(path)), expected, atol=3 if ending == "jpg" else 1e-3)


def test_the_films_own_size_is_that_of_the_upright_one(tmp_path):
    path: Path = tmp_path / "film.tif"
    pixels, _ = PICTURES["grey"]
    tifffile.imwrite(path, pixels, photometric="minisblack", extratags=[(ORIENTATION_TAG, "H", 1, 6, True)])
    assert open_film(path).size == (40, 56)  # (width, height)
