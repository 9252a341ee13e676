"""A network's folder: `config.json` says what to build, `model.safetensors` holds its tensors, `README.md` is its card.

These are the files that `save_pretrained` of the Hugging Face hub writes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import nn

from cxr.files import InputError, place, quoted, read_json, replacing, write_json, write_text
from models.card import check_details, model_card

CONFIG_NAME = "config.json"
WEIGHTS_NAME = "model.safetensors"
CARD_NAME = "README.md"


def save_model(model: nn.Module, folder: str | Path) -> None:
    """Writes `config.json`, the model card and `model.safetensors` into `folder`, each file whole or not at all.

    Raises InputError for details that are not of the form that `models.card` describes.
    """
    folder = Path(folder)
    plain: Any = getattr(model, "_orig_mod", model)  # as torch.compile wraps it
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in plain.state_dict().items()}
    content = save(state, metadata={"format": "pt"})  # save_file's error of a full disk is not an OSError
    write_description(folder, config_of(plain), plain.details)  # first: it is refused when the details are wrong
    with replacing(folder / WEIGHTS_NAME) as temporary:
        temporary.write_bytes(content)


def write_description(folder: Path, config: Mapping[str, Any], details: Mapping[str, Any]) -> None:
    """Writes what stands beside the tensors: `config.json` and the model card. Raises InputError as `save_model`."""
    check_details(details)
    write_json(folder / CONFIG_NAME, {**config, "details": details})
    write_text(folder / CARD_NAME, model_card(config, details))


def config_of(model: Any) -> dict[str, Any]:
    """The `config.json` of a network apart from its details: the arguments that build the same network again."""
    return config_entries(
        backbone=model.backbone,
        patch_size=model.patch_size,
        image_size=model.image_size,
        labels=model.labels,
        aggregation=model.aggregation.name,
    )


def config_entries(
    *, backbone: str, patch_size: int, image_size: int, labels: Sequence[str], aggregation: str
) -> dict[str, Any]:
    """The entries of `config.json` in their order; the default aggregation is left out, as in earlier versions."""
    entries = {"backbone": backbone, "patch_size": patch_size, "image_size": image_size, "labels": list(labels)}
    return entries if aggregation == _OLDER["aggregation"] else entries | {"aggregation": aggregation}


def weights_file(path: str | Path) -> Path:
    """The file that holds the tensors of what `load_model` was given: the one whose sha256 names the weights."""
    path = Path(path)
    return path / WEIGHTS_NAME if path.is_dir() else path


_CONFIG_KINDS = {
    "backbone": str,
    "patch_size": int,
    "image_size": int,
    "labels": list,
    "details": dict,
    "aggregation": str,
}
_OLDER: dict[str, Any] = {"details": {}, "aggregation": "mean"}
"""Entries that folders of earlier versions lack."""


def read_config(folder: Path) -> dict[str, Any]:
    """The arguments of the network that a folder describes. Raises InputError that names the entry."""
    path = folder / CONFIG_NAME
    if not path.is_file():
        raise InputError(f"{place(folder)}: no {CONFIG_NAME} in this folder; expected it beside {WEIGHTS_NAME}")
    config = read_json(path)
    if not isinstance(config, dict):
        raise InputError(f"{place(path)}: expected a json object, found {quoted(config)}")
    config = _OLDER | config
    for name, kind in _CONFIG_KINDS.items():
        if name not in config:
            raise InputError(f"{place(path, column=name)}: no such entry")
        if type(config[name]) is not kind:
            raise InputError(f"{place(path, column=name)}: {quoted(config[name])} is not a {_JSON_NAMES[kind]}")
    labels = config["labels"]
    if not all(_is_a_name(label) for label in labels) or len(set(labels)) < len(labels):
        raise InputError(f"{place(path, column='labels')}: expected names without / and \\, each once")
    try:
        check_details(config["details"])
    except InputError as error:
        raise InputError(f"{place(path)}, {error}") from None
    return {name: config[name] for name in _CONFIG_KINDS}


_JSON_NAMES = {str: "text", int: "whole number", list: "list", dict: "json object"}


def _is_a_name(label: object) -> bool:
    """Whether a label can be part of a file's name, as the pictures of `predictImage.py` are called."""
    return (
        isinstance(label, str)
        and 0 < len(label.strip()) <= len(label) <= 100
        and label.isprintable()
        and not set(label) & set("/\\")
    )
