"""Warnings of films that can be read and do not look like radiographs."""

from __future__ import annotations

import numpy as np
from PIL import Image

from cxr.pixels.grey import quantiles

SMALLEST_SIDE = 256
"""Pixels; below it the network sees an enlarged picture."""

LEAST_SPREAD = 5.0
"""Standard deviation of the grey values in [0, 255]; chest radiographs have 15 to 80."""

DARKEST = 64.0
"""99th percentile of the grey values in [0, 255]; of 243 real films the darkest has 123."""

MOST_COLOUR = 10.0
"""Mean difference of a pixel's largest and smallest channel in [0, 255]: 0 in grey, 30 and more in a photograph."""

INVERTED = -0.5
"""`chest_likeness` below which a film looks inverted. Measured: 0 false warnings in 243 real films (AP and PA) and 0 in
238 drawn ones (42 lateral); of their negatives (255 - x) 236 of 243 and 238 of 238 are found. The lowest value of a
real film is -0.2; the threshold was chosen on these films."""


def film_warnings(image: Image.Image, grey: Image.Image) -> list[str]:
    """One line on the size and one on the grey values, where they are odd.

    image: as stored, in any colours; grey: the same as `open_film` returns it.
    """
    found = []
    width, height = grey.size
    if min(width, height) < SMALLEST_SIDE:
        found.append(f"only {width} x {height} px; a radiograph has {SMALLEST_SIDE} or more along its shorter side")
    pixels = np.asarray(grey)
    if _colour(image) > MOST_COLOUR:
        found.append("in colour: a photograph? A radiograph is grey")
    elif pixels.std() < LEAST_SPREAD:
        found.append("nearly constant: hardly anything is to be seen")
    elif quantiles(pixels, [0.99])[0] < DARKEST:
        found.append("nearly black: are its values those of another bit depth?")
    elif chest_likeness(grey) < INVERTED:
        found.append("looks inverted: air bright and bones dark")
    return found


def chest_likeness(grey: Image.Image) -> float:
    """Brightness of the middle against what is dark in a radiograph, in standard deviations of the film.

    The sum of two differences of mean grey: mediastinum - lung fields, and lower middle - upper corners. The negative
    of a film has the negative value; frontal films have about 2.5.
    """
    small = np.asarray(grey.resize((32, 32), Image.Resampling.BOX), dtype=float)  # (32, 32)
    mediastinum, lungs = small[8:22, 14:17], (small[6:19, 6:10], small[6:19, 21:25])
    middle, corners = small[9:28, 9:22], (small[:3, :3], small[:3, 28:])
    contrast = mediastinum.mean() - np.mean(lungs) + middle.mean() - np.mean([corner.mean() for corner in corners])
    return float(contrast / max(small.std(), 1e-6))


def _colour(image: Image.Image) -> float:
    if image.mode in ("1", "L", "LA", "F") or image.mode.startswith("I"):
        return 0.0
    channels = np.asarray(image.convert("RGB").resize((64, 64)), dtype=float)  # (64, 64, 3)
    return float((channels.max(axis=2) - channels.min(axis=2)).mean())
