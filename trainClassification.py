"""Trains MedicalPatchNet, or with patch size = image size its baseline, on CheXpert or any manifest; then evaluates it.

AdamW, OneCycle, binary cross entropy, as published. The last weights are written after every epoch into the output
folder, those of the best validation AUROC into its `best/`. At the end the last weights (the published choice) are
evaluated on validation and, once, on test.

A run that was killed, or asked to stop (SIGTERM, Ctrl-C, SIGUSR1), continues where it was when it is started again.
Under `torchrun`, or `srun` with the same variables, several processes train as one and share the films of every step.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cli
from cxr.files import InputError, place, sha256
from training.history import SERVICES

if TYPE_CHECKING:  # main imports what is heavy after the options are parsed, so that --help and mistakes answer at once
    import numpy as np
    from torch import Tensor

    from training.checkpoints import Checkpoints
    from training.distillation import Distillation
    from training.trainer import Trainer

SAVED_MODELS = Path("savedModels")

EXAMPLES = """
python trainClassification.py --data data/CheXpert-1024 --output savedModels/MedicalPatchNet
python trainClassification.py --data data/CheXpert-1024 --patch-size 512 --output savedModels/EfficientNetB0
torchrun --nproc-per-node 4 trainClassification.py --data data/CheXpert-packed --output savedModels/MedicalPatchNet
python trainClassification.py --data demo/data/CheXpert-256 --output demo/savedModels/tiny --init random \\
    --backbone timm/test_efficientnet --image-size 256 --patch-size 32 --epochs 1 --resamples 1000
python trainClassification.py --data films-256 --output savedModels/tuned --init demo/savedModels/MedicalPatchNet \\
    --backbone dense64 --image-size 256 --epochs 1 --no-evaluation
python trainClassification.py --data demo/data/CheXpert-256 --output demo/savedModels/student \\
    --teacher demo/savedModels/MedicalPatchNet --init random --backbone dense64 --image-size 256 --epochs 1 \\
    --no-evaluation
"""

INITS = """initial weights: imagenet (downloaded), random, or the weights of a folder, a .pt or .safetensors file, an
    hf://owner/repo, or a timm state dict; labels known there by name keep their row of the head"""

TEACHER = """patch network of the same patch and image size whose patch logits are learnt beside the labels, at one
    random shift per film and step: a folder, a .pt or .safetensors file, or an hf://owner/repo"""

AGGREGATIONS = """how patch logits become the film's: mean, position, gate, noisy_or, attention, logsumexp, or another
    class of models/aggregation.py"""

GONE = {
    "-wb": "use --track wandb",
    "-wb_name": "use --track wandb; the run is named after the --output folder",
    "-evalOnly": "use evalClassification.py --weights PATH",
    "-loadPath": "use evalClassification.py --weights PATH; an interrupted training resumes by itself",
    "-lrFactor": "nothing is needed, it had no effect; --lr is the highest rate of the OneCycle schedule",
    "-model": "use --backbone, with --patch-size equal to --image-size for the baseline",
    "-hpc": "nothing is needed; slurm/train.sbatch is a job script",
}


