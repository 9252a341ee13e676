"""The chest of one synthetic patient, as outlines in the patient frame (`chexpert.demo_canvas`), frontal or lateral.

Both views give the same parts under the same names, so that the signs of `chexpert.demo_findings` need not know the view.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from chexpert.demo_canvas import Points, at, ellipse, points, smooth


@dataclass
class Lung:
    """`wall` runs along the chest wall from the apex to the costophrenic angle, `dome` on along the diaphragm."""

    wall: Points
    dome: Points
    inner: Points
    hilum: tuple[float, float]
    outward: float
    """+1 where the chest wall lies at larger x than the hilum, else -1."""

    @property
    def outline(self) -> Points:
        return np.concatenate([self.wall, self.dome, self.inner])

    @property
    def angle(self) -> tuple[float, float]:
        """The costophrenic angle."""
        return float(self.wall[-1, 0]), float(self.wall[-1, 1])


@dataclass
class Rib:
    path: Points
    width: float
    density: float


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
    lateral: bool
    airway: list[tuple[Points, float]] = field(default_factory=list)
    """(path, width) of the trachea and the main bronchi."""


@dataclass(frozen=True)
class Build:
    """What a patient's chest looks like, the same on all of the patient's films. 1.0 is average."""

    width: float
    height: float
    heart: float
    fat: float
    bend: float
    breast: float
    bone: float

    @staticmethod
    def draw(draw: np.random.Generator, sex: str, age: int) -> Build:
        return Build(
            width=float(np.clip(draw.normal(1.0, 0.04), 0.9, 1.1)),
            height=float(np.clip(draw.normal(1.0 if sex == "Male" else 0.96, 0.05), 0.86, 1.12)),
            heart=float(np.clip(draw.normal(0.98 + 0.001 * (age - 60), 0.06), 0.84, 1.12)),
            fat=float(np.clip(draw.normal(1.0, 0.3), 0.5, 1.7)),
            bend=float(draw.normal(0, 0.02)),
            breast=float(np.clip(draw.normal(0.8, 0.35), 0.2, 1.5)) if sex == "Female" else 0.0,
            bone=float(np.clip(draw.normal(1.08 - 0.003 * (age - 50), 0.12), 0.7, 1.4)),
        )


@dataclass(frozen=True)
class Change:
    """What disease does to the outlines themselves: sizes of heart and mediastinum, rise of each dome."""

    heart: float = 1.0
    mediastinum: float = 1.0
    rise: tuple[float, float] = (0.0, 0.0)


def frontal(build: Build, change: Change, draw: np.random.Generator, bedside: bool) -> Anatomy:
    """A frontal chest; the patient's right is at negative x. `bedside`: AP, shallower breath, scapulae over the lungs."""
    size = np.array([build.width, build.height])
    breath = draw.normal(0.06 if bedside else 0.0, 0.03)
    lungs = [_frontal_lung(side, size, change.rise[i] + breath, build) for i, side in enumerate((-1.0, 1.0))]
    heart_size = build.heart * change.heart * (1.06 if bedside else 1.0)
    heart = _frontal_heart(heart_size, breath) * size
    mediastinum = _frontal_mediastinum(change.mediastinum) * size
    spine_y = np.linspace(-1.9, 2.0, 60)
    spine = np.stack([build.bend * np.sin(2 * spine_y + draw.uniform(0, 6)), spine_y], axis=-1)
    shift = draw.normal(0, 0.012)
    trachea = points((shift, -1.5), (shift, -0.9), (0.01 + shift, -0.45), (0.015, -0.24)) * size
    bronchi = [points((0.015, -0.26), (s * 0.1, -0.14), (s * 0.2, -0.06)) * size for s in (-1, 1)]
    return Anatomy(
        lungs=lungs,
        heart=heart,
        mediastinum=mediastinum,
        spine=spine,
        parts=_frontal_parts(build, lungs, heart, mediastinum, draw, bedside),
        ribs=_frontal_ribs(build, lungs),
        lateral=False,
        airway=[(smooth(trachea), 0.085), *((smooth(b, 20), 0.05) for b in bronchi)],
    )


