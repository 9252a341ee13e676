"""`--help` of every script: at once, with defaults and examples. tests/test_help_examples.py runs the examples."""

from __future__ import annotations

import importlib
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

import cli

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = sorted(
    path.relative_to(ROOT).as_posix()
    for path in (*ROOT.glob("*.py"), *ROOT.glob("preprocessing/*.py"))
    if "cli.run(" in path.read_text(encoding="utf-8")
)


def module_of(script: str):
    return importlib.import_module(script.removesuffix(".py").replace("/", "."))


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
    prose, _, shown = done.stdout.partition(f"\n{cli.EXAMPLES}\n")
    assert max(map(len, prose.splitlines())) <= 100
    assert "(default: )" not in prose and "['" not in prose and "(default: None)" not in prose
    assert shown.count(f" {script} ") >= 2


def test_defaults_are_shown_as_they_are_written():
    parser = cli.parser("does things", "python x.py")
    parser.add_argument("--maps", nargs="+", choices=("raw", "none"), default=["raw"], help="to make")
    parser.add_argument("--name", default="", help="of 50%% of them")
    parser.add_argument("--share", default="50%", help="of films")
    parser.add_argument("--weights", type=cli.weights, help="results/NAME by default")
    shown = " ".join(parser.format_help().split())
    assert "--maps {raw,none} ... to make (default: raw)" in shown
    assert "--name NAME of 50% of them --share SHARE of films (default: 50%)" in shown
    assert "results/NAME by default examples (" in shown


@pytest.mark.parametrize("script", ["evalClassification.py", "predictImage.py", "trainClassification.py"])
def test_mistyped_weights_are_refused_before_anything_heavy_is_imported(script, tmp_path):
    for name in ("savedModels/MedicalPatchNet", "CheXpert-1024"):
        (tmp_path / name).mkdir(parents=True)
    words = {"predictImage.py": ["a.png", "--output", "o", "--weights"]}
    words |= {"evalClassification.py": ["--data", "CheXpert-1024", "--weights"]}
    words |= {"trainClassification.py": ["--data", "CheXpert-1024", "--init"]}
    program = f"import sys, cli, {script[:-3]} as script\n"
    program += "try:\n    script.main(sys.argv[1:])\nfinally:\n    print('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program, *words[script], "savedModel/MedicalPatchNet"],
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "False\n", 1)
    assert "did you mean savedModels/MedicalPatchNet?" in done.stderr
