"""runTraining.sh: what it trains with which options, and what it refuses before anything is installed or read."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest

import training_options

SCRIPT = Path(__file__).resolve().parents[1] / "runTraining.sh"

RECORDER = """\
#!/bin/bash
case "$1" in
  *.py) echo "${{@@Q}}" >> "{calls}" ;;
  *) exec "{python}" "$@" ;;
esac
"""


def run(folder: Path, *arguments: str, **variables: str) -> tuple[subprocess.CompletedProcess[str], list[list[str]]]:
    """How the script ends, and the Python commands it gives; none of the project's scripts is run."""
    recorder, calls = folder / "bin/python", folder / "calls"
    recorder.parent.mkdir(exist_ok=True)
    recorder.write_text(RECORDER.format(calls=calls, python=sys.executable))
    recorder.chmod(0o755)
    own = {"PATH": f"{recorder.parent}:{os.environ['PATH']}", "VIRTUAL_ENV": sys.prefix} | variables
    done = subprocess.run([SCRIPT, *arguments], env=os.environ | own, capture_output=True, text=True, timeout=120)
    return done, [shlex.split(line) for line in calls.read_text().splitlines()] if calls.is_file() else []


def parsed(call: list[str]) -> dict[str, object]:
    """The options of one training, as trainClassification.py understands them."""
    assert call[0] == "trainClassification.py"
    return vars(training_options.parse_args(call[1:])[0])


@pytest.fixture
def data(tmp_path) -> Path:
    """A folder that is preprocessed already, with a blank in its name."""
    (tmp_path / "my data").mkdir()
    (tmp_path / "my data/preprocessing.json").touch()
    return tmp_path / "my data"


def test_the_baseline_may_have_a_backbone_of_its_own(data, tmp_path):
    done, calls = run(tmp_path, str(data), BACKBONE="dense64", BASELINE_BACKBONE="timm/resnet18", INIT="random")
    assert done.returncode == 0, done.stderr
    assert [parsed(call)["backbone"] for call in calls] == ["dense64", "timm/resnet18"]


def test_both_networks_are_trained_as_published(data, tmp_path):
    done, calls = run(tmp_path, str(data))
    assert done.returncode == 0, done.stderr
    patches, baseline = map(parsed, calls)
    assert (patches["output"], patches["results"]) == (
        Path("savedModels/MedicalPatchNet"),
        Path("results/MedicalPatchNet"),
    )
    assert (baseline["output"], baseline["results"]) == (
        Path("savedModels/EfficientNetB0"),
        Path("results/EfficientNetB0"),
    )
    assert (patches.pop("patch_size"), baseline.pop("patch_size")) == (64, 512)
    published = {"data": data, "lr": 1e-4, "batch_size": 16, "epochs": 20, "image_size": 512, "init": "imagenet"}
    published |= {"backbone": "efficientnet_b0", "uncertain": "zeros", "precision": "auto", "track": []}
    published |= {"resamples": 100_000}
    for network in (patches, baseline):
        assert published.items() <= network.items()
        del network["output"], network["results"]
    assert patches == baseline


def test_variables_and_options_reach_both_and_options_win(data, tmp_path):
    variables = {"EPOCHS": "3", "WORKERS": "5", "TRACK": "tensorboard wandb", "UNCERTAIN": "ones", "PRECISION": "fp32"}
    variables |= {"RESAMPLES": "300"}
    options = ("--frontal-only", "--epochs", "2", "--backbone", "timm/a b", "--fraction=0.5")
    done, calls = run(tmp_path, str(data), *options, **variables)
    assert done.returncode == 0, done.stderr
    assert len(calls) == 2
    expected = {"epochs": 2, "workers": 5, "track": ["tensorboard", "wandb"], "uncertain": "ones", "precision": "fp32"}
    expected |= {"resamples": 300}
    expected |= {"frontal_only": True, "backbone": "timm/a b", "fraction": 0.5}
    for call in calls:
        assert expected.items() <= parsed(call).items()


def test_the_patch_network_alone_aggregates(data, tmp_path):
    done, calls = run(tmp_path, str(data), AGGREGATION="attention")
    assert done.returncode == 0, done.stderr
    assert [parsed(call)["aggregation"] for call in calls] == ["attention", "mean"]


