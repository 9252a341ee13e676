"""From a film's evidence to its heat maps as they are stored: the one way, whether the maps go into files or not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from chexpert.images import Crop
from saliency.cam import CAM_METHODS, cam_grids, upsample
from saliency.frame import to_film_frame
from saliency.inference import PatchNetwork
from saliency.patch_maps import PATCH_METHODS, evidence_grid, maps_from_grid, to_unit
from saliency.protocols import Protocol

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
