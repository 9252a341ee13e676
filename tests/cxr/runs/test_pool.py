"""Results in order whatever the number of workers; dead workers are one line, and none outlives its parent."""

import os
import signal
import subprocess
import sys
import time

import pytest

from cxr.files import InputError
from cxr.runs.pool import in_processes


def square(number):
    return number * number


def fail_at_three(number):
    if number == 3:
        raise InputError("three: too much")
    return number


def die_at_three(number):
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def remember(value):
    global remembered
    remembered = value


def recall(_):
    return remembered


@pytest.mark.parametrize("workers", [0, 1, 2, 5])
def test_results_in_order(workers):
    assert list(in_processes(square, range(11), workers, chunk=2)) == [n * n for n in range(11)]
    assert list(in_processes(square, [], workers)) == []
    assert set(in_processes(recall, range(5), workers, set_up=remember, arguments=("x",))) == {"x"}


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_of_the_function_is_raised_here(workers):
    with pytest.raises(InputError, match="three: too much"):
        list(in_processes(fail_at_three, range(6), workers))


def test_a_worker_that_dies_is_one_line():
    with pytest.raises(OSError, match="a worker process died, most likely out of memory; take a smaller --workers"):
        list(in_processes(die_at_three, range(6), 2))


PARENT = """
import os, sys, time
from cxr.runs.pool import in_processes
def work(number):
    os.write(1, str(os.getpid()).encode() + bytes([10]))
    time.sleep(60)
list(in_processes(work, range(4), 2))
"""


def is_running(pid):
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_no_worker_outlives_its_parent(number):
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True)
    workers = [int(parent.stdout.readline()) for _ in range(2)]
    assert all(map(is_running, workers))
    parent.send_signal(number)
    parent.wait()
    deadline = time.monotonic() + 2
    while any(map(is_running, workers)) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not any(map(is_running, workers))
