"""The chest of one synthetic patient, seen from the front, as outlines in the patient frame of `canvas`.

The lateral view (`lateral`) has the same parts under the same names, so that findings need not know the
view they are drawn on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from preprocessing.phantom.canvas import Points, at, ellipse, points, smooth


@dataclass
class Lung:
    """`wall` runs along the chest wall from the apex to the costophrenic angle, `dome` on along the diaphragm."""

    wall: Points
    dome: Points
    inner: Points
    hilum: tuple[float, float]
    outward: float
    """+1 where the chest wall lies at larger x than the hilum, else -1."""
    fan: float
    """Half the angle, in radians around `outward`, over which vessels leave the hilum."""

    @property
    def outline(self) -> Points:
        return np.concatenate([self.wall, self.dome, self.inner])

    @property
    def angle(self) -> tuple[float, float]:
        """The costophrenic angle."""
        return float(self.wall[-1, 0]), float(self.wall[-1, 1])


@dataclass(eq=False)
class Rib:
    """Any long bone. Bones of one `kind` are drawn as one layer, kinds add up."""

    kind: str
    path: Points
    width: float
    broken: bool = False


@dataclass
class Part:
    """Tissue that adds `density` inside its outline and pushes the share `displaces` of the lungs' air away."""

    outline: Points
    density: float
    blur: float = 0.01
    displaces: float = 0.0


@dataclass
class Anatomy:
    lungs: list[Lung]
    heart: Points
    mediastinum: Points
    spine: Points
    """(N, 2) from the neck down."""
    parts: list[Part]
    ribs: list[Rib]
    airway: list[tuple[Points, float]]
    """(path, width) of the trachea and the main bronchi."""
    lateral: bool


@dataclass(frozen=True)
class Build:
    """Shape of a patient's chest, the same on all of the patient's films. 1.0 is average."""

    width: float
    height: float
    heart: float
    fat: float
    bend: float
    breast: float
    bone: float
    slope: float
    """Steepness of the ribs."""

    @staticmethod
    def draw(draw: np.random.Generator, sex: str, age: int) -> Build:
        return Build(
            width=float(np.clip(draw.normal(1.0, 0.05), 0.88, 1.1)),
            height=float(np.clip(draw.normal(1.0 if sex == "Male" else 0.95, 0.07), 0.82, 1.14)),
            heart=float(np.clip(draw.normal(0.96 + 0.001 * (age - 60), 0.06), 0.82, 1.10)),
            fat=float(np.clip(draw.normal(1.0, 0.35), 0.4, 1.9)),
            bend=float(draw.normal(0, 0.025)),
            breast=float(np.clip(draw.normal(0.8, 0.35), 0.2, 1.5)) if sex == "Female" else 0.0,
            bone=float(np.clip(draw.normal(1.08 - 0.003 * (age - 50), 0.12), 0.7, 1.4)),
            slope=float(np.clip(draw.normal(1.0, 0.2), 0.5, 1.5)),
        )


@dataclass(frozen=True)
class Change:
    """Changes of the outlines by disease: sizes of heart and mediastinum, rise of each dome."""

    heart: float = 1.0
    mediastinum: float = 1.0
    rise: tuple[float, float] = (0.0, 0.0)


# fmt: off
_WALL = points(
    (0.15, -0.74), (0.23, -0.86), (0.36, -0.91), (0.53, -0.84), (0.70, -0.63), (0.82, -0.32), (0.90, 0.03),
    (0.94, 0.40),
)
_DOME = points((0.87, 0.66), (0.72, 0.53), (0.50, 0.47), (0.30, 0.51), (0.08, 0.64))
_INNER = points((0.08, 0.30), (0.09, -0.10), (0.10, -0.45))
_SKIN = points(
    (0.24, -2.20), (0.25, -1.25), (0.42, -1.06), (0.92, -1.00), (1.32, -0.88), (1.52, -0.62), (1.45, -0.30),
    (1.20, -0.10),
)
_ARM = points((1.42, -0.55), (1.85, -0.55), (1.90, 2.20), (1.36, 2.20), (1.30, 0.20))
_SCAPULA = points(
    (1.17, -0.84), (1.22, -0.62), (1.12, -0.52), (1.06, -0.30), (0.97, 0.02), (0.92, 0.03), (0.89, -0.25),
    (0.90, -0.62), (0.98, -0.80),
)
_CLAVICLE = points((0.08, -0.65), (0.22, -0.69), (0.45, -0.80), (0.72, -0.92), (0.98, -0.97), (1.22, -0.93))
# fmt: on


