"""The one way from a film's crop to its heat maps: gather evidence, make the maps of the crop, place them in the film.

Evaluation, single films and the Python API all use it, whether the evidence lies in a file in between or not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cxr.files import InputError, quoted
from cxr.images import Crop
from cxr.names import METHODS, RELATIVE, Protocol, check_protocol
from cxr.pixels.tensors import resize
from saliency.cam import CAMS, cam_grids, upsample
from saliency.evidence.evidence_values import evidence_values
from saliency.evidence.folded_network import PatchNetwork, is_linear, require_linear
from saliency.evidence.pixel_grid import PixelGrid
from saliency.evidence.shift_grid import ShiftGrid
from saliency.patch_maps import PATCH_VALUES, evidence_grid, logits_to_unit, maps_from_grid

MOST_ELONGATED = 10
"""Longest film that maps are made for, long side over short side: a map has the film's shape."""


@dataclass(frozen=True)
class Evidence:
    """All that a film's maps follow from, for every method and protocol.

    grid: values of the patches at the starts (C, m, m), for the mean their logits (`evidence_values`), None without a
    patch method; cams: {method: (C, h, w)} in [0, 1] at the resolution of the feature map; reference: (C, m, m), the
    grid of the mean validation film, for relative maps. stride: pixels between the starts in `grid` and `reference`, 1
    where every start of the steps is computed. patches: (C, k, k), the values of the unshifted patches, where the
    stride passes them by.
    """

    crop: Crop
    patch_size: int
    steps_per_patch: int
    image_size: int
    grid: Tensor | None
    cams: Mapping[str, Tensor]
    reference: Tensor | None = None
    stride: int = 1
    patches: Tensor | None = None

    @property
    def pixels(self) -> PixelGrid:
        """Where the starts of `grid` lie."""
        return PixelGrid(ShiftGrid(self.patch_size, self.steps_per_patch, self.image_size), self.stride)


NEEDS_LINEAR = {"scaled": "the probability in scaled maps", RELATIVE: "the Shapley value in relative maps"}
"""Methods whose values are exact for linear aggregations only -> which part of them it is."""


def methods_that_hold(model: PatchNetwork, methods: Iterable[str]) -> tuple[str, ...]:
    """Those of the methods that the network's aggregation allows."""
    return tuple(method for method in methods if is_linear(model) or method not in NEEDS_LINEAR)


def check_aggregation(model: PatchNetwork, methods: Iterable[str]) -> None:
    """Raises InputError, naming method and aggregation, for a method that the network's aggregation does not allow."""
    for method in methods:
        if method in NEEDS_LINEAR:
            require_linear(model, NEEDS_LINEAR[method])


def check_methods(methods: Iterable[str]) -> None:
    """Raises InputError for a method that has no row in `cxr.names.METHODS` or no function in this folder."""
    known = [method for method in METHODS if method in PATCH_VALUES or method in CAMS or method == RELATIVE]
    for method in methods:
        if method not in known:
            raise InputError(f"unknown heat-map method {quoted(method)}; known are {', '.join(known)}")


def gather_evidence(
    model: PatchNetwork,
    image: Tensor,
    crop: Crop,
    *,
    methods: Sequence[str],
    steps_per_patch: int,
    batch_size: int,
    outputs: Sequence[int] | slice = slice(None),
    stride: int = 1,
    progress: Callable[[int], object] | None = None,
) -> Evidence:
    """The evidence that `methods` need of the crop (1, S, S) in [0, 1]; outputs: those of the model that are kept.

    steps_per_patch, batch_size, stride and progress as in `evidence_grid`. Raises InputError for an unknown method, one
    that does not hold for the network's aggregation, and a film too elongated for maps; ValueError as `evidence_grid`
    does.
    """
    check_methods(methods)
    frame_size(crop, model.image_size, "corrected")
    check_aggregation(model, methods)
    grid = patches = None
    if any(method in PATCH_VALUES or method == RELATIVE for method in methods):
        settings = {"steps_per_patch": steps_per_patch, "batch_size": batch_size, "stride": stride}
        grid = evidence_grid(model, image, **settings, progress=progress)
        grid = evidence_values(model, grid, steps_per_patch, stride)[outputs]
        if stride > 1:
            patches = evidence_grid(model, image, steps_per_patch=1, batch_size=batch_size)
            patches = evidence_values(model, patches, 1)[outputs]
    wanted = [method for method in CAMS if method in methods]
    cams = {method: cam[outputs] for method, cam in cam_grids(model, image, methods=wanted).items()} if wanted else {}
    sizes = (model.patch_size, steps_per_patch, model.image_size)
    return Evidence(crop, *sizes, grid, cams, stride=stride if grid is not None else 1, patches=patches)


