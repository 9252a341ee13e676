"""Every script, killed at random moments and started again, ends with the bytes of an undisturbed run.

    SOAK_KILLS=200 python -m pytest tests/soak/test_kills.py

SOAK_KILLS (15) is the number of kills over all scripts; they are seeded. After each no process may be left; at the end
no temporary file, journal or lock.
"""

from __future__ import annotations

import os
import random
import sys

import pytest

from tests.soak.runner import content, hidden_files, still_running
from tests.soak.steps import HOLD_TIMES, STEPS, begun, log_of, run, share_of

KILLS = int(os.environ.get("SOAK_KILLS", 15))
ORPHAN_SECONDS = 8  # torch's own loader looks for its parent every five

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@pytest.mark.parametrize("name", STEPS)
def test_killed_and_started_again_it_ends_with_the_same_bytes(undisturbed, tmp_path, name):
    root, seconds = undisturbed
    step, out = STEPS[name], tmp_path / name
    moments = random.Random(f"13 {name}")
    for number in range(share_of(name, KILLS)):
        process = begun(step, root, out)
        process.process.join(moments.uniform(0.02, 1.1 * seconds[name]))
        if process.process.is_alive():
            orphans = still_running(process.kill(), ORPHAN_SECONDS)
            assert not orphans, f"kill {number}"
        else:
            assert process.process.exitcode == 0, process.said()
    assert run(step, root, out) == 0, log_of(out).read_text()
    assert content(out, HOLD_TIMES) == content(root / name, HOLD_TIMES)
    assert not hidden_files(out)
