"""Weights in and out, safely: the project's folder, a `.safetensors` file, and the published `.pt` state dicts.

A folder holds `config.json` (what to build) beside `model.safetensors` (its tensors), as `save_pretrained` of the
Hugging Face hub writes them. Nothing here ever runs code from a file: `.pt` files are read with `weights_only=True`.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from cxr.files import InputError
from models.backbones import TORCHVISION, build_backbone
from models.card import check_details, model_card
from models.patch_net import MedicalPatchNet

CONFIG_NAME = "config.json"
WEIGHTS_NAME = "model.safetensors"
CARD_NAME = "README.md"

PUBLISHED_LABELS = (
    "No Finding",
    "Enlarged Cardiomediastinum",
    "Cardiomegaly",
    "Lung Opacity",
    "Lung Lesion",
    "Edema",
    "Consolidation",
    "Pneumonia",
    "Atelectasis",
    "Pneumothorax",
    "Pleural Effusion",
    "Pleural Other",
    "Fracture",
    "Support Devices",
)
"""The order of the published head's outputs: a fact about those files, which carry no names of their own."""

PUBLISHED_IMAGE_SIZE = 512

_BACKBONE_OF_STEM_WIDTH = {24: "efficientnet_v2_s", 32: "efficientnet_b0"}


def build_model(
    backbone: str,
    *,
    patch_size: int,
    image_size: int,
    labels: Sequence[str],
    init: Literal["imagenet", "random"] = "random",
) -> MedicalPatchNet:
    """A new network. `init="imagenet"` downloads the backbone's ImageNet weights (cached by torch or timm).

    Raises InputError when sizes do not fit, the backbone is unusable, or the download fails.
    """
    try:
        model = MedicalPatchNet(backbone, patch_size, image_size, labels)
    except InputError:
        raise
    except ValueError as error:
        raise InputError(str(error)) from error
    if init == "imagenet":  # not an argument of the network: rebuilding one from its config must never download
        model.features = build_backbone(backbone, pretrained=True).features
    return model


def load_model(path: str | Path, *, patch_size: int | None = None, device: str = "cpu") -> MedicalPatchNet:
    """A network in evaluation mode from a saved folder, a published `.pt`, or a `.safetensors` file.

    A published file tells its backbone by its tensors' shapes (never by its name: the published `EfficientNetB0` file
    may hold a V2-S), but not its patch size: `patch_size` is then needed. A folder knows its own; another one given
    here is refused.

    Raises InputError when the file is missing, unsafe, damaged, or does not fit the network.
    """
    path = Path(path)
    if path.is_dir():
        model, state = _from_folder(path)
        if patch_size not in (None, model.patch_size):
            raise InputError(f"{path}: these weights have patch size {model.patch_size}, not {patch_size}")
    elif path.suffix == ".safetensors" and (path.parent / CONFIG_NAME).is_file():
        return load_model(path.parent, patch_size=patch_size, device=device)
    else:
        state = project_keys(read_state(path))
        model = _from_shapes(path, state, patch_size)
    _load_strictly(model, state, path)
    return model.to(device).eval()


def save_model(model: nn.Module, folder: str | Path) -> None:
    """Writes `config.json`, `model.safetensors` and the model card into `folder`, each file whole or not at all.

    Raises InputError for details that are not of the form that `models.card` describes.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    plain: Any = getattr(model, "_orig_mod", model)  # as torch.compile wraps it
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in plain.state_dict().items()}
    content = save(state, metadata={"format": "pt"})  # save_file's error of a full disk is no OSError
    write_description(folder, config_of(plain), plain.details)  # first: it is refused when the details are wrong
    _replace(folder / WEIGHTS_NAME, lambda temporary: temporary.write_bytes(content))


def write_description(folder: Path, config: Mapping[str, Any], details: Mapping[str, Any]) -> None:
    """Writes what stands beside the tensors: `config.json` and the model card. Raises InputError as `save_model`."""
    check_details(details)
    content = json.dumps({**config, "details": details}, indent=2, ensure_ascii=False) + "\n"
    _replace(folder / CONFIG_NAME, lambda temporary: temporary.write_text(content, encoding="utf-8"))
    card = model_card(config, details)
    _replace(folder / CARD_NAME, lambda temporary: temporary.write_text(card, encoding="utf-8"))


def save_published(model: MedicalPatchNet, path: Path) -> None:
    """Writes a state dict in the published layout. It carries tensors only: sizes, labels and details are left behind.

    Raises InputError for a network that this layout cannot tell: another backbone, image size or label order.
    """
    published = (PUBLISHED_IMAGE_SIZE, PUBLISHED_LABELS)
    if model.backbone not in TORCHVISION or (model.image_size, model.labels) != published:
        raise InputError(
            f"{path}: the published layout holds an EfficientNet of torchvision for {PUBLISHED_IMAGE_SIZE} px and the "
            f"14 CheXpert labels, not {model.backbone} for {model.image_size} px and {len(model.labels)} labels"
        )
    buffer = io.BytesIO()  # given a path, torch would write the temporary file's name into the archive
    torch.save(published_keys(model.state_dict()), buffer)
    path.parent.mkdir(parents=True, exist_ok=True)
    _replace(path, lambda temporary: temporary.write_bytes(buffer.getvalue()))


def config_of(model: Any) -> dict[str, Any]:
    """What `config.json` holds: the arguments that build the same network again."""
    return {
        "backbone": model.backbone,
        "patch_size": model.patch_size,
        "image_size": model.image_size,
        "labels": list(model.labels),
    }


def weights_file(path: str | Path) -> Path:
    """The file that holds the tensors of what `load_model` was given: the one whose sha256 names the weights."""
    path = Path(path)
    return path / WEIGHTS_NAME if path.is_dir() else path


def read_state(path: Path) -> dict[str, Tensor]:
    """The tensors of a `.pt` or `.safetensors` file under their own names. Raises InputError."""
    if not path.is_file():
        raise InputError(f"{path}: no such file or folder of weights")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with warnings.catch_warnings(action="ignore"):  # torch remarks on odd pickles before it refuses them
            state = torch.load(path, map_location="cpu", weights_only=True)
    except SafetensorError as error:
        raise InputError(f"{path}: not a readable safetensors file ({error})") from None
    except pickle.UnpicklingError:
        raise InputError(f"{path}: holds more than tensors, or is damaged; only plain state dicts are read") from None
    except OSError:
        raise
    except Exception as error:  # whatever a damaged file makes of torch's reader
        first_line = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{path}: damaged or not a weights file ({first_line})") from None
    if not isinstance(state, Mapping) or not all(_is_named_tensor(*item) for item in state.items()):
        raise InputError(f"{path}: not a state dict (a mapping from names to tensors)")
    return dict(state)


def _is_named_tensor(name: object, tensor: object) -> bool:
    return isinstance(name, str) and isinstance(tensor, Tensor)


def project_keys(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Renames the published layout (`baseBackbone.` + torchvision's keys, perhaps `_orig_mod.`) to the project's."""

    def rename(name: str) -> str:
        name = name.replace("_orig_mod.", "")
        name = re.sub(r"^baseBackbone\.classifier\.1\.", "head.", name)
        return re.sub(r"^baseBackbone\.", "", name)

    return {rename(name): tensor for name, tensor in state.items()}


