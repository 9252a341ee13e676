"""Predicts single films: probabilities, decisions, and which patches speak for and against each label.

Takes PNG, JPEG, TIFF and DICOM; needs no labels. Writes predictions.csv, predictions.json and pictures of the evidence
in the film's own frame. Of a film only its file's name is repeated, with --anonymous not even that, and nothing that a
DICOM file says in words; text burnt into the pixels stays visible. A research tool, not a medical device.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

import cli
from cxr.files import InputError, replacing, sha256, write_json
from cxr.film_folder import LooseFilm, LooseFilms, find_films, network_input
from cxr.grey import USAGE, Grey
from cxr.images import Crop, resize, to_unit
from cxr.tables import write_csv
from models.checkpoint import config_of, load_model, weights_file
from models.hub import resolve_weights
from models.patch_net import MedicalPatchNet
from reporting.overlays import LOGIT_RANGE, evidence_scale, overlay
from saliency import patch_maps
from saliency.cam import class_activation_maps
from saliency.contributions import Votes
from training.workers import ignore_signals, plain_failures

EXAMPLES = """
python predictImage.py film.dcm --weights savedModels/MedicalPatchNet --output predicted
python predictImage.py films/ --weights savedModels/MedicalPatchNet --output predicted --anonymous --overlays none
python predictImage.py a.png b.jpg --output predicted --patch-size 64 \\
    --weights hf://patrick-w/MedicalPatchNet/MedicalPatchNet_weights.pt
