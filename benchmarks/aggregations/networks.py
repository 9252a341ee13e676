"""Networks with every aggregation out of one that was trained with the mean: on its frozen patch logits, or whole.

Frozen: `position` is what fitAggregation.py fits; for the others their own parameters, and a factor and an offset of
every label's patch logits (a part of the head), are trained on the patch logits of the training films and stopped where
the validation films want it. Whole: trainClassification.py goes on from the trained network with the aggregation in its
place, all weights free; so does the mean, for the same number of epochs.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import trainClassification
from cxr.manifests.films import Films
from models.checkpoint import build_model, load_model
from models.patch_net import MedicalPatchNet
from training.position_fit import fit_label, patch_logits_of

STEPS = 400
LEARNING_RATE = 0.02
FURTHER_RATE = 1e-3
"""Highest learning rate of the further epochs, a third of the demo's."""


@dataclass(frozen=True)
class Split:
    """Films, their labels (N, C) and a network's patch logits (N, P, C) of them."""

    films: Films
    logits: Tensor

    @property
    def labels(self) -> Tensor:
        return torch.from_numpy(self.films.labels)


def frozen_logits(model: MedicalPatchNet, films: Films) -> Tensor:
    reading = {"batch_size": 16, "workers": 0}
    return torch.from_numpy(patch_logits_of(model, films, "cpu", films.table.name, **reading))


def trained_further(weights: Path, data: Path, name: str, epochs: int, folder: Path) -> MedicalPatchNet:
    """The network after more epochs with an aggregation; resumed, or not trained again, where `folder` has it."""
    model = load_model(weights)
    seed = json.loads((weights / "training.json").read_text())["settings"]["seed"]
    options: dict[str, Any] = {
        "data": data,
        "output": folder,
        "init": weights,
        "aggregation": name,
        "backbone": model.backbone,
        "patch_size": model.patch_size,
        "image_size": model.image_size,
        "epochs": epochs,
        "batch_size": 8,
        "lr": FURTHER_RATE,
        "seed": seed,
        "device": "cpu",
        "workers": 0,
    }
    words = [str(word) for name, value in options.items() for word in (f"--{name.replace('_', '-')}", value)]
    code = trainClassification.main([*words, "--no-evaluation"])
    if code:
        raise SystemExit(code)
    return load_model(folder)


def aggregated(model: MedicalPatchNet, name: str, train: Split, validation: Split) -> MedicalPatchNet:
    """The network with another aggregation, fitted or trained on its own patch logits."""
    sizes: dict[str, Any] = {"patch_size": model.patch_size, "image_size": model.image_size}
    made = build_model(model.backbone, **sizes, labels=model.label_set, aggregation=name).eval()
    made.load_state_dict(made.state_dict() | model.state_dict())
    if name == "position":
        fit_positions(made.aggregation, train, validation)
    else:
        train_on_logits(made, train, validation)
    return made


@torch.no_grad()
def fit_positions(aggregation: Any, train: Split, validation: Split) -> None:
    """As fitAggregation.py does."""
    for c in range(train.logits.shape[2]):
        parts = [(part.logits[..., c].numpy(), part.films.labels[:, c]) for part in (train, validation)]
        fit = fit_label(parts[0], parts[1])
        deviation = torch.from_numpy(len(fit.weights) * fit.weights - 1)
        aggregation.deviation[c] = deviation.reshape(aggregation.deviation[c].shape)
        aggregation.offset[c] = fit.offset


def train_on_logits(made: MedicalPatchNet, train: Split, validation: Split) -> None:
    """Full-batch AdamW over the aggregation's parameters and an affine function per label of the patch logits."""
    factor, offset = (nn.Parameter(value) for value in (torch.ones(len(made.labels)), torch.zeros(len(made.labels))))
    parameters = [factor, offset, *made.aggregation.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=LEARNING_RATE)
    best, kept = np.inf, [parameter.detach().clone() for parameter in parameters]
    for _ in range(STEPS):
        with torch.no_grad():
            loss = cross_entropy(made.aggregation(validation.logits * factor + offset), validation.labels).item()
        if loss < best:
            best, kept = loss, [parameter.detach().clone() for parameter in parameters]
        optimizer.zero_grad()
        cross_entropy(made.aggregation(train.logits * factor + offset), train.labels).backward()
        optimizer.step()
    with torch.no_grad():
        for parameter, value in zip(parameters, kept, strict=True):
            parameter.copy_(value)
        made.head.weight *= factor[:, None]
        made.head.bias.copy_(made.head.bias * factor + offset)


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    known = ~labels.isnan()
    return nn.functional.binary_cross_entropy_with_logits(logits[known], labels[known])
