"""Trains MedicalPatchNet, or with patch size = image size its baseline, on CheXpert; then evaluates it.

AdamW, OneCycle, binary cross entropy, as published. The last weights are written after every epoch into the output
folder, those of the best validation AUROC into its `best/`. At the end the last weights (the published choice) are
evaluated on validation and, once, on test.
"""

from __future__ import annotations

import argparse
import math
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader
from tqdm import tqdm

import cli
from chexpert.dataset import CheXpertDataset, read_films, training_csv
from chexpert.files import InputError, read_json, sha256, write_json
from chexpert.labels import LABELS
from evaluation.metrics import auroc
from models.checkpoint import build_model, save_model
from models.patch_net import MedicalPatchNet
from training.augment import EpochSampler, TrainingSet
from training.engine import OnStep, Precision, predict, readable_errors, train_one_epoch
from training.state import History

EXAMPLES = """
python trainClassification.py --data CheXpert-1024 --output savedModels/MedicalPatchNet
python trainClassification.py --data CheXpert-1024 --patch-size 512 --output savedModels/EfficientNetB0
python trainClassification.py --data demo/CheXpert-256 --output savedModels/tiny --init random \\
    --backbone timm/test_efficientnet --image-size 256 --patch-size 32 --epochs 1 --device cpu
"""

FINISHED = "training.json"


def main(argv: Sequence[str] | None = None) -> int:
    args = _parse(argv)
    settings = _settings(args)
    if not _is_finished(args.output, settings):
        cli.set_seed(args.seed)
        device = cli.pick_device(args.device)
        started = time.monotonic()
        best = _train(args, device)
        facts = cli.run_facts(args, device) | {"settings": settings, "best": best}
        write_json(args.output / FINISHED, facts | {"seconds": round(time.monotonic() - started, 1)})
    if args.no_evaluation:
        return 0
    import evalClassification  # its heat maps need packages that training alone does not

    evaluation = ["--weights", str(args.output), "--data", str(args.data), "--device", args.device]
    return evalClassification.main([*evaluation, "--output", str(args.results or Path("results") / args.output.name)])


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = cli.parser(__doc__.splitlines()[0], EXAMPLES)
    add = parser.add_argument
    add("--data", type=Path, required=True, help="preprocessed CheXpert: train.csv, valid.csv, train/, valid/, ...")
    add("--output", "-savePath", type=Path, default=Path("savedModels/MedicalPatchNet"), help="folder of the weights")
    add("--results", type=Path, help="where the final evaluation goes; results/<name of the output folder> by default")
    add("--backbone", default="efficientnet_b0", help="efficientnet_b0, efficientnet_v2_s, or timm/<name>")
    add("--init", choices=("imagenet", "random"), default="imagenet", help="what training starts from")
    add("--patch-size", "-patchSize", type=int, default=64, help="equal to the image size for the baseline")
    add("--image-size", "-imgSize", type=int, default=512, help="side of the film that the network sees")
    add("--lr", "-lr", type=float, default=1e-4, help="highest learning rate of the OneCycle schedule")
    add("--batch-size", "-bs", type=int, default=16, help="films per step")
    add("--epochs", "-ep", type=int, default=20)
    add("--uncertain", choices=("zeros", "ones", "ignore"), default="zeros", help="what the label -1 is taken for")
    add("--frontal-only", action="store_true", help="leave lateral films out of training")
    add("--fraction", type=float, default=1.0, help="share of the training patients to use")
    add("--workers", "-pr", type=int, default=min(os.cpu_count() or 1, 16), help="processes that read films")
    add("--no-evaluation", action="store_true", help="only train")
    cli.add_device(parser)
    cli.add_seed(parser)
    args = parser.parse_args(argv)
    if args.output.suffix == ".pt":  # as the published scripts name it
        args.output = args.output.with_suffix("")
    for name in ("lr", "batch_size", "epochs"):
        if getattr(args, name) <= 0:
            parser.error(f"--{name.replace('_', '-')} must be greater than 0")
    return args