def published_keys(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of `project_keys`."""
    return {"baseBackbone." + re.sub(r"^head\.", "classifier.1.", name): tensor for name, tensor in state.items()}


def _from_folder(folder: Path) -> tuple[MedicalPatchNet, dict[str, Tensor]]:
    path = folder / CONFIG_NAME
    wanted = _read_config(path)
    try:
        return MedicalPatchNet(**wanted), read_state(folder / WEIGHTS_NAME)
    except InputError:
        raise
    except ValueError as error:
        raise InputError(f"{path}: {error}") from None


_CONFIG_KINDS = {"backbone": str, "patch_size": int, "image_size": int, "labels": list, "details": dict}


def _read_config(path: Path) -> dict[str, Any]:
    """The arguments of the network that the file describes. Raises InputError that names the entry."""
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path.parent}: no {path.name} in this folder; expected it beside {WEIGHTS_NAME}") from None
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise InputError(f"{path}: not a json file") from None
    if not isinstance(config, dict):
        raise InputError(f"{path}: not a json object")
    config.setdefault("details", {})  # which older folders lack
    for name, kind in _CONFIG_KINDS.items():
        if name not in config:
            raise InputError(f"{path}: no entry {name!r}")
        if type(config[name]) is not kind:
            raise InputError(f"{path}: {name}: {config[name]!r} is no {kind.__name__}")
    labels = config["labels"]
    if not all(_is_a_name(label) for label in labels) or len(set(labels)) < len(labels):
        raise InputError(f"{path}: labels: expected names without / and \\, each once")
    try:
        check_details(config["details"])
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    return {name: config[name] for name in _CONFIG_KINDS}


def _is_a_name(label: object) -> bool:
    """Whether a label can be a part of a file's name, as the pictures of `predictImage.py` are called."""
    return isinstance(label, str) and bool(label.strip()) and label.isprintable() and not set(label) & set("/\\")


def _from_shapes(path: Path, state: Mapping[str, Tensor], patch_size: int | None) -> MedicalPatchNet:
    stem, head = state.get("features.0.0.weight"), state.get("head.weight")
    if stem is None or head is None:
        raise InputError(f"{path}: neither the published layout (baseBackbone.*) nor a folder of this project")
    if not stem.ndim or not head.ndim:
        raise InputError(f"{path}: the stem or the head is a single number, the network needs more")
    if len(stem) not in _BACKBONE_OF_STEM_WIDTH:
        raise InputError(f"{path}: a stem of {len(stem)} channels is neither EfficientNet-B0 (32) nor V2-S (24)")
    if len(head) != len(PUBLISHED_LABELS):
        raise InputError(f"{path}: {len(head)} outputs, where the {len(PUBLISHED_LABELS)} CheXpert labels are needed")
    if patch_size is None:
        raise InputError(
            f"{path}: this file does not carry its patch size; "
            f"give --patch-size 64 for MedicalPatchNet or {PUBLISHED_IMAGE_SIZE} for the baseline"
        )
    backbone = _BACKBONE_OF_STEM_WIDTH[len(stem)]
    return build_model(backbone, patch_size=patch_size, image_size=PUBLISHED_IMAGE_SIZE, labels=PUBLISHED_LABELS)


def _load_strictly(model: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    expected = model.state_dict()
    for name, tensor in expected.items():
        if name not in state:
            raise InputError(f"{path}: tensor {name!r} is missing")
        if state[name].shape != tensor.shape:
            found, wanted = tuple(state[name].shape), tuple(tensor.shape)
            raise InputError(f"{path}: tensor {name!r} has shape {found}, the network needs {wanted}")
    unknown = sorted(set(state) - set(expected))
    if unknown:
        raise InputError(f"{path}: {len(unknown)} tensors that the network does not have, such as {unknown[0]!r}")
    model.load_state_dict(state)


def _replace(target: Path, write: Callable[[Path], object]) -> None:
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        write(temporary)
        with open(temporary, "rb") as written:
            os.fsync(written.fileno())
        os.replace(temporary, target)
    except OSError as error:  # a full disk does not say which file it was
        error.filename = error.filename or str(target)
        raise
    finally:
        temporary.unlink(missing_ok=True)
