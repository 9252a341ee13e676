"""Looks: all processes at the same steps, after every long one, and seldom among short ones."""

import pytest

from tests.training_runs import together
from training import looks
from training.distributed import SINGLE_PROCESS, ProcessGroup
from training.looks import Looks


class Clock:
    """Time that passes only where a test says so."""

    def __init__(self, monkeypatch):
        self.now = 100.0
        monkeypatch.setattr(looks.time, "monotonic", lambda: self.now)


class OtherIsSlower(ProcessGroup):
    """The first of two processes, the other of which takes `seconds` a step and receives no signal."""

    def __init__(self, seconds):
        super().__init__(0, 2)
        self.seconds, self.collectives = seconds, 0

    def all_reduce_max(self, values):
        self.collectives += 1
        return [max(pair) for pair in zip(values, (0, 0, self.seconds), strict=True)]


def steps_looked_at(found, clock, seconds, steps):
    """Of `steps` steps of so many seconds, the numbers after which there was a look."""
    looked = []
    for number in range(1, steps + 1):
        clock.now += seconds
        if found.due():
            found.look(0, late=False)
            looked.append(number)
    return looked


def test_a_single_process_looks_after_every_step(monkeypatch):
    clock = Clock(monkeypatch)
    assert steps_looked_at(Looks(SINGLE_PROCESS, 20), clock, 0.001, 50) == list(range(1, 51))


@pytest.mark.parametrize(
    ("own", "other", "expected"),
    [
        (0.001, 0.001, [1, 21, 41]),  # 20 steps at most
        (0.1, 0.05, [1, 11, 21, 31, 41]),  # one a second, by the slower process
        (0.05, 0.25, [*range(1, 51, 4)]),
        (0.7, 0.1, [*range(1, 51)]),
        (30.0, 1.0, [*range(1, 51)]),
        (0.0, 0.0, [1, 21, 41]),  # a clock that does not move
    ],
)
def test_several_look_about_once_a_second(own, other, expected, monkeypatch):
    clock, group = Clock(monkeypatch), OtherIsSlower(other)
    assert steps_looked_at(Looks(group, 20), clock, own, 50) == expected
    assert group.collectives == len(expected)


@pytest.mark.parametrize("seconds", [0.001, 0.0])
def test_several_look_after_every_step_where_every_step_is_saved(seconds, monkeypatch):
    clock = Clock(monkeypatch)
    assert steps_looked_at(Looks(OtherIsSlower(0), 20, seconds=0), clock, seconds, 9) == list(range(1, 10))


def test_steps_that_become_slow_are_looked_at_more_often(monkeypatch):
    clock = Clock(monkeypatch)
    found = Looks(OtherIsSlower(0.001), 20)
    assert steps_looked_at(found, clock, 0.001, 21) == [1, 21]
    assert steps_looked_at(found, clock, 2.0, 25) == [20, 21, 22, 23, 24, 25]


def heard(group):
    """What two processes of different speed and news agree on; the first look is after the first step."""
    found = Looks(group, 20)
    found.due()
    first = found.look(15 * group.rank, late=group.rank == 0)
    return {"first": list(first), "next": found._next}


def test_processes_agree_on_signal_lateness_and_next_look(tmp_path):
    first, second = together(heard, 2, tmp_path)
    assert first == second and first["first"] == [15, True] and 1 <= first["next"] <= 20
