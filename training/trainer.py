"""The training loop: build, resume, train, finish; over any number of interruptions."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from signal import Signals
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from cxr.dataset import FilmDataset
from cxr.files import InputError, place, write_json
from cxr.manifests.films import Films
from training.checkpoints import FINISHED, START_OVER, Checkpoints, misfit
from training.compiling import compiled
from training.distillation import Distillation
from training.distributed import SINGLE_PROCESS, ProcessGroup
from training.engine import NotFiniteError, Precision, Stepper, film_loss, one_cycle, predict_films
from training.history import EPOCH_COLUMNS, STEP_COLUMNS, History, Tracker, open_trackers
from training.loader import Batch, PartSampler, TrainingSet, collate
from training.looks import LOOK_SECONDS, Looks
from training.options import TrainingOptions
from training.progress import Progress, Speeds
from training.unreadable import UnreadableFilms
from training.workers import EXIT_CODES, StopSignals, end_workers, ignore_signals, plain_failures

READ_EVERY = 20
"""Steps between two readings of the losses, each of which waits for the device."""


class Trainer:
    """Trains a network; its state is weights, optimiser, schedule, loss scale, history, and the place in the epoch.

    The order of films and every random number follow from the seed and that place, so nothing else has to be saved.

    model: (B, 1, S, S) -> (B, C), with S = `image_size`. settings: everything that decides about the weights, stored in
    every checkpoint. score: mean AUROC of validation logits (N, C) and labels (N, C). save_weights: writes a network
    into a folder. distillation: of a teacher, if there is one.
    """

    def __init__(
        self,
        model: nn.Module,
        films: Films,
        validation: Films,
        options: TrainingOptions,
        checkpoints: Checkpoints,
        settings: Mapping[str, Any],
        *,
        image_size: int,
        score: Callable[[Tensor, Any], float],
        save_weights: Callable[[nn.Module, Path], None],
        device: str = "cpu",
        group: ProcessGroup = SINGLE_PROCESS,
        distillation: Distillation | None = None,
    ) -> None:
        if len(films) < options.batch_size:
            raise InputError(f"{place(films.table)}: {len(films)} films are fewer than one batch; lower --batch-size")
        self.films, self.validation, self.image_size = films, validation, image_size
        self.options, self.settings, self.device, self.group = options, dict(settings), device, group
        self.checkpoints, self.folder = checkpoints, checkpoints.folder
        self.score, self.save_weights, self.distillation = score, save_weights, distillation
        with plain_failures():
            self.model = model.to(device).to(memory_format=torch.channels_last)
        self.sampler = PartSampler(
            len(films),
            options.batch_size,
            options.seed,
            options.parts_per_step(group.world_size),
            rank=group.rank,
            world_size=group.world_size,
        )
        self.stepper = self._build_stepper()
        self.history = History()
        self.epoch = 1
        self.steps_in_epoch = 0
        self.unreadable = UnreadableFilms(films, group)
        self._trackers: Sequence[Tracker] = ()

    def _build_stepper(self) -> Stepper:
        """AdamW and the OneCycle schedule, as published."""
        options, taught = self.options, self.distillation
        torch.backends.cudnn.deterministic = not options.no_deterministic
        torch.backends.cudnn.benchmark = options.no_deterministic
        network = taught.student(self.model) if taught else self.model
        if options.compile:
            network = compiled(network, deterministic=not options.no_deterministic)
        model = self.group.wrap_model(network, self.device)
        optimizer = torch.optim.AdamW(self.model.parameters(), lr=options.lr, fused=True)
        scheduler = one_cycle(optimizer, options.lr, options.epochs * self.sampler.steps)
        precision = Precision(self.device, options.precision)
        loss = taught.loss if taught else film_loss
        return Stepper(model, optimizer, scheduler, precision, options.seed, self.group, loss)

    def _build_loader(self) -> DataLoader:
        options = self.options
        films = FilmDataset(self.films, self.image_size)
        return DataLoader(
            TrainingSet(films, options.seed, options.on_bad_image),
            batch_sampler=self.sampler,
            collate_fn=collate,
            num_workers=options.workers,
            worker_init_fn=ignore_signals,
            timeout=options.worker_timeout if options.workers else 0,
            pin_memory=self.device == "cuda",
            persistent_workers=options.workers > 0,
        )

    # ------------------------------------------------------------------------------------------------------ the state

    def state_dict(self) -> dict[str, Any]:
        """Everything that a checkpoint has to hold; `Checkpoints` adds the step."""
        return {
            "settings": self.settings,
            "epoch": self.epoch,
            "steps_in_epoch": self.steps_in_epoch,
            "weights": self.model.state_dict(),
            "optimizer": self.stepper.optimizer.state_dict(),
            "scheduler": self.stepper.scheduler.state_dict(),
            "scaler": self.stepper.precision.scaler.state_dict(),
            "history": self.history.state_dict(),
            "unreadable": self.unreadable.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores the run as it was when `state` was taken."""
        self.model.load_state_dict(state["weights"])
        self.stepper.optimizer.load_state_dict(state["optimizer"])
        self.stepper.scheduler.load_state_dict(state["scheduler"])
        self.stepper.precision.scaler.load_state_dict(state["scaler"])
        self.stepper.steps = state["step"]
        self.history.load_state_dict(state["history"])
        self.epoch, self.steps_in_epoch = state["epoch"], state["steps_in_epoch"]
        self.unreadable.load_state_dict(state["unreadable"])

    def resume(self, state: Mapping[str, Any]) -> None:
        """Continues from a checkpoint. Raises InputError for a state that does not fit this run."""
        parameters = list(self.model.parameters())
        reason = misfit(state, self.state_dict(), parameters, self.options.epochs, self.sampler.steps)
        if reason:
            where = place(self.checkpoints.newest)
            raise InputError(f"{where}: not a training state of this network and these films ({reason}); {START_OVER}")
        self.load_state_dict(state)
        self.group.print(f"going on after step {self.stepper.steps}, in epoch {self.epoch}")

    # ------------------------------------------------------------------------------------------------------- the loop

    def train(self) -> int | None:
        """Trains to the end, or until a signal, whose exit code is returned; None at the end.

        A signal in the last validation counts too, so that what follows training is left to the next start.

        Raises InputError, before the update, for a loss or gradient that is not finite, and for too many bad films.
        """
        done = (self.stepper.steps, len(self.history.epochs))
        if self.group.is_main:
            self._trackers = open_trackers(self.options.track, self.folder, self.settings, *done)
        with StopSignals() as stop:
            received = self._train_epochs(self._build_loader(), stop)
        for tracker in self._trackers:
            tracker.close()
        if not received:
            return None
        if self.group.is_main:
            name = Signals(received).name
            print(f"stopped by {name}; the same command goes on from here", file=sys.stderr)
        return EXIT_CODES[Signals(received)]

    def _train_epochs(self, loader: DataLoader, stop: StopSignals) -> int:
        """Trains the epochs that are left, or their part before a signal, which is returned; 0 at the end."""
        speeds = Speeds(loader.num_workers, steps=self.options.epochs * self.sampler.steps - self.stepper.steps)
        received = 0
        with plain_failures():
            while not received and self.epoch <= self.options.epochs:
                began, already = time.monotonic(), self.steps_in_epoch
                title = f"epoch {self.epoch}/{self.options.epochs}"
                with Progress(title, self.sampler, already, self.group.is_main) as progress:
                    received = self._train_epoch(loader, stop, progress, speeds)
                if not received:
                    films = (self.steps_in_epoch - already) * self.sampler.films_per_step
                    self._end_epoch(title, films / (time.monotonic() - began))
                    received = int(self.group.all_reduce_max([stop.received])[0])
        end_workers()
        return received

    def _train_epoch(self, loader: DataLoader, stop: StopSignals, progress: Progress, speeds: Speeds) -> int:
        """Trains the rest of the epoch, or its part before a signal, which is returned; 0 at the epoch's end.

        A signal that comes after the last look is left to the one at the end of the epoch.
        """
        self.sampler.epoch, self.sampler.first_step = self.epoch, self.steps_in_epoch
        self.stepper.model.train()
        between_saves = 60 * self.options.checkpoint_minutes
        looks = Looks(self.group, READ_EVERY, min(LOOK_SECONDS, between_saves))
        saved = time.monotonic()
        for batches, waited in _steps(iter(loader), len(self.sampler.own_parts)):
            self.stepper.step(batches)
            self.steps_in_epoch += 1
            self.unreadable.note(batches)
            progress.advance()
            speeds.add(batches, waited)
            received, due = 0, False
            if looks.due():
                received, due = looks.look(stop.received, late=time.monotonic() - saved >= between_saves)
            if received or due or speeds.due or self.stepper.unread >= READ_EVERY:
                self._read(progress)
            if speeds.due:
                progress.say(speeds.report())
            if received or due:
                self._save()
                saved = time.monotonic()
            if received:
                return received
        self._read(progress)
        return 0

    def _read(self, progress: Progress) -> None:
        """Reads the losses of the last steps into history and trackers."""
        try:
            rows = self.stepper.read()
        except NotFiniteError as error:
            lines = ", ".join(str(self.films.lines[film]) for film in error.films)
            raise InputError(
                f"{place(self.films.table)}, lines {lines}: {error} with these films; training stopped before that "
                "update. A lower --lr, or --precision fp32, may help"
            ) from None
        for row in rows:
            self.history.add_step(self.epoch, row.loss, row.learning_rate, row.grad_norm)
            for tracker in self._trackers:
                tracker.step(dict(zip(STEP_COLUMNS, self.history.steps[-1], strict=True)))
        if rows:
            progress.show(rows[-1])
        self.unreadable.count()

    def _end_epoch(self, title: str, films_per_second: float) -> None:
        self.history.add_epoch(self.epoch, self._validate())
        if self.group.is_main:
            row = dict(zip(EPOCH_COLUMNS, self.history.epochs[-1], strict=True))
            for tracker in self._trackers:
                tracker.epoch({"step": self.stepper.steps, **row, "films_per_second": round(films_per_second, 1)})
            words = f"loss {row['train_loss']:.4f}, validation AUROC {row['valid_mean_auroc']:.4f}"
            print(f"{title}: {words}, {films_per_second:.1f} films/s")
            self._write_weights()
            self.history.write(self.folder)
        self.epoch, self.steps_in_epoch = self.epoch + 1, 0
        self._save()

    def _validate(self) -> float:
        """Mean AUROC of the validation films."""
        options = self.options
        logits = predict_films(
            self.model,
            FilmDataset(self.validation, self.image_size),
            self.device,
            batch_size=options.batch_size,
            workers=options.workers,
            worker_timeout=options.worker_timeout,
            group=self.group,
        )
        return self.score(logits, self.validation.labels)

    def _write_weights(self) -> None:
        """The last weights into the folder; those of the best epoch also into `best/`."""
        self.save_weights(self.model, self.folder)
        if self.history.best["epoch"] == self.epoch:
            self.save_weights(self.model, self.folder / "best")

    def _save(self) -> None:
        """Writes a checkpoint; only after the steps have been read, so that none holds weights that are not finite."""
        if self.group.is_main:
            self.checkpoints.save(self.stepper.steps, self.state_dict())

    # -------------------------------------------------------------------------------------------------------- the end

    def finish(self, facts: Mapping[str, Any]) -> None:
        """Writes `training.json`, which says that the run is complete: `facts`, the best epoch, unreadable films."""
        facts = {**facts, "settings": self.settings, "processes": self.group.world_size}
        write_json(
            self.folder / FINISHED, facts | {"best": self.history.best, "unreadable_films": self.unreadable.listed()}
        )


def _steps(batches: Iterator[Batch], parts: int) -> Iterator[tuple[list[Batch], float]]:
    """The batches of each step, and the seconds of waiting for them."""
    while True:
        started = time.perf_counter()
        of_step = list(islice(batches, parts))
        if not of_step:
            return
        yield of_step, time.perf_counter() - started
