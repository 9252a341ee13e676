"""The film as a report shows it: larger than the networks see it, one JPEG inside an evidence file.

Evidence lies over films of the network's size, which a screen enlarges two or three times. Where the original has more
pixels, the evidence file also holds the film at up to `SIDE` pixels on its short side, as the bytes of a JPEG in an
array `page film` (n,) uint8. No map depends on it, and files without it are read as before.
"""

from __future__ import annotations

import io

import numpy as np
import torch
from PIL import Image

from cxr.pixels.pixel_limit import check_size
from cxr.pixels.tensors import resize

NAME = "page film"
SIDE = 768
"""Pixels of the short side."""

_QUALITY = 90  # a report compresses it again


def encoded_film(film: torch.Tensor, image_size: int) -> np.ndarray | None:
    """Film (1, H, W) in [0, 1] -> (n,) uint8, a JPEG; None where the film has no more pixels than its maps."""
    short = min(film.shape[1:])
    if short <= image_size:
        return None
    if short > SIDE:
        film = resize(film, _size(film.shape[1:])).clamp(0, 1)
    levels = (film[0] * 255).round().to(torch.uint8).numpy()
    buffer = io.BytesIO()
    Image.fromarray(levels).save(buffer, "JPEG", quality=_QUALITY)
    return np.frombuffer(buffer.getvalue(), np.uint8)


def decoded_film(content: np.ndarray) -> np.ndarray:
    """(n,) uint8 -> the film (h, w) float32 in [0, 1]. Raises ValueError, OSError or SyntaxError when it is not one."""
    with Image.open(io.BytesIO(content.tobytes()), formats=["JPEG"]) as picture:
        check_size(*picture.size, NAME)
        if picture.mode != "L":
            raise ValueError(f"{NAME}: expected a grey JPEG, found {picture.mode}")
        return np.asarray(picture, np.float32) / 255


def _size(size: torch.Size) -> tuple[int, int]:
    """(height, width) with `SIDE` pixels on the short side."""
    height, width = size
    scale = SIDE / min(height, width)
    return round(height * scale), round(width * scale)
