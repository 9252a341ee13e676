"""The 13 findings as they show on a synthetic film, each where radiology puts it, with its mask.

Two kinds: some change the outlines before the film is drawn (`outline_change`, `break_ribs`), the others paint on its
layers (`PAINTERS`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

import numpy as np

from preprocessing.phantom.anatomy import Anatomy, Change, Lung, Part, Rib
from preprocessing.phantom.canvas import Canvas, Points, Stroke, at, blob, ellipse, points, smooth
from preprocessing.phantom.devices import draw_devices


@dataclass
class Layers:
    """(H, W) float32 each; painters change them in place.

    `lung`: where lung tissue is, in [0, 1]; a pneumothorax takes from it. `air`: what air the chest holds, 1 where a
    lung is deepest, up to 1.35 in a pneumothorax. The others are densities that add up.
    """

    lung: np.ndarray
    air: np.ndarray
    soft: np.ndarray
    vessels: np.ndarray
    bone: np.ndarray
    metal: np.ndarray


@dataclass
class Scene:
    """The film that a painter works on. `draw` is the finding's own."""

    canvas: Canvas
    anatomy: Anatomy
    layers: Layers
    draw: np.random.Generator

    def some_lung(self) -> Lung:
        return self.anatomy.lungs[int(self.draw.integers(len(self.anatomy.lungs)))]

    def inside(self, lung: Lung) -> np.ndarray:
        """(H, W) in [0, 1]: the tissue of one lung."""
        return np.minimum(self.canvas.fill(lung.outline, blur=0.0), self.layers.lung)

    def spot(self, lung: Lung, margin: float) -> tuple[float, float]:
        """A point in the upper or middle lung, off the heart and `margin` away from the chest wall."""
        x, y = at(lung.wall, self.draw.uniform(0.4, 0.85))
        medial = lung.hilum[0] + 0.12 * lung.outward
        share = self.draw.uniform(0.1, 0.7)
        return float(x - margin * lung.outward + (medial - x) * share), float(min(y, lung.angle[1] - 0.4) - 0.05)

    def thicken(self, opacity: np.ndarray, weight: float = 0.0) -> None:
        """Replaces the share `opacity` of the air by tissue, at most `weight` denser than the chest around it."""
        self.layers.soft += weight * opacity * np.minimum(self.layers.air, 1)
        self.layers.air *= 1 - opacity


def outline_change(findings: Collection[str], draw: np.random.Generator) -> Change:
    """How large heart and mediastinum are, and which dome an atelectasis pulls up."""
    heart, wide, side = draw.uniform(1.45, 1.70), draw.uniform(1.8, 2.3), int(draw.integers(2))
    rise = (0.08 * (side == 0), 0.08 * (side == 1)) if "Atelectasis" in findings else (0.0, 0.0)
    return Change(
        heart=heart if "Cardiomegaly" in findings else 1.0,
        mediastinum=wide if "Enlarged Cardiomediastinum" in findings else 1.0,
        rise=rise,
    )


def break_ribs(anatomy: Anatomy, draw: np.random.Generator) -> list[Points]:
    """Breaks four to six neighbouring ribs, the outer part displaced, and returns the outlines of the breaks."""
    arcs = [rib for rib in anatomy.ribs if rib.kind in ("posterior", "near")]
    side = int(draw.integers(len(anatomy.lungs)))
    per_side = len(arcs) // len(anatomy.lungs)
    first, count = int(draw.integers(1, 4)), int(draw.integers(4, 7))
    where = draw.uniform(0.15, 0.35) if anatomy.lateral else draw.uniform(0.4, 0.6)
    broken = []
    for rib in arcs[side * per_side :][first : first + count]:
        cut = int((where + draw.normal(0, 0.03)) * len(rib.path))
        along = rib.path[cut + 1] - rib.path[cut - 1]
        along = along / np.hypot(*along)
        across = np.array([-along[1], along[0]]) * draw.choice((-1, 1))
        near, far = rib.path[:cut], rib.path[cut + 1 :] + across * draw.uniform(0.05, 0.07)
        anatomy.ribs.remove(rib)
        anatomy.ribs += [Rib(rib.kind, part, rib.width, broken=True) for part in (near, far)]
        centre = 0.5 * (near[-1] + far[0])
        anatomy.parts += _callus(centre, along, across, draw)
        broken.append(ellipse(centre[0], centre[1], 0.12, 0.1, float(np.arctan2(along[1], along[0]))))
    return broken


