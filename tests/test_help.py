"""`--help` of every script: at once, with defaults, and with examples that the script takes as they are written."""

from __future__ import annotations

import argparse
import importlib
import os
import resource
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import cli

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = sorted(
    path.relative_to(ROOT).as_posix()
    for path in (*ROOT.glob("*.py"), *ROOT.glob("preprocessing/*.py"))
    if "cli.parser(" in path.read_text(encoding="utf-8")
)
FOLDERS = "savedModels/MedicalPatchNet demo/savedModels/MedicalPatchNet chexlocalize data/CheXlocalize CheXpert-1024 "
FOLDERS += "CheXpert-packed CheXpert-v1.0 nih-1024 films-512 results/MedicalPatchNet results/EfficientNetB0 "
FOLDERS += "demo/data/CheXpert-256 demo/data/pairs films"
"""What the examples read."""


def module_of(script: str):
    return importlib.import_module(script.removesuffix(".py").replace("/", "."))


def examples() -> list[tuple[str, list[str]]]:
    """(script, words) of every example."""
    found = []
    for script in SCRIPTS:
        for line in module_of(script).EXAMPLES.strip().replace("\\\n", " ").splitlines():
            words = shlex.split(line)
            found.append((script, words[words.index(script) + 1 :]))
    return found


@pytest.fixture
def there(tmp_path, monkeypatch) -> Path:
    """A folder that holds all that the examples read, empty."""
    for name in FOLDERS.split():
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "MedicalPatchNet_weights.pt").touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("script", SCRIPTS)
def test_it_answers_at_once_and_writes_nothing(script, tmp_path):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, ROOT / script, "--help"],
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "100"}, capture_output=True, text=True,
    )  # fmt: skip
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert (done.returncode, done.stderr, list(tmp_path.iterdir())) == (0, "", [])
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1
    prose, _, shown = done.stdout.partition("\nexamples:\n")
    assert max(map(len, prose.splitlines())) <= 100
    assert "(default: )" not in prose and "['" not in prose and "(default: None)" not in prose
    assert shown.count(f" {script} ") >= 2


class TakenError(Exception):
    """Ends a script whose options were taken."""


@pytest.mark.parametrize(("script", "words"), examples(), ids=lambda part: part if isinstance(part, str) else "")
def test_every_example_is_taken_as_it_is_written(script, words, there, monkeypatch):
    module = module_of(script)
    parse = getattr(module, "_parse", None) or getattr(module, "parse_args", None)  # with the checks after parsing
    if parse is not None:
        assert parse(words)
        return
    take = argparse.ArgumentParser.parse_args

    def stop(*arguments):
        raise TakenError(take(*arguments))

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", stop)
    with pytest.raises(TakenError):
        module.main(words)


def test_every_script_has_examples():
    found = [script for script, _ in examples()]
    assert set(found) == set(SCRIPTS) and min(map(found.count, SCRIPTS)) >= 2


def test_defaults_are_shown_as_they_are_written():
    parser = cli.parser("does things", "python x.py")
    parser.add_argument("--maps", nargs="+", choices=("raw", "none"), default=["raw"], help="to make")
    parser.add_argument("--name", default="", help="of 50%% of them")
    parser.add_argument("--share", default="50%", help="of films")
    parser.add_argument("--weights", type=cli.weights, help="results/NAME by default")
    shown = " ".join(parser.format_help().split())
    assert "--maps {raw,none} ... to make (default: raw)" in shown
    assert "--name NAME of 50% of them --share SHARE of films (default: 50%)" in shown
    assert "results/NAME by default examples:" in shown


@pytest.mark.parametrize("script", ["evalClassification.py", "predictImage.py", "trainClassification.py"])
def test_mistyped_weights_are_refused_before_anything_heavy_is_imported(script, there):
    words = {"predictImage.py": ["a.png", "--output", "o", "--weights"]}
    words |= {"evalClassification.py": ["--data", "CheXpert-1024", "--weights"]}
    words |= {"trainClassification.py": ["--data", "CheXpert-1024", "--init"]}
    program = f"import sys, cli, {script[:-3]} as script\n"
    program += "try:\n    script.main(sys.argv[1:])\nfinally:\n    print('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program, *words[script], "savedModel/MedicalPatchNet"],
        env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "False\n", 1)
    assert "did you mean savedModels/MedicalPatchNet?" in done.stderr