def _frontal_lung(side: float, size: np.ndarray, rise: float, build: Build) -> Lung:
    mirror = size * (side, 1.0)
    lift = rise + (0.04 if side < 0 else 0.0)
    angle = (0.935, 0.76 - 0.5 * lift)
    wall = points(
        (0.15, -0.74),
        (0.24, -0.86),
        (0.38, -0.905),
        (0.54, -0.83),
        (0.70, -0.62),
        (0.82, -0.32),
        (0.90, 0.03),
        (0.94, 0.4),
    )
    dome = points((0.87, 0.66 - lift), (0.72, 0.53 - lift), (0.5, 0.47 - lift), (0.3, 0.51 - lift), (0.08, 0.64 - lift))
    inner = points((0.08, 0.3), (0.09, -0.1), (0.10, -0.45))
    return Lung(
        wall=smooth(np.concatenate([wall, [angle]])) * mirror,
        dome=smooth(np.concatenate([[angle], dome]))[1:] * mirror,
        inner=inner * mirror,
        hilum=(side * 0.2 * size[0], (-0.06 if side < 0 else -0.11) * size[1]),
        outward=side,
    )


def _frontal_heart(size: float, breath: float) -> Points:
    """Normal: 0.45 of the thorax's inner width (cardiothoracic ratio)."""
    right, left = 0.25 + 0.30 * (size - 1), 0.54 + 0.62 * (size - 1)
    low = 0.62 - 0.6 * breath
    through = points(
        (-0.8 * right, -0.02), (-right, 0.2), (-0.95 * right, 0.42), (-0.55 * right, low), (0.1, low + 0.05),
        (0.75 * left, low), (left, 0.43 - 0.2 * breath), (0.86 * left, 0.18), (0.5 * left, -0.08), (0.1, -0.18),
    )  # fmt: skip
    return smooth(through, 90, closed=True)


def _frontal_mediastinum(size: float) -> Points:
    """From the thoracic inlet to the heart, with the superior vena cava on the right and the aortic knob on the left."""
    wide = 1 + 1.0 * (size - 1)
    through = points(
        (-0.12, -0.95), (-0.14 * wide, -0.72), (-0.15 * wide, -0.5), (-0.155 * wide, -0.25), (-0.15, 0.05), (-0.1, 0.5),
        (0.12, 0.5), (0.16, 0.05), (0.15 * wide, -0.2), (0.205 * wide, -0.36), (0.17 * wide, -0.5), (0.13 * wide, -0.7),
        (0.12, -0.95),
    )  # fmt: skip
    return smooth(through, 120, closed=True)


def _frontal_parts(
    build: Build, lungs: list[Lung], heart: Points, mediastinum: Points, draw: np.random.Generator, bedside: bool
) -> list[Part]:
    right, left = lungs
    flank = 1.06 + 0.07 * build.fat
    half = [
        (0.24, -2.2), (0.25, -1.2), (0.42, -1.03), (0.95, -0.98), (1.32, -0.86), (1.5, -0.6), (1.45, -0.3), (1.2, -0.12),
        (flank + 0.06, 0.05), (flank, 0.5), (flank + 0.04, 1.2), (flank + 0.1, 2.4),
    ]  # fmt: skip
    outline = np.concatenate([smooth(points(*half), 80), smooth(points(*half), 80)[::-1] * (-1, 1)]) * (build.width, 1)
    below = [(right.angle[0] - 0.03, 2.4), (left.angle[0] + 0.03, 2.4)]
    abdomen = np.concatenate([right.dome, left.dome[::-1], points(*below[::-1])])
    parts = [
        Part(outline, 0.40, 0.015),
        Part(ellipse(0, 0.3, 0.85, 1.25) * (build.width, 1), 0.12 * build.fat, 0.18),
        Part(abdomen, 0.22, 0.006),
        Part(ellipse(0, 0.95, 0.8, 0.55), 0.08, 0.2),
        Part(mediastinum, 0.10, 0.008, 0.95),
        Part(heart, 0.11, 0.009, 0.86),
    ]
    spread = draw.uniform(-0.12, 0.0) if bedside else draw.uniform(0.02, 0.16)
    for side in (-1.0, 1.0):
        mirror = np.array([side * build.width, 1.0])
        reach = draw.uniform(0.0, 0.12)
        parts.append(
            Part(
                points((1.42, -0.5), (1.75, -0.5), (1.8, 2), (1.30 + reach, 2), (1.26 + reach, 0.2)) * mirror,
                0.42,
                0.02,
            )
        )
        scapula = points((0.95, -0.78), (1.2, -0.76), (1.16, -0.4), (1.0, -0.02), (0.9, -0.05), (0.88, -0.4)) + (
            spread,
            0,
        )
        parts.append(Part(smooth(scapula, closed=True) * mirror, 0.06 * build.bone, 0.006))
        parts.append(Part(ellipse(1.36, -0.72, 0.15, 0.17) * mirror, 0.17 * build.bone, 0.008))
        parts.append(
            Part(points((1.3, -0.62), (1.46, -0.62), (1.55, 0.4), (1.43, 0.4)) * mirror, 0.14 * build.bone, 0.008)
        )
        if build.breast:
            parts.append(Part(ellipse(0.5, 0.30, 0.44, 0.40) * mirror, 0.10 * build.breast, 0.02))
    gas = draw.uniform(0.07, 0.15)
    x, y = at(left.dome, 0.55)
    if draw.random() < 0.75:
        parts.append(
            Part(ellipse(x - 0.02, y + 0.07 + 0.8 * gas, 1.4 * gas, 0.8 * gas, draw.normal(0, 0.3)), -0.22, 0.015)
        )
    return parts


