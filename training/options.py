"""Options of the training loop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cxr.files import InputError
from training.engine import PrecisionName
from training.loader import BadFilmPolicy


@dataclass(frozen=True)
class TrainingOptions:
    """Options of the loop under the names of `trainClassification.py`, whose `--help` explains them."""

    lr: float
    batch_size: int
    epochs: int
    seed: int = 0
    accumulate: int = 1
    precision: PrecisionName = "auto"
    compile: bool = False
    no_deterministic: bool = False
    on_bad_image: BadFilmPolicy = "stop"
    workers: int = 0
    worker_timeout: float = 300.0
    checkpoint_minutes: float = 10.0
    track: Sequence[str] = ()

    def parts_per_step(self, world_size: int) -> int:
        """Parts of a step over all processes. Raises InputError when they do not divide the batch."""
        parts = self.accumulate * world_size
        if self.batch_size % parts:
            where = f"--batch-size {self.batch_size}"
            raise InputError(f"{where}: not a multiple of {parts} (--accumulate x processes); change one of the three")
        return parts