def frontal(build: Build, change: Change, draw: np.random.Generator, bedside: bool) -> Anatomy:
    """The patient's right is at negative x. `bedside`: AP, with shallower breath and the scapulae over the lungs."""
    size = np.array([build.width, build.height])
    breath = draw.normal(0.06 if bedside else 0.0, 0.04)
    lungs = [_lung(side, size, change.rise[i] + breath) for i, side in enumerate((-1.0, 1.0))]
    heart = _heart(build.heart * change.heart * (1.06 if bedside else 1.0), breath) * size
    mediastinum = _mediastinum(change.mediastinum, draw.uniform(0.9, 1.1)) * size
    down = np.linspace(-1.9, 2.0, 60)
    spine = np.stack([build.bend * np.sin(2 * down + draw.uniform(0, 6)), down], axis=-1)
    shift = draw.normal(0, 0.012)
    trachea = points((shift, -1.5), (shift, -0.9), (0.01 + shift, -0.45), (0.015, -0.24)) * size
    bronchi = [points((0.015, -0.26), (s * 0.1, -0.14), (s * 0.2, -0.06)) * size for s in (-1, 1)]
    return Anatomy(
        lungs=lungs,
        heart=heart,
        mediastinum=mediastinum,
        spine=spine,
        parts=[
            *_trunk(build, lungs),
            *_shoulders(build, draw, bedside),
            *_gastric_bubble(lungs[1], draw),
            *(part for lung in lungs for part in _pulmonary_arteries(lung)),
            Part(mediastinum, 0.09 * change.mediastinum, 0.009, 0.95),
            Part(heart, 0.10 * change.heart, 0.010, 0.88),
        ],
        ribs=[rib for lung in lungs for rib in _ribs(build, lung)],
        airway=[(smooth(trachea), 0.085), *((smooth(b, 20), 0.05) for b in bronchi)],
        lateral=False,
    )


def _lung(side: float, size: np.ndarray, rise: float) -> Lung:
    mirror = size * (side, 1.0)
    lift = rise + (0.04 if side < 0 else 0.0)
    angle = points((0.935, 0.76 - 0.5 * lift))
    return Lung(
        wall=smooth(np.concatenate([_WALL, angle])) * mirror,
        dome=smooth(np.concatenate([angle, _DOME - (0, lift)]))[1:] * mirror,
        inner=_INNER * mirror,
        hilum=(side * 0.2 * size[0], (-0.06 if side < 0 else -0.11) * size[1]),
        outward=side,
        fan=1.35,
    )


def _heart(size: float, breath: float) -> Points:
    """At size 1 about 0.42 of the thorax's inner width (the cardiothoracic ratio), at 1.5 about 0.65."""
    right, left = 0.25 + 0.30 * (size - 1), 0.54 + 0.62 * (size - 1)
    low = 0.58 - 0.6 * breath
    # fmt: off
    through = points(
        (-0.60 * right, -0.08), (-0.92 * right, 0.12), (-right, 0.32), (-0.85 * right, 0.50), (-0.50 * right, low),
        (0.10, low + 0.05), (0.75 * left, low), (left, 0.45 - 0.2 * breath), (0.90 * left, 0.24), (0.66 * left, 0.04),
        (0.44 * left, -0.10), (0.30 * left, -0.22), (0.0, -0.25),
    )
    # fmt: on
    return smooth(through, 90, closed=True)


def _mediastinum(size: float, knob: float) -> Points:
    """From the thoracic inlet to the heart: the superior vena cava on the right, the aortic knob on the left."""
    wide, bulge = 1 + 0.9 * (size - 1), 1 + (size - 1)
    # fmt: off
    through = points(
        (-0.09, -1.80), (-0.10, -1.20), (-0.13 * wide, -0.76), (-0.145 * bulge, -0.55), (-0.15 * bulge, -0.32),
        (-0.16 * wide, -0.08), (-0.16, 0.12), (-0.10, 0.50), (0.12, 0.50), (0.17, 0.10),
        (0.17 * wide, -0.10), (0.178 * bulge, -0.22),
        (0.20 * wide * knob, -0.36), (0.175 * bulge, -0.50), (0.13 * wide, -0.70), (0.10, -1.20),
        (0.09, -1.80),
    )
    # fmt: on
    return smooth(through, 120, closed=True)


