"""The 13 findings as they show on a synthetic film, each where radiology puts it, with its mask.

Two kinds: some change outlines (`outline_change`, `break_ribs`) before the film is drawn, the others paint on its layers.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

import numpy as np

from chexpert.demo_anatomy import Anatomy, Change, Lung, Rib
from chexpert.demo_canvas import Canvas, Points, at, blob, ellipse, points, smooth


@dataclass
class Layers:
    """(H, W) float32 each; painters change them in place. `lung` and `air` in [0, 1] (a pneumothorax: above 1)."""

    lung: np.ndarray
    air: np.ndarray
    soft: np.ndarray
    vessels: np.ndarray
    bone: np.ndarray
    metal: np.ndarray


@dataclass
class Scene:
    canvas: Canvas
    anatomy: Anatomy
    layers: Layers
    draw: np.random.Generator

    def some_lung(self) -> Lung:
        return self.anatomy.lungs[int(self.draw.integers(len(self.anatomy.lungs)))]

    def inside(self, lung: Lung) -> np.ndarray:
        """(H, W) in [0, 1]: one lung's field, free of heart and mediastinum where they displace it."""
        return self.canvas.fill(lung.outline)

    def fill_air(self, opacity: np.ndarray, weight: float = 0.0) -> None:
        """Replaces the share `opacity` of the air by tissue and adds `weight` of density there."""
        self.layers.air *= 1 - opacity
        self.layers.soft += weight * opacity


def outline_change(findings: Collection[str], draw: np.random.Generator, lateral: bool) -> Change:
    """How large heart and mediastinum are, and which dome an atelectasis pulls up."""
    heart, wide, side = draw.uniform(1.38, 1.6), draw.uniform(1.75, 2.3), int(draw.integers(2))
    rise = (0.07 * (side == 0), 0.07 * (side == 1)) if "Atelectasis" in findings else (0.0, 0.0)
    return Change(
        heart=heart if "Cardiomegaly" in findings else 1.0,
        mediastinum=wide if "Enlarged Cardiomediastinum" in findings else 1.0,
        rise=rise,
    )


