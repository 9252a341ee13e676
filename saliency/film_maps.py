"""From a film's evidence to its heat maps as they are stored: the one way, whether the maps go into files or not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cxr.images import Crop, resize
from cxr.names import Protocol, check_protocol
from saliency.cam import CAM_METHODS, cam_grids, upsample
from saliency.folded_network import PatchNetwork
from saliency.patch_maps import PATCH_METHODS, evidence_grid, maps_from_grid, to_unit

METHODS = (*PATCH_METHODS, *CAM_METHODS)


@dataclass(frozen=True)
class Evidence:
    """What a film's maps of every method and protocol follow from.

    grid: patch logits at every start (C, n, n), or None when no patch method was asked for; cams: {method: (C, h, w)}
    at the feature map's resolution, in [0, 1].
    """

    crop: Crop
    patch_size: int
    steps_per_patch: int
    image_size: int
    grid: Tensor | None
    cams: Mapping[str, Tensor]

    @property
    def methods(self) -> tuple[str, ...]:
        """The methods whose maps can be made of it."""
        return tuple(m for m in METHODS if m in self.cams or (m in PATCH_METHODS and self.grid is not None))


def gather_evidence(
    model: PatchNetwork,
    image: Tensor,
    crop: Crop,
    *,
    methods: Sequence[str],
    steps_per_patch: int,
    batch_size: int,
    labels: Sequence[int] | slice = slice(None),
) -> Evidence:
    """What `methods` need of the crop (1, S, S) in [0, 1]; labels: which of the model's outputs are kept.

    steps_per_patch and batch_size as in `evidence_grid`. Raises ValueError for an unknown method, and as it does.
    """
    unknown = sorted(set(methods) - set(METHODS))
    if unknown:
        raise ValueError(f"unknown method {unknown[0]!r}; known are {', '.join(METHODS)}")
    grid = None
    if set(methods) & set(PATCH_METHODS):
        grid = evidence_grid(model, image, steps_per_patch=steps_per_patch, batch_size=batch_size)[labels]
    wanted = [method for method in CAM_METHODS if method in methods]
    cams = {method: cam[labels] for method, cam in cam_grids(model, image, methods=wanted).items()} if wanted else {}
    return Evidence(crop, model.patch_size, steps_per_patch, model.image_size, grid, cams)


def film_maps(evidence: Evidence, methods: Sequence[str], protocol: Protocol) -> dict[str, Tensor]:
    """{method: (C, h, w)} float32 in [0, 1], in the frame in which `protocol` stores them.

    Every label's map depends on that label's evidence alone, to the last bit.
    """
    crop_maps = {
        method: upsample(evidence.cams[method], evidence.image_size) for method in methods if method in CAM_METHODS
    }
    if set(methods) & set(PATCH_METHODS):
        assert evidence.grid is not None, "no evidence grid was gathered"
        logits = maps_from_grid(
            evidence.grid,
            patch_size=evidence.patch_size,
            steps_per_patch=evidence.steps_per_patch,
            protocol=protocol,
            image_size=evidence.image_size,
            methods=methods,
        )
        crop_maps |= {method: to_unit(maps) for method, maps in logits.items()}
    return {method: to_film_frame(crop_maps[method], evidence.crop, protocol) for method in methods}


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
