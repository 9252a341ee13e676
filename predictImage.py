"""Predicts single films: probabilities, decisions, and which patches speak for and against each label.

Takes PNG, JPEG, TIFF, DICOM and other images, files or folders; needs no labels. Writes predictions.csv (a row for each
film and label), predictions_wide.csv (a row for each film), predictions.json and overlays in the film's own frame.
With a reference beside the weights, also what differs from the average film: relative overlays and shares.
Results name a film by its path below the given folder, with --anonymous by a number, and repeat nothing that a DICOM
file says in words; text burnt into the pixels stays visible. A research tool, not a medical device.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cli
from cxr.files import InputError, place, printable, quoted
from cxr.names import FILM_STRIDE, RELATIVE

if TYPE_CHECKING:  # main imports what is heavy after the options are parsed, so that --help and mistakes answer at once
    from tqdm import tqdm

    from cxr.film_folder import FilmFolder
    from film_prediction import Prediction
    from models.decision import DecisionRule
    from models.patch_net import MedicalPatchNet
    from saliency.contributions import Contributions
    from saliency.evidence.fineness import Fineness

EXAMPLES = """
python predictImage.py film.dcm --weights demo/savedModels/MedicalPatchNet --output demo/predicted
python predictImage.py films/ --weights demo/savedModels/MedicalPatchNet --output demo/predicted --anonymous
python predictImage.py a.png b.jpg --output predicted --overlays none --patch-size 64 \\
    --weights hf://patrick-w/MedicalPatchNet/MedicalPatchNet_weights.pt
"""

FULL_TEXTS = 3
"""Films that are printed with all labels; of more films each is one line."""

WORKER_TIMEOUT = 300.0
"""Seconds without a batch after which a worker process counts as hung."""


def main(argv: Sequence[str] | None = None) -> int:
    args = _parse(argv)
    import medicalpatchnet
    from cxr.film_folder import FilmFolder, find_films
    from cxr.runs.folder_lock import locked
    from reporting.film_predictions import OVERLAYS
    from training.workers import plain_failures

    with plain_failures():
        found = find_films(args.films, anonymous=args.anonymous, overlays=args.output / OVERLAYS)
        model, facts, grey = _load(args.weights, args.patch_size, args.device, args.grey)
        fineness = medicalpatchnet.film_fineness(model, args.steps_per_patch, args.stride)
        _make_folder(args.output)
        films = FilmFolder(found.films, model.image_size, anonymous=args.anonymous, grey=grey)
        for line in filter(None, (found.left_out_line(), *_about_reference(model, facts))):
            print(line)
        sizes = {"batch_size": args.batch_size, "fineness": fineness, "workers": args.workers}
        with locked(args.output):
            unreadable, undrawn = _write_all(args.output, model, facts, films, args.overlays, args.view or "", **sizes)
    _summarise(args.output, len(films), unreadable, undrawn)
    return cli.EXIT_BAD_INPUT if unreadable or undrawn else 0


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = cli.parser(__doc__, EXAMPLES)
    add = parser.add_argument
    add("films", nargs="+", type=cli.path, metavar="FILE|FOLDER", help="images, DICOM; folders with subfolders")
    add(
        "--weights",
        type=cli.weights,
        required=True,
        help="folder, .pt or .safetensors file, or hf://owner/repo[@revision][/file]",
    )
    add("--output", type=cli.path, required=True, help="folder of the results; those of an earlier run are replaced")
    add(
        "--patch-size",
        "-patchSize",
        type=cli.whole_number(1, 4096),
        help="needed for published .pt files: 64, or 512 for the baseline",
    )
    add("--view", choices=("frontal", "lateral"),
        help="of films whose path does not say it, as CheXpert's do: that average film is the comparison")  # fmt: skip
    add("--overlays", choices=("positive", "all", "none"), default="positive",
        help="labels to draw; positive: those decided so, else the most probable one")  # fmt: skip
    cli.add_fineness(parser, FILM_STRIDE)
    add("--anonymous", action="store_true", help="number the films and repeat no file name")
    add("--grey", nargs="+", metavar="RULE",
        help="stored, range LOW HIGH, or percentile; default: the rule that the weights were trained with")  # fmt: skip
    add(
        "--batch-size", "-bs", type=cli.whole_number(1, 4096), default=8, help="films per batch; less needs less memory"
    )
    cli.add_workers(parser, most=8)
    cli.add_device(parser)
    return parser.parse_args(argv)


def _load(weights: str, patch_size: int | None, device: str, grey: Sequence[str] | None) -> tuple[Any, dict, Any]:
    """The network, the facts about it for predictions.json, and the rule of grey values."""
    import medicalpatchnet
    from cxr.files import sha256
    from cxr.pixels.grey import Grey
    from models.checkpoint import config_of, weights_file
    from models.hub import resolve_weights

    device = cli.pick_device(device)
    rule = Grey.parse(grey) if grey else None
    path = resolve_weights(weights)
    model = medicalpatchnet.load(path, patch_size, device)
    facts = {
        "weights": {"name": weights, "sha256": sha256(weights_file(path))},
        "model": config_of(model),
        "device": device,
    }
    rule = rule or Grey.from_json(model.details.get("grey"), "config.json, details")
    return model, facts | {"grey": rule.to_json()}, rule


def _about_reference(model: MedicalPatchNet, facts: dict[str, Any]) -> list[str]:
    """Lines about the films that the weights' reference is the mean of, which predictions.json repeats."""
    from medicalpatchnet import task_names

    if model.reference is None:
        facts["reference"] = None
        return []
    tasks = dict(zip(model.labels, task_names(model), strict=True))
    without = [label for label, task in tasks.items() if task not in model.reference.tasks]
    facts["reference"] = {"films": dict(model.reference.counts), "labels_without": without}
    lines = [f"warning: {warning}" for warning in model.reference.warnings]
    return lines + ([f"no average film of {', '.join(map(quoted, without))}: raw maps only"] if without else [])


