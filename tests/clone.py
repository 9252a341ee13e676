"""A copy of the project in which commands run as they are written, after a demo of few films and one epoch."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SMALL = {"PAIRS": "1", "STEPS_PER_PATCH": "2", "RESAMPLES": "200", "CURVE_FILMS": "1", "WORKERS": "0"}
"""Settings of the scripts that users have too."""
SHORT_DEMO = "PATIENTS=40 EPOCHS=1 ./runDemo.sh"
"""As the README and the script itself name it."""


def copy_project(folder: Path) -> None:
    """Copies into `folder` what a clone would hold, uncommitted changes included."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, check=True, capture_output=True, text=True,
    )  # fmt: skip
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)


def copy_of(clone: Path, folder: Path) -> Path:
    """Copies a clone with all that was made in it, but for the environment, which both use; returns `folder`."""
    shutil.copytree(clone, folder, ignore=shutil.ignore_patterns(".venv"))
    (folder / ".venv").symlink_to(clone / ".venv")
    return folder


def run(commands: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Runs shell commands in a copy of the project, in its `.venv`, with small settings; asserts that they succeed."""
    outside = {name: value for name, value in os.environ.items() if name not in ("CONDA_PREFIX", "PYTHONPATH")}
    python = {"VIRTUAL_ENV": f"{folder}/.venv", "PATH": f"{folder}/.venv/bin:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", commands],
        cwd=folder, env=outside | python | SMALL, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, f"{commands}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    return done