def test_the_patch_network_alone_has_a_teacher_given_by_a_variable(data, tmp_path, monkeypatch):
    (tmp_path / "teacher.pt").touch()
    monkeypatch.chdir(tmp_path)
    done, calls = run(tmp_path, str(data), TEACHER="teacher.pt")
    assert done.returncode == 0, done.stderr
    assert [parsed(call)["teacher"] for call in calls] == [str(tmp_path / "teacher.pt"), None]
    done, calls = run(tmp_path, str(data), "--teacher", "teacher.pt")
    assert done.returncode == 2 and "set MODELS, RESULTS, PATCH_SIZE, IMAGE_SIZE, AGGREGATION or TEACHER" in done.stderr


def test_an_unknown_aggregation_is_refused_before_films_are_preprocessed(tmp_path):
    (tmp_path / "data").mkdir()
    done, calls = run(tmp_path, str(tmp_path / "data"), AGGREGATION="median")
    assert (done.returncode, calls) == (2, [])
    assert "unknown aggregation 'median'; known are mean, position" in done.stderr and done.stderr.count("\n") == 1


def test_films_are_preprocessed_first_where_they_are_not(tmp_path):
    (tmp_path / "data").mkdir()
    done, calls = run(tmp_path, str(tmp_path / "data"), PREPROCESSED_SIZE="256")
    assert done.returncode == 0, done.stderr
    copies = str(tmp_path / "data/CheXpert-256")
    assert [call[0] for call in calls] == ["preprocessing/preProcCheXpert.py", *["trainClassification.py"] * 2]
    assert calls[0][calls[0].index("--output") + 1] == copies
    assert all(call[call.index("--data") + 1] == copies for call in calls[1:])


def test_films_of_a_manifest_are_preprocessed_first_where_they_are_not(tmp_path, monkeypatch):
    """FILMS and INIT may be paths seen from where the user is."""
    for name in ("nih/films.csv", "ChestX-ray14/a.png", "weights.pt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    done, calls = run(tmp_path, "nih", FILMS="ChestX-ray14", INIT="weights.pt", PREPROCESSED_SIZE="256")
    assert done.returncode == 0, done.stderr
    copies = str(tmp_path / "nih/films-256")
    folders = ["--manifest", str(tmp_path / "nih"), "--films", str(tmp_path / "ChestX-ray14"), "--output", copies]
    assert calls[0] == ["preprocessing/preProcFilms.py", *folders, "--size", "256"]
    assert [call[call.index("--data") + 1] for call in calls[1:]] == [copies, copies]
    assert [call[call.index("--init") + 1] for call in calls[1:]] == [str(tmp_path / "weights.pt")] * 2


def test_copies_of_a_manifest_are_trained_on_as_they_are(data, tmp_path):
    (data / "films.csv").touch()
    done, calls = run(tmp_path, str(data))
    assert done.returncode == 0, done.stderr
    assert [call[0] for call in calls] == ["trainClassification.py"] * 2
    assert all(call[call.index("--data") + 1] == str(data) for call in calls)


@pytest.mark.parametrize("words", [["--help"], ["data", "-h"], ["--epochs", "3", "--help"]], ids=" ".join)
def test_help_has_no_side_effects(words, tmp_path):
    """No Python is there to be found, so nothing can be installed, and nothing is written."""
    started = time.monotonic()
    own = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "PYTHON": "/nowhere"}
    done = subprocess.run([SCRIPT, *words], env=own, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert time.monotonic() - started < 1
    assert (done.returncode, done.stderr) == (0, "")
    assert "./runTraining.sh [DATA_DIR] [OPTIONS...]" in done.stdout and "trainClassification.py --help" in done.stdout
    assert "\n#" not in done.stdout and "for word" not in done.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "words",
    [["--output", "x"], ["--output=x"], ["-savePath", "x.pt"], ["--patch-size", "32"], ["-patchSize", "32"],
     ["--image-size=256"], ["-imgSize", "1"], ["--results", "x"], ["--data", "y"], ["--aggregation", "gate"]],
    ids=" ".join,
)  # fmt: skip
def test_what_differs_between_the_networks_is_refused(words, data, tmp_path):
    done, calls = run(tmp_path, str(data), *words)
    assert (done.returncode, calls) == (2, [])
    option = words[0].partition("=")[0]
    assert done.stderr.startswith(f"error: {option} differs between the two networks") and done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "named"),
    [(["--epochs", "0"], "--epochs"), (["--nonsense"], "--nonsense"), (["-wb"], "-wb"), (["more"], "more")],
)
def test_a_wrong_option_is_refused_before_films_are_preprocessed(words, named, tmp_path):
    (tmp_path / "data").mkdir()
    done, calls = run(tmp_path, str(tmp_path / "data"), *words)
    assert (done.returncode, calls) == (2, [])
    assert named in done.stderr and done.stderr.count("\n") == 1