def _make_folder(output: Path) -> None:
    """Fails before the films are predicted when nothing could be written afterwards."""
    output.mkdir(parents=True, exist_ok=True)
    if not os.access(output, os.W_OK):
        raise InputError(f"--output {place(output)}: this folder cannot be written to")


def _write_all(
    output: Path,
    model: MedicalPatchNet,
    facts: dict[str, Any],
    films: FilmFolder,
    overlays: str,
    view: str,
    *,
    batch_size: int,
    fineness: Fineness,
    workers: int,
) -> tuple[dict[str, str], dict[str, str]]:
    """Replaces an earlier run's results; returns film -> reason for the unreadable films and those without overlays.

    The earlier files stay until the new predictions are there. The tables are written before the overlays, which take
    longer, and again with them.
    """
    from film_prediction import entry
    from models.decision import DecisionRule
    from reporting.film_predictions import OVERLAYS, earlier_results, remove_results, write_predictions

    earlier = earlier_results(output)
    rule = DecisionRule.of(model)
    facts = facts | {"thresholds": rule.source}
    predictions, unreadable = _predict_all(model, films, rule, view, batch_size, workers)
    planned = _pictures(predictions, rule, overlays)
    names = [name for pictures in planned for name in pictures.values()]
    remove_results(output, earlier)
    write_predictions(output, facts, [entry(of_film, rule) for of_film in predictions], unreadable, names)
    if not names:
        return unreadable, {}
    undrawn = _draw_all(model, planned, predictions, films, output / OVERLAYS, fineness, batch_size)
    write_predictions(output, facts, [entry(of_film, rule) for of_film in predictions], unreadable, names)
    return unreadable, undrawn


# ---------------------------------------------------------------------------------------------------------- prediction


def _predict_all(
    model: MedicalPatchNet, films: FilmFolder, rule: DecisionRule, view: str, batch_size: int, workers: int
) -> tuple[list[Prediction], dict[str, str]]:
    """Predictions in the films' order, printed as they come, and the films that cannot be read with the reason."""
    from torch.utils.data import DataLoader
    from tqdm import tqdm

    from film_prediction import predict_batch
    from training.workers import ignore_signals

    workers = workers if len(films) > batch_size else 0
    loader: DataLoader[Any] = DataLoader(
        films,
        batch_size=batch_size,
        num_workers=workers,
        collate_fn=list,
        worker_init_fn=ignore_signals,
        timeout=WORKER_TIMEOUT if workers else 0,
    )
    predictions: list[Prediction] = []
    unreadable: dict[str, str] = {}
    with tqdm(total=len(films), desc="predict", unit="film", disable=None) as bar:
        for batch in loader:
            for prediction in predict_batch([film for film in batch if not film.error], model, view):
                bar.write(_text(prediction, rule, full=len(films) <= FULL_TEXTS))
                predictions.append(prediction)
            for film in batch:
                if film.error:
                    _complain(bar, film.name, film.error)
                    unreadable[film.name] = film.error
            bar.update(len(batch))
        if len(films) > FULL_TEXTS:
            for note, count in Counter(prediction.note for prediction in predictions if prediction.note).items():
                bar.write(f"{count} films: {note}")
    return predictions, unreadable


def _complain(bar: tqdm, film: str, reason: str) -> None:
    bar.write(f"error: {printable(film)}: {printable(reason)}", file=sys.stderr)


