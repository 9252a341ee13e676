"""MedicalPatchNet: every patch of a film votes with its own logits, and the film's logits are their mean.

Wienholt et al., Scientific Reports 2026, doi 10.1038/s41598-026-40358-0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import PyTorchModelHubMixin
from torch import Tensor, nn

from models.backbones import build_backbone
from models.card import standard_details


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

    `details` are json facts that travel with the weights (see `models.card`): thresholds, preprocessing, training data.

    Raises ValueError when `patch_size` does not divide `image_size`, InputError for an unusable backbone.
    """

    def __init__(
        self,
        backbone: str = "efficientnet_b0",
        patch_size: int = 64,
        image_size: int = 512,
        labels: Sequence[str] = (),
        details: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if patch_size <= 0 or image_size % patch_size:
            raise ValueError(f"patch size {patch_size} does not divide image size {image_size}")
        if not labels:
            raise ValueError("labels are empty; a network needs at least one output")
        self.backbone = backbone
        self.patch_size = patch_size
        self.image_size = image_size
        self.labels = tuple(labels)
        self.details = standard_details() | dict(details or {})
        parts = build_backbone(backbone)
        self.features = parts.features
        self.dropout = nn.Dropout(parts.dropout)
        self.head = nn.Linear(parts.width, len(self.labels))

    def forward(self, images: Tensor) -> Tensor:
        """(B, 1, S, S) -> logits (B, C)."""
        return self.patch_logits(images).mean(dim=1)

    def patch_logits(self, images: Tensor) -> Tensor:
        """(B, 1, S, S) -> (B, P, C): what each patch says for each label. Their mean over P is the film's logits."""
        patches = split_patches(images, self.patch_size)  # (B*P, 1, p, p)
        pooled = self.features(patches).mean(dim=(2, 3))  # (B*P, K)
        logits = self.head(self.dropout(pooled))  # (B*P, C)
        return logits.unflatten(0, (len(images), -1))  # (B, P, C)

    def feature_map(self, images: Tensor) -> Tensor:
        """(B, 1, S, S) -> (B, K, h, w): the last feature maps of all patches, laid out as the patches lie in the film.

        `head(feature_map(images).mean(dim=(2, 3)))` equals `forward(images)` in evaluation mode, for any patch size.
        """
        n = images.shape[-1] // self.patch_size
        maps = self.features(split_patches(images, self.patch_size))  # (B*n*n, K, h, w)
        tiles = maps.unflatten(0, (len(images), n, n))  # (B, n, n, K, h, w)
        return tiles.permute(0, 3, 1, 4, 2, 5).flatten(4, 5).flatten(2, 3)  # (B, K, n*h, n*w)

    def _save_pretrained(self, save_directory: Path) -> None:
        """What `save_pretrained` and `push_to_hub` write is what `save_model` writes."""
        from models.checkpoint import save_model  # here, for it builds networks and so imports this file

        save_model(self, save_directory)

    @classmethod
    def _from_pretrained(cls, **arguments: Any) -> MedicalPatchNet:
        """Strictly: the hub's own default leaves a layer random when its tensors are missing."""
        return super()._from_pretrained(**{"strict": True} | arguments)


def split_patches(images: Tensor, patch_size: int) -> Tensor:
    """(B, 1, S, S) -> (B*P, 1, p, p), film by film, row-major. Raises ValueError when p does not divide S."""
    size = images.shape[-1]
    if images.ndim != 4 or images.shape[1] != 1 or images.shape[2] != size or size % patch_size:
        raise ValueError(f"expected images (B, 1, S, S) with S a multiple of {patch_size}, got {tuple(images.shape)}")
    tiles = images.unfold(2, patch_size, patch_size).unfold(3, patch_size, patch_size)  # (B, 1, n, n, p, p)
    return tiles.flatten(0, 3).unsqueeze(1)
