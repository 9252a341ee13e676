"""Speeds: films/s of the loader beside the network's, from a run whose times are known."""

import pytest
import torch

import training.progress
from training.loader import Batch
from training.progress import MEASURED_TO, Speeds


def batch(films, seconds):
    empty = torch.zeros(films)
    return Batch(empty, empty, empty, empty, empty, {}, seconds)


@pytest.mark.parametrize(
    ("reading", "waited", "expected"),
    [
        (0.2, 0.0, "films/s: loader 40 (2 workers), network 8"),
        (2.0, 0.5, "films/s: loader 4 (2 workers), network 16; the loader is the slower"),
    ],
)
def test_films_per_second_of_steps_that_take_half_a_second(monkeypatch, reading, waited, expected):
    """Steps of 4 films. Loader: 2 workers x 4 films / reading. Network: 4 films / (0.5 - half the waiting)."""
    now = 0.0
    monkeypatch.setattr(training.progress.time, "perf_counter", lambda: now)
    speeds = Speeds(workers=2)
    while not speeds.due:
        speeds.add([batch(2, reading / 2), batch(2, reading / 2)], waited / 2)
        now += 0.5
    now -= 0.5
    assert speeds._steps == MEASURED_TO
    assert speeds.report().startswith(expected)