def _text(prediction: Prediction, rule: DecisionRule, *, full: bool) -> str:
    from film_prediction import entry
    from reporting.film_predictions import full_text, one_line

    of_film, parts = entry(prediction, rule), prediction.parts
    agreement = f"the sums of the {len(parts.values)} patches are within {parts.error:.1e} of the logits"
    return full_text(of_film, rule.source, agreement) if full else one_line(of_film)


def _summarise(output: Path, films: int, unreadable: Mapping[str, str], undrawn: Mapping[str, str]) -> None:
    """The last lines: for more than a few films, those with errors once more."""
    if films > FULL_TEXTS:
        for film, reason in {**unreadable, **undrawn}.items():
            print(f"error: {printable(film)}: {printable(reason)}", file=sys.stderr)
    files = "predictions.csv, predictions_wide.csv, predictions.json"
    print(f"{place(output)}: {files}; {films - len(unreadable)} of {films} films predicted")


# ------------------------------------------------------------------------------------------------------------ pictures


def _pictures(predictions: list[Prediction], rule: DecisionRule, wanted: str) -> list[dict[tuple[str, str], str]]:
    """For each prediction (label, method) -> its picture's file name, no two alike in the whole run.

    method: empty for the map of the prediction itself, or relative.
    """
    from cxr.film_folder import LONGEST_FILE_NAME, UniqueNames, shortened

    names = UniqueNames()

    def name(*parts: str) -> str:
        return f"{names.of(shortened('_'.join(filter(None, parts)), LONGEST_FILE_NAME))}.png"

    return [
        {
            (label, method): name(prediction.film.name, label, method)
            for label in _drawn(prediction.parts, rule, wanted)
            for method in (("", RELATIVE) if _has_relative(prediction, rule.labels.index(label)) else ("",))
        }
        for prediction in predictions
    ]


def _has_relative(prediction: Prediction, label: int) -> bool:
    return prediction.compared is not None and prediction.compared.has(label)


def _drawn(parts: Contributions, rule: DecisionRule, wanted: str) -> list[str]:
    """The labels to draw; wanted: `all`, `none`, or `positive`, which is the most probable label where none is."""
    if wanted != "positive":
        return list(rule.labels) if wanted == "all" else []
    positive = rule.positive(parts.probabilities)
    labels = [label for label, is_positive in zip(rule.labels, positive, strict=True) if is_positive]
    return labels or [rule.labels[int(parts.probabilities.argmax())]]


def _draw_all(
    model: MedicalPatchNet,
    planned: list[dict[tuple[str, str], str]],
    predictions: list[Prediction],
    films: FilmFolder,
    folder: Path,
    fineness: Fineness,
    batch_size: int,
) -> dict[str, str]:
    """Draws the planned pictures into `folder` and notes them in the predictions; returns film -> why it has none."""
    from tqdm import tqdm

    import medicalpatchnet
    from film_explanation import save_picture

    undrawn: dict[str, str] = {}
    has_patches = model.patch_size < model.image_size  # a baseline has one Grad-CAM
    patches = fineness.patches(model.patch_size, model.image_size) if has_patches else 1  # per film
    with tqdm(total=patches * len(predictions), desc="overlays", unit="patch", disable=None) as bar:
        for prediction, pictures in zip(predictions, planned, strict=True):
            try:
                film = films.read_again(prediction.film)
                explanation = medicalpatchnet.explain_grey(
                    model,
                    film,
                    view=prediction.view,
                    fineness=fineness,
                    batch_size=batch_size,
                    parts=prediction.parts,
                    progress=bar.update,
                )
            except InputError as error:
                undrawn[prediction.film.name] = str(error)
                _complain(bar, prediction.film.name, str(error))
                continue
            bar.update(patches if explanation.grid is None else 0)
            for (label, method), name in pictures.items():
                asked = (label, method or None)
                save_picture(folder / name, explanation.picture(*asked))
                facts = {"file": f"{folder.name}/{name}"} | explanation.overlay_facts(*asked)
                prediction.overlays[label, method] = facts
            errors = [explanation.errors[label] for label, _ in prediction.overlays if label in explanation.errors]
            if errors and len(predictions) <= FULL_TEXTS:
                bar.write(_error_line(prediction, max(errors), fineness))
    return undrawn


def _error_line(prediction: Prediction, largest: float, fineness: Fineness) -> str:
    """largest: of the estimated errors of a film's drawn maps."""
    name = printable(prediction.film.name)
    return f"{name}: evidence {fineness.words}; maps within about {largest:.1f}% of their range on average, an estimate"


if __name__ == "__main__":
    cli.run(main)
