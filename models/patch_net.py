"""MedicalPatchNet: every patch of a film is classified alone; the mean of the patch logits is the prediction.

Wienholt et al., Scientific Reports 2026, doi 10.1038/s41598-026-40358-0.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import PyTorchModelHubMixin
from torch import Tensor, nn

from cxr.files import InputError, quoted, replacing, sha256
from cxr.labels import LabelSet
from cxr.names import REFERENCE
from models.aggregation import build_aggregation
from models.backbones import build_backbone
from models.card import standard_details
from models.hub import resolve_weights
from models.weight_names import check_repository
from models.weights_folder import read_config, save_model, weights_file

MAX_IMAGE_SIZE = 4096
MAX_PATCHES = 128 * 128
"""Sizes beyond these would ask for gigabytes before anything else can be found wrong."""

_RANGE_TOLERANCE = 1e-3
"""Rounding of half precision around the ends of [0, 1]."""


class MedicalPatchNet(
    nn.Module,
    PyTorchModelHubMixin,
    library_name="medicalpatchnet",
    pipeline_tag="image-classification",
    license="mit",
    tags=["chest-x-ray", "self-explainable"],
):
    """A patch network; with `patch_size == image_size` it is the plain backbone, the paper's baseline.

    Images are (B, 1, S, S) float in [0, 1], S = `image_size`, a multiple of `patch_size`; no further normalisation.
    Patches are in row-major order, P = (S / patch_size)^2. C = len(labels). All outputs are logits.

    aggregation: a name of `models.aggregation`. details: json facts that travel with the weights (see `models.card`).
    label_set: groups and tasks of bare label names, as config.json holds them; a `LabelSet` has its own.

    reference: what relative maps compare a film with; `medicalpatchnet.load` sets it where it lies beside the weights.
    `from_pretrained` leaves it None; the file goes with the weights all the same when they are saved unchanged.

    Raises ValueError when `patch_size` does not divide `image_size`, or either is out of range; InputError, which is
    a ValueError, for an unusable backbone or aggregation, and for labels that are not a label set.
    """

    reference: Any = None
    _reference_file: tuple[str, bytes] | None = None
    """sha256 of the weights that the network was read from, and the content of the reference beside them."""

    def __init__(
        self,
        backbone: str = "efficientnet_b0",
        patch_size: int = 64,
        image_size: int = 512,
        labels: Sequence[str] | LabelSet = (),
        details: Mapping[str, Any] | None = None,
        aggregation: str = "mean",
        label_set: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        check_sizes(patch_size, image_size)
        self.backbone = backbone
        self.patch_size = patch_size
        self.image_size = image_size
        self.label_set = labels if isinstance(labels, LabelSet) else _label_set(labels, label_set)
        self.labels = self.label_set.names
        self.details = standard_details() | dict(details or {})
        self.aggregation = build_aggregation(aggregation, len(self.labels), image_size // patch_size)
        parts = build_backbone(backbone)
        if patch_size < parts.smallest:
            raise InputError(f"{backbone} takes patches of {parts.smallest} pixels or more, not of {patch_size}")
        self.features = parts.features
        self.dropout = nn.Dropout(parts.dropout)
        self.head = nn.Linear(parts.width, len(self.labels))

    def forward(self, images: Tensor) -> Tensor:
        """(B, 1, S, S) -> logits (B, C)."""
        return self.aggregation(self.patch_logits(images))

    def patch_logits(self, images: Tensor) -> Tensor:
        """(B, 1, S, S) -> (B, P, C): the logits of every patch alone.

        Raises ValueError for images of another shape than (B, 1, S, S).
        """
        patches = self._patches(images)  # (B*P, 1, p, p)
        pooled = self.features(patches).mean(dim=(2, 3))  # (B*P, K)
        logits = self.head(self.dropout(pooled))  # (B*P, C)
        return logits.unflatten(0, (len(images), -1))  # (B, P, C)

    def contributions(self, images: Tensor) -> Tensor:
        """(B, 1, S, S) -> (B, P, C): what each patch adds to the logit; for the mean its patch logit over P.

        Their sum over P is the logit; for noisy or and log-sum-exp, `aggregation.link` of their sum is.
        """
        return self.aggregation.contributions(self.patch_logits(images))

    def feature_map(self, images: Tensor) -> Tensor:
        """(B, 1, S, S) -> (B, K, h, w): the last feature maps of all patches, stitched together as the patches lie.

        `head(feature_map(images).mean(dim=(2, 3)))` equals `forward(images)` in evaluation mode, for any patch size,
        where the aggregation is the mean.
        """
        n = self.image_size // self.patch_size
        maps = self.features(self._patches(images))  # (B*n*n, K, h, w)
        tiles = maps.unflatten(0, (len(images), n, n))  # (B, n, n, K, h, w)
        return tiles.permute(0, 3, 1, 4, 2, 5).flatten(4, 5).flatten(2, 3)  # (B, K, n*h, n*w)

    def check_images(self, images: Tensor) -> None:
        """Raises ValueError unless `images` are (B, 1, S, S) of floats in [0, 1].

        For data at the door, once per batch and before it is moved to a GPU, where reading the range would wait for
        everything before it. The forward pass itself checks shapes only.
        """
        self._check_shape(images)
        if not images.is_floating_point():
            raise ValueError(
                f"expected float images in [0, 1], got {images.dtype}; divide grey values by their maximum"
            )
        low, high = (value.item() for value in images.aminmax()) if len(images) else (0.0, 0.0)
        if not (low >= -_RANGE_TOLERANCE and high <= 1 + _RANGE_TOLERANCE):  # written so that NaN fails
            raise ValueError(f"expected images in [0, 1], got values from {low:g} to {high:g}")

    def _patches(self, images: Tensor) -> Tensor:
        self._check_shape(images)
        return split_patches(images, self.patch_size)

    def _check_shape(self, images: Tensor) -> None:
        size = self.image_size
        if images.ndim != 4 or images.shape[1:] != (1, size, size):
            raise ValueError(
                f"this network takes images (B, 1, {size}, {size}), got {tuple(images.shape)}; "
                f"crop and resize films to {size} x {size} px, one channel"
            )

    def _save_pretrained(self, save_directory: Path) -> None:
        """Makes `save_pretrained` and `push_to_hub` write what `save_model` writes."""
        save_model(self, save_directory)
        weights = weights_file(save_directory)
        if self.reference is not None:
            self.reference.save_beside(weights)
        elif self._reference_file is not None and sha256(weights) == self._reference_file[0]:
            with replacing(weights.with_name(REFERENCE)) as temporary:
                temporary.write_bytes(self._reference_file[1])

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **arguments: Any) -> MedicalPatchNet:
        """A network from a local folder or a repository of the hub, `owner/repo`, in evaluation mode.

        arguments: those of `PyTorchModelHubMixin.from_pretrained`; without any, a repository is taken as
        `models.hub.resolve_weights` takes it: out of the cache, or downloaded and checked.
        Raises InputError for a folder whose config.json is not that of a network; without asking the hub for a name
        that is not a repository's, or that is like a folder's; and for a repository that cannot be had.
        """
        found: str | Path = pretrained_model_name_or_path
        name = str(found)
        if os.path.isdir(name):
            read_config(Path(name))
        else:
            check_repository(name)
            if not arguments:
                found = resolve_weights(f"hf://{name}")
        model: MedicalPatchNet = super().from_pretrained(found, **arguments)
        if os.path.isdir(found) and (reference := Path(found, REFERENCE)).is_file():
            model._reference_file = sha256(weights_file(Path(found))), reference.read_bytes()
        return model

    @classmethod
    def _from_pretrained(cls, **arguments: Any) -> MedicalPatchNet:
        """Loads strictly: the hub's own default leaves a layer random when its tensors are missing."""
        return super()._from_pretrained(**{"strict": True} | arguments)


