"""Class activation maps of every class from one forward pass.

Where only average pooling and a linear layer follow the last feature map, the gradient of a class is the same at every
pixel: its row of the linear layer over the number of pixels. Grad-CAM (arXiv 1610.02391) and Grad-CAM++ (arXiv
1710.11063) then have closed forms. Eigen-CAM (arXiv 2008.00299) uses no gradient and is the same for every class.
Conventions are those of the `grad-cam` package.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from cxr.files import quoted
from saliency.evidence.folded_network import PatchNetwork, evaluating, require_mean

_RANGE_EPS = 1e-7  # the package's, in its min-max normalisation
_PLUSPLUS_EPS = 1e-6  # the package's, in Grad-CAM++


def class_activation_maps(model: PatchNetwork, image: Tensor, *, methods: Sequence[str]) -> dict[str, Tensor]:
    """image (1, S, S) or (1, 1, S, S) in [0, 1] -> {method: (C, S, S)}, float32 in [0, 1] on the CPU.

    methods: keys of `CAMS`. A map is 0 everywhere when nothing speaks for its class. The feature maps of all patches of
    a patch network are stitched together. Raises as `cam_grids` does.
    """
    grids = cam_grids(model, image, methods=methods)
    return {method: upsample(grid, model.image_size) for method, grid in grids.items()}


def cam_grids(model: PatchNetwork, image: Tensor, *, methods: Sequence[str]) -> dict[str, Tensor]:
    """The maps at the feature map's own resolution, {method: (C, h, w)}, float32 in [0, 1] on the CPU.

    Raises ValueError for an unknown method, InputError for one whose closed form does not hold for this network.
    """
    for method in methods:
        if method not in CAMS:
            raise ValueError(f"unknown method {quoted(method)}; known are {', '.join(CAMS)}")
        if method not in _WITHOUT_GRADIENTS:
            require_mean(model, f"the closed form of {method}")
    device = next(model.parameters()).device
    with evaluating(model), torch.no_grad():
        maps = model.feature_map(image.reshape(1, *image.shape[-3:]).to(device))[0].float().cpu()  # (K, h, w)
        gradients = model.head.weight.float().cpu() / maps[0].numel()  # (C, K), the same at every pixel
    return {method: _unit_range(CAMS[method](maps, gradients).relu()) for method in methods}


def upsample(grid: Tensor, image_size: int) -> Tensor:
    """(C, h, w) -> (C, S, S) in [0, 1]: bilinear, then stretched to the full range again."""
    size = (image_size, image_size)
    return _unit_range(F.interpolate(grid[None], size, mode="bilinear", align_corners=False)[0])


def _grad_cam(maps: Tensor, gradients: Tensor) -> Tensor:
    return torch.einsum("ck,khw->chw", gradients, maps)


def _grad_cam_plusplus(maps: Tensor, gradients: Tensor) -> Tensor:
    """Equation 19 of the paper; its sum over pixels is a product here, because all pixels have the same gradient."""
    pixels = maps[0].numel()
    activation = maps.sum(dim=(1, 2))  # (K,)
    alpha = gradients**2 / (2 * gradients**2 + activation * gradients**3 + _PLUSPLUS_EPS)
    weights = pixels * gradients.relu() * alpha  # (C, K)
    return torch.einsum("ck,khw->chw", weights, maps)


def _eigen_cam(maps: Tensor, gradients: Tensor) -> Tensor:
    """Projection on the first principal component, the same for every class.

    Its sign is the one that numpy's decomposition happens to give, as in the package.
    """
    pixels = maps.flatten(1).T.numpy()  # (h * w, K)
    pixels = pixels - pixels.mean(axis=0)
    _, _, components = np.linalg.svd(pixels, full_matrices=False)
    projection = torch.from_numpy(pixels @ components[0]).reshape(maps.shape[1:])
    return projection.expand(len(gradients), -1, -1)


CAMS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "gradcam": _grad_cam,
    "gradcam++": _grad_cam_plusplus,
    "eigencam": _eigen_cam,
}
"""Method of `cxr.names.METHODS` -> function of the feature map (K, h, w) and the gradients (C, K), giving (C, h, w)."""

_WITHOUT_GRADIENTS = {"eigencam"}


def _unit_range(maps: Tensor) -> Tensor:
    """(C, h, w) -> (C, h, w), each map from 0 to just below 1; constant maps become 0."""
    above = maps - maps.amin(dim=(1, 2), keepdim=True)
    return above / (_RANGE_EPS + above.amax(dim=(1, 2), keepdim=True))
