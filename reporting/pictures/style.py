"""How the project's pictures look, and how they are saved: Okabe-Ito colours, Agg, no global state of pyplot."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from cxr.files import replacing

COLOURS = {"patch": "#0072B2", "baseline": "#D55E00"}
"""Okabe and Ito's blue and vermilion, apart for every kind of colour vision; shapes tell the models apart in grey."""

SHAPES = {"patch": "o", "baseline": "D"}
GREY = "#6e6e6e"
PALE = "#d9d9d9"
FULL_WIDTH = 7.2
"""Inches: a page's width in most journals (183 mm)."""

_SETTINGS: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "axes.linewidth": 0.6,
    "axes.edgecolor": GREY,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "pdf.fonttype": 42,
    "text.parse_math": False,  # a name with two $ in it is a name
}


@contextmanager
def style() -> Iterator[None]:
    """Figures are made and saved inside it; matplotlib's settings are left as found."""
    with matplotlib.rc_context(_SETTINGS):
        yield


def save(figure: Figure, folder: Path, name: str, *, endings: tuple[str, ...] = ("png", "pdf")) -> list[Path]:
    """Writes `<name>.<ending>` atomically, without dates, so that the same results give the same bytes."""
    paths = []
    for ending in endings:
        path = folder / f"{name}.{ending}"
        metadata = {"CreationDate": None} if ending == "pdf" else {"Software": None}
        with replacing(path) as temporary:
            figure.savefig(temporary, format=ending, dpi=200, metadata=metadata)
        paths.append(path)
    return paths
