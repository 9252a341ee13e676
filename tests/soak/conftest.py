"""Undisturbed runs of every script, which disturbed ones must equal."""

import time

import pytest

from tests.soak.steps import STEPS, log_of, run


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory):
    """Runs each step once, in order; returns the folder of results and the seconds of each."""
    root, seconds = tmp_path_factory.mktemp("soak"), {}
    for name, step in STEPS.items():
        started = time.monotonic()
        assert run(step, root, root / name) == 0, (name, log_of(root / name).read_text())
        seconds[name] = time.monotonic() - started
    return root, seconds
