"""Converts weights between a folder and the published `.pt` layout, and adds measured results to their description."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

import cli

EXAMPLES = """
python convertWeights.py convert MedicalPatchNet_weights.pt savedModels/Published --patch-size 64
python convertWeights.py convert savedModels/Published Published_weights.pt
python convertWeights.py describe demo/savedModels/MedicalPatchNet --results demo/results/MedicalPatchNet
"""

_UNRECORDED = (
    "this file carries no record of its training; the weights published with the paper were trained on CheXpert with "
    "the labels of VisualCheXbert"
)


def main(argv: Sequence[str] | None = None) -> int:
    args = _parse(argv)
    from cxr.runs.folder_lock import locked

    if args.command == "convert":
        from models.hub import resolve_weights

        source = resolve_weights(args.weights)
        with locked(args.target.parent if args.target.suffix == ".pt" else args.target, depth=0):
            convert(source, args.target, args.patch_size)
    else:
        from models.measured import describe

        with locked(args.folder, depth=0) if args.folder.is_dir() else nullcontext():
            describe(args.folder, args.results)
            print(f"{args.folder}: config.json and README.md now carry what was measured in {args.results}")
            share_reference(args.folder, args.results)
    return 0


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = cli.parser(__doc__, EXAMPLES)
    commands = parser.add_subparsers(dest="command", required=True)
    to_form = commands.add_parser("convert", help="a published .pt to a folder, or a folder to a published .pt")
    to_form.add_argument(
        "weights", type=cli.weights, metavar="IN", help="folder, .pt or .safetensors file, or hf://owner/repo[/file]"
    )
    to_form.add_argument("target", metavar="OUT", type=cli.path, help="NAME.pt for the published layout, else a folder")
    to_form.add_argument("--patch-size", type=cli.whole_number(1, 4096), help="of a .pt: 64, or 512 for the baseline")
    facts = commands.add_parser("describe", help="add thresholds and measured tables to config.json and the model card")
    facts.add_argument("folder", metavar="FOLDER", type=cli.path, help="config.json and model.safetensors")
    facts.add_argument(
        "--results", type=cli.path, required=True, help="what evalClassification.py wrote for these weights"
    )
    return parser.parse_args(argv)


def share_reference(folder: Path, results: Path) -> None:
    """Copies the reference of relative maps from `results` beside the weights in `folder`, and prints what it did.

    Raises InputError when it is of other weights, or was changed since it was made.
    """
    from cxr.names import reference_file
    from cxr.runs.run_record import RunRecord
    from models.checkpoint import load_model, weights_file
    from saliency.reference import reference_of

    path, model = reference_file(results), load_model(folder)
    RunRecord(results).check_unchanged(path)
    reference = reference_of(path, model, weights_file(folder))
    if reference is None:
        if model.patch_size < model.image_size:
            print(f"{results}: no {path.name}, hence none beside the weights; evalClassification.py makes it with maps")
        return
    reference.save_beside(weights_file(folder))
    print(f"{reference_file(folder)}: the mean film of each view, for relative maps of single films")


def convert(source: Path, target: Path, patch_size: int | None = None) -> None:
    """Writes `source` in the other form to `target`, reads it back, compares every tensor, prints both sha256.

    Raises InputError when `source` cannot be read, `target` cannot hold it, or the tensors differ.
    """
    from cxr.files import InputError, place, sha256
    from cxr.names import reference_file
    from models.checkpoint import load_model, read_tensors, save_model, weights_file
    from models.published import save_published
    from saliency.reference import reference_of

    model = load_model(source, patch_size=patch_size)
    if source.is_file():
        origin = {"converted_from": source.name, "sha256": sha256(source), "note": _UNRECORDED}
        model.details.setdefault("training_data", origin)
    reference = reference_of(reference_file(source), model, weights_file(source)) if source.is_dir() else None
    if target.suffix == ".pt":
        save_published(model, target)
    else:
        save_model(model, target)
    written, kept = read_tensors(target), model.state_dict()
    if written.keys() != kept.keys() or not all(written[name].equal(kept[name]) for name in kept):
        raise InputError(f"{place(target)}: differs from {place(source)} when read back; is the disk sound?")
    for path in (source, target):
        print(f"{sha256(weights_file(path))}  {weights_file(path)}")
    print(f"{len(written)} tensors, identical in both")
    if reference is not None and not (target.is_dir() and reference.save_beside(weights_file(target))):
        print(f"{reference_file(source)} belongs to {weights_file(source)} and is not carried over")


if __name__ == "__main__":
    cli.run(main)
