"""Every script started twice at once in one folder: the same bytes as of one run, or one of the two is refused.

    SOAK_PAIRS=20 python -m pytest tests/soak/test_two_at_once.py

SOAK_PAIRS (1) is the number of pairs per script; after the first pair the second process starts up to half a run after
the first one, seeded.
"""

from __future__ import annotations

import os
import random
import shutil
import sys
import time

import pytest

from tests.soak.runner import content, hidden_files
from tests.soak.steps import HOLD_TIMES, STEPS, begun

PAIRS = int(os.environ.get("SOAK_PAIRS", 1))

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@pytest.mark.parametrize("name", STEPS)
def test_two_at_once_make_the_same_bytes_as_one_or_one_is_refused(undisturbed, tmp_path, name):
    root, seconds = undisturbed(name)
    step, delays = STEPS[name], random.Random(f"13 {name}")
    for number in range(PAIRS):
        out = tmp_path / f"{name}{number}"
        first = begun(step, root, out)
        if number:  # the first pair as closely as can be
            time.sleep(delays.uniform(0, 0.5 * seconds))
        pair = [first, begun(step, root, out, 1)]
        codes = [one.wait() for one in pair]
        assert 0 in codes and set(codes) <= {0, 2}, (number, codes, [one.said() for one in pair])
        for one, code in zip(pair, codes, strict=True):
            if code:
                last = one.said().splitlines()[-1]
                assert last.startswith("error: ") and "is writing into this folder" in last, (number, one.said())
        assert content(out, HOLD_TIMES) == content(root / name, HOLD_TIMES), number
        assert not hidden_files(out)
        shutil.rmtree(out)
