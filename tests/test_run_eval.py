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


def calls_of(folder: Path) -> list[list[str]]:
    """The Python commands that the script gives when its weights lie in `folder`; none of them is run."""
    recorder, calls = folder / "bin/python", folder / "calls"
    recorder.parent.mkdir()
    recorder.write_text(RECORDER.format(calls=calls, python=sys.executable))
    recorder.chmod(0o755)
    own = {"PATH": f"{recorder.parent}:{os.environ['PATH']}", "VIRTUAL_ENV": sys.prefix}
    own |= {"MODELS": str(folder / "models"), "RESULTS": str(folder / "results")}
    subprocess.run([SCRIPT, folder / "data"], env=os.environ | own, check=True, capture_output=True)
    return [line.split() for line in calls.read_text().splitlines()]


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
    for name in there:
        (models / name).parent.mkdir(parents=True, exist_ok=True)
        (models / name).touch()
    calls = calls_of(tmp_path)
    evaluated = [call[call.index("--weights") + 1] for call in calls if "--weights" in call]
    expected = [name if name.startswith("hf:") else str(models / name) for name in (patches, baseline)]
    assert evaluated == expected
    described = [call[call.index("describe") + 1] for call in calls if "describe" in call]
    assert described == [str(models / name) for name in ("MedicalPatchNet",) if patches == name]