def _label_set(names: Sequence[str], facts: Mapping[str, Any] | None) -> LabelSet:
    return LabelSet.from_json({"names": list(names), **(facts or {})}, "label set")


def check_sizes(patch_size: int, image_size: int) -> None:
    """Raises ValueError unless whole patches fill an image, both of a size that networks are used with."""
    if patch_size <= 0 or image_size <= 0 or image_size % patch_size:
        raise ValueError(f"patch size {quoted(patch_size)} does not divide image size {quoted(image_size)}")
    if image_size > MAX_IMAGE_SIZE:
        raise ValueError(f"image size {quoted(image_size)} is larger than the largest supported, {MAX_IMAGE_SIZE} px")
    if (image_size // patch_size) ** 2 > MAX_PATCHES:
        raise ValueError(f"{(image_size // patch_size) ** 2} patches per image are more than {MAX_PATCHES}")


def split_patches(images: Tensor, patch_size: int) -> Tensor:
    """(B, 1, S, S) -> (B*P, 1, p, p), film by film, row-major. Raises ValueError when p does not divide S."""
    size = images.shape[-1]
    if images.ndim != 4 or images.shape[1] != 1 or images.shape[2] != size or size % patch_size:
        raise ValueError(f"expected images (B, 1, S, S) with S a multiple of {patch_size}, got {tuple(images.shape)}")
    tiles = images.unfold(2, patch_size, patch_size).unfold(3, patch_size, patch_size)  # (B, 1, n, n, p, p)
    return tiles.flatten(0, 3).unsqueeze(1)
