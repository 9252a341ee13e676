"""A strip of words under a picture, so that it says what it shows wherever it is passed on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib
from PIL import Image, ImageDraw, ImageFont

_FONT = Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")
_SMALLEST = 11
_PER_WIDTH = 45
"""Widths of a letter's height: a line of sixty letters then fits."""


def captioned(picture: Image.Image, lines: Sequence[str]) -> Image.Image:
    """The picture with a white strip below it, which holds the lines in black; those that are too long are cut."""
    size = max(_SMALLEST, picture.width // _PER_WIDTH)
    font = ImageFont.truetype(_FONT, size)
    step = round(1.35 * size)
    whole = Image.new("RGB", (picture.width, picture.height + step * len(lines) + size // 2), "white")
    whole.paste(picture.convert("RGB"))
    draw = ImageDraw.Draw(whole)
    for place, line in enumerate(lines):
        draw.text((size // 2, picture.height + size // 4 + step * place), line, fill="black", font=font)
    return whole