def _callus(centre: np.ndarray, along: np.ndarray, across: np.ndarray, draw: np.random.Generator) -> list[Part]:
    """New bone around a break, dense at both ends, and the fracture line that still runs through it."""
    turned = np.stack([along, across])  # rows: the rib's own axes
    cloud = blob(draw, 0.0, 0.0, 1.0, 0.12) * (0.11, 0.075) @ turned + centre
    line = points((-0.022, -0.065), (0.0, -0.065), (0.022, 0.065), (0.0, 0.065)) @ turned + centre
    ends = [ellipse(shift, 0.45 * shift, 0.03, 0.04) @ turned + centre for shift in (-0.045, 0.045)]
    return [Part(cloud, 0.18, 0.008), *(Part(end, 0.17, 0.008) for end in ends), Part(line, -0.25, 0.004)]


def paint_pneumothorax(scene: Scene) -> np.ndarray:
    """Air between apex, lateral wall and the lung's edge: darker, without vessels, bounded by a thin bright line."""
    lung, draw, layers = scene.some_lung(), scene.draw, scene.layers
    along = np.linspace(0.0, draw.uniform(0.75, 0.95), 50)
    wall = at(lung.wall, along)
    depth = draw.uniform(0.22, 0.34) * np.clip(1.15 - along / along[-1], 0.12, 1) ** 0.6
    inward = np.array([lung.hilum[0] + 0.15 * lung.outward, 0.15]) - wall
    edge = wall + inward / np.linalg.norm(inward, axis=1, keepdims=True) * depth[:, None]
    inside = scene.inside(lung)
    rim = scene.canvas.fill(np.concatenate([wall - 0.1 * inward, edge[::-1]])) * inside
    layers.lung *= 1 - rim
    layers.vessels *= 1 - rim
    layers.air += rim * (1.35 - layers.air) * np.clip(layers.air / 0.3, 0, 1)
    layers.metal += 0.34 * scene.canvas.strokes([(edge, 0.016, 1.0)], blur=0.002) * inside
    return rim > 0.5


def paint_opacity(scene: Scene) -> np.ndarray:
    """Ground-glass haze without a name of its own."""
    lung, draw = scene.some_lung(), scene.draw
    outline = blob(draw, *scene.spot(lung, 0.12), draw.uniform(0.22, 0.32))
    haze = scene.canvas.fill(outline, blur=0.05) * scene.inside(lung)
    scene.thicken(0.55 * haze * np.clip(1 + 0.25 * scene.canvas.noise(draw, 0.03), 0.3, 1.5))
    return haze > 0.4


def paint_edema(scene: Scene) -> np.ndarray:
    """Bat-wing haze around both hila, congested vessels, and Kerley B lines at the lower chest wall."""
    draw, canvas, lung_tissue = scene.draw, scene.canvas, scene.layers.lung
    wings: list[Points] = []
    kerley: list[Stroke] = []
    for lung in scene.anatomy.lungs:
        x, y = lung.hilum
        wings.append(blob(draw, x + 0.2 * lung.outward, y + 0.1, 0.36, 0.12))
        for where in np.arange(0.62, 0.95, 0.022):
            end = at(lung.wall, where) - (0.01 * lung.outward, 0)
            inner = end - (draw.uniform(0.06, 0.12) * lung.outward, draw.normal(0, 0.008))
            kerley.append((np.stack([end, inner]), 0.009, 1.0))
    haze = canvas.fill(*wings, blur=0.06) * lung_tissue
    scene.thicken(haze * np.clip(0.62 + 0.14 * canvas.noise(draw, 0.04), 0.2, 0.9), 0.04)
    scene.layers.metal += 0.14 * canvas.strokes(kerley, blur=0.002) * lung_tissue
    scene.layers.vessels *= 1.6
    around = canvas.strokes([(path, 0.05, 1.0) for path, _, _ in kerley]) * lung_tissue
    return np.maximum(haze, around) > 0.4


def paint_pneumonia(scene: Scene) -> np.ndarray:
    """A focal cluster of fluffy, patchy opacities."""
    lung, draw = scene.some_lung(), scene.draw
    puffs = scene.spot(lung, 0.1) + draw.normal(0, 0.12, (12, 2))
    outlines = [blob(draw, x, y, r) for (x, y), r in zip(puffs, draw.uniform(0.04, 0.09, 12), strict=True)]
    patch = scene.canvas.fill(*outlines, blur=0.022) * scene.inside(lung)
    scene.thicken(patch * np.clip(0.72 + 0.12 * scene.canvas.noise(draw, 0.03), 0.3, 0.95), 0.06)
    return patch > 0.4


