"""Films for the training benchmark: noise of all sizes in CheXpert's form, as JPEG copies and packed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from cxr.labels import CHEXPERT
from cxr.manifests.films import Films, read_films
from preprocessing import preProcCheXpert

JPEGS = "JPEG"

GRAIN = 3.0
"""Standard deviation of the finest noise, in grey values: a JPEG of 1024 px then takes 565 kB, between the 513 and
632 kB of the two films of CheXlocalize's sample."""


def draw_films(folder: Path, count: int, size: int, packed_sizes: Sequence[int]) -> dict[str, Films]:
    """{JPEGS or `packed <size>`: the same `count` films}, in folders below `folder`."""
    roots = {JPEGS: folder / "jpegs"}
    write_jpegs(roots[JPEGS], count, size)
    for packed in packed_sizes:
        roots[f"packed {packed}"] = folder / str(packed)
        pack(roots[JPEGS], folder / str(packed), packed)
    return {name: read_films(root / "train.csv", root) for name, root in roots.items()}


def write_jpegs(folder: Path, count: int, size: int) -> None:
    """`train.csv` and `count` square JPEGs in preProcCheXpert.py's quality, so that training reads them as its copies.

    Four films are drawn; the others are these, shifted around the edges.
    """
    drawn = [_film(np.random.default_rng(number), size) for number in range(min(count, 4))]
    paths = [f"train/patient{number + 1:05d}/study1/view1_frontal.jpg" for number in range(count)]
    for number, path in enumerate(paths):
        (folder / path).parent.mkdir(parents=True)
        pixels = np.roll(drawn[number % len(drawn)], 8 * number, axis=(0, 1))
        Image.fromarray(pixels).save(folder / path, format="JPEG", quality=100, subsampling=0)
    labels = np.random.default_rng(0).integers(0, 2, (count, len(CHEXPERT.names)))
    table = pd.DataFrame(labels.astype(float), columns=list(CHEXPERT.names))
    table.insert(0, "Path", [f"CheXpert-v1.0/{path}" for path in paths])
    table.to_csv(folder / "train.csv", index=False)


def pack(jpegs: Path, folder: Path, size: int) -> None:
    """The same films as one array of `size` x `size` pixels."""
    if preProcCheXpert.main(["--chexpert", str(jpegs), "--output", str(folder), "--packed", "--size", str(size)]):
        raise RuntimeError(f"the films of {jpegs} could not be packed")


def _film(rng: np.random.Generator, size: int) -> np.ndarray:
    """(size, size) uint8: shapes of all sizes, the smaller the weaker, and grain."""
    total = np.zeros((size, size), np.float32)
    cells = 4
    while cells <= size // 4:
        coarse = Image.fromarray(rng.normal(size=(cells, cells)).astype(np.float32))
        total += np.asarray(coarse.resize((size, size), Image.Resampling.BICUBIC)) / cells
        cells *= 2
    low, high = total.min(), total.max()
    grey = 20 + 215 * (total - low) / (high - low) + rng.normal(0, GRAIN, total.shape)
    return grey.round().clip(0, 255).astype(np.uint8)
