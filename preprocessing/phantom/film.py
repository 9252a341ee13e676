"""A synthetic radiograph with its findings and their masks: anatomy -> density layers -> signs -> exposure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from preprocessing.phantom.anatomy import Anatomy, Build, Lung, Rib, frontal
from preprocessing.phantom.canvas import Canvas, Points, Stroke, ellipse, points
from preprocessing.phantom.cohort import IMPLY_OPACITY, Film, stream
from preprocessing.phantom.findings import PAINTERS, Layers, Scene, break_ribs, outline_change
from preprocessing.phantom.lateral import lateral

AIR = 0.40
"""Density that a lung full of air takes away."""

BONES = {"posterior": 0.115, "anterior": 0.065, "clavicle": 0.15, "near": 0.085, "far": 0.05, "sternum": 0.10}
"""Density by kind of `Rib`."""

FADES = {
    "posterior": ((0.0, 0.12, 1.0), (0.1, 1.0, 1.0)),
    "anterior": ((0.0, 0.65, 1.0), (1.0, 1.0, 0.1)),
    "near": ((0.0, 0.65, 1.0), (1.0, 1.0, 0.1)),
    "far": ((0.0, 0.65, 1.0), (1.0, 1.0, 0.1)),
}
"""Kind of `Rib` -> (fraction of its length, strength): ribs sink into the spine and end in cartilage."""

Draws = Callable[[str], np.random.Generator]


@dataclass(frozen=True)
class Rendered:
    """`image` (H, W) uint8; `masks`: finding -> (H, W) bool, for every finding of the film."""

    image: np.ndarray
    masks: dict[str, np.ndarray]


def render(film: Film, seed: int) -> Rendered:
    """Draws one film; the same for the same seed, patient, film and findings.

    Every finding draws from a generator of its own, so that leaving one out changes nothing else.
    """
    draws: Draws = partial(stream, seed, film.patient, film.index)
    build = Build.draw(stream(seed, film.patient, "build"), film.sex, film.age)
    change = outline_change(film.findings, stream(seed, film.patient, "change"))
    if film.lateral:
        anatomy = lateral(build, change, draws("pose"))
    else:
        anatomy = frontal(build, change, draws("pose"), bedside=film.projection == "AP")
    broken = break_ribs(anatomy, draws("Fracture")) if "Fracture" in film.findings else []
    canvas = _canvas(draws("frame"), film.lateral)
    layers = _layers(canvas, anatomy, build, draws("layers"))
    masks = _outline_masks(canvas, anatomy, film.findings, broken)
    for label, paint in PAINTERS.items():
        if label in film.findings:
            masks[label] = paint(Scene(canvas, anatomy, layers, draws(label)))
    if "Lung Opacity" in film.findings:
        masks["Lung Opacity"] = np.logical_or.reduce([masks[k] for k in ("Lung Opacity", *IMPLY_OPACITY) if k in masks])
    return Rendered(_exposed(canvas, layers, draws("exposure"), film), {label: masks[label] for label in film.findings})


def _outline_masks(
    canvas: Canvas, anatomy: Anatomy, findings: Collection[str], broken: Sequence[Points]
) -> dict[str, np.ndarray]:
    """Masks of the findings that are outlines of the anatomy itself. The cardiomediastinum includes a large heart."""
    masks: dict[str, np.ndarray] = {}
    if "Cardiomegaly" in findings:
        masks["Cardiomegaly"] = canvas.fill(anatomy.heart) > 0.5
    if "Enlarged Cardiomediastinum" in findings:
        chest = points((-2, -0.9), (2, -0.9), (2, 2), (-2, 2))
        masks["Enlarged Cardiomediastinum"] = canvas.fill(anatomy.mediastinum) * canvas.fill(chest, blur=0.0) > 0.5
        if "Cardiomegaly" in findings:
            masks["Enlarged Cardiomediastinum"] |= masks["Cardiomegaly"]
    if broken:
        masks["Fracture"] = canvas.fill(*broken) > 0.5
    return masks


def _canvas(draw: np.random.Generator, lateral: bool) -> Canvas:
    """A film of 700 to 1000 pixels on the long side, portrait or landscape, never square."""
    long = int(draw.integers(700, 1001))
    short = int(long * draw.uniform(0.78, 0.96))
    landscape = draw.random() < (0.1 if lateral else 0.55)
    width, height = (long, short) if landscape else (short, long)
    scale = short * draw.uniform(0.405, 0.45) * (1.2 if lateral else 1.0)
    centre = (width * draw.normal(0.5, 0.012), height * draw.normal(0.5, 0.015) + 0.04 * scale)
    return Canvas(width, height, scale, centre, draw.normal(0, 0.025))


def _layers(canvas: Canvas, anatomy: Anatomy, build: Build, draw: np.random.Generator) -> Layers:
    lung = canvas.fill(*(lung.outline for lung in anatomy.lungs))
    depth = canvas.fill(*(lung.outline for lung in anatomy.lungs), blur=0.09)
    air = lung * np.clip(0.35 + 0.75 * depth, 0, 1)
    soft = canvas.zeros()
    for part in anatomy.parts:
        box, patch = canvas.patch(part.outline, blur=part.blur)
        soft[box] += part.density * patch
        air[box] *= 1 - part.displaces * patch
    for path, width in anatomy.airway:
        soft -= 0.10 * canvas.strokes([(path, width, 1.0)], blur=0.012)
    soft += _spine(canvas, anatomy, build)
    vessels = canvas.strokes([s for lung in anatomy.lungs for s in _vessels(lung, draw)], blur=0.003)
    return Layers(
        lung=lung, air=air, soft=soft, vessels=vessels, bone=_bone(canvas, anatomy, build), metal=canvas.zeros()
    )


def _bone(canvas: Canvas, anatomy: Anatomy, build: Build) -> np.ndarray:
    """Each bone a tube, denser at its edges."""
    bone = canvas.zeros()
    for kind, density in BONES.items():
        alike = [rib for rib in anatomy.ribs if rib.kind == kind]
        shell = canvas.strokes([s for rib in alike for s in _tube(rib, 1.0)], blur=0.004)
        marrow = canvas.strokes([s for rib in alike for s in _tube(rib, 0.6)], blur=0.012)
        bone += density * (shell - 0.45 * marrow)
    return build.bone * bone


def _tube(rib: Rib, share: float) -> list[Stroke]:
    """The bone at the given share of its width, in one stroke or, where its kind fades, in short ones."""
    if rib.kind not in FADES or rib.broken:
        return [(rib.path, share * rib.width, 1.0)]
    starts = np.arange(0, len(rib.path) - 1, 3)
    strength = np.interp(starts / (len(rib.path) - 1), *FADES[rib.kind])
    return [(rib.path[i : i + 4], share * rib.width, float(v)) for i, v in zip(starts, strength, strict=True)]


def _spine(canvas: Canvas, anatomy: Anatomy, build: Build) -> np.ndarray:
    """A column with darker discs; from the front also the spinous processes and the pedicles."""
    width = 0.22 if anatomy.lateral else 0.2
    heights = np.arange(-1.6, 1.6, 0.155)
    joints = np.stack([np.interp(heights, anatomy.spine[:, 1], anatomy.spine[:, 0]), heights], axis=-1)
    discs: list[Stroke] = [(np.stack([at - (width / 2, 0), at + (width / 2, 0)]), 0.035, 1.0) for at in joints]
    column = 0.10 * canvas.strokes([(anatomy.spine, width, 1.0)], blur=0.01) - 0.035 * canvas.strokes(discs, blur=0.008)
    if not anatomy.lateral:
        knots = [ellipse(x, y + 0.09, 0.018, 0.035) for x, y in joints]
        knots += [ellipse(x + side, y + 0.05, 0.018, 0.025) for x, y in joints for side in (-0.065, 0.065)]
        column += 0.05 * canvas.fill(*knots, blur=0.006)
    return build.bone * column


def _vessels(lung: Lung, draw: np.random.Generator) -> list[Stroke]:
    """Strokes of the vessels that fan out from the hilum."""
    middle = 0.0 if lung.outward > 0 else np.pi
    strokes: list[Stroke] = []
    for heading in middle + np.linspace(-lung.fan, lung.fan, 9):
        root = np.array(lung.hilum) + draw.normal(0, 0.02, 2)
        strokes += _branch(draw, root, heading + draw.normal(0, 0.1), draw.uniform(0.18, 0.27), 0.026)
    return strokes


def _branch(draw: np.random.Generator, start: np.ndarray, heading: float, length: float, width: float) -> list[Stroke]:
    """A vessel and, thinner and shorter, those that it gives off: two at its end, one on its way."""
    turns = heading + np.cumsum(draw.normal(0, 0.13, 5))
    steps = 0.2 * length * np.stack([np.cos(turns), np.sin(turns)], axis=-1)
    path = start + np.concatenate([[[0, 0]], np.cumsum(steps, axis=0)])
    strokes: list[Stroke] = [(path, width, min(1.0, 0.25 + width / 0.028))]
    if width > 0.007:
        for spread in draw.normal(0, 0.5, 2):
            strokes += _branch(draw, path[-1], turns[-1] + spread, 0.72 * length, 0.66 * width)
        aside = turns[0] + draw.choice((-1, 1)) * draw.uniform(0.5, 0.9)
        strokes += _branch(draw, path[int(draw.integers(1, 4))], aside, 0.5 * length, 0.5 * width)
    return strokes


def _exposed(canvas: Canvas, layers: Layers, draw: np.random.Generator, film: Film) -> np.ndarray:
    """(H, W) uint8: density to grey with this film's exposure, quantum noise, blur, borders and marker."""
    density = layers.soft + layers.bone + layers.metal - AIR * layers.air
    density += 0.15 * layers.vessels * np.minimum(layers.air, 1)
    density += 0.018 * canvas.noise(draw, 0.025) * layers.lung  # alveoli and vessels too small to draw
    density += 0.015 * canvas.noise(draw, 0.25) + 0.004 * canvas.noise(draw, 0.02)
    level, window = draw.normal(0.46, 0.035), draw.uniform(0.13, 0.195)
    grain = draw.uniform(0.012, 0.028)
    noise = draw.standard_normal(density.shape, dtype=np.float32)
    density += grain * noise * np.exp(0.9 * np.minimum(density, 1.3))
    grey = 1 / (1 + np.exp((level - density) / window))
    image = Image.fromarray((255 * np.clip(0.02 + 0.97 * grey, 0, 1)).astype(np.uint8))
    image = image.filter(ImageFilter.GaussianBlur(draw.uniform(0.4, 0.9)))
    _annotate(image, draw, film)
    return np.asarray(image)


def _annotate(image: Image.Image, draw: np.random.Generator, film: Film) -> None:
    """Collimation borders and the side marker, each on some films."""
    pen = ImageDraw.Draw(image)
    width, height = image.size
    if draw.random() < 0.4:
        edge = draw.uniform(0.004, 0.03, 4) * min(width, height)
        pen.rectangle((0, 0, width, edge[0]), fill=4)
        pen.rectangle((0, height - edge[1], width, height), fill=4)
        pen.rectangle((0, 0, edge[2], height), fill=4)
        pen.rectangle((width - edge[3], 0, width, height), fill=4)
    if draw.random() < 0.6:
        letters = "L" if film.lateral or draw.random() < 0.6 else "R"
        x = width * (0.88 if letters == "L" else 0.06)
        font = ImageFont.load_default(size=int(0.05 * min(width, height)))
        pen.text((x, height * draw.uniform(0.05, 0.12)), letters, fill=int(draw.integers(225, 256)), font=font)
        if film.projection == "AP" and draw.random() < 0.5:
            small = ImageFont.load_default(size=int(0.024 * min(width, height)))
            pen.text((x - 0.09 * width * (letters == "L"), height * 0.03), "AP PORT", fill=240, font=small)
