"""Heat maps over films, and the grid of cases: red speaks for the finding, blue against it, white for neither."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from textwrap import fill

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure

from reporting.pictures.style import FULL_WIDTH, GREY

NEUTRAL = 0.5
LOGIT_RANGE = 400.0
"""Evidence maps store clip(logit, -200, 200) / 400 + 0.5."""

SIGNED = matplotlib.colormaps["RdBu_r"]
UNSIGNED = LinearSegmentedColormap.from_list("white to red", SIGNED(np.linspace(0.5, 1, 128)))
"""The red half of `SIGNED`: a CAM knows no evidence against."""

STRENGTH = 0.5
TINT = 0.65
"""Share of the colour where a map is strongest; all of it would hide the film there."""
OUTLINE = "#F0E442"  # Okabe and Ito's yellow, which neither scale holds


def evidence_scale(heat: np.ndarray) -> float:
    """Largest distance of an evidence map from neutral; 0 for a map that is neutral everywhere."""
    return float(np.abs(heat - NEUTRAL).max())


def overlay(film: np.ndarray, heat: np.ndarray, *, signed: bool) -> np.ndarray:
    """A film under the colours of its map, (h, w, 3) uint8.

    film, heat: (h, w) in [0, 1]. signed: an evidence map, 0.5 neutral, whose colours reach full red and full blue at
    +- `evidence_scale`; otherwise a CAM, white at 0 and red at 1. Film and colour are mixed half and half everywhere,
    as in the paper, so that white means neutral and not "not shown".
    Raises ValueError for shapes that differ.
    """
    strength = _strength(film, heat, signed)
    colours = SIGNED((strength + 1) / 2) if signed else UNSIGNED(strength)
    return _mixed(film, colours[..., :3], np.full(film.shape, STRENGTH))


def tint(film: np.ndarray, heat: np.ndarray, *, signed: bool) -> np.ndarray:
    """A film tinted by its map, (h, w, 3) uint8: the stronger the evidence, the more colour; the film stays visible.

    Arguments as those of `overlay`. Where the map is neutral (of a CAM: 0) the film is left as it is; at the map's
    extreme `TINT` of the colour covers it. Raises ValueError for shapes that differ.
    """
    strength = _strength(film, heat, signed)
    colours = np.where(strength[..., None] < 0, SIGNED(0.08)[:3], SIGNED(0.92)[:3])  # (h, w, 3)
    return _mixed(film, colours, TINT * np.abs(strength))


def tint_scale(*, signed: bool) -> np.ndarray:
    """(255, 3) uint8: the colours of `tint` over middle grey, from a map's least to its most."""
    steps = np.linspace(-1 if signed else 0, 1, 255)[None]
    heat = (steps + 1) / 2 if signed else steps
    return tint(np.full(heat.shape, 0.5), heat, signed=signed)[0]


def _strength(film: np.ndarray, heat: np.ndarray, signed: bool) -> np.ndarray:
    """(h, w) in [-1, 1]: evidence over the map's largest, or (of a CAM) its value in [0, 1]."""
    if film.shape != heat.shape or film.ndim != 2:
        raise ValueError(f"film {film.shape} and map {heat.shape} must be of one shape (height, width)")
    if not signed:
        return np.clip(heat, 0, 1)
    scale = evidence_scale(heat)
    return (heat - NEUTRAL) / scale if scale else np.zeros(heat.shape)


def _mixed(film: np.ndarray, colours: np.ndarray, share: np.ndarray) -> np.ndarray:
    """film (h, w) and colours (h, w, 3) in [0, 1]; share: (h, w), of the colours."""
    mixed = share[..., None] * colours + (1 - share[..., None]) * film[..., None]
    return np.round(255 * np.clip(mixed, 0, 1)).astype(np.uint8)


@dataclass(frozen=True)
class CasePictures:
    """One row of the grid. film: (h, w) in [0, 1]; outline: bool, the mask of the same area at its own resolution,
    or None; maps: column -> (h, w); lines: what is written beside, the first one bold."""

    film: np.ndarray
    outline: np.ndarray | None
    maps: Mapping[str, np.ndarray]
    lines: Sequence[str]


