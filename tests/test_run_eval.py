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


def run(folder: Path, **settings: str) -> tuple[subprocess.CompletedProcess[str], list[list[str]]]:
    """How the script ends when its weights lie in `folder`, and the Python commands it gives; none of them is run."""
    recorder, calls = folder / "bin/python", folder / "calls"
    recorder.parent.mkdir(exist_ok=True)
    recorder.write_text(RECORDER.format(calls=calls, python=sys.executable))
    recorder.chmod(0o755)
    (folder / "data").mkdir(exist_ok=True)
    own = {"PATH": f"{recorder.parent}:{os.environ['PATH']}", "VIRTUAL_ENV": sys.prefix}
    own |= {"MODELS": str(folder / "models"), "RESULTS": str(folder / "results")} | settings
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


def test_a_mapping_goes_to_both_networks_and_leaves_their_description_alone(tmp_path):
    lay(tmp_path / "models", "MedicalPatchNet/model.safetensors", "EfficientNetB0/model.safetensors")
    done, calls = run(tmp_path, MAP="nih", RESULTS="")
    assert done.returncode == 0, done.stderr
    evaluated = [call for call in calls if "--weights" in call]
    assert [call[call.index("--map") + 1] for call in evaluated] == ["nih", "nih"]
    outputs = [call[call.index("--output") + 1] for call in evaluated]
    assert outputs == ["results-nih/MedicalPatchNet", "results-nih/EfficientNetB0"]
    assert not any("describe" in call for call in calls)
    assert not any("--map" in call for call in run(tmp_path)[1][len(calls) :])


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


@pytest.mark.parametrize(("word", "said"), [("--data", "takes no options"), ("nowhere", "no such folder")])
def test_a_wrong_word_is_refused_before_anything_is_downloaded(word, said, tmp_path):
    done = subprocess.run([SCRIPT, word], env=os.environ | {"VIRTUAL_ENV": sys.prefix}, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1) and said in done.stderr


@pytest.mark.parametrize("there", [False, True])
def test_films_are_preprocessed_first_where_they_are_not(there, tmp_path):
    if there:
        lay(tmp_path / "data", "CheXpert-1024/preprocessing.json")
    done, calls = run(tmp_path)
    assert done.returncode == 0, done.stderr
    assert (scripts(calls)[0] == "preprocessing/preProcCheXpert.py") != there


def scripts(calls: list[list[str]]) -> list[str]:
    return [call[0] for call in calls if call[0].endswith(".py")]


def option(call: list[str], name: str) -> str | None:
    return call[call.index(name) + 1] if name in call else None


@pytest.mark.parametrize(
    ("files", "maps", "outlines"),
    [
        (["films.csv", "preprocessing.json"], True, False),
        (["films.csv", "preprocessing.json", "regions.json"], True, True),
        (["films.csv", "preprocessing.json", "regions.json", "test.npy"], False, False),
    ],
    ids=["copies", "copies with outlines", "packed"],
)
def test_a_manifest_is_mapped_on_its_copies_and_scored_where_it_has_outlines(files, maps, outlines, tmp_path):
    data = tmp_path / "data"
    lay(data, *files)
    done, calls = run(tmp_path)
    assert done.returncode == 0, done.stderr
    evaluated = [call for call in calls if "--weights" in call]
    assert [option(call, "--data") for call in evaluated] == [str(data)] * 2
    assert [option(call, "--chexlocalize") for call in evaluated] == [str(data) if maps else None] * 2
    assert ("evalLocalization.py" in scripts(calls)) == outlines
    assert ("evalFaithfulness.py" in scripts(calls)) == maps
    report = next(call for call in calls if call[0] == "makeReport.py")
    assert option(report, "--gt-path") == (str(data / "regions.json") if outlines else None)
    assert option(report, "--dataset-name") == "data"


def test_chexpert_is_scored_against_chexlocalize(tmp_path):
    (tmp_path / "data/CheXlocalize").mkdir(parents=True)
    calls = run(tmp_path)[1]
    chexlocalize = tmp_path / "data/CheXlocalize"
    localized = next(call for call in calls if call[0] == "evalLocalization.py")
    assert option(localized, "--chexlocalize") == str(chexlocalize)
    audited = next(call for call in calls if call[0] == "evalFaithfulness.py")
    assert option(audited, "--chexlocalize") == str(chexlocalize) and option(audited, "--pairs") is None
    assert scripts(calls).index("evalLocalization.py") < scripts(calls).index("evalFaithfulness.py")
    report = next(call for call in calls if call[0] == "makeReport.py")
    assert option(report, "--gt-path") == str(chexlocalize / "CheXlocalize/gt_segmentations_test.json")
    assert option(report, "--dataset-name") == "CheXpert"


def test_pairs_of_drawn_films_are_audited_too(tmp_path):
    lay(tmp_path / "data", "CheXlocalize/x", "pairs/pairs.csv")
    audited = next(call for call in run(tmp_path)[1] if call[0] == "evalFaithfulness.py")
    assert option(audited, "--pairs") == str(tmp_path / "data/pairs")
    assert option(audited, "--data") == str(tmp_path / "data/CheXpert-1024")


def fineness(calls: list[list[str]]) -> list[tuple[str | None, str | None]]:
    """--stride and --steps-per-patch of the two evaluations, which evalClassification.py must understand."""
    evaluated = [call for call in calls if "--weights" in call]
    return [(option(call, "--stride"), option(call, "--steps-per-patch")) for call in evaluated]


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, (None, "64")),
        ({"STEPS_PER_PATCH": "16"}, (None, "16")),
        ({"STRIDE": "3"}, ("3", None)),
        ({"STRIDE": "", "STEPS_PER_PATCH": ""}, (None, "64")),
    ],
    ids=str,
)
def test_evidence_is_of_steps_or_of_a_stride(variables, expected, tmp_path):
    done, calls = run(tmp_path, **variables)
    assert done.returncode == 0, done.stderr
    assert fineness(calls) == [expected, expected]


def test_steps_and_a_stride_together_are_refused_before_anything_runs(tmp_path):
    done, calls = run(tmp_path, STRIDE="3", STEPS_PER_PATCH="16")
    assert (done.returncode, calls) == (2, [])
    assert done.stderr.splitlines()[-1] == "error: STRIDE=3 and STEPS_PER_PATCH=16: set only one of the two"


@pytest.mark.parametrize("workers", ["", "3"])
def test_workers_reach_every_script_that_has_them(workers, tmp_path):
    (tmp_path / "data/CheXlocalize").mkdir(parents=True)
    done, calls = run(tmp_path, WORKERS=workers)
    assert done.returncode == 0, done.stderr
    given = {call[0] for call in calls if option(call, "--workers") == "3"}
    assert given == ({"evalClassification.py", "evalLocalization.py", "evalFaithfulness.py"} if workers else set())
    assert workers or not any("--workers" in call for call in calls)


@pytest.mark.parametrize("word", ["--help", "-h"])
def test_help_has_no_side_effects_either(word, tmp_path):
    """No Python is there to be found, so nothing can be installed."""
    done = subprocess.run(
        [SCRIPT, word], env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}, cwd=tmp_path, capture_output=True,
        text=True, timeout=20,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert "STRIDE=3" in done.stdout and "settings.sh" in done.stdout and "requirements" not in done.stdout
    assert list(tmp_path.iterdir()) == []
