"""Training augmentation as published, sampled per film from (seed, epoch, index) alone.

RandomResizedCrop(scale 0.5 to 1, aspect ratio 3/4 to 4/3), rotation by up to 5 degrees, brightness by up to 30%. No
global generator is involved, so neither the number of workers nor the order of the films changes a film's parameters.

The work is split: the worker that reads a film crops and resizes it in 8 bit (`crop_and_resize`); rotation and
brightness are applied to a whole batch on the network's device (`rotate_and_brighten`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import grid_sample
from torchvision.transforms.v2 import functional as F

CROP_AREA = (0.5, 1.0)
CROP_ASPECT = (3 / 4, 4 / 3)
ROTATION_DEGREES = 5.0
BRIGHTNESS = 0.3


@dataclass(frozen=True)
class AugmentationParams:
    """Crop of one film in its pixels, rotation in degrees (counterclockwise), and brightness factor."""

    top: int
    left: int
    height: int
    width: int
    degrees: float
    brightness: float


def sample_augmentation(seed: int, epoch: int, index: int, height: int, width: int) -> AugmentationParams:
    """Samples the parameters of film `index` in `epoch`; the crop has the distribution of torchvision's
    RandomResizedCrop.

    height, width: of the film, in pixels.
    """
    rng = np.random.default_rng((seed, epoch, index))
    top, left, crop_height, crop_width = _crop(rng, height, width)
    degrees = rng.uniform(-ROTATION_DEGREES, ROTATION_DEGREES)
    brightness = rng.uniform(1 - BRIGHTNESS, 1 + BRIGHTNESS)
    return AugmentationParams(top, left, crop_height, crop_width, degrees, brightness)


def _crop(rng: np.random.Generator, height: int, width: int) -> tuple[int, int, int, int]:
    """Top, left, height, width in pixels."""
    for _ in range(10):  # a wide crop of a large area may not fit; torchvision gives up after ten attempts too
        area = height * width * rng.uniform(*CROP_AREA)
        aspect = math.exp(rng.uniform(math.log(CROP_ASPECT[0]), math.log(CROP_ASPECT[1])))
        crop_width, crop_height = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < crop_width <= width and 0 < crop_height <= height:
            top = int(rng.integers(0, height - crop_height + 1))
            left = int(rng.integers(0, width - crop_width + 1))
            return top, left, crop_height, crop_width
    return 0, 0, height, width


def crop_and_resize(pixels: np.ndarray, params: AugmentationParams, size: int) -> Tensor:
    """Crops (H, W) uint8 and resizes it to (1, size, size) uint8: antialiased bilinear, rounded."""
    crop = pixels[params.top : params.top + params.height, params.left : params.left + params.width]
    return F.resize(torch.from_numpy(crop.copy()).unsqueeze(0), [size, size], antialias=True)


def rotate_and_brighten(images: Tensor, degrees: Tensor, brightness: Tensor) -> Tensor:
    """Augments (B, 1, S, S) uint8 on any device to float32 in [0, 1]; `degrees` and `brightness` are (B,) float32.

    As published: nearest-neighbour rotation with black corners, then multiplication by the factor, clamped.
    """
    size = images.shape[-1]
    centres = (2 * torch.arange(size, device=images.device) + 1) / size - 1  # (S,): pixel centres in [-1, 1]
    angles = torch.deg2rad(degrees).unsqueeze(1)  # (B, 1)
    cos, sin = angles.cos() * centres, angles.sin() * centres  # (B, S)
    x = cos.unsqueeze(1) - sin.unsqueeze(2)  # (B, S, S): source of the pixel in row i, column j
    y = sin.unsqueeze(1) + cos.unsqueeze(2)
    grid = torch.stack([x, y], dim=-1)  # (B, S, S, 2)
    rotated = grid_sample(images.float(), grid, mode="nearest", padding_mode="zeros", align_corners=False)
    return rotated.mul_((brightness / 255).view(-1, 1, 1, 1)).clamp_(0, 1)
