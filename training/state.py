"""What a run has been through: its history by step and by epoch, and which epoch was the best."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from chexpert.files import write_csv

STEPS_FILE = "history_steps.csv"
EPOCHS_FILE = "history_epochs.csv"


@dataclass
class History:
    """Loss and learning rate of every step; mean loss and mean validation AUROC of every epoch (from 1)."""

    steps: list[tuple[int, int, float, float]] = field(default_factory=list)
    epochs: list[tuple[int, float, float]] = field(default_factory=list)

    def add_step(self, epoch: int, loss: float, learning_rate: float) -> None:
        self.steps.append((len(self.steps) + 1, epoch, loss, learning_rate))

    def add_epoch(self, epoch: int, valid_auroc: float) -> None:
        losses = [loss for _, of_epoch, loss, _ in self.steps if of_epoch == epoch]
        self.epochs.append((epoch, sum(losses) / len(losses), valid_auroc))

    @property
    def best(self) -> dict[str, Any]:
        """The epoch of the highest validation AUROC, the first of equals; an undefined AUROC never wins."""
        epoch, _, auroc = max(self.epochs, key=lambda row: -math.inf if math.isnan(row[2]) else row[2])
        return {"epoch": epoch, "valid_mean_auroc": None if math.isnan(auroc) else auroc}

    def write(self, folder: Path) -> None:
        """Writes both tables into `folder`."""
        steps = pd.DataFrame(self.steps, columns=["step", "epoch", "loss", "learning_rate"])
        epochs = pd.DataFrame(self.epochs, columns=["epoch", "train_loss", "valid_mean_auroc"])
        write_csv(folder / STEPS_FILE, steps)
        write_csv(folder / EPOCHS_FILE, epochs)