def main(argv: Sequence[str] | None = None) -> int:
    args, recipe, settings = parse_args(argv)
    from cxr.pixels.grey import recorded_grey
    from cxr.runs.folder_lock import locked
    from models.checkpoint import build_model, save_model
    from models.initial import start_from
    from training.checkpoints import Checkpoints, is_finished
    from training.compiling import choose_compile
    from training.distributed import process_group
    from training.engine import Precision
    from training.split_films import fingerprints, one_sided_labels, read_splits
    from training.trainer import Trainer, TrainingOptions

    device = cli.pick_device(args.device)
    checkpoints = Checkpoints(args.output, args.keep_checkpoints)
    with process_group(device) as group, locked(args.output) if group.is_main else nullcontext():
        args.compile = choose_compile(args.compile, device, group)
        options = TrainingOptions(**{field.name: getattr(args, field.name) for field in fields(TrainingOptions)})
        parts = options.parts_per_step(group.world_size)
        chosen = {"uncertain": args.uncertain, "frontal_only": args.frontal_only, "fraction": args.fraction}
        films, validation = read_splits(args.data, **chosen)
        init, of_init = _initial_weights(args.init)
        of_teacher = {} if args.teacher is None else _origin("teacher", args.teacher)[1]
        recipe |= of_init | of_teacher
        settings |= {"precision": Precision(device, args.precision).name, "compile": args.compile}
        settings |= {"parts_per_step": parts} | of_init | of_teacher | fingerprints(films, validation)
        group.require_equal(f"--data {args.data}: options and label files", settings)
        if args.resume == "auto" and group.broadcast(is_finished(args.output, settings)):
            group.print(f"{args.output}: training is complete")
        else:
            sizes = f"{len(films)} films for training, {len(validation)} for validation"
            group.print(f"training labels: {films.table.name}; {sizes}")
            if warning := one_sided_labels(films):
                group.print(f"warning: {warning}")
            results = None if args.no_evaluation else args.results
            state = _saved_state(checkpoints, settings, args.resume, results) if group.is_main else None
            state = group.broadcast(state)
            taught = None if args.teacher is None else _distillation(args, films.label_set.names, device)
            cli.set_seed(args.seed)
            model = build_model(
                args.backbone,
                patch_size=args.patch_size,
                image_size=args.image_size,
                labels=films.label_set,
                aggregation=args.aggregation,
                init="imagenet" if args.init == "imagenet" and state is None else "random",
            )
            if init is not None and state is None:
                for line in start_from(model, init):
                    group.print(f"--init {args.init}: {line}")
            model.details["grey"] = (recorded_grey(args.data) or films.grey).to_json()
            model.details["training_data"] = {"labels": films.table.name, "films": len(films)} | recipe
            trainer = Trainer(
                model, films, validation, options, checkpoints, settings, image_size=args.image_size,
                score=_mean_auroc, save_weights=save_model, device=device, group=group, distillation=taught,
            )  # fmt: skip
            code = _train(trainer, state, cli.run_facts(args, device))
            if code is not None:
                return code
        if args.no_evaluation:
            return 0
        group.barrier()  # rank 0 writes the weights, all read them
        given = {name: getattr(args, name) for name in ("data", "device", "seed", "workers", "batch_size", "resamples")}
        code = _evaluate(args.output, args.results, given, group.is_main)
        if group.is_main:
            checkpoints.clear()  # nothing is left to resume
        return code


def parse_args(argv: Sequence[str] | None) -> tuple[argparse.Namespace, dict[str, Any], dict[str, Any]]:
    """All options; those of the recipe; and all that decide about the weights, with which alone a run is resumed."""
    parser = cli.parser(__doc__.splitlines()[0], EXAMPLES)
    _add_files(parser.add_argument_group("data and results").add_argument)
    recipe = _add_recipe(parser.add_argument_group("recipe, which the model card repeats"))
    network = _add_network(parser.add_argument_group("network and arithmetic").add_argument)
    _add_running(parser.add_argument_group("running; may change from one start to the next"))
    cli.add_gone(parser, GONE)
    args = parser.parse_args(argv)
    if args.image_size % args.patch_size:
        parser.error(f"--image-size {args.image_size} is not a multiple of --patch-size {args.patch_size}")
    if args.aggregation != "mean" and args.image_size == args.patch_size:
        parser.error(
            f"--aggregation {args.aggregation}: a baseline of one patch, the whole film, has nothing to aggregate"
        )
    if args.teacher is not None and args.image_size == args.patch_size:
        parser.error("--teacher: a baseline of one patch, the whole film, has no patch logits to learn")
    if args.batch_size % args.accumulate:
        parser.error(f"--batch-size {args.batch_size} is not a multiple of --accumulate {args.accumulate}")
    if args.output.suffix == ".pt":  # as the published script names it: within savedModels/
        args.output = args.output.with_suffix("")
        args.output = args.output if args.output.parent.name else SAVED_MODELS / args.output
    args.results = args.results or Path("results") / args.output.name
    chosen = {option.dest: getattr(args, option.dest) for option in (*recipe, *network)}
    return args, {option.dest: chosen[option.dest] for option in recipe if chosen[option.dest] is not None}, chosen