def _trunk(build: Build, lungs: Sequence[Lung]) -> list[Part]:
    """Skin, the depth of the trunk, the organs below the diaphragm, the breasts."""
    right, left = lungs
    flank = 1.05 + 0.07 * build.fat
    half = smooth(
        np.concatenate([_SKIN, points((flank + 0.06, 0.05), (flank, 0.5), (flank + 0.08, 1.3), (flank + 0.2, 2.4))]), 80
    )
    skin = np.concatenate([half, half[::-1] * (-1, 1)]) * (build.width, 1)
    under = np.concatenate([right.dome, left.dome[::-1]]) + (0, 0.07)
    abdomen = np.concatenate([points((right.angle[0] - 0.1, 2.4)), under, points((left.angle[0] + 0.1, 2.4))])
    parts = [
        Part(skin, 0.40, 0.015),
        Part(ellipse(0, 0.3, 0.85, 1.25) * (build.width, 1), 0.11 * build.fat, 0.18),
        Part(abdomen, 0.20, 0.06),
    ]
    for side in (-1, 1) if build.breast else ():
        breast = ellipse(0.5, 0.28, 0.42, 0.40) * (side * build.width, 1)
        parts.append(Part(breast, 0.085 * build.breast, 0.03))
    return parts


def _shoulders(build: Build, draw: np.random.Generator, bedside: bool) -> list[Part]:
    """Arms, scapulae and upper arm bones, on either side with a posture of its own."""
    parts = []
    for side in (-1.0, 1.0):
        mirror = np.array([side * build.width, 1.0])
        apart = np.array([draw.uniform(-0.12, 0.0) if bedside else draw.uniform(0.02, 0.16), 0.0])
        arm = np.array([draw.uniform(0.0, 0.15), 0.0])
        parts += [
            Part((_ARM + arm) * mirror, 0.42, 0.02),
            Part(smooth(_SCAPULA + apart, closed=True) * mirror, 0.055 * build.bone, 0.006),
            Part(smooth(points((0.92, -0.60), (1.10, -0.74), (1.28, -0.90)) + apart) * mirror, 0.07 * build.bone, 0.01),
            Part(ellipse(1.38, -0.74, 0.15, 0.17) * mirror, 0.17 * build.bone, 0.008),
            Part(
                (points((1.32, -0.64), (1.48, -0.64), (1.60, 0.60), (1.49, 0.60)) + arm) * mirror,
                0.14 * build.bone,
                0.008,
            ),
        ]
    return parts


def _gastric_bubble(lung: Lung, draw: np.random.Generator) -> list[Part]:
    if draw.random() < 0.3:
        return []
    (x, y), size = at(lung.dome, 0.55), draw.uniform(0.06, 0.14)
    return [Part(ellipse(x - 0.02, y + 0.06 + 0.8 * size, 1.3 * size, 0.75 * size, draw.normal(0, 0.3)), -0.2, 0.015)]


def _pulmonary_arteries(lung: Lung) -> list[Part]:
    """The hilum: the descending artery and its upper branch, as two slim bodies."""
    x, y = lung.hilum
    across = lung.outward
    descending = ellipse(x + 0.03 * across, y + 0.11, 0.045, 0.16, -0.35 * across)
    upper = ellipse(x + 0.02 * across, y - 0.06, 0.035, 0.10, 0.6 * across)
    return [Part(descending, 0.02, 0.018, 0.55), Part(upper, 0.02, 0.018, 0.45)]


def _ribs(build: Build, lung: Lung) -> list[Rib]:
    """Posterior arcs from the spine out, fainter anterior ones, the clavicle, and the wall's bones seen end on."""
    side, tall = lung.outward, build.height
    top = int(np.argmin(lung.wall[:, 1]))
    wall_y, wall_x = lung.wall[top:, 1], np.abs(lung.wall[top:, 0])
    t = np.linspace(0, 1, 32)
    ribs = []
    for i in range(10):
        start, drop = (-0.80 + 0.165 * i - 0.08 * (build.slope - 1)) * tall, (0.12 + 0.024 * i) * tall * build.slope
        reach = np.interp(start + drop, wall_y, wall_x) + 0.015
        x = 0.10 + (reach - 0.10) * np.sin(0.5 * np.pi * t**0.9)
        y = start - 0.06 * np.sin(np.pi * t**0.8) + drop * t**2.4
        ribs.append(Rib("posterior", np.stack([side * x, y], axis=-1), 0.062))
    for i in range(6):
        start = (-0.52 + 0.19 * i) * tall
        reach = np.interp(start, wall_y, wall_x) + 0.01
        x = reach - (reach - 0.36 - 0.03 * i) * t**0.9
        y = start - 0.05 * np.sin(np.pi * t) * (1 - t) + (0.26 + 0.02 * i) * tall * t**1.6
        ribs.append(Rib("anterior", np.stack([side * x, y], axis=-1), 0.066))
    ribs.append(Rib("clavicle", smooth(_CLAVICLE) * (side * build.width, tall), 0.07))
    ribs.append(Rib("anterior", lung.wall[12:] + (side * 0.03, 0), 0.05))
    return ribs
