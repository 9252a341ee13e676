"""Training history per step and epoch, and the trackers that receive it while the training runs."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from cxr.files import InputError, naming, write_text
from cxr.tables import write_csv

if TYPE_CHECKING:
    from torch import Tensor

STEPS_FILE = "history_steps.csv"
EPOCHS_FILE = "history_epochs.csv"

STEP_COLUMNS = ("step", "epoch", "loss", "learning_rate", "grad_norm")
EPOCH_COLUMNS = ("epoch", "train_loss", "valid_mean_auroc")


@dataclass
class History:
    """Loss, learning rate and gradient norm of every step; mean loss and mean validation AUROC of every epoch (from 1).

    It holds nothing that depends on the machine's speed: a resumed run ends with the history of an uninterrupted one.
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
        import pandas as pd  # heavy, and not needed to parse the options

        write_csv(folder / STEPS_FILE, pd.DataFrame(self.steps, columns=list(STEP_COLUMNS)))
        write_csv(folder / EPOCHS_FILE, pd.DataFrame(self.epochs, columns=list(EPOCH_COLUMNS)))

    def state_dict(self) -> dict[str, Any]:
        """Both tables as float64 tensors (rows, columns)."""
        return {"steps": _tensor(self.steps, len(STEP_COLUMNS)), "epochs": _tensor(self.epochs, len(EPOCH_COLUMNS))}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.steps = [(int(row[0]), int(row[1]), *row[2:]) for row in state["steps"].tolist()]
        self.epochs = [(int(row[0]), *row[1:]) for row in state["epochs"].tolist()]


def _tensor(rows: Iterable[tuple[float, ...]], columns: int) -> Tensor:
    import torch

    return torch.tensor(list(rows), dtype=torch.float64).reshape(-1, columns)


JSONL_FILE = "history.jsonl"
SERVICES = ("tensorboard", "wandb")

Row = Mapping[str, float]


class Tracker(Protocol):
    def step(self, row: Row) -> None:
        """Records `step`, `epoch`, `loss`, `learning_rate`, `grad_norm`."""

    def epoch(self, row: Row) -> None:
        """Records `step`, `epoch`, `train_loss`, `valid_mean_auroc`, `films_per_second`."""

    def close(self) -> None: ...


class JsonLines:
    """JSON Lines file, one object per step and per epoch; a value that is not finite is null.

    A run that is resumed from a checkpoint after `steps` steps and `epochs` epochs drops the later lines and writes
    them again.
    """

    def __init__(self, folder: Path, steps: int, epochs: int) -> None:
        self._path = path = folder / JSONL_FILE
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if steps and path.is_file() else []
        write_text(path, "".join(f"{line}\n" for line in lines if _is_before(line, steps, epochs)))
        self._file = open(path, "a", buffering=1, encoding="utf-8", newline="\n")  # a line at a time

    def step(self, row: Row) -> None:
        with naming(self._path):
            self._file.write(json.dumps({name: _plain(value) for name, value in row.items()}) + "\n")

    def epoch(self, row: Row) -> None:
        self.step(row)

    def close(self) -> None:
        self._file.close()


def _is_before(line: str, steps: int, epochs: int) -> bool:
    try:
        row = json.loads(line)
        return row["epoch"] <= epochs if "train_loss" in row else row["step"] <= steps
    except (ValueError, KeyError, TypeError, RecursionError):  # damaged, or the last line of a run that was killed
        return False


def _plain(value: float) -> float | None:
    return value if math.isfinite(value) else None


class TensorBoard:
    def __init__(self, folder: Path, steps: int) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise InputError("--track tensorboard: not installed; pip install tensorboard") from None
        self._writer = SummaryWriter(str(folder / "tensorboard"), purge_step=steps + 1)

    def step(self, row: Row) -> None:
        self._add(row)

    def epoch(self, row: Row) -> None:
        self._add(row)

    def _add(self, row: Row) -> None:
        for name, value in row.items():
            if name != "step":
                self._writer.add_scalar(name, value, int(row["step"]))

    def close(self) -> None:
        self._writer.close()


class WeightsAndBiases:
    """Weights & Biases, offline unless WANDB_MODE or WANDB_API_KEY says otherwise: nothing is uploaded unasked."""

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        try:
            import wandb
        except ImportError:
            raise InputError("--track wandb: not installed; pip install wandb") from None
        mode = os.environ.get("WANDB_MODE", "online" if os.environ.get("WANDB_API_KEY") else "offline")
        self._run = wandb.init(
            project="MedicalPatchNet", name=folder.name, dir=str(folder), config=dict(settings), mode=mode
        )

    def step(self, row: Row) -> None:
        self._run.log(dict(row), step=int(row["step"]))

    def epoch(self, row: Row) -> None:
        self.step(row)

    def close(self) -> None:
        self._run.finish()


def open_trackers(
    names: Sequence[str], folder: Path, settings: Mapping[str, Any], steps: int, epochs: int
) -> list[Tracker]:
    """Opens the trackers of a run that has finished `steps` steps and `epochs` whole epochs.

    Raises InputError for a service that is not installed.
    """
    trackers: list[Tracker] = [JsonLines(folder, steps, epochs)]
    if "tensorboard" in names:
        trackers.append(TensorBoard(folder, steps))
    if "wandb" in names:
        trackers.append(WeightsAndBiases(folder, settings))
    return trackers
