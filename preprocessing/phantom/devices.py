"""Support devices of a synthetic film: strokes for lines, tubes and wires, outlines for what is solid."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from preprocessing.phantom.canvas import Points, Stroke, ellipse, points, smooth

Device = tuple[list[Stroke], list[Points]]


def draw_devices(lateral: bool, draw: np.random.Generator) -> Device:
    """Two or three different devices of the view."""
    kinds = _LATERAL if lateral else _FRONTAL
    chosen = draw.choice(len(kinds), size=int(draw.integers(2, 4)), replace=False)
    devices = [kinds[kind](draw) for kind in sorted(chosen)]
    return [line for lines, _ in devices for line in lines], [box for _, boxes in devices for box in boxes]


def _course(draw: np.random.Generator, *through: tuple[float, float]) -> Points:
    """A smooth course near the given points, no two alike."""
    return smooth(points(*through) + draw.normal(0, 0.012, (len(through), 2)), 60)


def _pacemaker(draw: np.random.Generator) -> Device:
    side = 1.0 if draw.random() < 0.8 else -1.0
    x, y = side * draw.uniform(0.62, 0.72), draw.uniform(-0.55, -0.45)
    box = smooth(ellipse(x, y, 0.1, 0.085, draw.normal(0, 0.3))[::6], closed=True)
    bend = (side * 0.4, -0.7), (-0.05, -0.55)
    ventricle = _course(draw, (x, y - 0.08), *bend, (-0.14, -0.2), (-0.12, 0.2), (0.05, 0.42), (0.32, 0.46))
    atrium = _course(draw, (x, y - 0.08), *bend, (-0.15, -0.15), (-0.17, 0.1), (-0.08, 0.06))
    return [(ventricle, 0.017, 1.0), (atrium, 0.017, 1.0), (ventricle[-3:], 0.036, 1.0)], [box]


def _central_line(draw: np.random.Generator) -> Device:
    return [(_course(draw, (-0.2, -1.4), (-0.2, -0.9), (-0.16, -0.6), (-0.14, -0.25), (-0.13, 0.08)), 0.022, 0.9)], []


def _tracheal_tube(draw: np.random.Generator) -> Device:
    tube = _course(draw, (0.0, -1.5), (0.0, -0.9), (0.0, -0.45))
    return [(tube + (0.024, 0), 0.014, 0.9), (tube - (0.024, 0), 0.014, 0.9)], []


def _gastric_tube(draw: np.random.Generator) -> Device:
    course = _course(draw, (0.03, -1.5), (0.02, -0.6), (0.03, 0.1), (0.1, 0.5), (0.3, 0.72), (0.45, 0.8))
    return [(course, 0.024, 0.9)], []


def _ecg_leads(draw: np.random.Generator) -> Device:
    lines: list[Stroke] = []
    pads: list[Points] = []
    for corner in ((-0.62, -0.55), (0.62, -0.5), (0.72, 0.45), (-0.7, 0.5)):
        x, y = corner + draw.normal(0, 0.06, 2)
        loose = 0.75 * x + draw.normal(0, 0.2)
        lines.append((_course(draw, (x, y), (0.7 * x, y + 0.35), (loose, 0.75), (0.3 * x, 1.3)), 0.016, 0.8))
        pads.append(ellipse(x, y, 0.042, 0.032, draw.uniform(0, 3)))
    return lines, pads


def _sternal_wires(draw: np.random.Generator, x: float = 0.0) -> Device:
    loops = []
    for y in np.arange(-0.5, 0.3, 0.15):
        loop = ellipse(x + draw.normal(0, 0.008), y, 0.05, 0.022, draw.normal(0, 0.3))
        loops.append((np.concatenate([loop, loop[:1]]), 0.015, 1.0))
    return loops, []


def _chest_drain(draw: np.random.Generator) -> Device:
    side = float(draw.choice((-1, 1)))
    tube = _course(draw, (side * 1.25, 0.5), (side * 0.9, 0.3), (side * 0.68, -0.1), (side * 0.5, -0.6))
    return [(tube + (0.02, 0), 0.012, 0.9), (tube - (0.02, 0), 0.018, 1.0)], []


def _lateral_pacemaker(draw: np.random.Generator) -> Device:
    lead = _course(draw, (-0.46, -0.52), (-0.3, -0.75), (0.0, -0.55), (0.02, -0.1), (-0.1, 0.25), (-0.42, 0.42))
    return [(lead, 0.017, 1.0), (lead[-3:], 0.036, 1.0)], [ellipse(-0.48, -0.45, 0.04, 0.1, 0.3)]


def _lateral_gastric_tube(draw: np.random.Generator) -> Device:
    course = _course(draw, (0.0, -1.5), (0.05, -0.7), (0.18, -0.1), (0.2, 0.3), (0.0, 0.6), (-0.2, 0.75))
    return [(course, 0.024, 0.9)], []


def _lateral_leads(draw: np.random.Generator) -> Device:
    starts = draw.uniform((-0.4, -0.5), (0.3, 0.3), (3, 2))
    lines = [
        (_course(draw, (x, y), (x - 0.1, y + 0.3), (x - 0.35, 0.8), (x - 0.4, 1.3)), 0.016, 0.8) for x, y in starts
    ]
    return lines, [ellipse(x, y, 0.034, 0.04) for x, y in starts]


def _lateral_wires(draw: np.random.Generator) -> Device:
    return _sternal_wires(draw, x=-0.54)


_FRONTAL: tuple[Callable[[np.random.Generator], Device], ...] = (
    _pacemaker,
    _central_line,
    _tracheal_tube,
    _gastric_tube,
    _ecg_leads,
    _sternal_wires,
    _chest_drain,
)
_LATERAL: tuple[Callable[[np.random.Generator], Device], ...] = (
    _lateral_pacemaker,
    _lateral_gastric_tube,
    _lateral_leads,
    _lateral_wires,
)
