"""Converts weights between a folder and the published `.pt` layout, and adds measured results to their description.

python convertWeights.py convert MedicalPatchNet_weights.pt savedModels/MedicalPatchNet --patch-size 64
python convertWeights.py convert savedModels/MedicalPatchNet MedicalPatchNet_weights.pt
python convertWeights.py describe savedModels/MedicalPatchNet --results results/MedicalPatchNet
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Sequence
from pathlib import Path

import torch

import cli
from cxr.files import InputError
from models.card import measured_details, measured_weights
from models.checkpoint import (
    config_of,
    load_model,
    project_keys,
    read_state,
    save_model,
    save_published,
    weights_file,
    write_description,
)
from models.hub import resolve_weights


def main(argv: Sequence[str] | None = None) -> int:
    args = _parse(argv)
    if args.command == "convert":
        convert(resolve_weights(args.weights), args.target, args.patch_size)
    else:
        describe(args.folder, args.results)
    return 0


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    to_form = commands.add_parser("convert", help="a published .pt to a folder, or a folder to a published .pt")
    to_form.add_argument("weights", metavar="IN", help="folder, .pt or .safetensors file, or hf://owner/repo[/file]")
    to_form.add_argument("target", metavar="OUT", type=Path, help="NAME.pt for the published layout, else a folder")
    to_form.add_argument("--patch-size", type=int, help="of a .pt: 64, or 512 for the baseline")
    facts = commands.add_parser("describe", help="add thresholds and measured tables to config.json and the model card")
    facts.add_argument("folder", metavar="FOLDER", type=Path, help="config.json and model.safetensors")
    facts.add_argument("--results", type=Path, required=True, help="what evalClassification.py wrote for these weights")
    return parser.parse_args(argv)


def convert(source: Path, target: Path, patch_size: int | None = None) -> None:
    """Writes `source` in the other form to `target`, reads it back, compares every tensor, prints both sha256.

    Raises InputError when `source` cannot be read, `target` cannot hold it, or the tensors differ.
    """
    model = load_model(source, patch_size=patch_size)
    if source.is_file():
        origin = {"converted_from": source.name, "sha256": _sha256(source), "note": _UNRECORDED}
        model.details.setdefault("training_data", origin)
    if target.suffix == ".pt":
        save_published(model, target)
    else:
        save_model(model, target)
    before, after = (project_keys(read_state(weights_file(path))) for path in (source, target))
    same = before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    if not same:
        raise InputError(f"{target}: differs from {source} when read back; is the disk sound?")
    for path in (source, target):
        print(f"{_sha256(weights_file(path))}  {weights_file(path)}")
    print(f"{len(after)} tensors, identical in both")


_UNRECORDED = (
    "this file carries no record of its training; the weights published with the paper were trained on CheXpert with "
    "the labels of VisualCheXbert"
)


def describe(folder: Path, results: Path) -> None:
    """Adds what `results` measured to the description of the weights in `folder`.

    Raises InputError when `folder` holds no weights, or `results` nothing measured or what other weights gave.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; a .pt carries no description: convert it first")
    model = load_model(folder)
    if measured_weights(results) not in (None, _sha256(weights_file(folder))):
        raise InputError(f"{results}: measured with other weights than those in {folder}")
    write_description(folder, config_of(model), model.details | measured_details(results))
    print(f"{folder}: config.json and README.md now carry what was measured in {results}")


def _sha256(path: Path) -> str:
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


if __name__ == "__main__":
    cli.run(main)
