"""Films of noise and label files in CheXpert's own formats."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from cxr.files import write_json
from cxr.labels import CHEXPERT
from cxr.masks import encode_mask


def write_film(path: Path, width: int = 40, height: int = 32, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width), dtype=np.uint8)
    Image.fromarray(pixels).save(path, quality=95)


def write_labels(csv: Path, paths: list[str], labels: np.ndarray, demographics: bool = True) -> None:
    table = pd.DataFrame({"Path": paths})
    if demographics:
        for name, value in (("Sex", "Male"), ("Age", "73"), ("AP/PA", "AP")):
            table[name] = value
        table["Frontal/Lateral"] = ["Lateral" if "lateral" in path else "Frontal" for path in paths]
    for column, label in enumerate(CHEXPERT.names):
        table[label] = [f"{value:.1f}" for value in labels[:, column]]
    csv.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(csv, index=False)


def alternating_labels(count: int) -> np.ndarray:
    """(count, 14) of 0 and 1 in which every label has both."""
    return (np.arange(count)[:, None] + np.arange(len(CHEXPERT.names)) % 2) % 2


def write_chexlocalize(root: Path, count: int, width: int, height: int) -> Path:
    """`count` films per split in CheXlocalize's layout, one patient each, with a mask of every task; returns root."""
    for split, folder, prefix, first in (("val", "val", "CheXpert-v1.0/valid", 64541), ("test", "test", "test", 64741)):
        masks, paths = {}, []
        for i in range(count):
            inside = f"patient{first + i}/study1/view1_frontal"
            write_film(root / "CheXpert" / folder / f"{inside}.jpg", width, height, seed=i)
            paths.append(f"{prefix}/{inside}.jpg")
            mask = np.zeros((height, width), dtype=bool)
            mask[10 * i : 10 * i + 20, 20:50] = True
            masks[inside.replace("/", "_")] = {task: encode_mask(mask) for task in CHEXPERT.task_names}
        write_labels(root / f"CheXpert/{split}_labels.csv", paths, alternating_labels(count), split == "val")
        write_json(root / f"CheXlocalize/gt_segmentations_{split}.json", masks)
    return root


def film_pixels(height: int = 288, width: int = 384, seed: int = 0) -> np.ndarray:
    """Blurred noise of large contrast, (height, width) uint8."""
    noise = np.random.default_rng(seed).integers(0, 256, (height // 16, width // 16), dtype=np.uint8)
    return np.asarray(Image.fromarray(noise).resize((width, height), Image.Resampling.BILINEAR))
