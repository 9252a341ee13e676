"""What a run has been through: its history by step and by epoch, and which epoch was the best."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from chexpert.files import write_csv

STEPS_FILE = "history_steps.csv"
EPOCHS_FILE = "history_epochs.csv"

STEP_COLUMNS = ("step", "epoch", "loss", "learning_rate", "grad_norm")
EPOCH_COLUMNS = ("epoch", "train_loss", "valid_mean_auroc")


@dataclass
class History:
    """Loss, learning rate and gradient norm of every step; mean loss and mean validation AUROC of every epoch (from 1).

    Nothing that depends on the machine's speed: a resumed run ends with the very history of an uninterrupted one.
    """

    steps: list[tuple[int, int, float, float, float]] = field(default_factory=list)
    epochs: list[tuple[int, float, float]] = field(default_factory=list)

    def add_step(self, epoch: int, loss: float, learning_rate: float, grad_norm: float) -> None:
        self.steps.append((len(self.steps) + 1, epoch, loss, learning_rate, grad_norm))

    def add_epoch(self, epoch: int, valid_auroc: float) -> None:
        losses = [row[2] for row in self.steps if row[1] == epoch]
        self.epochs.append((epoch, sum(losses) / len(losses), valid_auroc))

    @property
    def best(self) -> dict[str, Any]:
        """The epoch of the highest validation AUROC, the first of equals; an undefined AUROC never wins."""
        epoch, _, auroc = max(self.epochs, key=lambda row: -math.inf if math.isnan(row[2]) else row[2])
        return {"epoch": epoch, "valid_mean_auroc": None if math.isnan(auroc) else auroc}

    def write(self, folder: Path) -> None:
        """Writes both tables into `folder`."""
        write_csv(folder / STEPS_FILE, pd.DataFrame(self.steps, columns=list(STEP_COLUMNS)))
        write_csv(folder / EPOCHS_FILE, pd.DataFrame(self.epochs, columns=list(EPOCH_COLUMNS)))

    def content(self) -> dict[str, Any]:
        """As tensors, for a checkpoint."""
        return {"steps": _tensor(self.steps, len(STEP_COLUMNS)), "epochs": _tensor(self.epochs, len(EPOCH_COLUMNS))}

    @classmethod
    def restored(cls, content: dict[str, Any]) -> History:
        steps = [(int(row[0]), int(row[1]), *row[2:]) for row in content["steps"].tolist()]
        return cls(steps, [(int(row[0]), *row[1:]) for row in content["epochs"].tolist()])


def _tensor(rows: Iterable[tuple[float, ...]], columns: int) -> torch.Tensor:
    return torch.tensor(list(rows), dtype=torch.float64).reshape(-1, columns)
