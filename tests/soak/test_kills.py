"""Every script, its workers or itself killed at random moments, ends with the bytes of an undisturbed run.

    SOAK_KILLS=200 python -m pytest tests/soak/test_kills.py

SOAK_KILLS (15) is the number of kills over all scripts; they are seeded. A worker that dies is one line. After each
kill no process may be left; at the end no temporary file, journal or lock.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import random
import re
import shutil
import signal
import sys

import pytest

import cli
from cxr.dataset import FilmDataset
from cxr.film_folder import FilmFolder
from cxr.runs import pool
from tests.soak.runner import content, hidden_files, still_running
from tests.soak.steps import HOLD_TIMES, STEPS, begun, log_of, run, share_of

KILLS = int(os.environ.get("SOAK_KILLS", 15))
WITHOUT_WORKERS = ("manifest", "converted", "reported", "trained")
"""Steps without worker processes, and trainClassification.py, whose workers die in tests/test_training_failures.py."""

ORPHAN_SECONDS = 8  # torch's own loader looks for its parent every five

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def die_in_a_worker(*_):
    if multiprocessing.parent_process() is not None:
        os.kill(os.getpid(), signal.SIGKILL)


def lose_a_worker(step, root, out, patch, capsys):
    """Runs the step in this process; every worker dies as soon as it has started, or reads its first film."""
    if step.start:
        shutil.copytree(root / step.start, out / "model")
    patch.setattr(pool, "_start", die_in_a_worker)
    for dataset in (FilmDataset, FilmFolder):
        patch.setattr(dataset, "__getitem__", die_in_a_worker)
    main = importlib.import_module(step.script).main
    code = cli.guarded(main, [str(argument) for argument in step.arguments(root, out)])
    printed = capsys.readouterr().err
    said = [line for line in re.split("[\r\n]+", printed) if "a worker process died" in line]
    assert code == 1 and len(said) == 1 and said[0].startswith("error: ") and "Traceback" not in printed, printed


@pytest.mark.parametrize("name", STEPS)
def test_killed_and_started_again_it_ends_with_the_same_bytes(undisturbed, tmp_path, monkeypatch, capsys, name):
    root, seconds = undisturbed(name)
    step, out = STEPS[name], tmp_path / name
    if name not in WITHOUT_WORKERS:
        with monkeypatch.context() as patch:
            lose_a_worker(step, root, out, patch, capsys)
    moments = random.Random(f"13 {name}")
    for number in range(share_of(name, KILLS)):
        process = begun(step, root, out)
        process.process.join(moments.uniform(0.02, 1.1 * seconds))
        if process.process.is_alive():
            orphans = still_running(process.kill(), ORPHAN_SECONDS)
            assert not orphans, f"kill {number}"
        else:
            assert process.process.exitcode == 0, process.said()
    assert run(step, root, out) == 0, log_of(out).read_text()
    assert content(out, HOLD_TIMES) == content(root / name, HOLD_TIMES)
    assert not hidden_files(out)
