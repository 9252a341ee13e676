"""A run from its first step to its last, over any number of interruptions."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from torch import nn
from torch.utils.data import DataLoader

from cxr.files import InputError
from cxr.manifest import Films
from training.checkpoints import Checkpoints
from training.engine import NotFiniteError, Stepper
from training.history import EPOCH_COLUMNS, STEP_COLUMNS, History, Tracker
from training.loader import Batch, PartSampler
from training.progress import Progress, Speeds
from training.workers import StopSignals, end_workers, plain_failures

READ_EVERY = 20
"""Steps between two looks at the losses, each of which waits for the device."""

MOST_UNREADABLE = 0.001
"""Share of the films that may be left out."""


@dataclass(frozen=True)
class Surroundings:
    """What a run needs of the script. `validate` gives the mean AUROC; `keep_weights(best)` writes the weights."""

    folder: Path
    checkpoints: Checkpoints
    seconds_between_checkpoints: float
    trackers: Sequence[Tracker]
    validate: Callable[[], float]
    keep_weights: Callable[[bool], None]


class Run:
    """The state of a run: weights, optimiser, schedule, loss scale, history, and the place in the epoch.

    The order of films and every random number follow from the seed and that place, so nothing else has to be saved.
    """

    def __init__(
        self, net: nn.Module, stepper: Stepper, films: Films, sampler: PartSampler, settings: dict[str, Any]
    ) -> None:
        self.net, self.stepper, self.films, self.sampler, self.settings = net, stepper, films, sampler, settings
        self.peers = stepper.peers
        self.history = History()
        self.epoch = 1
        self.steps_in_epoch = 0
        self.unreadable: dict[int, str] = {}
        self._newly_unreadable: dict[int, str] = {}

    def content(self) -> dict[str, Any]:
        """Everything, for a checkpoint."""
        return {
            "settings": self.settings,
            "epoch": self.epoch,
            "steps_in_epoch": self.steps_in_epoch,
            "weights": self.net.state_dict(),
            "optimizer": self.stepper.optimizer.state_dict(),
            "scheduler": self.stepper.scheduler.state_dict(),
            "scaler": self.stepper.precision.scaler.state_dict(),
            "history": self.history.content(),
            "unreadable": self.unreadable,
        }

    def restore(self, content: dict[str, Any]) -> None:
        """Puts the run where it was when `content` was taken."""
        self.net.load_state_dict(content["weights"])
        self.stepper.optimizer.load_state_dict(content["optimizer"])
        self.stepper.scheduler.load_state_dict(content["scheduler"])
        self.stepper.precision.scaler.load_state_dict(content["scaler"])
        self.stepper.steps = content["step"]
        self.history = History.restored(content["history"])
        self.epoch, self.steps_in_epoch = content["epoch"], content["steps_in_epoch"]
        self.unreadable = dict(content["unreadable"])

    def train(self, epochs: int, loader: DataLoader, around: Surroundings, stop: StopSignals) -> int:
        """Trains from where the run is to the end, or until a signal; returns the signal, 0 at the end.

        A signal in the last validation is returned too, so that what comes after training is left to the next start.

        Raises InputError, before the update, for a loss or gradient that is not finite, and for too many bad films.
        """
        speeds = Speeds(loader.num_workers, steps=epochs * self.sampler.steps - self.stepper.steps)
        received = 0
        with plain_failures():
            while not received and self.epoch <= epochs:
                began, already = time.monotonic(), self.steps_in_epoch
                with Progress(f"epoch {self.epoch}/{epochs}", self.sampler, already, self.peers.first) as progress:
                    received = self._train_epoch(loader, around, stop, progress, speeds)
                if not received:
                    films = (self.steps_in_epoch - already) * self.sampler.films_per_step
                    self._end_epoch(around, films / (time.monotonic() - began))
                    received = int(self.peers.highest([stop.received])[0])
        end_workers()
        return received

    def _train_epoch(
        self, loader: DataLoader, around: Surroundings, stop: StopSignals, progress: Progress, speeds: Speeds
    ) -> int:
        """The rest of the epoch, or the part of it before a signal, which is returned."""
        self.sampler.epoch, self.sampler.first_step = self.epoch, self.steps_in_epoch
        self.stepper.model.train()
        saved = time.monotonic()
        for batches, waited in _steps(iter(loader), len(self.sampler.own_parts)):
            self.stepper.step(batches)
            self.steps_in_epoch += 1
            for batch in batches:
                self._newly_unreadable |= batch.unreadable
            progress.advance()
            speeds.add(batches, waited)
            late = time.monotonic() - saved >= around.seconds_between_checkpoints
            received, due = self.peers.highest([stop.received, late])
            if received or due or speeds.due or self.stepper.unread >= READ_EVERY:
                self._read(around.trackers, progress)
            if speeds.due:
                progress.say(speeds.report())
            if received or due:
                self.save(around.checkpoints)
                saved = time.monotonic()
            if received:
                return int(received)
        self._read(around.trackers, progress)
        return 0

    def _read(self, trackers: Sequence[Tracker], progress: Progress) -> None:
        try:
            rows = self.stepper.read()
        except NotFiniteError as error:
            films = ", ".join(str(self.films.lines[film]) for film in error.films)
            raise InputError(
                f"{error}, with the films of {self.films.table}, lines {films}; training stopped before that update. "
                "A lower --lr, or --precision fp32, may help"
            ) from None
        for row in rows:
            self.history.add_step(self.epoch, row.loss, row.learning_rate, row.grad_norm)
            for tracker in trackers:
                tracker.step(dict(zip(STEP_COLUMNS, self.history.steps[-1], strict=True)))
        if rows:
            progress.show(rows[-1])
        self._count_unreadable()

    def _count_unreadable(self) -> None:
        for found in self.peers.all(self._newly_unreadable):
            self.unreadable |= found
        self._newly_unreadable = {}
        if len(self.unreadable) > MOST_UNREADABLE * len(self.films):
            raise InputError(
                f"{self.films.table}: {len(self.unreadable)} of {len(self.films)} films cannot be read, more than "
                f"{MOST_UNREADABLE:.1%}; the first: {next(iter(self.unreadable.values()))}"
            )

    def _end_epoch(self, around: Surroundings, films_per_second: float) -> None:
        self.history.add_epoch(self.epoch, around.validate())
        if self.peers.first:
            row = dict(zip(EPOCH_COLUMNS, self.history.epochs[-1], strict=True))
            for tracker in around.trackers:
                tracker.epoch({"step": self.stepper.steps, **row, "films_per_second": round(films_per_second, 1)})
            around.keep_weights(self.history.best["epoch"] == self.epoch)
            self.history.write(around.folder)
        self.epoch, self.steps_in_epoch = self.epoch + 1, 0
        self.save(around.checkpoints)

    def save(self, checkpoints: Checkpoints) -> None:
        """Saves the run; only after its steps have been read, so that no checkpoint holds one that is not finite."""
        if self.peers.first:
            checkpoints.save(self.stepper.steps, self.content())


def _steps(batches: Iterator[Batch], parts: int) -> Iterator[tuple[list[Batch], float]]:
    """The batches of each step, and the seconds until they were there."""
    while True:
        started = time.perf_counter()
        of_step = list(islice(batches, parts))
        if not of_step:
            return
        yield of_step, time.perf_counter() - started
