"""Initial weights of a network from other weights: of this project, or a whole ImageNet network's state dict.

Such a state dict is what timm or torchvision save of a network: its convolutional part is taken, its classifier is not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import timm
import torch
import torchvision
from torch import Tensor

from cxr.files import InputError, place, quoted
from cxr.labels import CHEXPERT
from models.backbones import TORCHVISION
from models.checkpoint import read_tensors
from models.patch_net import MedicalPatchNet
from models.tensors import load_strictly, names_shown
from models.weights_folder import CONFIG_NAME, WEIGHTS_NAME, read_config, weights_file

_HEAD = ("head.weight", "head.bias")


def start_from(model: MedicalPatchNet, path: Path) -> list[str]:
    """Fills `model` with the weights of `path`: a folder or file of this project, or a timm or torchvision state dict.

    A label's row of the head is kept where the weights know the label by name; the other rows stay as they are in
    `model`, and so does the aggregation. An RGB stem is summed over its channels, so that a grey film gives the output
    of its RGB copy.

    Returns lines for the user: which rows were kept, what was left out, how sizes differ. Raises InputError when the
    file is missing, unsafe, damaged, or of another network, naming what differs.
    """
    if path.name == WEIGHTS_NAME and (path.parent / CONFIG_NAME).is_file():
        path = path.parent
    state, file = read_tensors(path), weights_file(path)
    of_project = "head.weight" in state and any(name.startswith("features.") for name in state)
    if not (path.is_dir() or of_project):
        return _from_whole_network(model, state, file)
    config = read_config(path) if path.is_dir() else _facts_of_file(model, state)
    if config["backbone"] != model.backbone:
        name = quoted(config["backbone"])
        raise InputError(f"{place(path)}: weights of {name}, not of {quoted(model.backbone)}; give --backbone {name}")
    return _from_network(model, state, config, file)


def _fill(model: MedicalPatchNet, taken: Mapping[str, Tensor], file: Path) -> None:
    """Loads `taken` over the network's own tensors of head and aggregation. Raises InputError as `load_strictly`."""
    own = model.state_dict()
    kept = {name: tensor for name, tensor in own.items() if not name.startswith("features.")}
    stem = next(name for name, tensor in own.items() if tensor.ndim == 4)
    grey = {stem: _grey_stem(taken[stem], own[stem])} if stem in taken else {}
    load_strictly(model, {**kept, **taken, **grey}, file)


def _grey_stem(found: Tensor, wanted: Tensor) -> Tensor:
    """(K, 3, k, k) -> (K, 1, k, k); anything else as it is, for `load_strictly` to judge."""
    is_rgb = found.shape == (len(wanted), 3, *wanted.shape[2:])
    return found.sum(dim=1, keepdim=True) if is_rgb and _is_plain(found) else found


def _is_plain(tensor: Tensor) -> bool:
    """Whether a tensor out of a file can be computed with."""
    return tensor.layout == torch.strided and not (tensor.is_quantized or tensor.is_meta) and tensor.is_floating_point()


# -------------------------------------------------------------------------------------------- weights of this project


def _facts_of_file(model: MedicalPatchNet, state: Mapping[str, Tensor]) -> dict[str, Any]:
    """The facts that a file without config.json leaves unsaid; published files have CheXpert's labels in its order."""
    head = state["head.weight"]
    labels = CHEXPERT.names if head.ndim == 2 and len(head) == len(CHEXPERT) else ()
    return {"backbone": model.backbone, "labels": labels, "aggregation": "mean"}


def _from_network(
    model: MedicalPatchNet, state: Mapping[str, Tensor], config: Mapping[str, Any], file: Path
) -> list[str]:
    """Fills the features as they are, and the head by the labels' names."""
    labels: Sequence[str] = config["labels"]
    own = model.state_dict()
    taken = {name: tensor for name, tensor in state.items() if not name.startswith("aggregation.")}
    for name in _HEAD:
        found = taken.get(name)
        if found is not None and labels and found.shape[:1] != (len(labels),):
            raise InputError(f"{place(file)}: tensor {name!r} has shape {tuple(found.shape)} for {len(labels)} labels")
        if found is not None and _is_plain(found) and found.shape[1:] == own[name].shape[1:]:
            taken[name] = _rows_by_label(own[name], found, model.labels, labels)
    _fill(model, taken, file)
    return [*_said_of_head(model.labels, labels), *_said_of_settings(model, config)]


