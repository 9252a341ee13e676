"""Weights for `predictImage.py`, a call of it, and what it wrote."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import torch

import cli
import predictImage
from cxr.labels import CHEXPERT
from models.checkpoint import build_model, save_model
from tests.networks import calibrate

THRESHOLDS = {label: 0.1 + 0.05 * place for place, label in enumerate(CHEXPERT.names)} | {"Edema": None}


def save_patch_network(folder: Path) -> Path:
    """A random network for films of 64 px in 4 x 4 patches, with thresholds for all labels but one."""
    torch.manual_seed(0)
    model = build_model("timm/test_efficientnet", patch_size=16, image_size=64, labels=CHEXPERT.names)
    calibrate(model, torch.rand(4, 1, 64, 64))
    model.details["thresholds"] = THRESHOLDS
    save_model(model, folder)
    return folder


def predict(weights: Path, output: Path, *arguments: object) -> int:
    """The exit code of `predictImage.py` with films and options `arguments`."""
    options = ["--steps-per-patch", "2", "--device", "cpu", "--workers", "0"]
    return cli.guarded(
        predictImage.main, ["--weights", str(weights), "--output", str(output), *options, *map(str, arguments)]
    )


def results(output: Path) -> tuple[pd.DataFrame, dict]:
    """predictions.csv and predictions.json."""
    table = pd.read_csv(output / "predictions.csv", dtype={"film": str})
    return table, json.loads((output / "predictions.json").read_text())
