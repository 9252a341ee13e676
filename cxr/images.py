"""Films on disk -> grey pixels, and the centred square that the network sees, with its place in the film."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from cxr.dicom.header import is_dicom
from cxr.files import InputError, place, printable
from cxr.pixels.bit_depth import declared_grey, unsupported_tiff
from cxr.pixels.grey import Grey, scaled
from cxr.pixels.pixel_limit import check_size

logging.getLogger("PIL").setLevel(logging.INFO)  # below, Pillow quotes what a file says in words

_TILE_WIDTH, _TILE_LENGTH = 322, 323


@dataclass(frozen=True)
class Crop:
    """The square that is cut out of a film, in the film's pixels; the transform film <-> crop of every image."""

    film_width: int
    film_height: int
    left: int
    top: int
    side: int

    @classmethod
    def centred(cls, width: int, height: int) -> Crop:
        """The centred square of side min(width, height), as published (margins rounded down)."""
        side = min(width, height)
        return cls(width, height, left=(width - side) // 2, top=(height - side) // 2, side=side)

    @property
    def box(self) -> tuple[int, int, int, int]:
        """(left, top, right, bottom), as Pillow crops."""
        return self.left, self.top, self.left + self.side, self.top + self.side

    def to_film(self, x: float, y: float, size: int) -> tuple[float, float]:
        """Film coordinates of the point (x, y) of the crop resized to `size`; continuous, pixel centres at +0.5."""
        scale = self.side / size
        return self.left + x * scale, self.top + y * scale


@dataclass(frozen=True)
class StoredFilm:
    """A film as its file stores it. image: upright, any mode; top: the value that is white, None where undeclared."""

    path: Path
    image: Image.Image
    top: int | None = 255
    white_is_zero: bool = False
    dicom: bool = False

    def grey(self, rule: Grey = Grey.STORED) -> Image.Image:
        """The film in grey as `open_film` returns it. Raises InputError as `open_film` does."""
        image = self.image if self.image.mode[0] in "FI" else _luma(self.image, self.path)
        settled = rule.rule == "stored" or (self.dicom and rule.rule == "range")
        if settled and image.mode == "L" and self.top == 255:
            return image
        pixels = np.asarray(image)
        if settled and self.dicom:  # its window or LUT has said what is black and white
            return Image.fromarray(scaled(pixels, 0, 65535))
        return Image.fromarray(rule.applied(pixels, self.top, self.path, white_is_zero=self.white_is_zero))


def open_film(path: Path, grey: Grey = Grey.STORED) -> Image.Image:
    """A film as a grey Pillow image, upright: mode `L` (8 bit) or `F` scaled to [0, 255] (films of more than 8 bit).

    Colour is turned to grey with Pillow's weights, an alpha channel is dropped, an EXIF rotation is applied; then the
    rule `grey` says which values are black and white. A DICOM film is shown as its own elements say; of the rules only
    `percentile` changes it. Raises InputError for a missing, unreadable, truncated or too large file, and as
    `Grey.limits` does.
    """
    return read_stored(path).grey(grey)


def read_stored(path: Path) -> StoredFilm:
    """A film as stored, upright; of DICOM, the image that `cxr.dicom.reader.read_dicom` returns.

    Raises InputError as `open_film` does, and for a file of several pages or frames.
    """
    if is_dicom(path):
        from cxr.dicom.reader import read_dicom  # here, for pydicom takes a while and most films are not DICOM

        image = read_dicom(path)
        return StoredFilm(path, image, 65535 if image.mode == "I;16" else 255, dicom=True)
    try:
        with open(path, "rb") as handle, _open_limited(handle, path) as image:
            image.load()
            frames = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)  # MPO: a photograph and its previews
            upright = ImageOps.exif_transpose(image)
            if upright.mode == "P" and "transparency" in upright.info:  # else Pillow warns when it becomes grey
                upright = upright.convert("RGBA")
            declared = declared_grey(image, upright, path)
    except FileNotFoundError:
        raise InputError(f"{place(path)}: no such film") from None
    except InputError:
        raise
    except Exception as error:  # whatever a damaged file makes of Pillow's readers
        raise InputError(f"{place(path)}: not a readable image ({_reason(error, path)})") from None
    if frames > 1:
        raise InputError(f"{place(path)}: {frames} pages or frames; save the one to be read as a file of its own")
    return StoredFilm(path, *declared)


@contextmanager
def _open_limited(handle: BinaryIO, path: Path) -> Iterator[Image.Image]:
    """The image with its header read and its size checked.

    It is opened by its handle: by its name, Pillow 13 maps raw TIFF strips into memory and turns films of orientation
    5 to 8 into stripes. Pillow's own limit, which cannot be passed as an argument, makes room for `most_pixels`.
    """
    pillows_limit = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = None
    try:
        with warnings.catch_warnings(action="ignore"), Image.open(handle) as image:  # of odd tags, which it quotes
            check_size(*image.size, path)
            tags = getattr(image, "tag_v2", {})
            check_size(int(tags.get(_TILE_WIDTH, 1)), int(tags.get(_TILE_LENGTH, 1)), path)
            yield image
    finally:
        Image.MAX_IMAGE_PIXELS = pillows_limit


def _reason(error: Exception, path: Path) -> str:
    """Pillow's message, without the path that some of its messages repeat."""
    if isinstance(error, UnidentifiedImageError):
        return unsupported_tiff(path) or "of no format that is known"
    return printable((getattr(error, "strerror", None) or str(error) or type(error).__name__).splitlines()[0])


def _luma(image: Image.Image, path: Path) -> Image.Image:
    """An image of 8 bit in any colours in grey, mode `L`."""
    try:
        return image.convert("L")
    except ValueError:
        raise InputError(f"{place(path)}: colours of the kind {image.mode}; save it in grey or RGB") from None
