"""Small panels of curves with the same axes, drawn straight onto a figure.

An `Axes` per panel looks the same and takes ten times as long: most of it goes into ticks and layout that all panels
share.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from reporting.pictures.style import FULL_WIDTH, GREY

_LEFT, _RIGHT, _BOTTOM, _TOP = 0.56, 0.12, 0.44, 0.22  # inches around the panels: room for all words
_ACROSS, _BETWEEN, _HEIGHT = 0.24, 0.32, 1.7  # inches: between columns, between rows, and of a row in all
_TICK, _LABEL = 0.05, 0.09  # inches from an axis to the end of a tick, and to its number
_LINE, _NUMBER, _WORD = 0.6, 7, 8  # points

Place = tuple[float, float]


class Panels:
    """`count` panels in rows of `columns`; x runs from 0 to 1, y from 0 to `high`. Make and save it in `style()`."""

    def __init__(self, count: int, columns: int, high: float, *, x_name: str, y_name: str) -> None:
        self.columns, self.rows, self.high = columns, max(2, -(-count // columns)), high
        self.figure = Figure(figsize=(FULL_WIDTH, _HEIGHT * self.rows))
        width, height = self.figure.get_size_inches()
        self._width = (width - _LEFT - _RIGHT + _ACROSS) / columns - _ACROSS
        self._height = (height - _BOTTOM - _TOP + _BETWEEN) / self.rows - _BETWEEN
        self._frames(count)
        self.words(width / 2, 0.03, x_name, _WORD, ha="center", va="bottom")
        self.words(0.03, height / 2, y_name, _WORD, ha="left", va="center", rotation="vertical")

    def at(self, panel: int, x: float, y: float) -> Place:
        """Inches on the figure of a point of a panel."""
        row, column = divmod(panel, self.columns)
        left, bottom = self._corner(row, column)
        return left + x * self._width, bottom + y / self.high * self._height

    def title(self, panel: int, text: str) -> None:
        x, y = self.at(panel, 0.5, self.high)
        self.words(x, y + 0.08, text, _WORD, ha="center", va="baseline")

    def note(self, panel: int, text: str) -> None:
        """Small words in the upper right corner."""
        self.words(*self.at(panel, 0.97, 0.95 * self.high), text, _NUMBER, ha="right", va="top")

    def words(self, x: float, y: float, text: str, size: float, **how: Any) -> None:
        """x, y: inches; how: as `Text` takes it."""
        self.figure.text(x, y, text, fontsize=size, transform=self.figure.dpi_scale_trans, **how)

    def lines(self, lines: Sequence[Sequence[Place] | np.ndarray], **how: Any) -> None:
        """lines: of points in inches; how: as `LineCollection` takes it."""
        self.figure.add_artist(LineCollection(lines, transform=self.figure.dpi_scale_trans, **how))

    def curve(self, panel: int, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """x, y: (n,), NaN where there is a gap -> (n, 2) inches, for `lines`."""
        left, bottom = self.at(panel, 0, 0)
        return np.stack([left + x * self._width, bottom + y / self.high * self._height], axis=1)

    def points(self, places: Sequence[Place], **how: Any) -> None:
        """places: inches; how: as `Line2D` takes it."""
        x, y = zip(*places, strict=True)
        self.figure.add_artist(Line2D(x, y, linestyle="", transform=self.figure.dpi_scale_trans, **how))

    def _corner(self, row: int, column: int) -> Place:
        bottom = _BOTTOM + (self.rows - 1 - row) * (self._height + _BETWEEN)
        return _LEFT + column * (self._width + _ACROSS), bottom

    def _frames(self, count: int) -> None:
        """Axes with ticks; their numbers beside the first column and below the last row."""
        y_ticks = [tick for tick in MaxNLocator(4, steps=[1, 2, 5, 10]).tick_values(0, self.high) if tick <= self.high]
        decimals = max(1, -math.floor(math.log10(y_ticks[1]))) if len(y_ticks) > 1 else 1
        axes, ticks = [], []
        for panel in range(count):
            axes.append([self.at(panel, 0, self.high), self.at(panel, 0, 0), self.at(panel, 1, 0)])
            ticks += [((x, y), (x, y - _TICK)) for x, y in (self.at(panel, tick, 0) for tick in (0, 0.5, 1))]
            ticks += [((x, y), (x - _TICK, y)) for x, y in (self.at(panel, 0, tick) for tick in y_ticks)]
        self.lines(axes, colors=GREY, linewidths=_LINE)
        self.lines(ticks, colors="black", linewidths=_LINE)
        for panel in range(0, count, self.columns):
            for tick in y_ticks:
                x, y = self.at(panel, 0, tick)
                self.words(x - _LABEL, y, f"{tick:.{decimals}f}", _NUMBER, ha="right", va="center")
        for panel in range(max(0, count - self.columns), count):
            for tick in (0.0, 0.5, 1.0):
                x, y = self.at(panel, tick, 0)
                self.words(x, y - _LABEL, f"{tick:.1f}", _NUMBER, ha="center", va="top")
