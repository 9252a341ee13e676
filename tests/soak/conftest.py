"""Undisturbed runs of every script, which disturbed ones must equal."""

import time

import pytest

from tests.soak.steps import STEPS, log_of, run


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory):
    """Function: name of a step -> folder of the undisturbed results, and the seconds of this step.

    A step runs once, after those whose results it reads.
    """
    root, seconds = tmp_path_factory.mktemp("soak"), {}

    def made(name):
        if name not in seconds:
            for needed in STEPS[name].needs:
                made(needed)
            started = time.monotonic()
            assert run(STEPS[name], root, root / name) == 0, (name, log_of(root / name).read_text())
            seconds[name] = time.monotonic() - started
        return root, seconds[name]

    return made
