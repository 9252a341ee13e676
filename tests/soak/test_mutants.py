"""Damaged files of every format: read, or refused in one line; no crash, no hang, no traceback, no litter.

    SOAK_MUTANTS=200 python -m pytest tests/soak/test_mutants.py

SOAK_MUTANTS (20) is the number of mutants per format; they are seeded.
"""

import json
import os
import signal
import sys

import pytest

from cxr.files import read_json
from tests.soak.formats import FORMATS
from tests.soak.mutants import MEMORY, is_one_line, outcome, outcomes, soak
from tests.soak.runner import SERVER

MUTANTS = int(os.environ.get("SOAK_MUTANTS", 20))

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks")


@pytest.mark.parametrize("name", FORMATS)
def test_mutants_are_read_or_refused_in_one_line(tmp_path, tiny_chexpert, name):
    process = SERVER.Process(target=soak, args=(name, tmp_path, tiny_chexpert, MUTANTS))
    process.start()
    process.join()
    good, *mutants = read_json(tmp_path / "said.json", list)
    assert good == "read" and len(mutants) == MUTANTS
    bad = {number: said[-3000:] for number, said in enumerate(mutants, 1) if said != "read" and not is_one_line(said)}
    assert not bad, "\n".join(f"mutant {number}: {said}" for number, said in bad.items())


def test_the_harness_sees_what_it_is_for(tmp_path):
    path = tmp_path / "work/a"
    path.parent.mkdir()
    path.write_text("x")

    def written(number):
        path.write_text("die" if number == 1 else "live")
        return path

    assert outcome(lambda path: os.kill(os.getpid(), signal.SIGSEGV), path) == "died of SIGSEGV"
    assert outcome(lambda path: json.loads(path.read_text()), path).startswith("traceback: ")
    too_large = outcome(lambda path: bytearray(2 * MEMORY), path)
    assert too_large.startswith("refused: error: out of memory") and not is_one_line(too_large)
    assert outcomes(lambda path: path.read_text() == "die" and os.abort(), written, 3) == [
        "read",
        "died of SIGABRT",
        "read",
    ]
    path.write_text("x")
    refused = outcome(read_json, path)
    assert is_one_line(refused) and not is_one_line("refused: error: a\x1b[2J")