def paint_consolidation(scene: Scene) -> np.ndarray:
    """A lobe filled with fluid: dense, sharp at the fissures, with air-filled bronchi running through it."""
    lung, draw, layers = scene.some_lung(), scene.draw, scene.layers
    top, bottom = lung.outline[:, 1].min(), lung.angle[1]
    start = draw.choice((0.08, 0.34, 0.5))
    low, high = top + (bottom - top) * np.array([start, start + draw.uniform(0.28, 0.36)])
    near, far = lung.hilum[0] - 0.1 * lung.outward, lung.angle[0] + 0.2 * lung.outward
    slant, sag = draw.normal(0, 0.05), draw.normal(0, 0.04)
    fissures = [
        smooth(points((near, y + slant), (0.5 * (near + far), y + sag), (far, y - slant)), 20) for y in (low, high)
    ]
    lobe = scene.canvas.fill(np.concatenate([fissures[0], fissures[1][::-1]]), blur=0.014) * scene.inside(lung)
    patch = lobe * np.clip(0.92 + 0.12 * scene.canvas.noise(draw, 0.07), 0.5, 1)
    scene.thicken(0.93 * patch, 0.08)
    bronchi = scene.canvas.strokes(_bronchi(lung, 0.5 * (low + high), draw), blur=0.004)
    layers.soft -= 0.13 * bronchi * patch
    layers.vessels *= 1 - patch
    return patch > 0.4


def _bronchi(lung: Lung, height: float, draw: np.random.Generator) -> list[Stroke]:
    """Forked bronchi from near the hilum into the lobe around `height`."""
    forks: list[Stroke] = []
    for rise in draw.uniform(-0.16, 0.16, 6):
        root = points((lung.hilum[0] + 0.08 * lung.outward, height + 0.3 * rise))
        tip = points((lung.hilum[0] + draw.uniform(0.35, 0.6) * lung.outward, height + rise))
        path = smooth(np.concatenate([root, 0.5 * (root + tip) + draw.normal(0, 0.03, 2), tip]), 20)
        side = np.stack([path[10], path[10] + (0.12 * lung.outward, draw.uniform(-0.1, 0.1))])
        forks += [(path, 0.016, 1.0), (side, 0.012, 1.0)]
    return forks


def paint_atelectasis(scene: Scene) -> np.ndarray:
    """Plate-like bands across the base in a haze of lost volume; the dome below has risen (`outline_change`)."""
    draw, canvas = scene.draw, scene.canvas
    lung = min(scene.anatomy.lungs, key=lambda one: float(one.dome[:, 1].min()))
    (wall, _), base = lung.angle, float(lung.dome[:, 1].min())
    plates: list[Stroke] = []
    for i in range(int(draw.integers(3, 5))):
        y = base - 0.03 - 0.095 * i + draw.normal(0, 0.025, 3)
        medial, lateral = lung.hilum[0] + 0.12 * lung.outward, wall * draw.uniform(0.8, 0.92)
        path = points((medial, y[0]), (0.5 * (medial + lateral), y[1] - 0.02), (lateral, y[2]))
        plates.append((smooth(path, 20), draw.uniform(0.026, 0.042), 1.0))
    inside = scene.inside(lung)
    bands = canvas.strokes(plates, blur=0.006) * inside
    area = np.concatenate([plates[0][0], plates[-1][0][::-1]])
    scene.thicken(0.85 * bands, 0.10)
    scene.thicken(0.3 * canvas.fill(area, blur=0.05) * inside)
    return np.maximum(canvas.fill(area) * inside, bands) > 0.4


def paint_lesion(scene: Scene) -> np.ndarray:
    """Two to four round nodules, sharply bounded."""
    draw, mask = scene.draw, scene.canvas.zeros()
    for _ in range(int(draw.integers(2, 5))):
        lung = scene.some_lung()
        outline = blob(draw, *scene.spot(lung, 0.12), draw.uniform(0.08, 0.125), 0.05)
        mask = np.maximum(mask, scene.canvas.fill(outline, blur=0.006) * scene.inside(lung))
    scene.thicken(0.88 * mask, 0.12)
    return mask > 0.5


def paint_effusion(scene: Scene) -> np.ndarray:
    """Fluid in the base: homogeneous, hiding the dome, its upper border a meniscus that climbs the chest wall."""
    mask = np.zeros((scene.canvas.height, scene.canvas.width), bool)
    for lung in scene.anatomy.lungs if scene.draw.random() < 0.45 else [scene.some_lung()]:
        fluid = _poured(scene, lung)
        scene.layers.air *= 1 - fluid
        scene.layers.vessels *= 1 - fluid
        scene.layers.bone *= 1 - 0.6 * fluid
        mask |= fluid * scene.canvas.fill(lung.outline) > 0.5
    return mask


