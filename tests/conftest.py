"""Small data for all tests: a CheXpert of noise films in the real formats, and the sample beside the repository."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from chexpert.labels import LABELS

SAMPLE = Path(__file__).resolve().parents[2] / "shared" / "chexlocalize_sample"

torch.set_num_threads(2)


@pytest.fixture
def sample() -> Path:
    """CheXlocalize's sample, under a research licence: used where it lies, never copied."""
    if not SAMPLE.is_dir():
        pytest.skip(f"{SAMPLE} is not here")
    return SAMPLE


def write_film(path: Path, width: int = 40, height: int = 32, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width), dtype=np.uint8)
    Image.fromarray(pixels).save(path, quality=95)


def write_labels(csv: Path, paths: list[str], labels: np.ndarray, demographics: bool = True) -> None:
    table = pd.DataFrame({"Path": paths})
    if demographics:
        for name, value in (("Sex", "Male"), ("Age", "73"), ("Frontal/Lateral", "Frontal"), ("AP/PA", "AP")):
            table[name] = value
    for column, label in enumerate(LABELS):
        table[label] = [f"{value:.1f}" for value in labels[:, column]]
    csv.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(csv, index=False)


def alternating_labels(count: int) -> np.ndarray:
    """(count, 14) of 0 and 1 in which every label has both."""
    return (np.arange(count)[:, None] + np.arange(len(LABELS)) % 2) % 2


@pytest.fixture(scope="session")
def tiny_chexpert(tmp_path_factory) -> Path:
    """A preprocessed CheXpert of 64 px noise films: 12 for training, 6 for validation, 6 for test."""
    root = tmp_path_factory.mktemp("data") / "CheXpert-64"
    splits = (("train", "train.csv", 12, 1), ("valid", "valid.csv", 6, 64541), ("test", "test_labels.csv", 6, 64741))
    for split, csv, count, first in splits:
        prefix = "" if split == "test" else "CheXpert-v1.0/"
        inside = [f"{split}/patient{first + i:05d}/study1/view1_frontal.jpg" for i in range(count)]
        for number, name in enumerate(inside):
            write_film(root / name, 64, 64, seed=first + number)
        write_labels(root / csv, [prefix + name for name in inside], alternating_labels(count), split != "test")
    return root