def break_ribs(anatomy: Anatomy, draw: np.random.Generator) -> list[Points]:
    """Breaks two to four neighbouring ribs, their outer parts displaced, and returns the outlines of the breaks."""
    dense = max(rib.density for rib in anatomy.ribs if rib.width < 0.065)
    arcs = [rib for rib in anatomy.ribs if rib.density == dense and rib.width < 0.065]
    per_side = 10 if not anatomy.lateral else len(arcs)
    side = int(draw.integers(len(arcs) // per_side))
    first, count = int(draw.integers(3, 6)), int(draw.integers(2, 5))
    broken: list[Points] = []
    for rib in arcs[side * per_side :][first : first + count]:
        where = draw.uniform(0.45, 0.65)
        cut = int(where * len(rib.path))
        along = rib.path[cut + 1] - rib.path[cut - 1]
        across = np.array([-along[1], along[0]]) / np.hypot(*along) * draw.choice((-1, 1)) * draw.uniform(0.045, 0.065)
        centre = rib.path[cut] + 0.5 * across
        index = next(i for i, other in enumerate(anatomy.ribs) if other is rib)
        anatomy.ribs[index : index + 1] = [
            Rib(rib.path[: cut + 1], rib.width, rib.density),
            Rib(rib.path[cut:] + across, rib.width, rib.density),
        ]
        for end in (rib.path[cut], rib.path[cut] + across):
            callus = np.stack([end - 0.02 * along, end + 0.02 * along])
            anatomy.ribs.append(Rib(callus, 0.085, 0.22))
        broken.append(ellipse(centre[0], centre[1], 0.085, 0.085))
    return broken


def paint_effusion(scene: Scene) -> np.ndarray:
    """Fluid in the base: homogeneous, its upper border a meniscus that climbs the chest wall."""
    mask = scene.canvas.zeros()
    lungs = scene.anatomy.lungs
    chosen = lungs if scene.draw.random() < 0.35 else [scene.some_lung()]
    for lung in chosen:
        rise = scene.draw.uniform(0.32, 0.62)
        x, y = lung.angle
        inner = lung.dome[-1, 0] if not scene.anatomy.lateral else -0.5
        across = np.linspace(0, 1, 30)
        surface = np.stack([x + (inner - x) * across, y - rise * (0.45 + 0.55 * (1 - across) ** 3)], axis=-1)
        fluid = np.concatenate(
            [[[x + 0.2 * lung.outward, y - rise]], surface, points((inner, y + 0.3), (x + 0.2 * lung.outward, y + 0.3))]
        )
        mask = np.maximum(mask, scene.canvas.fill(fluid, blur=0.006) * scene.inside(lung))
    scene.fill_air(0.97 * mask, 0.16)
    scene.layers.vessels *= 1 - mask
    return mask > 0.5


def paint_pneumothorax(scene: Scene) -> np.ndarray:
    """Air between apex, lateral wall and the lung's edge: darker, without vessels, bounded by a thin bright line."""
    lung, draw = scene.some_lung(), scene.draw
    along = np.linspace(0.0, draw.uniform(0.72, 0.95), 50)
    wall = at(lung.wall, along)
    depth = draw.uniform(0.2, 0.34) * np.clip(1.15 - along / along[-1], 0.12, 1) ** 0.6
    centre = np.array([lung.hilum[0] + 0.15 * lung.outward, 0.15])
    inward = centre - wall
    edge = wall + inward / np.linalg.norm(inward, axis=1, keepdims=True) * depth[:, None]
    inside = scene.inside(lung)
    rim = scene.canvas.fill(np.concatenate([wall - 0.1 * inward, edge[::-1]])) * inside
    scene.layers.vessels *= 1 - rim
    scene.layers.air += rim * (1.25 - scene.layers.air) * (scene.layers.air > 0.15)
    scene.layers.metal += 0.22 * scene.canvas.strokes([(edge, 0.011, 1.0)], blur=0.002) * inside
    return rim > 0.5


def paint_consolidation(scene: Scene) -> np.ndarray:
    """A lobe filled with fluid: dense, sharp at the fissure, with air-filled bronchi running through it."""
    lung, draw = scene.some_lung(), scene.draw
    top, bottom = lung.outline[:, 1].min(), lung.angle[1]
    start = draw.choice((0.08, 0.36, 0.55))
    low, high = top + (bottom - top) * start, top + (bottom - top) * (start + draw.uniform(0.26, 0.34))
    near, far = lung.hilum[0] - 0.1 * lung.outward, lung.angle[0] + 0.2 * lung.outward
    slant = draw.normal(0, 0.05)
    band = points((near, low + slant), (far, low - slant), (far, high), (near, high))
    patch = scene.canvas.fill(band, blur=0.02) * scene.inside(lung)
    patch = patch * np.clip(0.9 + 0.15 * scene.canvas.noise(draw, 0.07), 0.5, 1)
    scene.fill_air(0.92 * patch, 0.04)
    bronchi = [s for s in _twigs(scene, lung, 0.5 * (low + high))]
    scene.layers.soft -= 0.15 * patch * scene.canvas.strokes(bronchi, blur=0.004)
    scene.layers.vessels *= 1 - patch
    return patch > 0.4


def _twigs(scene: Scene, lung: Lung, height: float) -> list[tuple[Points, float, float]]:
    """Branching bronchi from near the hilum into the lobe at `height`."""
    draw = scene.draw
    twigs: list[tuple[Points, float, float]] = []
    for target in draw.uniform(-0.16, 0.16, 6):
        root = np.array([lung.hilum[0] + 0.05 * lung.outward, height + 0.3 * target])
        tip = np.array([lung.hilum[0] + draw.uniform(0.35, 0.6) * lung.outward, height + target])
        bend = 0.5 * (root + tip) + draw.normal(0, 0.03, 2)
        path = smooth(np.stack([root, bend, tip]), 20)
        twigs.append((path, 0.022, 1.0))
        twigs.append((np.stack([path[10], path[10] + (0.12 * lung.outward, draw.uniform(-0.1, 0.1))]), 0.016, 1.0))
    return twigs


def _spot(scene: Scene, lung: Lung, margin: float) -> tuple[float, float]:
    """A random point of the lung, `margin` away from wall, dome and heart's shadow."""
    draw = scene.draw
    along = draw.uniform(0.4, 0.9)
    wall = at(lung.wall, along)
    inner = lung.hilum[0] + 0.12 * lung.outward
    share = draw.uniform(0.15, 0.75)
    x = wall[0] - margin * lung.outward + (inner - wall[0]) * share
    return float(x), float(min(wall[1], lung.angle[1] - 0.4) - 0.05)


def paint_pneumonia(scene: Scene) -> np.ndarray:
    """A focal cluster of fluffy, patchy opacities."""
    lung, draw = scene.some_lung(), scene.draw
    x, y = _spot(scene, lung, 0.1)
    puffs = [
        blob(draw, x + dx, y + dy, r)
        for dx, dy, r in zip(
            draw.normal(0, 0.13, 10), draw.normal(0, 0.13, 10), draw.uniform(0.04, 0.1, 10), strict=True
        )
    ]
    patch = scene.canvas.fill(*puffs, blur=0.018) * scene.inside(lung)
    opacity = patch * np.clip(0.7 + 0.3 * scene.canvas.noise(draw, 0.035), 0.15, 0.95)
    scene.fill_air(opacity, 0.03)
    return patch > 0.4


def paint_opacity(scene: Scene) -> np.ndarray:
    """Ground-glass haze without a name of its own."""
    lung, draw = scene.some_lung(), scene.draw
    x, y = _spot(scene, lung, 0.12)
    haze = scene.canvas.fill(blob(draw, x, y, draw.uniform(0.2, 0.3)), blur=0.05) * scene.inside(lung)
    scene.fill_air(0.42 * haze * np.clip(1 + 0.25 * scene.canvas.noise(draw, 0.03), 0.3, 1.5))
    return haze > 0.4


def paint_edema(scene: Scene) -> np.ndarray:
    """Bat-wing haze around both hila, congested vessels, and Kerley B lines at the lower chest wall."""
    draw, canvas = scene.draw, scene.canvas
    wings, kerley = [], []
    for lung in scene.anatomy.lungs:
        x, y = lung.hilum
        wings.append(smooth(blob(draw, x + 0.2 * lung.outward, y + 0.1, 0.36, 0.12), 60, closed=True))
        for where in np.arange(0.62, 0.95, 0.022):
            end = at(lung.wall, where) - (0.01 * lung.outward, 0)
            kerley.append(
                (np.stack([end, end - (draw.uniform(0.06, 0.12) * lung.outward, draw.normal(0, 0.008))]), 0.009, 1.0)
            )
    haze = canvas.fill(*wings, blur=0.06) * scene.layers.lung
    scene.fill_air(haze * np.clip(0.62 + 0.14 * canvas.noise(draw, 0.04), 0.2, 0.9), 0.02)
    lines = canvas.strokes(kerley, blur=0.002) * scene.layers.lung
    scene.layers.metal += 0.14 * lines
    scene.layers.vessels *= 1.7
    return (haze > 0.4) | (canvas.strokes([(p, 0.05, 1.0) for p, _, _ in kerley], blur=0.003) > 0.4) & (
        scene.layers.lung > 0.5
    )


def paint_atelectasis(scene: Scene) -> np.ndarray:
    """Plate-like bands across the base and a haze of lost volume; the dome has risen (`outline_change`)."""
    draw, canvas = scene.draw, scene.canvas
    rise = [float(lung.dome[:, 1].min()) for lung in scene.anatomy.lungs]
    lung = scene.anatomy.lungs[int(np.argmin(rise))] if len(rise) > 1 else scene.anatomy.lungs[0]
    wall_x, base = lung.angle[0], float(lung.dome[:, 1].min())
    plates = []
    for i in range(int(draw.integers(3, 5))):
        y = base - 0.03 - 0.095 * i
        left = points(
            (lung.hilum[0] + 0.12 * lung.outward, y + draw.normal(0, 0.03)),
            (0.55 * wall_x, y - 0.02 + draw.normal(0, 0.02)),
            (wall_x * draw.uniform(0.8, 0.92), y + draw.normal(0, 0.04)),
        )
        plates.append((smooth(left, 20), draw.uniform(0.026, 0.042), 1.0))
    inside = scene.inside(lung)
    bands = canvas.strokes(plates, blur=0.005) * inside
    scene.fill_air(0.8 * bands, 0.05)
    area = np.concatenate([plates[0][0], plates[-1][0][::-1]])
    haze = canvas.fill(area, blur=0.05) * inside
    scene.fill_air(0.3 * haze)
    return (canvas.fill(area, blur=0.01) * inside > 0.4) | (bands > 0.4)


def paint_lesion(scene: Scene) -> np.ndarray:
    """One to three round nodules, sharply bounded."""
    draw, mask = scene.draw, scene.canvas.zeros()
    for _ in range(int(draw.integers(1, 4))):
        lung = scene.some_lung()
        x, y = _spot(scene, lung, 0.12)
        nodule = scene.canvas.fill(blob(draw, x, y, draw.uniform(0.07, 0.12), 0.05), blur=0.006) * scene.inside(lung)
        mask = np.maximum(mask, nodule)
    scene.fill_air(0.85 * mask, 0.08)
    return mask > 0.5


def paint_pleural_other(scene: Scene) -> np.ndarray:
    """Thickened pleura along the lateral wall with calcified plaques."""
    lung, draw, canvas = scene.some_lung(), scene.draw, scene.canvas
    start = draw.uniform(0.4, 0.55)
    wall = at(lung.wall, np.linspace(start, start + 0.38, 40))
    thick = (
        draw.uniform(0.07, 0.11)
        * np.sin(np.linspace(0.15, np.pi - 0.15, 40)) ** 0.5
        * (1 + 0.12 * np.sin(np.linspace(0, 14, 40)))
    )
    inner = wall - np.stack([thick * lung.outward, 0 * thick], axis=-1)
    band = canvas.fill(np.concatenate([wall + (0.1 * lung.outward, 0), inner[::-1]]), blur=0.005) * scene.inside(lung)
    scene.fill_air(0.9 * band, 0.05)
    chalk = [
        blob(draw, px, py, r, 0.5)
        for (px, py), r in zip(inner[4:-4:6] + draw.normal(0, 0.02, (6, 2)), draw.uniform(0.018, 0.04, 6), strict=False)
    ]
    plaques = canvas.fill(*chalk, blur=0.003) * scene.layers.lung
    scene.layers.metal += 0.32 * plaques * np.clip(0.8 + 0.3 * canvas.noise(draw, 0.015), 0.3, 1.2)
    return (band > 0.5) | (plaques > 0.4)


def paint_devices(scene: Scene) -> np.ndarray:
    """One to three of: pacemaker, central line, tracheal and gastric tube, ECG leads, sternal wires, chest drain."""
    draw, canvas = scene.draw, scene.canvas
    kinds = list(_LATERAL_DEVICES if scene.anatomy.lateral else _FRONTAL_DEVICES)
    chosen = draw.choice(len(kinds), size=min(len(kinds), int(draw.integers(1, 4))), replace=False)
    lines: list[tuple[Points, float, float]] = []
    solids: list[Points] = []
    for kind in sorted(chosen):
        more_lines, more_solids = kinds[kind](scene)
        lines += more_lines
        solids += more_solids
    metal = np.maximum(canvas.strokes(lines, blur=0.002), canvas.fill(*solids, blur=0.003))
    scene.layers.metal += 0.38 * metal
    shadow = canvas.strokes([(p, max(w, 0.03), 1.0) for p, w, _ in lines], blur=0.002)
    return np.maximum(shadow, canvas.fill(*solids, blur=0.003)) > 0.4


Device = tuple[list[tuple[Points, float, float]], list[Points]]


def _jitter(scene: Scene, *pairs: tuple[float, float]) -> Points:
    return smooth(points(*pairs) + scene.draw.normal(0, 0.012, (len(pairs), 2)), 60)


def _pacemaker(scene: Scene) -> Device:
    side = 1.0 if scene.draw.random() < 0.8 else -1.0
    x, y = side * scene.draw.uniform(0.62, 0.72), scene.draw.uniform(-0.55, -0.45)
    box = smooth(
        points(
            (x - 0.09, y - 0.06),
            (x, y - 0.085),
            (x + 0.09, y - 0.06),
            (x + 0.085, y + 0.06),
            (x, y + 0.085),
            (x - 0.085, y + 0.06),
        ),
        closed=True,
    )
    lead = _jitter(
        scene,
        (x, y - 0.08),
        (side * 0.4, -0.7),
        (-0.05, -0.55),
        (-0.14, -0.2),
        (-0.12, 0.2),
        (0.05, 0.42),
        (0.32, 0.46),
    )
    second = _jitter(
        scene, (x, y - 0.08), (side * 0.38, -0.68), (-0.06, -0.52), (-0.15, -0.15), (-0.17, 0.1), (-0.08, 0.06)
    )
    return [(lead, 0.013, 1.0), (second, 0.013, 1.0), (lead[-3:], 0.03, 1.0)], [box]


def _central_line(scene: Scene) -> Device:
    return [
        (_jitter(scene, (-0.34, -1.2), (-0.26, -0.85), (-0.17, -0.6), (-0.14, -0.25), (-0.13, 0.08)), 0.016, 0.9)
    ], []


def _tracheal_tube(scene: Scene) -> Device:
    tube = _jitter(scene, (0.0, -1.5), (0.0, -0.9), (0.0, -0.45))
    return [(tube + (0.022, 0), 0.01, 0.9), (tube - (0.022, 0), 0.01, 0.9)], []


def _gastric_tube(scene: Scene) -> Device:
    return [
        (_jitter(scene, (0.03, -1.5), (0.02, -0.6), (0.03, 0.1), (0.1, 0.5), (0.3, 0.72), (0.45, 0.8)), 0.018, 0.9)
    ], []


def _ecg_leads(scene: Scene) -> Device:
    draw = scene.draw
    lines: list[tuple[Points, float, float]] = []
    pads: list[Points] = []
    for x, y in ((-0.62, -0.55), (0.62, -0.5), (0.72, 0.45), (-0.7, 0.5)):
        x, y = x + draw.normal(0, 0.06), y + draw.normal(0, 0.06)
        lines.append(
            (
                _jitter(scene, (x, y), (0.7 * x, y + 0.35), (0.75 * x + draw.normal(0, 0.2), 0.75), (0.3 * x, 1.3)),
                0.012,
                0.8,
            )
        )
        pads.append(ellipse(x, y, 0.038, 0.03, draw.uniform(0, 3)))
    return lines, pads


def _sternal_wires(scene: Scene) -> Device:
    x = 0.0 if not scene.anatomy.lateral else -0.52
    loops = [
        ellipse(x + scene.draw.normal(0, 0.008), y, 0.045, 0.02, scene.draw.normal(0, 0.3))
        for y in np.arange(-0.5, 0.3, 0.15)
    ]
    return [(np.concatenate([loop, loop[:1]]), 0.012, 1.0) for loop in loops], []


def _chest_drain(scene: Scene) -> Device:
    side = float(scene.draw.choice((-1, 1)))
    tube = _jitter(scene, (side * 1.25, 0.5), (side * 0.9, 0.3), (side * 0.68, -0.1), (side * 0.5, -0.6))
    return [(tube + (0.018, 0), 0.009, 0.9), (tube - (0.018, 0), 0.014, 1.0)], []


def _lateral_pacemaker(scene: Scene) -> Device:
    box = ellipse(-0.48, -0.45, 0.035, 0.1, 0.3)
    lead = _jitter(scene, (-0.46, -0.52), (-0.3, -0.75), (0.0, -0.55), (0.02, -0.1), (-0.1, 0.25), (-0.42, 0.42))
    return [(lead, 0.013, 1.0), (lead[-3:], 0.03, 1.0)], [box]


def _lateral_tube(scene: Scene) -> Device:
    return [
        (_jitter(scene, (0.0, -1.5), (0.05, -0.7), (0.18, -0.1), (0.2, 0.3), (0.0, 0.6), (-0.2, 0.75)), 0.018, 0.9)
    ], []


def _lateral_leads(scene: Scene) -> Device:
    draw = scene.draw
    starts = [(draw.uniform(-0.4, 0.3), draw.uniform(-0.5, 0.3)) for _ in range(3)]
    lines = [
        (_jitter(scene, (x, y), (x - 0.1, y + 0.3), (x - 0.35, 0.8), (x - 0.4, 1.3)), 0.012, 0.8) for x, y in starts
    ]
    return lines, [ellipse(x, y, 0.03, 0.036) for x, y in starts]


_FRONTAL_DEVICES = (_pacemaker, _central_line, _tracheal_tube, _gastric_tube, _ecg_leads, _sternal_wires, _chest_drain)
_LATERAL_DEVICES = (_lateral_pacemaker, _lateral_tube, _lateral_leads, _sternal_wires)

PAINTERS: dict[str, Callable[[Scene], np.ndarray]] = {
    "Lung Opacity": paint_opacity,
    "Edema": paint_edema,
    "Pneumonia": paint_pneumonia,
    "Consolidation": paint_consolidation,
    "Atelectasis": paint_atelectasis,
    "Lung Lesion": paint_lesion,
    "Pleural Effusion": paint_effusion,
    "Pleural Other": paint_pleural_other,
    "Pneumothorax": paint_pneumothorax,
    "Support Devices": paint_devices,
}
"""In the order in which they lie over each other. Each paints and returns its (H, W) bool mask."""
