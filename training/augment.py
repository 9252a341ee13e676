"""Training augmentation as published, drawn per film from (seed, epoch, index) alone.

RandomResizedCrop(scale 0.5 to 1, aspect ratio 3/4 to 4/3), rotation by up to 5 degrees, brightness by up to 30%. As no
global generator is involved, neither the number of workers nor the order of the films changes what a film gets.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler
from torchvision.transforms.v2 import functional as F

from chexpert.dataset import CheXpertDataset

CROP_AREA = (0.5, 1.0)
CROP_ASPECT = (3 / 4, 4 / 3)
ROTATION_DEGREES = 5.0
BRIGHTNESS = 0.3


@dataclass(frozen=True)
class Draw:
    """What happens to one film: a crop in its pixels, a rotation in degrees, a factor on its brightness."""

    top: int
    left: int
    height: int
    width: int
    degrees: float
    brightness: float


def draw(seed: int, epoch: int, index: int, height: int, width: int) -> Draw:
    """The augmentation of film `index` in `epoch`; the crop is drawn as torchvision's RandomResizedCrop does."""
    rng = np.random.default_rng((seed, epoch, index))
    top, left, crop_height, crop_width = _crop(rng, height, width)
    degrees = rng.uniform(-ROTATION_DEGREES, ROTATION_DEGREES)
    brightness = rng.uniform(1 - BRIGHTNESS, 1 + BRIGHTNESS)
    return Draw(top, left, crop_height, crop_width, degrees, brightness)


def _crop(rng: np.random.Generator, height: int, width: int) -> tuple[int, int, int, int]:
    for _ in range(10):  # a wide crop of a large area may not fit; torchvision gives up after ten draws too
        area = height * width * rng.uniform(*CROP_AREA)
        aspect = math.exp(rng.uniform(math.log(CROP_ASPECT[0]), math.log(CROP_ASPECT[1])))
        crop_width, crop_height = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < crop_width <= width and 0 < crop_height <= height:
            top = int(rng.integers(0, height - crop_height + 1))
            left = int(rng.integers(0, width - crop_width + 1))
            return top, left, crop_height, crop_width
    return 0, 0, height, width


def augment(image: Tensor, drawn: Draw, size: int) -> Tensor:
    """(1, H, W) float in [0, 1] -> (1, size, size) in [0, 1]."""
    crop = F.resized_crop(image, drawn.top, drawn.left, drawn.height, drawn.width, [size, size], antialias=True)
    return F.adjust_brightness(F.rotate(crop, drawn.degrees), drawn.brightness).clamp_(0, 1)


class TrainingSet(Dataset[tuple[Tensor, Tensor]]):
    """Augmented films under the keys (epoch, index): (1, S, S) float32 in [0, 1] and labels (14,) float32."""

    def __init__(self, dataset: CheXpertDataset, seed: int) -> None:
        self.dataset = dataset
        self.seed = seed

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, Tensor]:
        epoch, index = key
        image, _ = self.dataset.square(index)
        drawn = draw(self.seed, epoch, index, *image.shape[-2:])
        labels = torch.from_numpy(self.dataset.films.labels[index])
        return augment(image, drawn, self.dataset.image_size), labels


class EpochSampler(Sampler[tuple[int, int]]):
    """Every film once per epoch, as keys (epoch, index), in an order that depends on (seed, epoch) alone."""

    def __init__(self, count: int, seed: int) -> None:
        self.count = count
        self.seed = seed
        self.epoch = 0

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[tuple[int, int]]:
        order = np.random.default_rng((self.seed, self.epoch)).permutation(self.count)
        return iter([(self.epoch, int(index)) for index in order])
