"""Inputs of the chain's stages, from a seed: films of CheXpert's size, their table, evidence files with outlines."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image

from benchmarks.training.films import GRAIN
from cxr.files import write_json
from cxr.images import Crop
from cxr.labels import CHEXPERT
from cxr.masks import encode_mask
from cxr.tables import write_csv
from preprocessing.phantom.cohort import draw_cohort
from preprocessing.phantom.film import render
from saliency.evidence.evidence_files import FilmLabels, write_evidence
from saliency.film_maps import Evidence

SHAPE = 2828 / 2320
"""Width over height of a film."""
PATCH, STEPS = 64, 64
OUTLINED = 3
"""Tasks of a film that have a mask, of ten; CheXlocalize's test films have as many."""
MASKS = "gt_segmentations.json"


def size_of(height: int) -> tuple[int, int]:
    """(height, width) of a film in pixels."""
    return height, round(height * SHAPE)


def phantom(height: int) -> np.ndarray:
    """(height, width) uint8: a drawn radiograph, enlarged, with grain that makes its JPEG as large as a real one's."""
    film = next(film for film in draw_cohort(20, seed=0) if not film.lateral)
    drawn = Image.fromarray(render(film, 0).image).resize(size_of(height)[::-1], Image.Resampling.BICUBIC)
    grain = np.random.default_rng(0).normal(0, GRAIN, size_of(height))
    return (np.asarray(drawn) + grain).round().clip(0, 255).astype(np.uint8)


def write_release(folder: Path, height: int, count: int) -> None:
    """`train.csv` and `count` JPEGs, each the phantom shifted sideways."""
    drawn, table = phantom(height), write_table(folder, count)
    for number, path in enumerate(table["Path"]):
        target = folder / Path(path).relative_to("CheXpert-v1.0")
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.roll(drawn, 8 * number, axis=1)).save(target, "JPEG", quality=92)


def write_table(folder: Path, count: int) -> pd.DataFrame:
    """`train.csv` of `count` films in CheXpert's form."""
    labels = np.random.default_rng(0).integers(0, 2, (count, len(CHEXPERT.names))).astype(float)
    table = pd.DataFrame(labels, columns=list(CHEXPERT.names))
    films = (divmod(number, 100) for number in range(count))  # a folder each would take longer than their table
    table.insert(
        0, "Path", [f"CheXpert-v1.0/train/patient{n + 1:06d}/study1/view{m + 1}_frontal.jpg" for n, m in films]
    )
    write_csv(folder / "train.csv", table)
    return table


def write_listed_films(folder: Path, _: int, count: int) -> None:
    """A table, and an empty file for each of its films."""
    for path in write_table(folder, count)["Path"]:
        target = folder / Path(path).relative_to("CheXpert-v1.0")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.touch()


def write_outlined(folder: Path, height: int, count: int, image_size: int) -> None:
    """Evidence files of the finest grid, random but smooth, for ten tasks of each film; the masks of a few of them."""
    crop, codes = Crop.centred(*size_of(height)[::-1]), {}
    for number in range(count):
        film = f"patient{number + 1}_study1_view1_frontal"
        rng = np.random.default_rng(number)
        grid = smooth_grid(number, image_size)
        labels = FilmLabels(film, CHEXPERT.task_names, [0.5] * len(grid), [1] * OUTLINED + [0] * (len(grid) - OUTLINED))
        shown = torch.zeros(image_size, round(image_size * SHAPE))
        write_evidence(folder / f"{film}.npz", Evidence(crop, PATCH, STEPS, image_size, grid, {}), labels, shown)
        codes[film] = masks(rng, size_of(height))
    write_json(folder / MASKS, codes)


def smooth_grid(seed: int, image_size: int) -> torch.Tensor:
    """(tasks, n, n): random evidence at every start of the finest grid."""
    n = image_size * STEPS // PATCH
    coarse = np.random.default_rng(seed).normal(size=(1, len(CHEXPERT.task_names), 16, 16)).astype(np.float32)
    return torch.nn.functional.interpolate(torch.from_numpy(coarse), size=(n, n), mode="bicubic")[0]


def masks(rng: np.random.Generator, size: tuple[int, int]) -> Mapping[str, dict[str, Any]]:
    """Task -> run-length code: an ellipse for the first tasks, nothing for the others."""
    y, x = np.ogrid[-1 : 1 : size[0] * 1j, -1 : 1 : size[1] * 1j]
    codes = {}
    for place, task in enumerate(CHEXPERT.task_names):
        (top, left), radii = rng.uniform(-0.5, 0.5, 2), rng.uniform(0.1, 0.4, 2)
        inside = ((y - top) / radii[0]) ** 2 + ((x - left) / radii[1]) ** 2 < (place < OUTLINED)
        codes[task] = encode_mask(inside)
    return codes