"""

DEFAULT_THRESHOLD = 0.5
STRONGEST = 3
"""Patches listed for and against each label."""

OVERLAYS = "overlays"
"""Folder of the pictures below that of the results."""


@dataclass
class Prediction:
    """overlays: label -> the picture's file, and what its colours mean."""

    film: LooseFilm
    votes: Votes
    overlays: dict[str, dict[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Decider:
    """thresholds: the probability from which each label is decided positive, (C,); source: where they are from."""

    labels: tuple[str, ...]
    thresholds: np.ndarray
    source: str

    @classmethod
    def of(cls, model: MedicalPatchNet) -> Decider:
        known = model.details.get("thresholds", {})
        values = [DEFAULT_THRESHOLD if known.get(label) is None else known[label] for label in model.labels]
        missing = sum(known.get(label) is None for label in model.labels)
        source = f"{DEFAULT_THRESHOLD} for {missing} of {len(values)} labels, for which the weights carry none"
        return cls(model.labels, np.array(values, dtype=float), source if missing else "from the weights' config.json")

    def positive(self, votes: Votes) -> np.ndarray:
        """(C,) bool"""
        return votes.probabilities >= self.thresholds


def main(argv: Sequence[str] | None = None) -> int:
    args = _parse(argv)
    files = find_films(args.films, anonymous=args.anonymous, overlays=args.output / OVERLAYS)
    device = cli.pick_device(args.device)
    weights = resolve_weights(args.weights)
    model = load_model(weights, patch_size=args.patch_size, device=device).to(memory_format=torch.channels_last)
    grid = _shift_grid(model, args.steps_per_patch)
    decider = Decider.of(model)
    grey = Grey.parse(args.grey) if args.grey else Grey.from_json(model.details.get("grey"), "config.json, details")
    facts = {
        "grey": grey.to_json(),
        "weights": {"name": args.weights, "sha256": sha256(weights_file(weights))},
        "model": config_of(model),
        "thresholds": decider.source,
        "device": device,
    }
    _make_folder(args.output)
    films = LooseFilms(files, model.image_size, anonymous=args.anonymous, grey=grey)
    predictions, unreadable = _predict_all(model, films, decider, args)
    _write(args.output, facts, decider, predictions, unreadable)
    if args.overlays != "none" and predictions:
        _draw_all(model, grid, decider, predictions, films, args)
        _write(args.output, facts, decider, predictions, unreadable)
    print(f"{args.output}: predictions.csv, predictions.json; {len(predictions)} of {len(films)} films predicted")
    return cli.EXIT_BAD_INPUT if unreadable else 0


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = cli.parser(__doc__, EXAMPLES)
    add = parser.add_argument
    add("films", nargs="+", type=Path, metavar="FILE|FOLDER", help="PNG, JPEG, TIFF, DICOM; folders with subfolders")
    add("--weights", required=True, help="folder, .pt or .safetensors file, or hf://owner/repo[@revision][/file]")
    add("--output", type=Path, required=True, help="folder of the results")
    add("--patch-size", "-patchSize", type=int, help="needed for published .pt files: 64, or 512 for the baseline")
    add("--overlays", choices=("positive", "all", "none"), default="positive",
        help="labels to draw; positive: those decided so, else the most probable one")  # fmt: skip
    add("--steps-per-patch", type=int, default=8, help="fineness of the overlays; a divisor of the patch size")
    add("--anonymous", action="store_true", help="number the films and repeat no file name")
    add("--grey", nargs="+", metavar="RULE", help=f"{USAGE}; default: the rule that the weights were trained with")
    add("--batch-size", "-bs", type=int, default=8, help="films per batch")
    cli.add_workers(parser, most=8)
    cli.add_device(parser)
    args = parser.parse_args(argv)
    if args.batch_size < 1:
        parser.error("--batch-size must be 1 or more")
    return args


def _make_folder(output: Path) -> None:
    """Before the films are predicted: who learns only then that nothing can be written has waited in vain."""
    output.mkdir(parents=True, exist_ok=True)
    if not os.access(output, os.W_OK):
        raise InputError(f"--output {output}: this folder cannot be written to")


def _shift_grid(model: MedicalPatchNet, steps_per_patch: int) -> patch_maps.ShiftGrid:
    try:
        return patch_maps.ShiftGrid(model.patch_size, steps_per_patch, model.image_size)
    except ValueError as error:
        raise InputError(f"--steps-per-patch: {error}") from None


# ---------------------------------------------------------------------------------------------------------- prediction


def _predict_all(
    model: MedicalPatchNet, films: LooseFilms, decider: Decider, args: argparse.Namespace
) -> tuple[list[Prediction], list[str]]:
    """Predictions in the films' order, printed as they come, and the names of films that cannot be read."""
    workers = args.workers if len(films) > args.batch_size else 0
    loader = DataLoader(
        films, batch_size=args.batch_size, num_workers=workers, collate_fn=list, worker_init_fn=ignore_signals
    )
    predictions: list[Prediction] = []
    unreadable: list[str] = []
    with plain_failures(), tqdm(total=len(films), desc="predict", unit="film") as bar:
        for batch in loader:
            for prediction in _predict([film for film in batch if not film.error], model):
                bar.write(_told(prediction, decider))
                predictions.append(prediction)
            for film in batch:
                if film.error:
                    bar.write(f"error: {film.name}: {film.error}", file=sys.stderr)
                    unreadable.append(film.name)
            bar.update(len(batch))
    return predictions, unreadable


@torch.inference_mode()
def _predict(films: list[LooseFilm], model: MedicalPatchNet) -> Iterator[Prediction]:
    """The films' logits and the patches' are computed apart: else their agreement would say nothing."""
    if not films:
        return
    images = torch.stack([film.image for film in films if film.image is not None])  # (B, 1, S, S)
    model.check_images(images)
    logits = model(images.to(next(model.parameters()).device)).double().cpu().numpy()  # (B, C)
    if not np.isfinite(logits).all():
        raise InputError("the network's logits are no finite numbers; its weights are damaged")
    for film, image, film_logits in zip(films, images, logits, strict=True):
        assert film.crop is not None
        grid = patch_maps.evidence_grid(model, image, steps_per_patch=1, batch_size=1)  # (C, n, n)
        votes = Votes(film_logits, grid.flatten(1).T.double().numpy(), film.crop)
        yield Prediction(replace(film, image=None), votes)  # a folder's pixels need not fit into memory


def _told(prediction: Prediction, decider: Decider) -> str:
    """The text that is printed of a film: its warnings, and a line per label."""
    votes = prediction.votes
    lines = [prediction.film.name, *(f"  warning: {warning}" for warning in prediction.film.warnings)]
    lines.append("  label                       probability  threshold  decision      logit  sum of patches")
    values = (votes.probabilities, decider.thresholds, votes.logits, votes.sums)
    for label, positive, *numbers in zip(decider.labels, decider.positive(votes), *values, strict=True):
        probability, threshold, logit, total = numbers
        decision = "positive" if positive else "negative"
        lines.append(f"  {label:27} {probability:11.3f} {threshold:10.3f}  {decision} {logit:10.4f} {total:15.4f}")
    lines.append(f"  thresholds: {decider.source}")
    lines.append(f"  the sums of the {len(votes.patch_logits)} patches are within {votes.error:.1e} of the logits")
    return "\n".join(lines)


# ------------------------------------------------------------------------------------------------------------ pictures


def _draw_all(
    model: MedicalPatchNet,
    grid: patch_maps.ShiftGrid,
    decider: Decider,
    predictions: list[Prediction],
    films: LooseFilms,
    args: argparse.Namespace,
) -> None:
    patches = grid.n**2 if grid.patch_size < grid.image_size else 1
    with tqdm(total=patches * len(predictions), desc="overlays", unit="patch") as bar:
        for prediction in predictions:
            labels = _drawn(prediction.votes, decider, args.overlays)
            film = films.read_again(prediction.film)
            crop = Crop.centred(*film.size)
            image = network_input(film, crop, model.image_size)
            if patches == 1:  # a baseline: no evidence by place, only where it looks
                heat = class_activation_maps(model, image, methods=("gradcam",))["gradcam"]  # (C, S, S)
                bar.update()
            else:
                heat = _evidence(model, image, grid, args.batch_size, bar)
            drawn = {decider.labels[i]: heat[i] for i in labels}
            _draw(prediction, to_unit(film)[0].numpy(), crop, drawn, args.output, signed=patches > 1)


def _drawn(votes: Votes, decider: Decider, wanted: str) -> list[int]:
    """The labels to draw, as positions."""
    if wanted == "all":
        return list(range(len(decider.labels)))
    positive: list[int] = np.flatnonzero(decider.positive(votes)).tolist()
    return positive or [int(votes.probabilities.argmax())]


def _evidence(model: MedicalPatchNet, image: Tensor, grid: patch_maps.ShiftGrid, batch_size: int, bar: tqdm) -> Tensor:
    """The corrected raw maps of the crop, (C, S, S) in [0, 1], 0.5 neutral."""
    logits = patch_maps.evidence_grid(
        model, image, steps_per_patch=grid.steps, batch_size=batch_size, progress=bar.update
    )
    sizes = {"patch_size": grid.patch_size, "steps_per_patch": grid.steps, "image_size": grid.image_size}
    return patch_maps.to_unit(patch_maps.maps_from_grid(logits, protocol="corrected", **sizes)["raw"])


def _draw(
    prediction: Prediction, film: np.ndarray, crop: Crop, heat: dict[str, Tensor], output: Path, *, signed: bool
) -> None:
    """A picture per label, of the film's size (H, W): colours where the network saw it, the bare film around."""
    seen = np.s_[crop.top : crop.top + crop.side, crop.left : crop.left + crop.side]
    picture = np.repeat(np.rint(255 * film).astype(np.uint8)[..., None], 3, axis=2)  # (H, W, 3)
    for label, crop_heat in heat.items():
        full = resize(crop_heat[None], crop.side)[0].numpy()  # (side, side)
        picture[seen] = overlay(film[seen], full, signed=signed)
        target = output / OVERLAYS / f"{prediction.film.name}_{label}.png"
        with replacing(target) as temporary:
            Image.fromarray(picture).save(temporary, format="png", compress_level=3)
        meaning = {"method": "raw", "full_colour_at_logit": LOGIT_RANGE * evidence_scale(full)}
        prediction.overlays[label] = {"file": f"{OVERLAYS}/{target.name}"} | (
            meaning if signed else {"method": "gradcam"}
        )


# -------------------------------------------------------------------------------------------------------------- tables


def _write(
    output: Path, facts: dict[str, Any], decider: Decider, predictions: list[Prediction], unreadable: list[str]
) -> None:
    films = [_entry(prediction, decider) for prediction in predictions]
    columns = ("label", "probability", "threshold", "positive", "logit", "sum_of_patches")
    rows = [{"film": film["film"]} | {name: row[name] for name in columns} for film in films for row in film["labels"]]
    write_csv(output / "predictions.csv", pd.DataFrame(rows, columns=["film", *columns]))
    write_json(output / "predictions.json", facts | {"films": films, "unreadable": unreadable})


def _entry(prediction: Prediction, decider: Decider) -> dict[str, Any]:
    votes, crop = prediction.votes, prediction.votes.crop
    labels = [
        {
            "label": label,
            "probability": float(votes.probabilities[i]),
            "threshold": float(decider.thresholds[i]),
            "positive": bool(decider.positive(votes)[i]),
            "logit": float(votes.logits[i]),
            "sum_of_patches": float(votes.sums[i]),
            "strongest_for": [asdict(patch) for patch in votes.strongest(i, sign=1, count=STRONGEST)],
            "strongest_against": [asdict(patch) for patch in votes.strongest(i, sign=-1, count=STRONGEST)],
            "overlay": prediction.overlays.get(label),
        }
        for i, label in enumerate(decider.labels)
    ]
    return {
        "film": prediction.film.name,
        "width": crop.film_width,
        "height": crop.film_height,
        "warnings": list(prediction.film.warnings),
        "labels": labels,
    }


if __name__ == "__main__":
    cli.run(main)
