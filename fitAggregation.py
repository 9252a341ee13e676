"""Fits a weight per label and patch place to a trained network, whose patch logits stay as they are.

The network runs once over the films for training and validation; a logistic regression per label on its patch logits
then gives the weights of the aggregation `position`, pulled towards the mean as far as the validation films want it.
Every patch keeps an exact share of the logit. Test films are not read; the output folder holds complete weights.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cli
from cxr.files import InputError, place, quoted, sha256

if TYPE_CHECKING:  # main imports what is heavy after the options are parsed
    from cxr.manifests.films import Films
    from models.patch_net import MedicalPatchNet
    from training.position_fit import PositionFit

EXAMPLES = """
python fitAggregation.py --weights savedModels/MedicalPatchNet --data data/CheXpert-1024 \\
    --output savedModels/PositionNet
python fitAggregation.py --weights demo/savedModels/MedicalPatchNet --data demo/data/CheXpert-256 \\
    --output demo/savedModels/PositionNet --device cpu
"""

STAGE = "position_weights"
TABLE = "position_fit.csv"

_MEASURED = ("thresholds", "classification", "localization", "certificates")
"""Details that were measured with the network as it was."""


def main(argv: Sequence[str] | None = None) -> int:
    args = _parse(argv)
    from cxr.runs.fingerprints import file_fingerprint, films_fingerprint
    from cxr.runs.folder_lock import locked
    from cxr.runs.run_record import RunRecord
    from models.checkpoint import load_model
    from models.hub import resolve_weights
    from models.weights_folder import CONFIG_NAME, WEIGHTS_NAME, config_of, weights_file
    from training.split_films import read_splits

    device = cli.pick_device(args.device)
    path = resolve_weights(args.weights)
    with locked(args.output, depth=0):
        record = RunRecord(args.output)
        _refuse_other_weights(path, args.output, record)
        model = load_model(path, patch_size=args.patch_size, device=device)
        source = {"path": args.weights, "sha256": sha256(weights_file(path))}
        record.belongs_to(source["sha256"], config_of(model))
        films = read_splits(args.data, uncertain=args.uncertain, frontal_only=args.frontal_only)
        made_from: dict[str, Any] = {
            "inputs": {
                "weights_sha256": source["sha256"],
                "tables": [file_fingerprint(part.table) for part in films],
                "films": [films_fingerprint(part.files, args.data) for part in films],
            },
            "options": {"uncertain": args.uncertain, "frontal_only": args.frontal_only},
            "outputs": [args.output / WEIGHTS_NAME, args.output / TABLE],
        }
        described = (args.output / CONFIG_NAME).is_file()  # which `convertWeights.py describe` may change later on
        if described and record.is_complete(STAGE, **made_from):
            print(f"{args.output}: complete")
            return 0
        fitted = _with_position_weights(model, films[0])  # refused, where it cannot be, before the films are read
        record.note({**cli.run_facts(args, device), "model": config_of(model), "weights": source})
        with record.stage(STAGE, **made_from) as stage:
            _fit(model, fitted, films, args.output, device, {"batch_size": args.batch_size, "workers": args.workers})
            stage.wrote(*made_from["outputs"])
    return 0


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = cli.parser(__doc__.splitlines()[0], EXAMPLES)
    add = parser.add_argument
    add(
        "--weights",
        type=cli.weights,
        required=True,
        help="folder, .pt or .safetensors file, or hf://owner/repo[@revision][/file]",
    )
    add("--data", type=cli.existing_folder, required=True, help="what the network was trained on: train.csv, valid.csv")
    add("--output", type=cli.path, required=True, help="folder of the new weights")
    add("--patch-size", type=cli.whole_number(1, 4096), help="needed for published .pt files: 64")
    add(
        "--uncertain", choices=("zeros", "ones", "ignore"), default="zeros", help="meaning of the label -1, in training"
    )
    add("--frontal-only", action="store_true", help="leave lateral films out of the fit")
    add("--batch-size", "-bs", type=cli.whole_number(1, 2**16), default=16, help="films that are computed at once")
    cli.add_workers(parser)
    cli.add_device(parser)
    return parser.parse_args(argv)


def _refuse_other_weights(source: Path, output: Path, record: Any) -> None:
    """Raises InputError for an output folder whose weights this script did not make, the source's own among them."""
    from models.weights_folder import WEIGHTS_NAME

    there = output / WEIGHTS_NAME
    made_here = WEIGHTS_NAME in record.outputs(STAGE) or STAGE in record.unfinished()
    if source.exists() and output.exists() and source.resolve() in (output.resolve(), there.resolve()):
        raise InputError(f"--output {place(output)}: the folder of --weights, which would be lost; choose another")
    if there.is_file() and not made_here:
        raise InputError(f"--output {place(output)}: holds weights that were not fitted here; choose another folder")


