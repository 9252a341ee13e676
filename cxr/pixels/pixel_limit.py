"""The limit of a film's size, one for all formats: checked before anything is allocated."""

from __future__ import annotations

import math
import os
from pathlib import Path

from cxr.files import InputError, place, quoted

DEFAULT_MEGAPIXELS = 100
"""Chest films have up to 20 megapixels; reading takes about 40 bytes a pixel."""

LIMIT_VARIABLE = "MAX_FILM_MEGAPIXELS"


def most_pixels() -> int:
    """The largest film that is opened, in pixels; the environment variable MAX_FILM_MEGAPIXELS sets another limit.

    Raises InputError when that is not a whole number from 1 to 100000.
    """
    text = os.environ.get(LIMIT_VARIABLE, "").strip() or str(DEFAULT_MEGAPIXELS)
    if not (text.isascii() and text.isdigit() and 0 < int(text[:9]) <= 100_000):
        raise InputError(f"{LIMIT_VARIABLE}={quoted(text)}: expected a whole number of megapixels, 1 to 100000")
    return int(text) * 1_000_000


def check_size(width: int, height: int, path: Path | str) -> None:
    """Raises InputError, which starts with `path`, for an image without pixels, or of more than `most_pixels()`."""
    if min(width, height) < 1:
        raise InputError(f"{place(path)}: an image of {quoted(width)} x {quoted(height)} pixels")
    limit = most_pixels()
    if width * height > limit:
        raise InputError(
            f"{place(path)}: {quoted(width)} x {quoted(height)} pixels; the limit is {limit // 1_000_000} megapixels, "
            f"which {LIMIT_VARIABLE}={quoted(math.ceil(width * height / 1_000_000))} would raise"
        )
