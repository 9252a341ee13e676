"""runEval.sh: which weights it evaluates, and which of them it describes afterwards."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[1] / "runEval.sh"
HUB = "hf://patrick-w/MedicalPatchNet"

RECORDER = """\
#!/bin/sh
case "$1" in
  *.py | -m) echo "$@" >> "{calls}" ;;
  *) exec "{python}" "$@" ;;
esac
"""


def run(folder: Path) -> tuple[subprocess.CompletedProcess[str], list[list[str]]]:
    """How the script ends when its weights lie in `folder`, and the Python commands it gives; none of them is run."""
    recorder, calls = folder / "bin/python", folder / "calls"
    recorder.parent.mkdir(exist_ok=True)
    recorder.write_text(RECORDER.format(calls=calls, python=sys.executable))
    recorder.chmod(0o755)
    own = {"PATH": f"{recorder.parent}:{os.environ['PATH']}", "VIRTUAL_ENV": sys.prefix}
    own |= {"MODELS": str(folder / "models"), "RESULTS": str(folder / "results")}
    done = subprocess.run([SCRIPT, folder / "data"], env=os.environ | own, capture_output=True, text=True)
    return done, [line.split() for line in calls.read_text().splitlines()] if calls.is_file() else []


def lay(models: Path, *names: str) -> None:
    """Empty files."""
    for name in names:
        (models / name).parent.mkdir(parents=True, exist_ok=True)
        (models / name).touch()


@pytest.mark.parametrize(
    ("there", "patches", "baseline"),
    [
        ([], f"{HUB}/MedicalPatchNet_weights.pt", f"{HUB}/EfficientNetB0_weights.pt"),
        (["EfficientNetV2S_weights.pt"], f"{HUB}/MedicalPatchNet_weights.pt", "EfficientNetV2S_weights.pt"),
        (
            ["MedicalPatchNet/model.safetensors", "MedicalPatchNet_weights.pt", "EfficientNetB0_weights.pt"],
            "MedicalPatchNet",
            "EfficientNetB0_weights.pt",
        ),
    ],
    ids=["nothing", "a published file", "a trained network"],
)
def test_weights_are_those_at_hand_else_the_published_ones(tmp_path, there, patches, baseline):
    models = tmp_path / "models"
    lay(models, *there)
    done, calls = run(tmp_path)
    assert done.returncode == 0, done.stderr
    evaluated = [call[call.index("--weights") + 1] for call in calls if "--weights" in call]
    expected = [name if name.startswith("hf:") else str(models / name) for name in (patches, baseline)]
    assert evaluated == expected
    described = [call[call.index("describe") + 1] for call in calls if "describe" in call]
    assert described == [str(models / name) for name in ("MedicalPatchNet",) if patches == name]


def test_weights_of_a_run_that_is_not_over_are_refused(tmp_path):
    """They are written after every epoch."""
    lay(tmp_path / "models", "MedicalPatchNet/model.safetensors", "MedicalPatchNet/training_state.pt")
    done, calls = run(tmp_path)
    assert (done.returncode, calls) == (2, [])
    where = tmp_path / "models"
    expected = f"error: training of MedicalPatchNet in {where}/ is not complete: run ./runTraining.sh again"
    assert done.stderr.splitlines()[-1] == expected
    lay(where, "MedicalPatchNet/training.json")
    assert run(tmp_path)[0].returncode == 0