def _frontal_ribs(build: Build, lungs: list[Lung]) -> list[Rib]:
    """Posterior arcs first (from the spine out), then the fainter anterior ones; then clavicles and the bony wall."""
    ribs: list[Rib] = []
    for lung in lungs:
        side, tall = lung.outward, build.height
        reach = lambda y: float(np.interp(y, *_wall_reach(lung)))  # noqa: E731
        t = np.linspace(0, 1, 40)
        for i in range(10):
            start, drop = (-0.80 + 0.165 * i) * tall, (0.10 + 0.022 * i) * tall
            x = 0.10 + (reach(start + drop) + 0.015 - 0.10) * np.sin(0.5 * np.pi * t**0.9)
            y = start - 0.055 * np.sin(np.pi * t**0.8) + drop * t**2.4
            ribs.append(Rib(np.stack([side * x, y], axis=-1), 0.062, 0.105 * build.bone))
        for i in range(6):
            start = (-0.52 + 0.19 * i) * tall
            outer = reach(start) + 0.01
            x = outer - (outer - 0.36 - 0.03 * i) * t**0.9
            y = start - 0.05 * np.sin(np.pi * t) * (1 - t) + (0.26 + 0.02 * i) * tall * t**1.6
            ribs.append(Rib(np.stack([side * x, y], axis=-1), 0.066, 0.055 * build.bone))
        collar = points((0.07, -0.66), (0.25, -0.70), (0.5, -0.82), (0.8, -0.93), (1.15, -0.93)) * (
            side * build.width,
            tall,
        )
        ribs.append(Rib(smooth(collar), 0.075, 0.15 * build.bone))
        ribs.append(Rib(lung.wall[12:] + (side * 0.03, 0), 0.05, 0.06 * build.bone))
    return ribs


def _wall_reach(lung: Lung) -> tuple[np.ndarray, np.ndarray]:
    """(y, |x|) of the chest wall, y increasing, from the widest part of the apex on."""
    wall = lung.wall[np.argmin(lung.wall[:, 1]) :]
    return wall[:, 1], np.abs(wall[:, 0])