def case_grid(
    rows: Sequence[CasePictures], columns: Mapping[str, str], *, signed: Sequence[str], title: str, caption: str
) -> Figure:
    """Cases by method: the film with the mask's outline first, then an overlay per column (key -> heading).

    signed: the columns that hold evidence maps; under each of those stands the logit at which its colours are full.
    """
    side = (FULL_WIDTH - _MARGIN) / (len(columns) + 1)
    figure = Figure(figsize=(FULL_WIDTH, side * _PITCH * len(rows) + _HEAD + _FOOT))
    height = figure.get_figheight()
    grid = figure.subplots(len(rows), len(columns) + 1, squeeze=False)
    figure.subplots_adjust(
        left=_MARGIN / FULL_WIDTH, right=0.995, top=1 - _HEAD / height, bottom=_FOOT / height, wspace=0.04, hspace=0.0
    )
    for axes, heading in zip(grid[0], ("Film and mask", *columns.values()), strict=True):
        axes.set_title(heading, size=7, pad=4, linespacing=1.2)
    for row, places in zip(rows, grid, strict=True):
        _case_row(row, places, columns, signed)
    figure.text(0.01, 1 - 0.16 / height, title, size=9, weight="bold", va="center")
    figure.text(0.01, 0.06 / height, fill(caption, 160), size=6.2, color=GREY, va="bottom", linespacing=1.35)
    _colour_bars(figure, height)
    return figure


_MARGIN = 1.08  # inches left of the pictures, for what is written beside
_HEAD = 0.62
_FOOT = 0.84
_PITCH = 1.13  # height of a row in sides of a picture: room for the scale below


def _case_row(row: CasePictures, places: Sequence[Axes], columns: Mapping[str, str], signed: Sequence[str]) -> None:
    for axes in places:
        axes.set_axis_off()
        axes.set_anchor("N")
    places[0].imshow(row.film, cmap="gray", vmin=0, vmax=1)
    _draw_outline(places[0], row, width=0.9)
    for axes, key in zip(places[1:], columns, strict=True):
        heat = row.maps.get(key)
        if heat is None:
            axes.imshow(np.full((*row.film.shape, 3), 240, np.uint8))
            axes.text(0.5, 0.5, "no map", transform=axes.transAxes, ha="center", va="center", color=GREY)
            continue
        axes.imshow(overlay(row.film, heat, signed=key in signed))
        _draw_outline(axes, row, width=0.5)
        if key in signed:
            logit = LOGIT_RANGE * evidence_scale(heat)
            axes.text(0.5, -0.02, f"±{logit:.2g}", transform=axes.transAxes, ha="center", va="top", size=6, color=GREY)
    for line, text in enumerate(row.lines):
        written = places[0].text(-0.06, 0.98 - 0.14 * line, text, transform=places[0].transAxes, size=6.5)
        written.set(ha="right", va="top", weight="bold" if line == 0 else "normal")


def _draw_outline(axes: Axes, row: CasePictures, *, width: float) -> None:
    """The mask's outline over a picture of the film. width: of the line, in points."""
    if row.outline is None or not row.outline.any():
        return
    sides = zip(row.outline.shape, row.film.shape, strict=True)
    y, x = ((np.arange(mask) + 0.5) * film / mask - 0.5 for mask, film in sides)  # in the film's pixels
    axes.contour(x, y, row.outline, levels=[0.5], colors=[OUTLINE], linewidths=width)


def _colour_bars(figure: Figure, height: float) -> None:
    evidence = "Evidence; full at ± the patch logit under the picture"
    bars = (
        (0.15, SIGNED, (-1, 0, 1), ("against", "neutral", "for"), evidence),
        (0.62, UNSIGNED, (0, 1), ("lowest", "highest"), "CAM, normalised per map"),
    )
    for left, colours, ticks, names, label in bars:
        axes = figure.add_axes((left, (_FOOT - 0.18) / height, 0.3, 0.09 / height))
        bar = figure.colorbar(
            ScalarMappable(Normalize(ticks[0], ticks[-1]), colours), cax=axes, orientation="horizontal", ticks=ticks
        )
        bar.ax.set_xticklabels(names, size=6)
        bar.ax.tick_params(length=2, pad=1)
        bar.ax.set_title(label, size=6, pad=2)
        bar.outline.set_linewidth(0.4)
