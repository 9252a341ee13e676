"""A map in the crop -> a map in the film's frame.

CheXlocalize stretches a stored map over the whole film (bilinear, `align_corners=False`). The published maps show the
centred square only and are stretched all the same; the corrected ones are put where the square lies.
"""

from __future__ import annotations

import torch
from torch import Tensor

from chexpert.images import Crop, resize
from saliency.protocols import Protocol, check_protocol


def frame_size(crop: Crop, image_size: int, protocol: Protocol) -> tuple[int, int]:
    """(height, width) of a stored map: the square (`published`), or the film's shape with S on the short side."""
    check_protocol(protocol)
    if protocol == "published":
        return image_size, image_size
    width, height = (round(image_size * length / crop.side) for length in (crop.film_width, crop.film_height))
    return height, width


def to_film_frame(maps: Tensor, crop: Crop, protocol: Protocol, fill: float | None = None) -> Tensor:
    """Maps of the crop (C, S, S) -> (C, h, w) as they are stored.

    `published`: unchanged. `corrected`: at the crop's place in the film, exact to fractions of a pixel (interpolated
    linearly along the film's long side), the rest filled with each map's minimum, or with `fill`.
    """
    height, width = frame_size(crop, maps.shape[-1], protocol)
    if protocol == "published":
        return maps
    across = _placed(maps, width, crop.film_width, crop.left, crop.side, fill)
    return _placed(across.mT, height, crop.film_height, crop.top, crop.side, fill).mT.contiguous()


def _placed(maps: Tensor, size: int, film_length: int, start: int, side: int, fill: float | None) -> Tensor:
    """(C, m, S) -> (C, m, size): S pixels spread over `side` film pixels from `start` on, of `film_length` in all."""
    if side == film_length:
        return maps
    last = maps.shape[-1] - 1
    centres = (torch.arange(size, dtype=torch.float64) + 0.5) * (film_length / size)  # in film pixels
    position = ((centres - start) * ((last + 1) / side) - 0.5).to(maps.device)  # in map pixels, 0 being a centre
    inside = (position >= -0.5) & (position <= last + 0.5)
    position = position.clamp(0, last)
    left = position.floor().long().clamp(max=max(last - 1, 0))
    weight = (position - left).to(maps.dtype)
    placed = maps[..., left] * (1 - weight) + maps[..., (left + 1).clamp(max=last)] * weight
    outside = maps.amin(dim=(1, 2), keepdim=True) if fill is None else torch.full_like(placed[:, :1, :1], fill)
    return torch.where(inside, placed, outside)


def film_in_frame(film: Tensor, crop: Crop, image_size: int, protocol: Protocol) -> Tensor:
    """The pixels that belong under a stored map: film (1, H, W) in [0, 1] -> (1, h, w).

    Whole (`corrected`), or its crop as the network sees it (`published`); resized with antialiasing.
    """
    if protocol == "published":
        film = film[:, crop.top : crop.top + crop.side, crop.left : crop.left + crop.side]
    return resize(film, frame_size(crop, image_size, protocol)).clamp(0, 1)
