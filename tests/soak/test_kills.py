"""Every script, killed at random moments and started again, ends with the bytes of an undisturbed run.

    SOAK_KILLS=200 python -m pytest tests/soak/test_kills.py

SOAK_KILLS (15) is the number of kills over all scripts; they are seeded. After each no process may be left; at the end
no temporary file, journal or lock.
"""

from __future__ import annotations

import os
import random
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.soak.runner import Run, content, still_running

KILLS = int(os.environ.get("SOAK_KILLS", 15))
WORKERS = 2
HOLD_TIMES = ("run.json", "training.json", "history.jsonl", "report.html")
ORPHAN_SECONDS = 8  # torch's own loader looks for its parent every five

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@dataclass(frozen=True)
class Step:
    """arguments: from (folder of the undisturbed results, output). start: results copied to `model` in the output."""

    script: str
    arguments: Callable[[Path, Path], list[object]]
    start: str = ""


DEVICE = ["--device", "cpu"]
SMALL = ["--backbone", "timm/test_efficientnet", "--init", "random", "--patch-size", 32, "--image-size", 64]
MAPS = "evaluated/heatmaps/corrected"
TRUTH = "demo/CheXlocalize/CheXlocalize/gt_segmentations"

STEPS = {
    "demo": Step("preprocessing.makeDemoDataset", lambda root, out: [
        "--output", out, "--patients", 20, "--workers", WORKERS]),
    "copies": Step("preprocessing.preProcCheXpert", lambda root, out: [
        "--chexpert", root / "demo/CheXpert-v1.0", "--chexlocalize", root / "demo/CheXlocalize",
        "--output", out, "--size", 64, "--workers", WORKERS]),
    "packed": Step("preprocessing.preProcCheXpert", lambda root, out: [
        "--chexpert", root / "demo/CheXpert-v1.0", "--chexlocalize", root / "demo/CheXlocalize",
        "--output", out, "--size", 64, "--workers", WORKERS, "--packed"]),
    "trained": Step("trainClassification", lambda root, out: [
        "--data", root / "copies", "--output", out, "--no-evaluation", *SMALL, "--epochs", 2, "--batch-size", 4,
        "--workers", WORKERS, *DEVICE]),
    "converted": Step("convertWeights", lambda root, out: ["convert", root / "trained", out]),
    "evaluated": Step("evalClassification", lambda root, out: [
        "--weights", root / "trained", "--data", root / "copies", "--chexlocalize", root / "demo/CheXlocalize",
        "--output", out, "--steps-per-patch", 1, "--resamples", 20, "--workers", WORKERS, *DEVICE]),
    "localized": Step("evalLocalization", lambda root, out: [
        out / "model", "--chexlocalize", root / "demo/CheXlocalize", "--resamples", 20,
        "--workers", WORKERS], "evaluated"),
    "tuned": Step("tune_heatmap_threshold_opt", lambda root, out: [
        "--map_dir", root / MAPS / "val/raw", "--gt_path", root / f"{TRUTH}_val.json", "--save_dir", out,
        "--workers", WORKERS]),
    "scored": Step("evalLocalization", lambda root, out: [
        "--metric", "iou", "--map_dir", root / MAPS / "test/raw", "--gt_path", root / f"{TRUTH}_test.json",
        "--save_dir", out, "--resamples", 20, "--workers", WORKERS]),
    "predicted": Step("predictImage", lambda root, out: [
        root / "copies/valid", "--weights", root / "trained", "--output", out, "--workers", WORKERS, *DEVICE]),
    "reported": Step("makeReport", lambda root, out: [root / "localized", "--output", out]),
}  # fmt: skip


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """Runs each step once, in order; returns the folder of results and the seconds of each."""
    root, seconds = tmp_path_factory.mktemp("soak"), {}
    for name, step in STEPS.items():
        started = time.monotonic()
        assert run(step, root, root / name) == 0, (name, log_of(root / name).read_text())
        seconds[name] = time.monotonic() - started
    return root, seconds


def log_of(out: Path) -> Path:
    return out.parent / f"{out.name}.log"


def begun(step: Step, root: Path, out: Path) -> Run:
    if step.start and not out.exists():
        shutil.copytree(root / step.start, out / "model")
    out.parent.mkdir(parents=True, exist_ok=True)
    arguments = [str(argument) for argument in step.arguments(root, out)]
    return Run(step.script, arguments, log_of(out)).start()


def run(step: Step, root: Path, out: Path) -> int:
    return begun(step, root, out).wait()


def kills_of(name: str) -> int:
    """This step's share of all kills."""
    position = list(STEPS).index(name)
    return KILLS // len(STEPS) + (position < KILLS % len(STEPS))


@pytest.mark.parametrize("name", STEPS)
def test_killed_and_started_again_it_ends_with_the_same_bytes(undisturbed, tmp_path, name):
    root, seconds = undisturbed
    step, out = STEPS[name], tmp_path / name
    moments = random.Random(f"13 {name}")
    for number in range(kills_of(name)):
        process = begun(step, root, out)
        process.process.join(moments.uniform(0.02, 1.1 * seconds[name]))
        if process.process.is_alive():
            orphans = still_running(process.kill(), ORPHAN_SECONDS)
            assert not orphans, f"kill {number}"
        else:
            assert process.process.exitcode == 0, process.said()
    assert run(step, root, out) == 0, log_of(out).read_text()
    assert content(out, HOLD_TIMES) == content(root / name, HOLD_TIMES)
    left = [path.name for path in out.rglob(".*") if path.is_file()]
    assert not left
