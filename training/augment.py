"""Training augmentation as published, drawn per film from (seed, epoch, index) alone.

RandomResizedCrop(scale 0.5 to 1, aspect ratio 3/4 to 4/3), rotation by up to 5 degrees, brightness by up to 30%. As no
global generator is involved, neither the number of workers nor the order of the films changes what a film gets.

The work is shared: whoever reads a film crops and resizes it in 8 bit (`crop_and_resize`), and what is left is done for
a whole batch where the network is (`rotate_and_brighten`).
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
class Draw:
    """What happens to one film: a crop in its pixels, a rotation in degrees (counterclockwise), a brightness factor."""

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


def crop_and_resize(pixels: np.ndarray, drawn: Draw, size: int) -> Tensor:
    """(H, W) uint8 -> (1, size, size) uint8: the drawn crop, antialiased bilinear, rounded."""
    crop = pixels[drawn.top : drawn.top + drawn.height, drawn.left : drawn.left + drawn.width]
    return F.resize(torch.from_numpy(crop.copy()).unsqueeze(0), [size, size], antialias=True)


def rotate_and_brighten(images: Tensor, degrees: Tensor, brightness: Tensor) -> Tensor:
    """(B, 1, S, S) uint8 on any device -> float32 in [0, 1]; `degrees` and `brightness` are (B,) float32.

    As published: rotation to the nearest pixel, black where nothing was, then the factor, clamped.
    """
    size = images.shape[-1]
    centres = (2 * torch.arange(size, device=images.device) + 1) / size - 1  # of the pixels, in [-1, 1]
    angles = torch.deg2rad(degrees).unsqueeze(1)  # (B, 1)
    cos, sin = angles.cos() * centres, angles.sin() * centres  # (B, S)
    x = cos.unsqueeze(1) - sin.unsqueeze(2)  # (B, S, S): where the pixel of row i, column j comes from
    y = sin.unsqueeze(1) + cos.unsqueeze(2)
    grid = torch.stack([x, y], dim=-1)  # (B, S, S, 2)
    rotated = grid_sample(images.float(), grid, mode="nearest", padding_mode="zeros", align_corners=False)
    return rotated.mul_((brightness / 255).view(-1, 1, 1, 1)).clamp_(0, 1)