def _settings(args: argparse.Namespace) -> dict[str, Any]:
    """What decides about the weights: two runs with the same settings make the same network."""
    names = ("backbone init patch_size image_size lr batch_size epochs uncertain frontal_only fraction seed").split()
    csv = training_csv(args.data)
    if not csv.is_file():
        raise InputError(f"--data {args.data}: neither train_visualCheXbert.csv nor train.csv is in this folder")
    return {name: getattr(args, name) for name in names} | {"labels": csv.name, "labels_sha256": sha256(csv)}


def _is_finished(output: Path, settings: dict[str, Any]) -> bool:
    if not (output / FINISHED).is_file():
        return False
    done = read_json(output / FINISHED).get("settings")
    if done != settings:
        changed = ", ".join(name for name in settings if (done or {}).get(name) != settings[name])
        raise InputError(f"{output}: holds a run with other settings ({changed}); delete it or choose another --output")
    print(f"{output}: training is complete")
    return True


def _train(args: argparse.Namespace, device: str) -> dict[str, Any]:
    """Trains to the end; returns the epoch and mean AUROC of the best weights."""
    train_loader, valid_loader = _loaders(args, device)
    sizes = {"patch_size": args.patch_size, "image_size": args.image_size}
    model = build_model(args.backbone, **sizes, labels=LABELS, init=args.init)
    model = model.to(device=device, memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.lr, fused=device == "cuda")
    scheduler = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=args.lr, total_steps=args.epochs * len(train_loader), pct_start=0.05
    )
    precision = Precision(device)
    history = History()
    for epoch in range(1, args.epochs + 1):
        train_loader.sampler.epoch = epoch
        with tqdm(total=len(train_loader), desc=f"epoch {epoch}/{args.epochs}", unit="step") as bar:
            on_step = _recorder(history, epoch, bar)
            train_one_epoch(model, readable_errors(train_loader), optimizer, scheduler, precision, on_step)
        history.add_epoch(epoch, _mean_auroc(model, valid_loader, device))
        save_model(model, args.output)
        if history.best["epoch"] == epoch:
            save_model(model, args.output / "best")
        history.write(args.output)
    return history.best


def _loaders(args: argparse.Namespace, device: str) -> tuple[DataLoader, DataLoader]:
    csv = training_csv(args.data)
    chosen = {"uncertain": args.uncertain, "frontal_only": args.frontal_only, "fraction": args.fraction}
    train_films = read_films(csv, args.data, **chosen)
    valid_films = read_films(args.data / "valid.csv", args.data)
    print(f"training labels: {csv.name}; {len(train_films)} films for training, {len(valid_films)} for validation")
    if len(train_films) < args.batch_size:
        raise InputError(f"{csv}: {len(train_films)} films are fewer than one batch; lower --batch-size")
    loading = {"batch_size": args.batch_size, "num_workers": args.workers, "pin_memory": device == "cuda"}
    train_loader = DataLoader(
        TrainingSet(CheXpertDataset(train_films, args.image_size), args.seed),
        sampler=EpochSampler(len(train_films), args.seed),
        drop_last=True,
        persistent_workers=args.workers > 0,
        **loading,
    )
    return train_loader, DataLoader(CheXpertDataset(valid_films, args.image_size), **loading)


def _recorder(history: History, epoch: int, bar: tqdm) -> OnStep:
    def on_step(loss: float, learning_rate: float) -> None:
        history.add_step(epoch, loss, learning_rate)
        bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
        bar.update()

    return on_step


def _mean_auroc(model: MedicalPatchNet, loader: DataLoader, device: str) -> float:
    """Mean validation AUROC over the labels for which it is defined; NaN where it is for none."""
    logits, labels = predict(model, readable_errors(loader), device)
    values = np.array([auroc(labels[:, c].numpy(), logits[:, c].numpy()) for c in range(len(LABELS))])
    return float(np.nanmean(values)) if np.isfinite(values).any() else math.nan


if __name__ == "__main__":
    cli.run(main)
