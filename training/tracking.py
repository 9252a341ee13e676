"""Where a run can be watched: a JSONL file always, TensorBoard or Weights & Biases when asked for."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from chexpert.files import InputError, naming, write_text

JSONL_FILE = "history.jsonl"
SERVICES = ("tensorboard", "wandb")

Row = Mapping[str, float]


class Tracker(Protocol):
    def step(self, row: Row) -> None:
        """Takes `step`, `epoch`, `loss`, `learning_rate`, `grad_norm`."""

    def epoch(self, row: Row) -> None:
        """Takes `step`, `epoch`, `train_loss`, `valid_mean_auroc`, `films_per_second`."""

    def close(self) -> None: ...


class JsonLines:
    """One object per line, of a step or of an epoch, as they come. What is not finite is null.

    A resumed run drops the lines of what comes after its checkpoint, `steps` steps and `epochs` epochs, and writes them
    again.
    """

    def __init__(self, folder: Path, steps: int, epochs: int) -> None:
        self._path = path = folder / JSONL_FILE
        lines = path.read_text(encoding="utf-8").splitlines() if steps and path.is_file() else []
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
    except (json.JSONDecodeError, KeyError, TypeError):  # the last line of a run that was killed
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
    """Offline unless WANDB_MODE or WANDB_API_KEY says otherwise: no login, and nothing leaves the machine unasked."""

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
    """The trackers of a run that has done so many steps and whole epochs.

    Raises InputError for a service that is not installed.
    """
    trackers: list[Tracker] = [JsonLines(folder, steps, epochs)]
    if "tensorboard" in names:
        trackers.append(TensorBoard(folder, steps))
    if "wandb" in names:
        trackers.append(WeightsAndBiases(folder, settings))
    return trackers
