"""Grey pixels as tensors, resized as the network takes them; apart from `cxr.images`, which works without torch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from cxr.images import Crop, open_film


def to_unit(image: Image.Image | np.ndarray) -> Tensor:
    """Grey pixels in [0, 255] -> (1, H, W) float32 in [0, 1]."""
    return torch.from_numpy(np.array(image, dtype=np.float32)).div_(255).unsqueeze(0)


def resize(image: Tensor, size: int | tuple[int, int]) -> Tensor:
    """(C, H, W) float -> (C, h, w), antialiased bilinear, as the published code feeds its network.

    The same bits as torchvision's `resize`, which takes seconds to import.
    """
    height_width = [size, size] if isinstance(size, int) else list(size)
    if list(image.shape[-2:]) == height_width:
        return image
    return F.interpolate(image[None], height_width, mode="bilinear", antialias=True, align_corners=False)[0]


def read_square(path: Path) -> tuple[Tensor, Crop]:
    """The centred square of a film at its own resolution, (1, side, side) float32 in [0, 1], and its place."""
    film = open_film(path)
    crop = Crop.centred(*film.size)
    return to_unit(film.crop(crop.box)), crop
