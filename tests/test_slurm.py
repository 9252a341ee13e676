"""slurm/train.sbatch with fake Slurm commands: what it starts on which node, and when it is requeued."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.training_runs import ROOT

SCRIPT = ROOT / "slurm/train.sbatch"

SRUN = """#!/bin/bash
printf '%s\\n' "$@" > "$FAKES/srun"
while [[ $1 == --* ]]; do shift; done
PATH=$FAKES/tasks:$PATH SLURM_PROCID=3 SLURM_LOCALID=1 SLURM_NTASKS=4 "$@"
"""
PYTHON = """#!/bin/bash
echo "$RANK of $WORLD_SIZE, $LOCAL_RANK here, at $MASTER_ADDR:$MASTER_PORT" > "$FAKES/task"
printf '%s\\n' "$@" >> "$FAKES/task"
[ -n "$FAKE_COMPLETE" ] && mkdir -p "$FAKE_COMPLETE" && touch "$FAKE_COMPLETE/training.json"
[ "$FAKE_CODE" = killed ] && kill -USR1 $$
exit "$FAKE_CODE"
"""
SCONTROL = """#!/bin/bash
[ "$1" = show ] && printf 'node7\\nnode8\\n' || echo "$@" >> "$FAKES/scontrol"
"""


@pytest.fixture
def submit(tmp_path):
    """Runs the script as a job; the process that ended, and what was called, by name."""
    for name, text in (("bin/srun", SRUN), ("bin/scontrol", SCONTROL), ("tasks/python", PYTHON)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)

    def run(*arguments, code="0", complete="", **environment):
        job = {"SLURM_JOB_ID": "20011", "SLURM_SUBMIT_DIR": str(ROOT), "SLURM_JOB_NODELIST": "node[7-8]"}
        fakes = {"FAKES": str(tmp_path), "FAKE_CODE": code, "FAKE_COMPLETE": str(complete)}
        path = os.pathsep.join([str(tmp_path / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]])
        environment = {"SLURM_CPUS_PER_TASK": "6", "VIRTUAL_ENV": sys.prefix, "PATH": path} | job | environment
        calls = ["bash", str(SCRIPT), *map(str, arguments)]
        done = subprocess.run(calls, env=os.environ | fakes | environment, capture_output=True, text=True, timeout=120)
        files = {name: tmp_path / name for name in ("srun", "task", "scontrol")}
        return done, {name: file.read_text().splitlines() if file.exists() else [] for name, file in files.items()}

    return run


def test_bash_can_read_it():
    assert subprocess.run(["bash", "-n", str(SCRIPT)]).returncode == 0


def test_every_task_is_one_process_of_the_run(submit, tmp_path):
    output = tmp_path / "with space"
    done, called = submit("packed", output, "--batch-size", "64", complete=output)
    assert done.returncode == 0, done.stderr
    assert called["srun"][:2] == ["--kill-on-bad-exit=1", "--cpus-per-task=6"]
    words = ["trainClassification.py", "--data", "packed", "--output", str(output), "--workers", "6"]
    assert called["task"] == ["3 of 4, 1 here, at node7:20011", *words, "--batch-size", "64"]


@pytest.mark.parametrize(
    ("code", "complete", "requeued", "status"),
    [
        ("0", True, False, 0),
        ("0", False, True, 0),  # stopped by SIGUSR1 while it trained or validated
        ("killed", True, True, 138),  # while it evaluated
        ("143", False, False, 143),  # cancelled, or preempted: Slurm decides
        ("2", False, False, 2),
        ("1", False, False, 1),
    ],
)
def test_it_goes_back_into_the_queue_only_when_the_time_was_up(submit, tmp_path, code, complete, requeued, status):
    output = tmp_path / "run"
    done, called = submit("packed", output, code=code, complete=output if complete else "")
    assert called["scontrol"] == (["requeue 20011"] if requeued else [])
    assert done.returncode == status


def test_without_arguments_or_outside_of_a_job_it_says_how(submit):
    for done, called in (submit("packed"), submit("packed", "run", SLURM_JOB_ID=""), submit("packed", "run.pt")):
        assert done.returncode == 2 and called["srun"] == []
        assert "usage: sbatch slurm/train.sbatch DATA_DIR OUTPUT_DIR" in done.stderr
    done, called = submit("--help", SLURM_JOB_ID="")
    assert (done.returncode, done.stderr, called["srun"]) == (0, "", [])
    assert done.stdout.startswith("usage: sbatch slurm/train.sbatch DATA_DIR OUTPUT_DIR")


def test_the_signal_it_asks_for_is_one_that_a_run_stops_for():
    (name,) = re.findall(r"^#SBATCH --signal=(\w+)@\d+$", SCRIPT.read_text(), re.M)
    assert name == "USR1"