def _poured(scene: Scene, lung: Lung) -> np.ndarray:
    """(H, W) in [0, 1]: one side's fluid, its density raised to that of the organs below, into which it fades."""
    canvas, soft = scene.canvas, scene.layers.soft
    (x, y), rise = lung.angle, scene.draw.uniform(0.48, 0.85)
    inner, outer = (-0.25 if scene.anatomy.lateral else float(lung.dome[-1, 0])), x + 0.2 * lung.outward
    across = np.linspace(0, 1, 30)
    surface = np.stack([x + (inner - x) * across, y - rise * (0.45 + 0.55 * (1 - across) ** 3)], axis=-1)
    column = np.concatenate([[[outer, y - rise]], surface, points((inner, y + 0.5), (outer, y + 0.5))])
    pleura = np.concatenate([lung.wall, points((x, y + 0.5), (inner, y + 0.5)), lung.inner])
    fluid = canvas.fill(column, blur=0.006) * canvas.fill(pleura)
    medial, lateral = lung.dome[-1, 0], x + 0.1 * lung.outward
    below = np.concatenate([[[lateral, y + 0.1]], lung.dome + (0, 0.12), points((medial, y + 1), (lateral, y + 1))])
    left, top = canvas.pixels(at(lung.dome, 0.25) + (0, 0.2)).astype(int)
    organs = soft[np.clip(top, 0, canvas.height - 1), np.clip(left, 0, canvas.width - 1)]
    soft += fluid * (1 - canvas.fill(below, blur=0.06)) * np.maximum(organs + 0.20 - soft, 0)
    return fluid


def paint_pleural_other(scene: Scene) -> np.ndarray:
    """Thickened pleura along the lateral wall, with calcified plaques on it and a few seen face on."""
    lung, draw, canvas = scene.some_lung(), scene.draw, scene.canvas
    inside = canvas.fill(lung.outline)
    start, t = draw.uniform(0.4, 0.55), np.linspace(0, 1, 40)
    wall = at(lung.wall, start + 0.38 * t)
    thick = draw.uniform(0.10, 0.14) * np.sin(np.pi * (0.05 + 0.9 * t)) ** 0.5 * (1 + 0.12 * np.sin(14 * t))
    inner = wall - np.stack([thick * lung.outward, 0 * t], axis=-1)
    band = canvas.fill(np.concatenate([wall + (0.1 * lung.outward, 0), inner[::-1]]), blur=0.005) * inside
    scene.thicken(0.9 * band, 0.08)
    on_wall = inner[3:-3:5] + draw.normal(0, 0.02, (7, 2))
    face_on = inner[4:-4:6] - (0.22 * lung.outward, 0) + draw.normal(0, 0.07, (6, 2))
    chalk = [blob(draw, x, y, draw.uniform(0.03, 0.06), 0.5) for x, y in np.concatenate([on_wall, face_on])]
    plaques = canvas.fill(*chalk, blur=0.003) * inside
    scene.layers.metal += 0.40 * plaques * np.clip(0.75 + 0.4 * canvas.noise(draw, 0.022), 0.1, 1.3)
    return np.maximum(band, plaques) > 0.45


def paint_devices(scene: Scene) -> np.ndarray:
    """Lines, tubes, wires and boxes, brighter than any bone."""
    lines, boxes = draw_devices(scene.anatomy.lateral, scene.draw)
    solid = scene.canvas.fill(*boxes, blur=0.003)
    scene.layers.metal += 0.42 * scene.canvas.strokes(lines, blur=0.002) + 0.65 * solid
    around = scene.canvas.strokes([(path, max(width, 0.03), 1.0) for path, width, _ in lines], blur=0.002)
    return np.maximum(around, solid) > 0.4


PAINTERS: dict[str, Callable[[Scene], np.ndarray]] = {
    "Pneumothorax": paint_pneumothorax,
    "Lung Opacity": paint_opacity,
    "Edema": paint_edema,
    "Pneumonia": paint_pneumonia,
    "Consolidation": paint_consolidation,
    "Atelectasis": paint_atelectasis,
    "Lung Lesion": paint_lesion,
    "Pleural Effusion": paint_effusion,
    "Pleural Other": paint_pleural_other,
    "Support Devices": paint_devices,
}
"""In the order in which they lie over each other. Each paints its finding and returns the (H, W) bool mask of it."""