def _rows_by_label(own: Tensor, found: Tensor, wanted: Sequence[str], labels: Sequence[str]) -> Tensor:
    """(C, ...): the row of `found` where `labels` has the label, else that of `own`."""
    rows = [found[labels.index(label)] if label in labels else own[i] for i, label in enumerate(wanted)]
    return torch.stack([row.to(own.dtype) for row in rows])


def _said_of_head(wanted: Sequence[str], labels: Sequence[str]) -> list[str]:
    groups = {
        "labels that keep their row of the head": [label for label in wanted if label in labels],
        "labels whose row of the head is new": [label for label in wanted if label not in labels],
        "labels of the weights that are left out": [label for label in labels if label not in wanted],
    }
    return [f"{what}: {', '.join(map(quoted, names))}" for what, names in groups.items() if names]


def _said_of_settings(model: MedicalPatchNet, config: Mapping[str, Any]) -> list[str]:
    said = []
    for name in ("patch_size", "image_size"):
        if config.get(name, getattr(model, name)) != getattr(model, name):
            said.append(f"{name.replace('_', ' ')}: {getattr(model, name)}, where the weights have {config[name]}")
    if (config["aggregation"], model.aggregation.name) != ("mean", "mean"):
        theirs = quoted(config["aggregation"])
        said.append(f"aggregation: {quoted(model.aggregation.name)}, which starts anew; the weights have {theirs}")
    return said


# ----------------------------------------------------------------------------------------- whole networks of ImageNet


def _from_whole_network(model: MedicalPatchNet, state: Mapping[str, Tensor], file: Path) -> list[str]:
    """Fills the features by the tensors' names, or by their positions where all names differ."""
    layout = _layout(model.backbone)
    by_name = any(name in state for name in layout)
    sources = {name: name for name in layout} if by_name else _by_position(layout, state, file, model.backbone)
    prefix = "" if model.backbone in TORCHVISION else "features."
    own = model.state_dict()
    wanted = {prefix + name: source for name, source in sources.items() if prefix + name in own}
    unknown = sorted(state.keys() - layout.keys()) if by_name else []
    missing = [source for source in wanted.values() if source not in state and "num_batches" not in source]
    if missing or unknown:
        what = f"tensor {quoted(missing[0])} is missing" if missing else f"tensor {quoted(unknown[0])} is unknown"
        raise InputError(f"{place(file)}: not a state dict of {quoted(model.backbone)}: {what}")
    _fill(model, {name: state[source] for name, source in wanted.items() if source in state}, file)
    how = "by name" if by_name else f"by position, for its names differ ({names_shown(state)})"
    return [f"{len(state)} tensors of {file.name} {how}; the head is new"]


def _layout(backbone: str) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the whole network's state dict, in its order; nothing is allocated."""
    with torch.device("meta"):
        if backbone in TORCHVISION:
            net: Any = getattr(torchvision.models, backbone)(weights=None)
        else:
            net = timm.create_model(backbone.removeprefix("timm/"), pretrained=False)
    return {name: tuple(tensor.shape) for name, tensor in net.state_dict().items()}


def _by_position(
    layout: Mapping[str, tuple[int, ...]], state: Mapping[str, Tensor], file: Path, backbone: str
) -> dict[str, str]:
    """Name in the network -> name in the file, for two lists of tensors of one order.

    Raises InputError, naming the first difference, unless every tensor has the shape and the kind (`weight`, `bias`,
    `running_mean`, ...) of the network's tensor at its place.
    """
    network = quoted(backbone)
    if len(state) != len(layout):
        reason = f"{len(state)} tensors ({names_shown(state)}), where {network} has {len(layout)}"
        raise InputError(f"{place(file)}: neither weights of this project nor of {network}: {reason}")
    pairs = zip(state.items(), layout.items(), strict=True)
    for number, ((found, tensor), (name, shape)) in enumerate(pairs, start=1):
        if tuple(tensor.shape) != shape or _kind(found) != _kind(name):
            reason = (
                f"tensor {number}, {quoted(found)} {tuple(tensor.shape)}, stands where {network} has {name} {shape}"
            )
            raise InputError(f"{place(file)}: neither weights of this project nor of {network}: {reason}")
    return dict(zip(layout, state, strict=True))


def _kind(name: str) -> str:
    return name.rpartition(".")[2]
