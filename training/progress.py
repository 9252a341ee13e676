"""Progress of a running epoch: films/s, loss, learning rate, time left, and whether the loader is too slow."""

from __future__ import annotations

import time
from collections.abc import Sequence

from tqdm import tqdm

from training.engine import StepRow
from training.loader import Batch, PartSampler

MEASURED_FROM, MEASURED_TO = 3, 20
"""Steps between which speeds are measured, fewer in a short run: the first ones start workers, choose algorithms."""


class Progress:
    """The bar of one epoch, counted in films; a context manager. Hidden where the output is not a terminal."""

    def __init__(self, title: str, sampler: PartSampler, steps_done: int, shown: bool) -> None:
        self._films = sampler.films_per_step
        total, done = sampler.steps * self._films, steps_done * self._films
        self._shown = shown
        self._bar = tqdm(total=total, initial=done, unit="film", desc=title, disable=None if shown else True)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.close()

    def advance(self) -> None:
        """Advances the bar by one step."""
        self._bar.update(self._films)

    def show(self, row: StepRow) -> None:
        self._bar.set_postfix(loss=f"{row.loss:.3f}", lr=f"{row.learning_rate:.1e}", refresh=False)

    def say(self, text: str) -> None:
        """Prints a line without tearing the bar."""
        if self._shown:
            self._bar.write(text)


class Speeds:
    """Films/s that the loader can deliver and that the network can take, measured in the first steps of a run.

    Loader: from the reading time of its workers. Network: from the time of the steps without the waiting for films.
    Both of this process alone. steps: number of steps that are ahead.
    """

    def __init__(self, workers: int, steps: int = MEASURED_TO) -> None:
        self.workers = workers
        self._last = min(MEASURED_TO, steps)
        self._steps = self._films = 0
        self._reading = self._waiting = self._started = 0.0

    def add(self, batches: Sequence[Batch], waited: float) -> None:
        """Counts a step and its batches, which came after `waited` seconds."""
        self._steps += 1
        if self._steps == MEASURED_FROM:
            self._started = time.perf_counter()
        elif self._steps > MEASURED_FROM:
            self._films += sum(len(batch.films) for batch in batches)
            self._reading += sum(batch.seconds for batch in batches)
            self._waiting += waited

    @property
    def due(self) -> bool:
        """Whether it is time for the report; ask for it when the device has finished the step."""
        return MEASURED_FROM < self._steps == self._last

    def report(self) -> str:
        elapsed = time.perf_counter() - self._started
        loader = self._films * max(1, self.workers) / self._reading
        network = self._films / max(elapsed - self._waiting, 1e-9)
        text = f"films/s: loader {loader:.0f} ({self.workers} workers), network {network:.0f}"
        if loader >= network:
            return text
        return f"{text}; the loader is the slower: try more --workers, or packed films (preProcCheXpert.py --packed)"