def film_maps(evidence: Evidence, methods: Sequence[str], protocol: Protocol) -> dict[str, Tensor]:
    """{method: (C, h, w)} float32 in [0, 1], in the frame in which `protocol` stores them.

    The map of a label depends on the evidence of that label alone, to the last bit.
    Raises InputError for an unknown method, ValueError for one that no evidence was gathered for.
    """
    check_methods(methods)
    maps = crop_maps(evidence, methods, protocol)  # {method: (C, S, S)}
    return {method: to_film_frame(maps[method], evidence.crop, protocol) for method in methods}


def crop_maps(evidence: Evidence, methods: Sequence[str], protocol: Protocol) -> dict[str, Tensor]:
    """{method: (C, S, S)} in the crop's frame, before `to_film_frame`; raises ValueError as `film_maps` does."""
    cams = [method for method in methods if method in CAMS]
    missing = [method for method in cams if method not in evidence.cams]
    if missing or (len(cams) < len(methods) and evidence.grid is None):
        raise ValueError(f"no evidence of {', '.join(missing) or 'patches'} was gathered")
    maps = {method: upsample(evidence.cams[method], evidence.image_size) for method in cams}
    if evidence.grid is None:
        return maps
    logits = _averaged(evidence, evidence.grid, methods, protocol)
    if RELATIVE in methods:
        logits[RELATIVE] = _averaged(evidence, _relative_grid(evidence, protocol), ["raw"], protocol)["raw"]
    return maps | {method: logits_to_unit(of_method) for method, of_method in logits.items()}


def _averaged(evidence: Evidence, grid: Tensor, methods: Sequence[str], protocol: Protocol) -> dict[str, Tensor]:
    return maps_from_grid(
        grid,
        patch_size=evidence.patch_size,
        steps_per_patch=evidence.steps_per_patch,
        protocol=protocol,
        image_size=evidence.image_size,
        methods=methods,
        stride=evidence.stride,
    )


def _relative_grid(evidence: Evidence, protocol: Protocol) -> Tensor:
    """(C, m, m) float64: the evidence less that of the mean validation film."""
    if protocol not in METHODS[RELATIVE].protocols:
        raise InputError(f"there are no relative maps of the {protocol} protocol, which repeats the published code")
    if evidence.grid is None or evidence.reference is None:
        raise ValueError("no reference for relative maps was given")
    return evidence.grid.double() - evidence.reference.double()


# ---------------------------------------------------------------------------------------------------- the film's frame


def frame_size(crop: Crop, image_size: int, protocol: Protocol) -> tuple[int, int]:
    """(height, width) of a stored map: the square (`published`), or the film's shape with S on the short side.

    Raises InputError for a film that is too elongated for a map of its shape, before anything is allocated.
    """
    check_protocol(protocol)
    if protocol == "published":
        return image_size, image_size
    if max(crop.film_width, crop.film_height) > MOST_ELONGATED * crop.side:
        size = f"{crop.film_width} x {crop.film_height} px"
        raise InputError(f"no heat map of a film of {size}: one side is more than {MOST_ELONGATED} times the other")
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
    """(C, m, S) -> (C, m, size): S map pixels over `side` film pixels from `start` on, of `film_length` in all."""
    if side == film_length:
        return maps
    last = maps.shape[-1] - 1
    centres = (torch.arange(size, dtype=torch.float64) + 0.5) * (film_length / size)  # in film pixels
    position = ((centres - start) * ((last + 1) / side) - 0.5).to(maps.device)  # in map pixels; 0 is a centre
    inside = (position >= -0.5) & (position <= last + 0.5)
    position = position.clamp(0, last)
    left = position.floor().long().clamp(max=max(last - 1, 0))
    weight = (position - left).to(maps.dtype)
    placed = maps[..., left] * (1 - weight) + maps[..., (left + 1).clamp(max=last)] * weight
    outside = maps.amin(dim=(1, 2), keepdim=True) if fill is None else torch.full_like(placed[:, :1, :1], fill)
    return torch.where(inside, placed, outside)


def film_in_frame(film: Tensor, crop: Crop, image_size: int, protocol: Protocol) -> Tensor:
    """Film (1, H, W) in [0, 1] -> the pixels (1, h, w) under a stored map, resized with antialiasing.

    The whole film (`corrected`), or its crop as the network sees it (`published`).
    """
    if protocol == "published":
        film = film[:, crop.top : crop.top + crop.side, crop.left : crop.left + crop.side]
    return resize(film, frame_size(crop, image_size, protocol)).clamp(0, 1)
