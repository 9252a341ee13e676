"""A strip of words under a picture, so that it says what it shows wherever it is passed on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

_FONT = Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")
_SMALLEST = 11
_PER_WIDTH = 45
"""Widths of a letter's height: a line of sixty letters then fits."""


@dataclass(frozen=True)
class ColourBar:
    """colours: (n, 3) uint8 from the left to the right; ends: what its two ends mean."""

    colours: np.ndarray
    ends: tuple[str, str]


def captioned(picture: Image.Image, lines: Sequence[str], bar: ColourBar | None = None) -> Image.Image:
    """The picture with a white strip below it, which holds the lines in black; those that are too long are cut.

    bar: stands below the lines, with its ends in words.
    """
    size = max(_SMALLEST, picture.width // _PER_WIDTH)
    font = ImageFont.truetype(_FONT, size)
    step = round(1.35 * size)
    height = step * (len(lines) + (bar is not None)) + size // 2
    whole = Image.new("RGB", (picture.width, picture.height + height), "white")
    whole.paste(picture.convert("RGB"))
    draw = ImageDraw.Draw(whole)
    for place, line in enumerate(lines):
        draw.text((size // 2, picture.height + size // 4 + step * place), line, fill="black", font=font)
    if bar is not None:
        _draw_bar(whole, bar, font, picture.height + size // 4 + step * len(lines))
    return whole


def _draw_bar(whole: Image.Image, bar: ColourBar, font: ImageFont.FreeTypeFont, top: int) -> None:
    """At the left of the strip, a third of its width at most, between its two ends."""
    draw, left, size = ImageDraw.Draw(whole), int(font.size) // 2, int(font.size)
    first, last = bar.ends
    draw.text((left, top), first, fill="black", font=font)
    left += round(font.getlength(first)) + size // 2
    width = max(2, min(whole.width // 3, 16 * size))
    colours = Image.fromarray(bar.colours[None]).resize((width, size), Image.Resampling.BILINEAR)
    whole.paste(colours, (left, top + size // 8))
    draw.text((left + width + size // 2, top), last, fill="black", font=font)