def _add_files(add: Callable[..., argparse.Action]) -> None:
    add(
        "--data",
        type=cli.existing_folder,
        required=True,
        help="what preprocessing wrote: train.csv, valid.csv, train/, valid/, ..., or a manifest's films.csv",
    )
    add(
        "--output",
        "-savePath",
        type=cli.path,
        default=SAVED_MODELS / "MedicalPatchNet",
        help="folder of the weights; NAME.pt stands for savedModels/NAME",
    )
    add("--results", type=cli.path, help="final evaluation; results/<name of the output folder> by default")
    add("--no-evaluation", action="store_true", help="only train")
    add("--resamples", type=cli.whole_number(0, 10**8), default=100_000, help="bootstrap resamples of that evaluation")


def _add_recipe(to: argparse._ActionsContainer) -> list[argparse.Action]:
    add = to.add_argument
    return [
        add("--uncertain", choices=("zeros", "ones", "ignore"), default="zeros", help="meaning of the label -1"),
        add("--frontal-only", action="store_true", help="leave lateral films out of training"),
        add("--fraction", type=cli.number(0, 1, above=True), default=1.0, help="share of the training patients to use"),
        add("--init", type=_init, default="imagenet", metavar="WEIGHTS", help=INITS),
        add("--teacher", type=cli.weights, metavar="WEIGHTS", help=TEACHER),
        add("--epochs", "-ep", type=cli.whole_number(1, 10**6), default=20, help="passes over the training films"),
        add("--batch-size", "-bs", type=cli.whole_number(1, 10**6), default=16, help="films per step, all processes"),
        add("--lr", "-lr", type=cli.number(0, above=True), default=1e-4, help="highest rate of the OneCycle schedule"),
        cli.add_seed(to),
    ]


def _init(text: str) -> str:
    """Type of --init. A file that is not there is found before anything is read."""
    if text in ("imagenet", "random"):
        return text
    try:
        return cli.weights(text)
    except argparse.ArgumentTypeError as error:
        raise argparse.ArgumentTypeError(f"neither imagenet nor random, and {error}") from None


def _aggregation(text: str) -> str:
    """Type of --aggregation; the names are read, with torch, only where another one than the default is given."""
    if text == "mean":
        return text
    from models.aggregation import check_name

    try:
        return check_name(text)
    except InputError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _add_network(add: Callable[..., argparse.Action]) -> list[argparse.Action]:
    side = cli.whole_number(1, 4096)
    precisions, bad_images = ("auto", "fp32", "bf16", "fp16"), ("stop", "skip")
    return [
        add(
            "--backbone",
            default="efficientnet_b0",
            help="efficientnet_b0, efficientnet_v2_s, dense32, dense64, or timm/<name>",
        ),
        add("--patch-size", "-patchSize", type=side, default=64, help="equal to the image size for the baseline"),
        add("--image-size", "-imgSize", type=side, default=512, help="side of the film that the network sees, pixels"),
        add("--aggregation", type=_aggregation, default="mean", metavar="NAME", help=AGGREGATIONS),
        add("--precision", choices=precisions, default="auto", help="auto: bf16 where the GPU has it"),
        add("--compile", action=argparse.BooleanOptionalAction, help="some minutes, then faster; on CUDA by default"),
        add("--no-deterministic", action="store_true", help="faster cuDNN; a resumed run then differs in its bits"),
        add("--on-bad-image", choices=bad_images, default="stop", help="skip leaves up to 0.1%% of the films out"),
    ]


