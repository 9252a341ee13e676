"""Signs that a picture is not the chest radiograph that a network was trained on."""

from __future__ import annotations

import numpy as np
from PIL import Image

SMALLEST_SIDE = 256
"""Pixels; below it the network sees an enlarged picture."""

LEAST_SPREAD = 5.0
"""Standard deviation of the grey values in [0, 255]; chest radiographs have 40 to 80."""

MOST_COLOUR = 10.0
"""Mean difference of a pixel's largest and smallest channel in [0, 255]: 0 in grey, 30 and more in a photograph."""


def doubts(image: Image.Image, grey: Image.Image) -> list[str]:
    """One line for each sign found; `grey` is the same picture as `open_film` returns it."""
    found = []
    width, height = grey.size
    if min(width, height) < SMALLEST_SIDE:
        found.append(f"only {width} x {height} px; a radiograph has {SMALLEST_SIDE} or more along its shorter side")
    if np.asarray(grey).std() < LEAST_SPREAD:
        found.append("nearly constant: hardly anything is to be seen")
    if _colour(image) > MOST_COLOUR:
        found.append("in colour: a photograph? A radiograph is grey")
    return found


def _colour(image: Image.Image) -> float:
    if image.mode in ("1", "L", "LA", "F") or image.mode.startswith("I"):
        return 0.0
    channels = np.asarray(image.convert("RGB").resize((64, 64)), dtype=float)  # (64, 64, 3)
    return float((channels.max(axis=2) - channels.min(axis=2)).mean())
