"""Drawing in a patient's own frame onto a film: filled outlines, strokes, smooth noise, all as (H, W) float32 layers.

Patient frame: x to the film's right, y down, the thorax's centre at (0, 0), the inner chest wall near |x| = 1.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from PIL import Image, ImageDraw, ImageFilter
from scipy.interpolate import CubicSpline

Points = np.ndarray
"""(N, 2) float64, (x, y)."""

Stroke = tuple[Points, float, float]
"""An open line: points, width in patient-frame units, value in [0, 1]."""


def points(*pairs: tuple[float, float]) -> Points:
    return np.array(pairs, dtype=float)


def smooth(through: Points, count: int = 60, closed: bool = False) -> Points:
    """(count, 2): a cubic curve through the given points, by chord length."""
    if closed:
        through = np.concatenate([through, through[:1]])
    chord = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(through, axis=0).T))])
    curve = CubicSpline(chord, through, bc_type="periodic" if closed else "natural")
    return curve(np.linspace(0, chord[-1], count))


def at(curve: Points, where: float | np.ndarray) -> Points:
    """Points on a curve at the given fractions of its vertices, in [0, 1]."""
    steps = np.linspace(0, 1, len(curve))
    return np.stack([np.interp(where, steps, curve[:, 0]), np.interp(where, steps, curve[:, 1])], axis=-1)


def ellipse(x: float, y: float, rx: float, ry: float, tilt: float = 0.0) -> Points:
    """(48, 2) outline; `tilt` in radians."""
    turn = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    across, down = rx * np.cos(turn), ry * np.sin(turn)
    return np.stack(
        [x + across * np.cos(tilt) - down * np.sin(tilt), y + across * np.sin(tilt) + down * np.cos(tilt)], axis=-1
    )


def blob(draw: np.random.Generator, x: float, y: float, radius: float, roughness: float = 0.2) -> Points:
    """(48, 2): an irregular round outline."""
    turn = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    wave = sum(draw.normal() / k * np.cos(k * turn + draw.uniform(0, 6.3)) for k in (2, 3, 4, 5, 7))
    r = radius * np.clip(1 + roughness * wave, 0.4, 1.7)
    return np.stack([x + r * np.cos(turn), y + r * np.sin(turn)], axis=-1)


Box = tuple[slice, slice]
"""Rows and columns of an (H, W) layer."""


class Canvas:
    """A film of `width` x `height` pixels on which one patient-frame unit is `scale` pixels long."""

    def __init__(self, width: int, height: int, scale: float, centre: tuple[float, float], tilt: float) -> None:
        self.width, self.height, self.scale, self.centre = width, height, scale, np.asarray(centre)
        self.turn = np.array([[np.cos(tilt), -np.sin(tilt)], [np.sin(tilt), np.cos(tilt)]])

    def pixels(self, where: Points) -> Points:
        """Patient frame -> pixel coordinates (x, y)."""
        return where @ self.turn.T * self.scale + self.centre

    def zeros(self) -> np.ndarray:
        return np.zeros((self.height, self.width), np.float32)

    def fill(self, *outlines: Points, blur: float = 0.004) -> np.ndarray:
        """(H, W) in [0, 1]: the union of closed outlines, edges softened by `blur` patient-frame units."""
        return self._whole(*self.patch(*outlines, blur=blur))

    def patch(self, *outlines: Points, blur: float = 0.004) -> tuple[Box, np.ndarray]:
        """The part of `fill` that is not zero: its place in an (H, W) layer, and the values there."""
        return self._drawn([(self.pixels(outline), 255, 0) for outline in outlines], blur)

    def strokes(self, lines: Iterable[Stroke], blur: float = 0.004) -> np.ndarray:
        """(H, W) in [0, 1]: open lines, later ones over earlier ones."""
        shapes = [(self.pixels(path), round(255 * v), max(width * self.scale, 1.0)) for path, width, v in lines]
        return self._whole(*self._drawn(shapes, blur))

    def noise(self, draw: np.random.Generator, wavelength: float) -> np.ndarray:
        """(H, W): smooth standard-normal noise with structures of about `wavelength` patient-frame units."""
        step = max(wavelength * self.scale, 1.0)
        grid = draw.standard_normal((int(self.height / step) + 3, int(self.width / step) + 3)).astype(np.float32)
        return np.asarray(Image.fromarray(grid).resize((self.width, self.height), Image.Resampling.BICUBIC))

    def _whole(self, box: Box, patch: np.ndarray) -> np.ndarray:
        layer = self.zeros()
        layer[box] = patch
        return layer

    def _drawn(self, shapes: list[tuple[Points, int, float]], blur: float) -> tuple[Box, np.ndarray]:
        """Draws only the box that the shapes touch, and coarser the more they are blurred: both for speed."""
        radius = blur * self.scale
        x0, y0, x1, y1 = self._touched(shapes, 3 * radius)
        box = slice(y0, y1), slice(x0, x1)
        if x1 <= x0 or y1 <= y0:
            return box, np.zeros((y1 - y0, x1 - x0), np.float32)
        coarse = max(1.0, radius / 1.5)
        size = max(1, round((x1 - x0) / coarse)), max(1, round((y1 - y0) / coarse))
        # Shapes that leave the film go on beyond it, so that blurring does not fade them at the film's edge.
        pad = int(3 * radius / coarse) + 1
        factor = np.array(size) / (x1 - x0, y1 - y0)
        image = Image.new("L", (size[0] + 2 * pad, size[1] + 2 * pad))
        pen = ImageDraw.Draw(image)
        for path, value, width in shapes:
            corners = ((path - (x0, y0)) * factor + pad).ravel().tolist()
            if width:
                pen.line(corners, fill=value, width=max(1, round(width / coarse)))
            else:
                pen.polygon(corners, fill=value)
        if radius > 0.5:
            image = image.filter(ImageFilter.GaussianBlur(radius / coarse))
        image = image.crop((pad, pad, pad + size[0], pad + size[1]))
        if coarse > 1:
            image = image.resize((x1 - x0, y1 - y0), Image.Resampling.BICUBIC)
        return box, np.asarray(image, np.float32) / 255

    def _touched(self, shapes: list[tuple[Points, int, float]], margin: float) -> tuple[int, int, int, int]:
        """(x0, y0, x1, y1) of the pixels that the shapes reach; empty where they miss the film."""
        if not shapes:
            return 0, 0, 0, 0
        margin += max(width for _, _, width in shapes) + 2
        low = np.min([path.min(axis=0) for path, _, _ in shapes], axis=0) - margin
        high = np.max([path.max(axis=0) for path, _, _ in shapes], axis=0) + margin
        x0, y0 = np.clip(low, 0, (self.width, self.height)).astype(int)
        x1, y1 = np.clip(high, 0, (self.width, self.height)).astype(int)
        return int(x0), int(y0), int(max(x1, x0)), int(max(y1, y0))
