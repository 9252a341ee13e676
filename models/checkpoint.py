"""Weights in and out, safely: the project's folder, a `.safetensors` file, and the published `.pt` state dicts.

Nothing here ever runs code from a file: `.pt` files are read with `weights_only=True`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from cxr.files import InputError, place
from cxr.labels import LabelSet
from models.backbones import build_backbone
from models.patch_net import MedicalPatchNet
from models.published import project_keys, published_config
from models.tensors import load_strictly, names_shown, plain_names, read_state
from models.weights_folder import CONFIG_NAME, WEIGHTS_NAME, config_of, read_config, save_model, weights_file

__all__ = ["build_model", "config_of", "load_model", "read_tensors", "save_model", "weights_file"]


def build_model(
    backbone: str,
    *,
    patch_size: int,
    image_size: int,
    labels: Sequence[str] | LabelSet,
    init: Literal["imagenet", "random"] = "random",
    aggregation: str = "mean",
) -> MedicalPatchNet:
    """A new network. `init="imagenet"` downloads the backbone's ImageNet weights (cached by torch or timm).

    Raises InputError when sizes do not fit, the backbone or aggregation is unusable, or the download fails.
    """
    try:
        model = MedicalPatchNet(backbone, patch_size, image_size, labels, aggregation=aggregation)
    except InputError:
        raise
    except ValueError as error:
        raise InputError(str(error)) from error
    if init == "imagenet":  # not an argument of the network: rebuilding one from its config must never download
        model.features = build_backbone(backbone, pretrained=True).features
    return model


def load_model(path: str | Path, *, patch_size: int | None = None, device: str = "cpu") -> MedicalPatchNet:
    """A network in evaluation mode from a saved folder, a published `.pt`, or a `.safetensors` file.

    The shapes of a published file's tensors give its backbone (never its name: the published `EfficientNetB0` file
    may hold a V2-S), but not its patch size: `patch_size` is then needed. A folder knows its own; another one given
    here is refused.

    Raises InputError when the file is missing, unsafe, damaged, or does not fit the network.
    """
    path = Path(path)
    if path.name == WEIGHTS_NAME and (path.parent / CONFIG_NAME).is_file():
        path = path.parent
    if path.is_dir():
        config = read_config(path)
        if patch_size not in (None, config["patch_size"]):
            raise InputError(f"{place(path)}: these weights have patch size {config['patch_size']}, not {patch_size}")
        state, described = read_tensors(path), path / CONFIG_NAME
        _check_head(state, len(config["labels"]), weights_file(path))
    else:
        state, described = read_tensors(path), path
        config = published_config(state, patch_size, path)
    model = _build(config, described)
    load_strictly(model, state, weights_file(path))
    return model.to(device).eval()


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a folder or file under the project's names, whatever wrapper they were saved in."""
    file = weights_file(path)
    return project_keys(plain_names(read_state(file), file))


def _build(config: Mapping[str, Any], path: Path) -> MedicalPatchNet:
    try:
        return MedicalPatchNet(**config)
    except ValueError as error:
        raise InputError(f"{place(path)}: {error}") from None


def _check_head(state: Mapping[str, Tensor], labels: int, path: Path) -> None:
    """Raises InputError for another number of outputs than labels, before a head for all these labels is allocated."""
    head = state.get("head.weight")
    if head is None:
        raise InputError(f"{place(path)}: tensor 'head.weight' is missing; found {names_shown(state)}")
    if labels and head.shape[:1] != (labels,):
        raise InputError(f"{place(path)}: tensor 'head.weight' has shape {tuple(head.shape)} for {labels} labels")
