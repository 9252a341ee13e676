"""The published layout: a bare state dict with torchvision's names below `baseBackbone.`, and what it leaves unsaid.

The files are those of <https://huggingface.co/patrick-w/MedicalPatchNet>. They carry no sizes and no labels; the
backbone is told by the width of the stem, never by the file's name.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cxr.files import InputError, place, replacing
from cxr.labels import CHEXPERT
from models.backbones import TORCHVISION
from models.tensors import names_shown

IMAGE_SIZE = 512

_BACKBONE_OF_STEM_WIDTH = {24: "efficientnet_v2_s", 32: "efficientnet_b0"}


def project_keys(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Renames the published layout to the project's; other names stay."""

    def rename(name: str) -> str:
        name = re.sub(r"^baseBackbone\.classifier\.1\.", "head.", name)
        return re.sub(r"^baseBackbone\.", "", name)

    return {rename(name): tensor for name, tensor in state.items()}


def published_keys(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of `project_keys`."""
    return {"baseBackbone." + re.sub(r"^head\.", "classifier.1.", name): tensor for name, tensor in state.items()}


def published_config(state: Mapping[str, Tensor], patch_size: int | None, path: Path) -> dict[str, Any]:
    """The arguments of the network that a state dict under the project's names belongs to.

    Raises InputError when the stem or the head is not that of a published network, or `patch_size` is not given.
    """
    stem, head = state.get("features.0.0.weight"), state.get("head.weight")
    if stem is None or head is None:
        raise InputError(
            f"{place(path)}: neither the published layout (baseBackbone.*) nor a folder of this project; "
            f"its {len(state)} tensors are called {names_shown(state)}"
        )
    if not stem.ndim or not head.ndim:
        raise InputError(f"{place(path)}: the stem or the head is a single number, the network needs more")
    if len(stem) not in _BACKBONE_OF_STEM_WIDTH:
        raise InputError(f"{place(path)}: a stem of {len(stem)} channels is neither EfficientNet-B0 (32) nor V2-S (24)")
    if len(head) != len(CHEXPERT):
        raise InputError(f"{place(path)}: {len(head)} outputs, where the {len(CHEXPERT)} CheXpert labels are needed")
    if patch_size is None:
        raise InputError(
            f"{place(path)}: this file does not carry its patch size; "
            f"give --patch-size 64 for MedicalPatchNet or {IMAGE_SIZE} for the baseline"
        )
    backbone = _BACKBONE_OF_STEM_WIDTH[len(stem)]
    return {"backbone": backbone, "patch_size": patch_size, "image_size": IMAGE_SIZE, "labels": CHEXPERT}


def save_published(model: Any, path: Path) -> None:
    """Writes a state dict in the published layout. It carries tensors only: sizes, labels and details are left behind.

    Raises InputError for a network that this layout cannot express: another backbone, size, label order, aggregation.
    """
    if model.backbone not in TORCHVISION or (model.image_size, model.labels) != (IMAGE_SIZE, CHEXPERT.names):
        raise InputError(
            f"{place(path)}: the published layout holds an EfficientNet of torchvision for {IMAGE_SIZE} px and the "
            f"14 CheXpert labels, not {model.backbone} for {model.image_size} px and {len(model.labels)} labels"
        )
    if model.aggregation.name != "mean":
        raise InputError(f"{place(path)}: the published layout holds no aggregation but the mean")
    buffer = io.BytesIO()  # given a path, torch would write the temporary file's name into the archive
    torch.save(published_keys(model.state_dict()), buffer)
    with replacing(path) as temporary:
        temporary.write_bytes(buffer.getvalue())
