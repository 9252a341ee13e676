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
from cxr.labels import LabelSet
from cxr.names import REFERENCE
from models.card import check_details, model_card
from models.weight_names import TENSORS

CONFIG_NAME = "config.json"
WEIGHTS_NAME = TENSORS
CARD_NAME = "README.md"

MAX_LABELS = 1000


def save_model(model: nn.Module, folder: str | Path) -> None:
    """Writes `config.json`, the model card and `model.safetensors` into `folder`, each file whole or not at all.

    A reference of relative maps that lies there is removed: it is of other weights.
    Raises InputError for details that are not of the form that `models.card` describes.
    """
    folder = Path(folder)
    plain: Any = getattr(model, "_orig_mod", model)  # as torch.compile wraps it
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in plain.state_dict().items()}
    content = save(state, metadata={"format": "pt"})  # save_file's error of a full disk is not an OSError
    write_description(folder, config_of(plain), plain.details)  # first: it is refused when the details are wrong
    (folder / REFERENCE).unlink(missing_ok=True)
    with replacing(folder / WEIGHTS_NAME) as temporary:
        temporary.write_bytes(content)


def write_description(folder: Path, config: Mapping[str, Any], details: Mapping[str, Any]) -> None:
    """Writes what stands beside the tensors: `config.json` and the model card. Raises InputError as `save_model`."""
    check_details(details)
    write_json(folder / CONFIG_NAME, {**config, "details": details})
    write_text(folder / CARD_NAME, model_card(config, details))


def config_of(model: Any) -> dict[str, Any]:
    """The `config.json` of a network apart from its details: the arguments that build the same network again."""
    labels = model.label_set
    return config_entries(
        backbone=model.backbone,
        patch_size=model.patch_size,
        image_size=model.image_size,
        labels=labels.names,
        aggregation=model.aggregation.name,
        label_set={} if labels == LabelSet.of(labels.names) else labels.to_json(),
    )


def config_entries(
    *,
    backbone: str,
    patch_size: int,
    image_size: int,
    labels: Sequence[str],
    aggregation: str,
    label_set: Mapping[str, Any],
) -> dict[str, Any]:
    """The entries of `config.json` in their order; defaults that earlier versions did not know are left out.

    label_set: `groups` and `tasks` where the labels' names alone do not say them.
    """
    entries = {"backbone": backbone, "patch_size": patch_size, "image_size": image_size, "labels": list(labels)}
    facts = {name: label_set[name] for name in ("groups", "tasks") if name in label_set}
    newer = {"aggregation": aggregation, "label_set": facts}
    return entries | {name: value for name, value in newer.items() if value != _OLDER[name]}


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
    "label_set": dict,
}
_OLDER: dict[str, Any] = {"details": {}, "aggregation": "mean", "label_set": {}}
"""Entries that folders of earlier versions lack, and what stands for them."""


def read_config(folder: Path) -> dict[str, Any]:
    """The arguments of the network that a folder describes. Raises InputError that names the entry."""
    path = folder / CONFIG_NAME
    if not path.is_file():
        raise InputError(f"{place(folder)}: no {CONFIG_NAME} in this folder; expected it beside {WEIGHTS_NAME}")
    config = read_json(path)
    config = _OLDER | config
    for name, kind in _CONFIG_KINDS.items():
        if name not in config:
            raise InputError(f"{place(path, column=name)}: no such entry")
        if type(config[name]) is not kind:
            raise InputError(f"{place(path, column=name)}: {quoted(config[name])} is not a {_JSON_NAMES[kind]}")
    if len(config["labels"]) > MAX_LABELS or not all(map(_is_short_text, config["labels"])):
        raise InputError(f"{place(path, column='labels')}: expected at most {MAX_LABELS} names of 100 characters")
    try:
        check_details(config["details"])
    except InputError as error:
        raise InputError(f"{place(path)}, {error}") from None
    return {name: config[name] for name in _CONFIG_KINDS}


_JSON_NAMES = {str: "text", int: "whole number", list: "list", dict: "json object"}


def _is_short_text(label: object) -> bool:
    """Whether a label can be part of a file's name; the label set checks the rest."""
    return isinstance(label, str) and len(label) <= 100
