"""Class activation maps of every class from one forward pass.

Only average pooling and a linear layer follow the last feature map, so each class's gradient there is its row of the
linear layer over the number of pixels, and Grad-CAM (arXiv 1610.02391) and Grad-CAM++ (arXiv 1710.11063) have closed
forms. Eigen-CAM (arXiv 2008.00299) knows no classes. Conventions are those of the `grad-cam` package.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from saliency.folded_network import PatchNetwork, evaluating

_RANGE_EPS = 1e-7  # the package's, in its min-max normalisation
_PLUSPLUS_EPS = 1e-6  # the package's, in Grad-CAM++


def class_activation_maps(model: PatchNetwork, image: Tensor, *, methods: Sequence[str]) -> dict[str, Tensor]:
    """image (1, S, S) or (1, 1, S, S) in [0, 1] -> {method: (C, S, S)}, float32 in [0, 1] on the CPU.

    methods: any of CAM_METHODS. A map is 0 everywhere where nothing speaks for its class. Of a patch network the
    feature maps of all patches are taken together. Raises ValueError for an unknown method.
    """
    grids = cam_grids(model, image, methods=methods)
    return {method: upsample(grid, model.image_size) for method, grid in grids.items()}


def cam_grids(model: PatchNetwork, image: Tensor, *, methods: Sequence[str]) -> dict[str, Tensor]:
    """The maps at the feature map's own resolution, {method: (C, h, w)}, float32 in [0, 1] on the CPU."""
    unknown = sorted(set(methods) - set(CAM_METHODS))
    if unknown:
        raise ValueError(f"unknown method {unknown[0]!r}; known are {', '.join(CAM_METHODS)}")
    device = next(model.parameters()).device
    with evaluating(model), torch.no_grad():
        maps = model.feature_map(image.reshape(1, *image.shape[-3:]).to(device))[0].float().cpu()  # (K, h, w)
        gradients = model.head.weight.float().cpu() / maps[0].numel()  # (C, K), alike at every pixel
    return {method: _unit_range(_CAMS[method](maps, gradients).relu()) for method in methods}


def upsample(grid: Tensor, image_size: int) -> Tensor:
    """(C, h, w) -> (C, S, S) in [0, 1], bilinear, then again stretched to the full range."""
    size = (image_size, image_size)
    return _unit_range(F.interpolate(grid[None], size, mode="bilinear", align_corners=False)[0])


def _grad_cam(maps: Tensor, gradients: Tensor) -> Tensor:
    return torch.einsum("ck,khw->chw", gradients, maps)


def _grad_cam_plusplus(maps: Tensor, gradients: Tensor) -> Tensor:
    """Equation 19 of the paper; its sum over pixels is a product here, for all pixels' gradients are alike."""
    pixels = maps[0].numel()
    activation = maps.sum(dim=(1, 2))  # (K,)
    alpha = gradients**2 / (2 * gradients**2 + activation * gradients**3 + _PLUSPLUS_EPS)
    weights = pixels * gradients.relu() * alpha  # (C, K)
    return torch.einsum("ck,khw->chw", weights, maps)


def _eigen_cam(maps: Tensor, gradients: Tensor) -> Tensor:
    """The same map for every class, with the sign that numpy's decomposition happens to give, as in the package."""
    pixels = maps.flatten(1).T.numpy()  # (h * w, K)
    pixels = pixels - pixels.mean(axis=0)
    _, _, components = np.linalg.svd(pixels, full_matrices=False)
    projection = torch.from_numpy(pixels @ components[0]).reshape(maps.shape[1:])
    return projection.expand(len(gradients), -1, -1)


_CAMS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "gradcam": _grad_cam,
    "gradcam++": _grad_cam_plusplus,
    "eigencam": _eigen_cam,
}
CAM_METHODS = tuple(_CAMS)


def _unit_range(maps: Tensor) -> Tensor:
    """(C, h, w) -> the same, each from 0 to (just below) 1; constant maps become 0."""
    above = maps - maps.amin(dim=(1, 2), keepdim=True)
    return above / (_RANGE_EPS + above.amax(dim=(1, 2), keepdim=True))
