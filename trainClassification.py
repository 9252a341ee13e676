"""Trains MedicalPatchNet, or with patch size = image size its baseline, on CheXpert; then evaluates it.

AdamW, OneCycle, binary cross entropy, as published. The last weights are written after every epoch into the output
folder, those of the best validation AUROC into its `best/`. At the end the last weights (the published choice) are
evaluated on validation and, once, on test.

A run that was killed, or asked to stop (SIGTERM, Ctrl-C, SIGUSR1), goes on where it was when it is started again.
Under `torchrun`, or `srun` with the same variables, several processes train as one and share the films of every step.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from signal import Signals
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

import cli
from cxr.dataset import FilmDataset
from cxr.files import InputError, read_json, sha256, write_json
from cxr.grey import Grey, recorded_grey
from cxr.labels import LABELS
from cxr.manifest import Films, read_films
from cxr.packed import open_packed
from cxr.run_record import RunRecord
from cxr.splits import split_table
from evaluation.metrics import auroc
from models.checkpoint import build_model, save_model
from models.measured import describe
from models.patch_net import MedicalPatchNet
from reporting.curves import draw_learning_curves
from training.checkpoints import Checkpoints
from training.distributed import Peers, peers
from training.engine import Precision, Stepper, predict_films
from training.history import SERVICES, open_trackers
from training.loader import PartSampler, TrainingSet, collate
from training.trainer import Run, Surroundings
from training.workers import EXIT_CODES, StopSignals, ignore_signals

EXAMPLES = """
python trainClassification.py --data CheXpert-1024 --output savedModels/MedicalPatchNet
python trainClassification.py --data CheXpert-1024 --patch-size 512 --output savedModels/EfficientNetB0
python trainClassification.py --data demo/CheXpert-256 --output savedModels/tiny --init random \\
    --backbone timm/test_efficientnet --image-size 256 --patch-size 32 --epochs 1 --device cpu
