"""Options of trainClassification.py: data and results, recipe, network and arithmetic, running."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cli
from cxr.files import InputError
from training.history import SERVICES

SAVED_MODELS = Path("savedModels")

BUILT_IN_INITS = ("imagenet", "random")
"""Values of --init that name no file."""

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


def parse_args(
    argv: Sequence[str] | None, description: str = "", examples: str = ""
) -> tuple[argparse.Namespace, dict[str, Any], dict[str, Any]]:
    """All options; those of the recipe; and all that decide about the weights, with which alone a run is resumed."""
    parser = cli.parser(description, examples)
    _add_files(parser.add_argument_group("data and results").add_argument)
    recipe = _add_recipe(parser.add_argument_group("recipe, which the model card repeats"))
    network = _add_network(parser.add_argument_group("network and arithmetic").add_argument)
    _add_running(parser.add_argument_group("running; may change from one start to the next"))
    cli.add_gone(parser, GONE)
    args = parser.parse_args(argv)
    _check(parser, args)
    if args.output.suffix == ".pt":  # as the published script names it: within savedModels/
        args.output = args.output.with_suffix("")
        args.output = args.output if args.output.parent.name else SAVED_MODELS / args.output
    args.results = args.results or Path("results") / args.output.name
    chosen = {option.dest: getattr(args, option.dest) for option in (*recipe, *network)}
    return args, {option.dest: chosen[option.dest] for option in recipe if chosen[option.dest] is not None}, chosen


def _check(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Refuses options that do not go together."""
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
    if text in BUILT_IN_INITS:
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