def lateral(build: Build, change: Change, draw: np.random.Generator) -> Anatomy:
    """A left lateral chest: the sternum at negative x, the spine at positive x. Both lungs lie over each other."""
    size = np.array([0.95 * build.width, build.height])
    breath = draw.normal(0, 0.03)
    rise = max(change.rise) + breath
    angle = (0.62, 0.80 - 0.4 * rise)
    wall = smooth(
        np.concatenate(
            [
                points(
                    (-0.12, -0.78), (0.05, -0.88), (0.25, -0.84), (0.46, -0.6), (0.60, -0.2), (0.64, 0.25), (0.64, 0.55)
                ),
                [angle],
            ]
        )
    )
    dome = points(
        (0.52, 0.62 - rise), (0.3, 0.46 - rise), (0.0, 0.38 - rise), (-0.3, 0.42 - rise), (-0.56, 0.56 - rise)
    )
    front = points((-0.60, 0.3), (-0.52, -0.1), (-0.40, -0.45), (-0.27, -0.68))
    lung = Lung(
        wall * size, smooth(np.concatenate([[angle], dome]))[1:] * size, smooth(front) * size, (0.04, -0.06), 1.0
    )
    grown = 1 + 0.9 * (build.heart * change.heart - 1)
    heart = smooth(
        points((-0.28, -0.12), (-0.52 * grown**0.3, 0.12), (-0.55 * grown**0.3, 0.42), (-0.2, 0.56 - 0.5 * breath), (0.08 * grown**2, 0.48), (0.16 * grown**2, 0.18), (0.02, -0.1)),
        90, closed=True,
    ) * size  # fmt: skip
    wide = change.mediastinum
    mediastinum = smooth(
        points((-0.06 - 0.25 * (wide - 1), -0.8), (-0.10 - 0.26 * (wide - 1), -0.5), (-0.12 - 0.22 * (wide - 1), -0.15), (0.1, -0.05), (0.18 + 0.1 * (wide - 1), -0.3), (0.16 + 0.1 * (wide - 1), -0.5), (0.1, -0.8)),
        90, closed=True,
    ) * size  # fmt: skip
    spine_y = np.linspace(-1.9, 2.0, 60)
    spine = np.stack([0.50 + 0.12 * np.cos(1.3 * (spine_y - 0.2)) + 0 * spine_y, spine_y], axis=-1) * (size[0], 1)
    trachea = points((-0.02, -1.5), (0.0, -0.8), (0.05, -0.3)) * size
    return Anatomy(
        lungs=[lung],
        heart=heart,
        mediastinum=mediastinum,
        spine=spine,
        parts=_lateral_parts(build, lung, heart, mediastinum, size, wide),
        ribs=_lateral_ribs(build, size),
        lateral=True,
        airway=[(smooth(trachea), 0.08)],
    )


def _lateral_parts(
    build: Build, lung: Lung, heart: Points, mediastinum: Points, size: np.ndarray, wide: float
) -> list[Part]:
    thick = 0.05 * build.fat
    front = [
        (-0.30, -2.2),
        (-0.28, -1.1),
        (-0.38 - thick, -0.75),
        (-0.55 - thick, -0.3),
        (-0.72 - thick, 0.3),
        (-0.72 - thick, 0.8),
        (-0.85 - 2 * thick, 2.4),
    ]
    back = [
        (0.35, -2.2),
        (0.42, -1.15),
        (0.62 + thick, -0.85),
        (0.82 + thick, -0.4),
        (0.86 + thick, 0.1),
        (0.80 + thick, 0.8),
        (0.8 + thick, 2.4),
    ]
    outline = np.concatenate([smooth(points(*front), 60), smooth(points(*back), 60)[::-1]]) * size
    abdomen = np.concatenate([lung.dome, points((-0.62, 2.4), (0.7, 2.4))])
    parts = [
        Part(outline, 0.46, 0.015),
        Part(abdomen, 0.22, 0.008),
        Part(lung.dome[::-1].copy(), 0.0),
        Part(ellipse(0.05, -1.02, 0.55, 0.30) * size, 0.30, 0.10, 0.4),
        Part(heart, 0.10, 0.014, 0.75),
        Part(mediastinum, 0.06, 0.012, 0.35 + 0.45 * min(wide - 1, 1)),
        Part(ellipse(0.07, -0.06, 0.13, 0.11) * size, 0.06, 0.02, 0.35),
    ]
    if build.breast:
        parts.append(Part(ellipse(-0.78, 0.25, 0.22, 0.36) * size, 0.28 * build.breast, 0.02))
    return [part for part in parts if part.density or part.displaces]


def _lateral_ribs(build: Build, size: np.ndarray) -> list[Rib]:
    """Arcs from the spine down to the front, both sides; then the sternum."""
    ribs: list[Rib] = []
    t = np.linspace(0, 1, 40)
    for i in range(9):
        for double in (0.0, 0.035):
            y = -0.78 + 0.155 * i + double + (0.36 + 0.01 * i) * t**1.2 - 0.05 * np.sin(np.pi * t)
            back, front = 0.62 - 0.25 * (i == 0), -0.30 - 0.03 * i
            ribs.append(Rib(np.stack([back + (front - back) * t, y], axis=-1) * size, 0.05, 0.06 * build.bone))
    sternum = smooth(points((-0.36, -0.62), (-0.5, -0.3), (-0.62, 0.1), (-0.66, 0.35)))
    ribs.append(Rib(sternum * size, 0.07, 0.12 * build.bone))
    return ribs