torchrun --nproc-per-node 4 trainClassification.py --data CheXpert-packed --output savedModels/MedicalPatchNet
"""

FINISHED = "training.json"

SETTINGS = """backbone init patch_size image_size lr batch_size epochs uncertain frontal_only fraction seed
    precision compile no_deterministic on_bad_image""".split()
"""Options that decide about the weights; a run is only continued with the same."""


def main(argv: Sequence[str] | None = None) -> int:
    args = _parse(argv)
    device = cli.pick_device(args.device)
    with peers(device) as group:
        settings = _settings(args, device, group)
        if not _is_finished(args, settings, group):
            signal = _train(args, settings, device, group)
            if signal:
                if group.first:
                    print(f"stopped by {Signals(signal).name}; the same command goes on from here", file=sys.stderr)
                return EXIT_CODES[Signals(signal)]
        if args.no_evaluation:
            return 0
        group.wait()  # the first process writes the weights, all read them
        import evalClassification  # its heat maps need packages that training alone does not

        code = evalClassification.main(_evaluation(args))
        if group.first:
            describe(args.output, args.results)
            Checkpoints(args.output).clear()  # there is nothing left to go on with
        return code


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = cli.parser(__doc__.splitlines()[0], EXAMPLES)
    _add_published_options(parser.add_argument)
    _add_running_options(parser.add_argument)
    cli.add_workers(parser)
    cli.add_device(parser)
    cli.add_seed(parser)
    args = parser.parse_args(argv)
    if args.output.suffix == ".pt":  # as the published scripts name it
        args.output = args.output.with_suffix("")
    args.results = args.results or Path("results") / args.output.name
    for name in ("lr", "batch_size", "epochs", "accumulate", "worker_timeout"):
        if not 0 < getattr(args, name) < math.inf:
            parser.error(f"--{name.replace('_', '-')} must be a finite number greater than 0")
    return args


def _add_published_options(add: Callable[..., Any]) -> None:
    add("--data", type=Path, required=True, help="preprocessed CheXpert: train.csv, valid.csv, train/, valid/, ...")
    add("--output", "-savePath", type=Path, default=Path("savedModels/MedicalPatchNet"), help="folder of the weights")
    add("--results", type=Path, help="where the final evaluation goes; results/<name of the output folder> by default")
    add("--backbone", default="efficientnet_b0", help="efficientnet_b0, efficientnet_v2_s, or timm/<name>")
    add("--init", choices=("imagenet", "random"), default="imagenet", help="what training starts from")
    add("--patch-size", "-patchSize", type=int, default=64, help="equal to the image size for the baseline")
    add("--image-size", "-imgSize", type=int, default=512, help="side of the film that the network sees")
    add("--lr", "-lr", type=float, default=1e-4, help="highest learning rate of the OneCycle schedule")
    add("--batch-size", "-bs", type=int, default=16, help="films per step, over all processes")
    add("--epochs", "-ep", type=int, default=20)
    add("--uncertain", choices=("zeros", "ones", "ignore"), default="zeros", help="what the label -1 is taken for")
    add("--frontal-only", action="store_true", help="leave lateral films out of training")
    add("--fraction", type=float, default=1.0, help="share of the training patients to use")
    add("--no-evaluation", action="store_true", help="only train")


def _add_running_options(add: Callable[..., Any]) -> None:
    add("--resume", choices=("auto", "never"), default="auto", help="auto goes on with a run that did not end")
    add("--checkpoint-minutes", type=float, default=10.0, help="between two checkpoints; one is made after every epoch")
    add("--keep-checkpoints", type=int, default=2, help="how many training states to keep")
    add("--accumulate", type=int, default=1, help="parts of a step that a process takes one by one, to save memory")
    add("--precision", choices=("auto", "fp32", "bf16", "fp16"), default="auto", help="auto: bf16 where the GPU has it")
    add("--compile", action="store_true", help="compile the network first: some minutes, then faster on a GPU")
    add(
        "--no-deterministic",
        action="store_true",
        help="faster cuDNN algorithms; a resumed run then differs in its bits",
    )
    add("--on-bad-image", choices=("stop", "skip"), default="stop", help="skip leaves up to 0.1%% of the films out")
    add("--worker-timeout", type=float, default=300.0, help="seconds without a film after which a worker hangs")
    add("--track", choices=SERVICES, action="append", default=[], help="on top of CSV and JSONL; may be repeated")


def _evaluation(args: argparse.Namespace) -> list[str]:
    """Arguments of the final evaluation."""
    given = {"weights": args.output, "output": args.results, "heatmaps": "none", "batch-size": args.batch_size}
    given |= {name: getattr(args, name) for name in ("data", "device", "seed", "workers")}
    return [word for name, value in given.items() for word in (f"--{name}", str(value))]


def _settings(args: argparse.Namespace, device: str, group: Peers) -> dict[str, Any]:
    """What decides about the weights: two runs with the same settings make the same network."""
    csv = split_table(args.data, "train")
    if not csv.is_file():
        raise InputError(f"--data {args.data}: neither train_visualCheXbert.csv nor train.csv is in this folder")
    valid = args.data / "valid.csv"
    if not valid.is_file():
        raise InputError(f"--data {args.data}: no valid.csv in this folder")
    parts = args.accumulate * group.world
    if args.batch_size % parts:
        raise InputError(f"--batch-size {args.batch_size} is no multiple of {parts} (--accumulate x processes)")
    packed = open_packed(args.data)
    settings = {name: getattr(args, name) for name in SETTINGS} | {
        "precision": Precision(device, args.precision).name,
        "parts_per_step": parts,
        "labels": csv.name,
        "labels_sha256": sha256(csv),
        "validation_sha256": sha256(valid),
        "label_set": list(LABELS),
        "packed_films": None if packed is None else packed.fingerprint("train"),
    }
    group.agree(f"--data {args.data}: options and label files", settings)
    return settings


def _is_finished(args: argparse.Namespace, settings: dict[str, Any], group: Peers) -> bool:
    finished = args.output / FINISHED
    if args.resume == "never" or not group.share(finished.is_file()):
        return False
    _refuse_others(finished, read_json(finished).get("settings") or {}, settings)
    group.say(f"{args.output}: training is complete")
    return True


def _refuse_others(path: Path, known: dict[str, Any], settings: dict[str, Any]) -> None:
    changed = [name for name in settings if known.get(name) != settings[name]]
    if changed:
        told = {"parts_per_step": "--accumulate x processes"}
        values = ", ".join(f"{told.get(n, n)} was {known.get(n)} and is {settings[n]}" for n in changed)
        ways = "give its own, another --output, or --resume never"
        raise InputError(f"{path}: of a run with other settings ({values}); {ways}")


def _train(args: argparse.Namespace, settings: dict[str, Any], device: str, group: Peers) -> int:
    """Trains to the end, or until a signal, which is returned."""
    started = time.monotonic()
    checkpoints = Checkpoints(args.output, args.keep_checkpoints)
    run, loader, valid = _build(args, settings, device, group, _checkpoint(args, checkpoints, settings, group))
    done = (run.stepper.steps, len(run.history.epochs))
    trackers = open_trackers(args.track, args.output, settings, *done) if group.first else []
    validating = {"batch_size": args.batch_size, "workers": args.workers, "worker_timeout": args.worker_timeout}
    around = Surroundings(
        folder=args.output,
        checkpoints=checkpoints,
        seconds_between_checkpoints=60 * args.checkpoint_minutes,
        trackers=trackers,
        validate=lambda: _mean_auroc(predict_films(run.net, valid, device, peers=group, **validating), valid.films),
        keep_weights=lambda best: _keep_weights(run.net, args.output, best),
    )
    with StopSignals() as stop:
        signal = run.train(args.epochs, loader, around, stop)
    for tracker in trackers:
        tracker.close()
    if group.first and not signal:
        facts = cli.run_facts(args, device) | {"settings": settings, "processes": group.world}
        _report(args.output, run, facts | {"seconds": round(time.monotonic() - started, 1)})
    return signal


def _checkpoint(
    args: argparse.Namespace, checkpoints: Checkpoints, settings: dict[str, Any], group: Peers
) -> dict[str, Any] | None:
    """What to go on from, read by the first process for all; None for a fresh start."""
    never = args.resume == "never"
    content = group.share(checkpoints.load() if group.first and not never else None)
    if content is not None:
        _refuse_others(checkpoints.newest, content["settings"], settings)
    elif group.first:
        if not args.no_evaluation:  # better told before a training than after it
            RunRecord(args.results).belongs_to(None, "--results")
        if never:
            (args.output / FINISHED).unlink(missing_ok=True)
            checkpoints.clear()
    return content


def _build(
    args: argparse.Namespace, settings: dict[str, Any], device: str, group: Peers, content: dict[str, Any] | None
) -> tuple[Run, DataLoader, FilmDataset]:
    """The run, at its start or where `content` leaves it, the loader of its films, and the validation films."""
    cli.set_seed(args.seed)
    torch.backends.cudnn.deterministic = not args.no_deterministic
    torch.backends.cudnn.benchmark = args.no_deterministic
    films, valid = _films(args, group)
    sampler = PartSampler(
        len(films), args.batch_size, args.seed, settings["parts_per_step"], rank=group.rank, world=group.world
    )
    loader = DataLoader(
        TrainingSet(FilmDataset(films, args.image_size), args.seed, args.on_bad_image),
        batch_sampler=sampler,
        collate_fn=collate,
        num_workers=args.workers,
        worker_init_fn=ignore_signals,
        timeout=args.worker_timeout if args.workers else 0,
        pin_memory=device == "cuda",
        persistent_workers=args.workers > 0,
    )
    sizes = {"patch_size": args.patch_size, "image_size": args.image_size}
    net = build_model(args.backbone, **sizes, labels=LABELS, init=args.init if content is None else "random")
    net.details["training_data"] = _training_data(args, films)
    net.details["grey"] = (recorded_grey(args.data) or Grey.STORED).to_json()
    net = net.to(device=device, memory_format=torch.channels_last)
    model = group.parallel(torch.compile(net) if args.compile else net, device)
    optimizer = torch.optim.AdamW(net.parameters(), lr=args.lr, fused=True)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=args.lr, total_steps=args.epochs * sampler.steps, pct_start=0.05
    )
    stepper = Stepper(model, optimizer, scheduler, Precision(device, args.precision), args.seed, group)
    run = Run(net, stepper, films, sampler, settings)
    if content is not None:
        run.restore(content)
        group.say(f"going on after step {run.stepper.steps}, in epoch {run.epoch}")
    return run, loader, FilmDataset(valid, args.image_size)


def _films(args: argparse.Namespace, group: Peers) -> tuple[Films, Films]:
    csv = split_table(args.data, "train")
    chosen = {"uncertain": args.uncertain, "frontal_only": args.frontal_only, "fraction": args.fraction}
    films = read_films(csv, args.data, **chosen)
    valid = read_films(args.data / "valid.csv", args.data)
    group.say(f"training labels: {csv.name}; {len(films)} films for training, {len(valid)} for validation")
    if len(films) < args.batch_size:
        raise InputError(f"{csv}: {len(films)} films are fewer than one batch; lower --batch-size")
    return films, valid


def _training_data(args: argparse.Namespace, films: Films) -> dict[str, Any]:
    """What travels with the weights of what they were trained on, and how."""
    names = ("uncertain", "frontal_only", "fraction", "init", "epochs", "batch_size", "lr", "seed")
    return {"labels": films.table.name, "films": len(films)} | {name: getattr(args, name) for name in names}


def _keep_weights(net: MedicalPatchNet, output: Path, best: bool) -> None:
    save_model(net, output)
    if best:
        save_model(net, output / "best")


def _mean_auroc(logits: Tensor, films: Films) -> float:
    """Mean AUROC over the labels for which it is defined; NaN where it is for none."""
    values = np.array([auroc(films.labels[:, c], logits[:, c].numpy()) for c in range(len(LABELS))])
    return float(np.nanmean(values)) if np.isfinite(values).any() else math.nan


def _report(output: Path, run: Run, facts: dict[str, Any]) -> None:
    """`training.json`, which says that the run is complete, and the learning curves."""
    draw_learning_curves(output)
    unreadable = [
        {"table": str(run.films.table), "line": run.films.lines[film], "path": run.films.paths[film], "reason": reason}
        for film, reason in sorted(run.unreadable.items())
    ]
    write_json(output / FINISHED, facts | {"best": run.history.best, "unreadable_films": unreadable})


if __name__ == "__main__":
    cli.run(main)
