"""Films on disk -> grey pixels, and the centred square that the network sees, with its place in the film."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from cxr.files import InputError

logging.getLogger("PIL").setLevel(logging.INFO)  # below, Pillow quotes what a file says in words


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

    def from_film(self, x: float, y: float, size: int) -> tuple[float, float]:
        """The inverse of `to_film`; points outside the crop fall outside [0, size]."""
        scale = size / self.side
        return (x - self.left) * scale, (y - self.top) * scale


def open_film(path: Path) -> Image.Image:
    """A film as a grey Pillow image, upright: mode `L` (8 bit) or `F` scaled to [0, 255] (films of more than 8 bit).

    Colour is turned to grey with Pillow's weights, an alpha channel is dropped, an EXIF rotation is applied.
    Raises InputError for a missing, unreadable or truncated file.
    """
    return to_grey(open_image(path), path)


def open_image(path: Path) -> Image.Image:
    """A film as a Pillow image of any mode, upright; of DICOM, what `cxr.dicom.read_dicom` makes of it.

    Raises InputError as `open_film` does, and for a file of several pages or frames.
    """
    if is_dicom(path):
        from cxr.dicom import read_dicom  # here, for pydicom takes a while and most films are not DICOM

        return read_dicom(path)
    try:
        with Image.open(path) as image:
            image.load()
            upright = ImageOps.exif_transpose(image)
            frames = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)  # MPO: a photograph and its previews
            white_is_zero = getattr(image, "tag_v2", {}).get(_TIFF_PHOTOMETRIC) == 0
    except FileNotFoundError:
        raise InputError(f"{path}: no such film") from None
    except Exception as error:  # whatever a damaged file makes of Pillow's readers
        raise InputError(f"{path}: not a readable image ({_reason(error)})") from None
    if frames > 1:
        raise InputError(f"{path}: {frames} pages or frames; save the one to be read as a file of its own")
    if upright.mode == "P" and "transparency" in upright.info:  # else Pillow warns when it becomes grey
        return upright.convert("RGBA")
    if white_is_zero and upright.mode == "I;16":  # which Pillow turns over at 8 bit only
        return Image.fromarray(65535 - np.asarray(upright))
    return upright


_TIFF_PHOTOMETRIC = 262


def _reason(error: Exception) -> str:
    """What Pillow says, without the path that some of its messages repeat."""
    if isinstance(error, UnidentifiedImageError):
        return "of no format that is known"
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).splitlines()[0]


def is_dicom(path: Path) -> bool:
    """By the file's ending, or by the letters DICM at byte 128. False for a file that cannot be read."""
    if path.suffix.lower() in (".dcm", ".dicom"):
        return True
    try:
        with open(path, "rb") as handle:
            return handle.read(132)[128:] == b"DICM"
    except OSError:
        return False


def to_grey(image: Image.Image, path: Path) -> Image.Image:
    """An image of any mode in grey, `L` or `F`, as `open_film` returns it; `path` is for the error."""
    if image.mode.startswith("I") or image.mode == "F":
        return _from_deep_pixels(np.asarray(image), path)
    try:
        return image.convert("L")
    except ValueError:
        raise InputError(f"{path}: colours of the kind {image.mode}; save it in grey or RGB") from None


def _from_deep_pixels(pixels: np.ndarray, path: Path) -> Image.Image:
    if not (pixels.min() >= 0 and pixels.max() <= 65535):  # put so that it is true of NaN
        raise InputError(f"{path}: pixel values from {pixels.min()} to {pixels.max()}; expected 8 or 16 bit grey")
    return Image.fromarray(pixels.astype(np.float32) * np.float32(255 / 65535))


def to_unit(image: Image.Image | np.ndarray) -> Tensor:
    """Grey pixels in [0, 255] -> (1, H, W) float32 in [0, 1]."""
    return torch.from_numpy(np.array(image, dtype=np.float32)).div_(255).unsqueeze(0)


def resize(image: Tensor, size: int | tuple[int, int]) -> Tensor:
    """(1, H, W) float -> (1, h, w), antialiased bilinear, as the published code feeds its network."""
    height_width = [size, size] if isinstance(size, int) else list(size)
    if list(image.shape[-2:]) == height_width:
        return image
    return F.resize(image, height_width, antialias=True)


def read_square(path: Path) -> tuple[Tensor, Crop]:
    """The centred square of a film at its own resolution, (1, side, side) float32 in [0, 1], and its place."""
    film = open_film(path)
    crop = Crop.centred(*film.size)
    return to_unit(film.crop(crop.box)), crop