def _add_running(to: argparse._ActionsContainer) -> None:
    add, minutes = to.add_argument, cli.number(0)
    add("--resume", choices=("auto", "never"), default="auto", help="auto continues a run that did not end")
    add("--checkpoint-minutes", type=minutes, default=10.0, help="time between two checkpoints within an epoch")
    add("--keep-checkpoints", type=cli.whole_number(1, 1000), default=2, help="number of training states to keep")
    add("--accumulate", type=cli.whole_number(1, 10**6), default=1, help="parts of a step, one by one, to save memory")
    add("--worker-timeout", type=cli.number(0, 10**6, above=True), default=300.0, help="seconds until a worker is hung")
    add("--track", choices=SERVICES, action="append", default=[], help="on top of CSV and JSONL; may be repeated")
    cli.add_workers(to)
    cli.add_device(to)


def _initial_weights(init: str) -> tuple[Path | None, dict[str, Any]]:
    """The file or folder that training starts from, if any; and what says in settings and model card which it is."""
    return (None, {"init": init}) if init in ("imagenet", "random") else _origin("init", init)


def _origin(option: str, spec: str) -> tuple[Path, dict[str, Any]]:
    """The file or folder of weights that an option names; and their name and fingerprint, for settings and card."""
    from models.hub import resolve_weights
    from models.weight_names import weights_name
    from models.weights_folder import weights_file

    path = resolve_weights(spec)
    return path, {option: weights_name(spec), f"{option}_sha256": sha256(weights_file(path))}


def _distillation(args: argparse.Namespace, labels: Sequence[str], device: str) -> Distillation:
    """Loads the teacher. Raises InputError in one line where it cannot teach this network."""
    from models.checkpoint import load_model
    from models.hub import resolve_weights
    from training.distillation import Distillation

    path = resolve_weights(args.teacher)
    teacher = load_model(path, patch_size=None if path.is_dir() else args.patch_size, device=device)
    try:
        return Distillation(teacher, labels, patch_size=args.patch_size, image_size=args.image_size)
    except InputError as error:
        raise InputError(f"--teacher {place(path)}: {error}") from None


def _saved_state(
    checkpoints: Checkpoints, settings: dict[str, Any], resume: str, results: Path | None
) -> dict[str, Any] | None:
    """The state to continue from; None for a fresh start, for which `results` must hold no other network's results."""
    from cxr.runs.run_record import RunRecord
    from training.checkpoints import refuse_other_settings

    state = checkpoints.load() if resume == "auto" else None
    if state is not None:
        refuse_other_settings(checkpoints.newest, state.get("settings"), settings)
        return state
    if results is not None:  # better refused before a training than after it
        RunRecord(results).belongs_to(None, option="--results")
    if resume == "never":
        checkpoints.start_over()
    return None


def _train(trainer: Trainer, state: dict[str, Any] | None, facts: dict[str, Any]) -> int | None:
    """Trains to the end, or until a signal stops the program with the exit code that is returned."""
    from reporting.pictures.curves import draw_learning_curves

    started = time.monotonic()
    if state is not None:
        trainer.resume(state)
    code = trainer.train()
    if code is None and trainer.group.is_main:
        draw_learning_curves(trainer.folder)
        trainer.finish(facts | {"seconds": round(time.monotonic() - started, 1)})
    return code


def _mean_auroc(logits: Tensor, labels: np.ndarray) -> float:
    """Mean AUROC over the labels for which it is defined; NaN where it is for none. Both (N, C)."""
    import numpy as np

    from evaluation.metrics import auroc

    values = []
    for truth, scores in zip(labels.T, logits.numpy().T, strict=True):  # (N,) of one label
        known = ~np.isnan(truth)
        values.append(auroc(truth[known], scores[known]))
    return float(np.nanmean(values)) if np.isfinite(values).any() else math.nan


def _evaluate(weights: Path, results: Path, given: dict[str, Any], describes: bool) -> int:
    """The exit code of the final evaluation; `describes`: its numbers are added to the description of the weights."""
    import evalClassification  # its heat maps need packages that training alone does not
    from models.measured import describe

    options = {"weights": weights, "output": results, "heatmaps": "none"} | given
    words = [(f"--{name.replace('_', '-')}", str(value)) for name, value in options.items()]
    code = evalClassification.main([word for pair in words for word in pair])
    if describes:
        describe(weights, results)
    return code


if __name__ == "__main__":
    cli.run(main)
