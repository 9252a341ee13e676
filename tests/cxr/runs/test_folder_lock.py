"""Two writers never share a folder; a dead one is in nobody's way."""

import fcntl
import os
import signal
import subprocess
import sys

import pytest

from cxr.files import InputError, replacing
from cxr.runs import folder_lock
from cxr.runs.folder_lock import locked

HOLDER = """
import os, sys, time
from pathlib import Path
from cxr.runs.folder_lock import locked
from cxr.files import replacing
with locked(Path(sys.argv[1])):
    with replacing(Path(sys.argv[1], "x.txt")) as temporary:
        if "fork" in sys.argv and os.fork() == 0:
            time.sleep(1.5)
            os._exit(0)
        print("held", flush=True)
        time.sleep(float(sys.argv[2]))
"""

RACER = """
import sys, time
from pathlib import Path
from cxr.files import InputError
from cxr.runs.folder_lock import locked
try:
    with locked(Path(sys.argv[1], "out")):
        open(sys.argv[2], "a").write("begin\\n")
        time.sleep(0.02)
        open(sys.argv[2], "a").write("end\\n")
except InputError:
    sys.exit(2)
"""


def holder(folder, seconds, *more):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder), str(seconds), *more], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    return process


def test_a_second_process_is_refused_in_one_line_that_names_the_first(tmp_path):
    first = holder(tmp_path, 60)
    with pytest.raises(InputError, match=rf"process {first.pid} on .*-c .* is writing into this folder") as refused:
        with locked(tmp_path):
            pass
    assert "\n" not in str(refused.value)
    first.kill()
    first.wait()
    assert len(list(tmp_path.iterdir())) == 2  # the lock, and its half-written file
    with locked(tmp_path):
        assert os.listdir(tmp_path) == [".lock"]
    assert os.listdir(tmp_path) == []


def test_the_workers_of_a_killed_holder_are_waited_for(tmp_path):
    first = holder(tmp_path, 60, "fork")
    first.send_signal(signal.SIGKILL)
    first.wait()
    with locked(tmp_path):
        assert os.listdir(tmp_path) == [".lock"]


def test_a_process_may_take_its_lock_again_and_lets_go_at_the_end(tmp_path):
    (tmp_path / "new").mkdir()
    with locked(tmp_path / "new"):
        with locked(tmp_path / "new"):
            pass
        handle = os.open(tmp_path / "new/.lock", os.O_RDWR)
        with pytest.raises(BlockingIOError):
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(handle)
    with pytest.raises(KeyError), locked(tmp_path / "new"):
        raise KeyError
    assert not os.listdir(tmp_path / "new")


def test_a_file_system_without_locks_is_said_and_used(tmp_path, monkeypatch, capsys):
    def refuse(*_):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(folder_lock.fcntl, "flock", refuse)
    with locked(tmp_path), replacing(tmp_path / "a") as temporary:
        temporary.write_text("x")
    assert (tmp_path / "a").read_text() == "x"
    assert "keeps no locks" in capsys.readouterr().err


def test_a_link_in_the_place_of_the_lock_is_not_followed(tmp_path):
    other = tmp_path / "other.txt"
    other.write_text("kept")
    (tmp_path / "out").mkdir()
    (tmp_path / "out/.lock").symlink_to(other)
    with pytest.raises(OSError), locked(tmp_path / "out"):
        pass
    assert other.read_text() == "kept"


@pytest.mark.parametrize("run", range(5))
def test_of_many_that_start_together_one_holds_it_at_a_time(tmp_path, run):
    """Each appends a begin and an end; under a lock they never interleave."""
    log = tmp_path / "log"
    started = [subprocess.Popen([sys.executable, "-c", RACER, str(tmp_path), str(log)]) for _ in range(4)]
    codes = [process.wait() for process in started]
    assert set(codes) <= {0, 2} and 0 in codes
    assert log.read_text() == "begin\nend\n" * codes.count(0)


def test_a_folder_that_was_made_for_nothing_is_removed_again(tmp_path):
    with pytest.raises(InputError, match="refused"), locked(tmp_path / "a/b"):
        raise InputError("refused")
    assert not (tmp_path / "a").exists()
    (tmp_path / "mine").mkdir()
    with locked(tmp_path / "mine"):
        pass
    assert (tmp_path / "mine").is_dir()
    with locked(tmp_path / "kept/below"):
        (tmp_path / "kept/below/table.csv").write_text("x")
    assert (tmp_path / "kept/below/table.csv").is_file()