def _with_position_weights(model: MedicalPatchNet, films: Films) -> MedicalPatchNet:
    """The same network with the aggregation `position` at 1 / P, and a description without what was measured before.

    Raises InputError for a baseline, and where network and films share no label.
    """
    from models.checkpoint import build_model

    made = build_model(
        model.backbone,
        patch_size=model.patch_size,
        image_size=model.image_size,
        labels=model.label_set,
        aggregation="position",
    )
    own = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith("aggregation.")}
    made.load_state_dict(made.state_dict() | own)
    made.details = {name: value for name, value in model.details.items() if name not in _MEASURED}
    if not set(films.label_set.names) & set(model.labels):
        ours = ", ".join(map(quoted, model.labels))
        raise InputError(f"{place(films.table)}: none of the network's labels is in it ({ours})")
    return made.eval()


def _fit(
    model: MedicalPatchNet,
    fitted: MedicalPatchNet,
    films: tuple[Films, Films],
    output: Path,
    device: str,
    reading: dict[str, Any],
) -> None:
    """Fits every label, says how it went, and writes weights, description and table."""
    from cxr.tables import write_csv
    from models.weights_folder import save_model
    from training.position_fit import fit_table

    fits = _fits(model, *films, device, reading)
    _set_weights(fitted, fits)
    words = f"position weights per label, fitted to {len(films[0])} films, spreads chosen on {len(films[1])}"
    known = fitted.details.get("training_data")
    fitted.details["training_data"] = (known if isinstance(known, dict) else {}) | {"aggregation": words}
    save_model(fitted, output)
    write_csv(output / TABLE, fit_table(fits))
    print(f"{output}: {words}")


def _fits(
    model: MedicalPatchNet, train: Films, validation: Films, device: str, reading: dict[str, Any]
) -> dict[str, PositionFit]:
    """Label -> its fit, for the network's labels that the films have."""
    from training.position_fit import fit_label, patch_logits_of

    of_train = patch_logits_of(model, train, device, "training", **reading)  # (N, P, C)
    of_validation = patch_logits_of(model, validation, device, "validation", **reading)
    fits: dict[str, PositionFit] = {}
    for output, label in enumerate(model.labels):
        if label not in train.label_set.names:
            print(f"{label}: keeps 1 / P (no column of it in {train.table.name})")
            continue
        column = train.label_set.names.index(label)
        fits[label] = fit_label(
            (of_train[..., output], train.labels[:, column]),
            (of_validation[..., output], validation.labels[:, column]),
        )
        print(f"{label}: {fits[label]}")
    return fits


def _set_weights(fitted: MedicalPatchNet, fits: dict[str, PositionFit]) -> None:
    """Writes the fits of some labels into the network's aggregation."""
    import torch

    aggregation: Any = fitted.aggregation
    with torch.no_grad():
        for label, fit in fits.items():
            row = aggregation.deviation[fitted.labels.index(label)]  # (k, k)
            row.copy_(torch.from_numpy(len(fit.weights) * fit.weights - 1).reshape(row.shape))
            aggregation.offset[fitted.labels.index(label)] = fit.offset


if __name__ == "__main__":
    cli.run(main)
