"""The size of the films of a page: as large as there is room for the same films, in a few steps."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image

from reporting.page.pictures import data_uri
from reporting.pictures.case_grid import resized

FILM_SIDE = 768
"""Pixels of the short side of a film as it is shown; a smaller film is stored as it is."""


@dataclass(frozen=True)
class FilmSize:
    """side: pixels of the short side, at most; quality: of the JPEG."""

    side: int
    quality: int


STEPS = (FilmSize(FILM_SIDE, 80), FilmSize(FILM_SIDE, 65), FilmSize(640, 65), FilmSize(512, 60))
"""From the best to the smallest. The smallest decides how many films a page has room for."""


def film_uri(film: np.ndarray, size: FilmSize) -> str:
    """(h, w) in [0, 1] -> a grey JPEG as a `data:` URI."""
    scale = min(1.0, size.side / min(film.shape))
    small = resized(film, tuple(round(side * scale) for side in film.shape))
    buffer = io.BytesIO()
    levels = np.rint(255 * np.clip(small, 0, 1)).astype(np.uint8)
    Image.fromarray(levels).save(buffer, format="JPEG", quality=size.quality, optimize=True)
    return data_uri(buffer.getvalue(), "image/jpeg")
