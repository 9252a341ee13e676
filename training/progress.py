"""What a person sees of a running epoch: films/s, loss, rate, time left, and whether the loader is too slow."""

from __future__ import annotations

import time
from collections.abc import Sequence

from tqdm import tqdm

from training.engine import StepRow
from training.loader import Batch, PartSampler

MEASURED_FROM, MEASURED_TO = 3, 20
"""Steps between which speeds are taken, fewer in a short run: the first ones start workers and choose algorithms."""


class Progress:
    """The bar of one epoch, counted in films. Used in a `with`."""

    def __init__(self, title: str, sampler: PartSampler, steps_done: int, shown: bool) -> None:
        self._films = sampler.films_per_step
        total, done = sampler.steps * self._films, steps_done * self._films
        self._bar = tqdm(total=total, initial=done, unit="film", desc=title, disable=not shown)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.close()

    def advance(self) -> None:
        """One step further."""
        self._bar.update(self._films)

    def show(self, row: StepRow) -> None:
        self._bar.set_postfix(loss=f"{row.loss:.3f}", lr=f"{row.learning_rate:.1e}", refresh=False)

    def say(self, text: str) -> None:
        """Prints a line without tearing the bar; only where it is shown."""
        if not self._bar.disable:
            self._bar.write(text)


class Speeds:
    """Films/s that the loader can deliver and the network can take, from the first steps of a run as they are.

    The loader's is what its workers need per film; the network's is the time of the steps less the time that was spent
    waiting for films. Of this process; several have as many times as much. `steps`: how many are ahead.
    """

    def __init__(self, workers: int, steps: int = MEASURED_TO) -> None:
        self.workers = workers
        self._last = min(MEASURED_TO, steps)
        self._steps = self._films = 0
        self._reading = self._waiting = self._started = 0.0

    def add(self, batches: Sequence[Batch], waited: float) -> None:
        """A step with its batches, which were there after `waited` seconds."""
        self._steps += 1
        if self._steps == MEASURED_FROM:
            self._started = time.perf_counter()
        elif self._steps > MEASURED_FROM:
            self._films += sum(len(batch.films) for batch in batches)
            self._reading += sum(batch.seconds for batch in batches)
            self._waiting += waited

    @property
    def due(self) -> bool:
        """Whether it is time for the report, which is to be asked for when the device has finished the step."""
        return MEASURED_FROM < self._steps == self._last

    def report(self) -> str:
        elapsed = time.perf_counter() - self._started
        loader = self._films * max(1, self.workers) / self._reading
        network = self._films / max(elapsed - self._waiting, 1e-9)
        text = f"films/s: loader {loader:.0f} ({self.workers} workers), network {network:.0f}"
        if loader >= network:
            return text
        return f"{text}; the loader is the slower: try more --workers, or packed films (preProcCheXpert.py --packed)"
