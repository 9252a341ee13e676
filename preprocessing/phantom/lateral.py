"""The chest of one synthetic patient, seen from the left side: the sternum at negative x, the spine at positive x.

Both lungs lie over each other and are one here.
"""

from __future__ import annotations

import numpy as np

from preprocessing.phantom.anatomy import Anatomy, Build, Change, Lung, Part, Rib
from preprocessing.phantom.canvas import Points, ellipse, points, smooth

# fmt: off
_WALL = points(
    (-0.12, -0.78), (0.05, -0.88), (0.25, -0.84), (0.46, -0.60), (0.60, -0.20), (0.65, 0.25), (0.64, 0.55),
)
_DOME = points((0.54, 0.64), (0.30, 0.47), (0.0, 0.38), (-0.30, 0.42), (-0.58, 0.57))
_FRONT = points((-0.615, 0.30), (-0.54, -0.10), (-0.42, -0.45), (-0.27, -0.68))
_SKIN_FRONT = points(
    (-0.34, -2.20), (-0.32, -1.10), (-0.44, -0.78), (-0.62, -0.30), (-0.78, 0.30), (-0.80, 0.80), (-0.95, 2.40),
)
_SKIN_BACK = points(
    (0.42, -2.20), (0.48, -1.15), (0.68, -0.85), (0.86, -0.40), (0.90, 0.10), (0.85, 0.80), (0.86, 2.40),
)
_STERNUM = points((-0.37, -0.66), (-0.52, -0.30), (-0.64, 0.10), (-0.67, 0.32))
# fmt: on


def lateral(build: Build, change: Change, draw: np.random.Generator) -> Anatomy:
    size = np.array([0.97 * build.width, build.height])
    rise = max(change.rise) + draw.normal(0, 0.03)
    angle = points((0.62, 0.82 - 0.4 * rise))
    lung = Lung(
        wall=smooth(np.concatenate([_WALL, angle])) * size,
        dome=smooth(np.concatenate([angle, _DOME - (0, rise)]))[1:] * size,
        inner=smooth(_FRONT) * size,
        hilum=(0.04, -0.06),
        outward=1.0,
        fan=np.pi,
    )
    heart = _heart(1 + 0.9 * (build.heart * change.heart - 1), rise) * size
    mediastinum = _mediastinum(change.mediastinum - 1) * size
    down = np.linspace(-1.9, 2.0, 60)
    spine = np.stack([0.36 + 0.13 * np.cos(1.3 * (down - 0.2)), down], axis=-1) * (size[0], 1)
    return Anatomy(
        lungs=[lung],
        heart=heart,
        mediastinum=mediastinum,
        spine=spine,
        parts=[
            *_trunk(build, lung, size, draw),
            Part(heart, 0.10 * change.heart, 0.016, 0.75),
            Part(mediastinum, 0.05 * change.mediastinum, 0.014, 0.35 + 0.45 * min(change.mediastinum - 1, 1)),
            Part(ellipse(0.07, -0.05, 0.12, 0.10) * size, 0.05, 0.03, 0.35),
        ],
        ribs=_ribs(lung, size),
        airway=[(smooth(points((-0.02, -1.5), (0.0, -0.8), (0.05, -0.3))) * size, 0.08)],
        lateral=True,
    )


def _heart(size: float, rise: float) -> Points:
    # fmt: off
    through = points(
        (-0.30, -0.13), (-0.47 * size**0.3, 0.05), (-0.57 * size**0.3, 0.34), (-0.20, 0.56 - rise),
        (0.08 * size**2, 0.48 - 0.5 * rise), (0.15 * size**2, 0.20), (0.05, -0.06), (-0.12, -0.18),
    )
    # fmt: on
    return smooth(through, 90, closed=True)


def _mediastinum(more: float) -> Points:
    """Great vessels around the trachea; widened, they fill the space behind the sternum."""
    # fmt: off
    through = points(
        (-0.06 - 0.25 * more, -0.80), (-0.10 - 0.26 * more, -0.50), (-0.12 - 0.22 * more, -0.15), (0.10, -0.05),
        (0.18 + 0.10 * more, -0.30), (0.16 + 0.10 * more, -0.50), (0.10, -0.80),
    )
    # fmt: on
    return smooth(through, 90, closed=True)


def _trunk(build: Build, lung: Lung, size: np.ndarray, draw: np.random.Generator) -> list[Part]:
    """Skin, shoulders, the organs below the diaphragm with the other side's dome behind, the breast."""
    fat = np.array([0.05 * build.fat, 0])
    skin = np.concatenate([smooth(_SKIN_FRONT - fat, 60), smooth(_SKIN_BACK + fat, 60)[::-1]]) * size
    far_dome = lung.dome - (0, draw.uniform(0.03, 0.08))
    parts = [
        Part(skin, 0.46, 0.015),
        Part(np.concatenate([lung.dome + (0, 0.06), points((-0.7, 2.4), (0.8, 2.4))]), 0.20, 0.06),
        Part(np.concatenate([far_dome, lung.dome[::-1]]), 0.0, 0.006, 0.5),
        Part(ellipse(0.02, -1.12, 0.62, 0.34) * size, 0.26, 0.08, 0.4),
    ]
    if build.breast:
        parts.append(Part(ellipse(-0.74, 0.24, 0.20, 0.34) * size, 0.16 * build.breast, 0.05))
    return parts


def _ribs(lung: Lung, size: np.ndarray) -> list[Rib]:
    """Arcs from the back down to the front, of both sides; then the sternum."""
    t = np.linspace(0, 1, 32)
    ribs = []
    for i in range(9):
        for kind, shift in (("near", 0.0), ("far", 0.04)):
            y = -0.78 + 0.155 * i + shift + (0.36 + 0.01 * i) * t**1.2 - 0.05 * np.sin(np.pi * t)
            back = np.interp(y[0] * size[1], lung.wall[12:, 1], lung.wall[12:, 0]) / size[0] + 0.02
            front = -0.36 - 0.02 * i
            ribs.append(Rib(kind, np.stack([back + (front - back) * t, y], axis=-1) * size, 0.05))
    ribs.append(Rib("sternum", smooth(_STERNUM) * size, 0.07))
    return ribs
