"""One small run of every script, on what the runs before it made, and how to start it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.soak.runner import Run

WORKERS = 2
HOLD_TIMES = ("run.json", "training.json", "history.jsonl", "report.html")
"""Files that hold times and commands, which differ between runs."""


@dataclass(frozen=True)
class Step:
    """arguments: from (folder of the undisturbed results, output). needs: steps whose results it reads. start: the one
    whose results are copied to `model` in the output."""

    script: str
    arguments: Callable[[Path, Path], list[object]]
    needs: tuple[str, ...] = ()
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
        "--output", out, "--size", 64, "--workers", WORKERS], ("demo",)),
    "packed": Step("preprocessing.preProcCheXpert", lambda root, out: [
        "--chexpert", root / "demo/CheXpert-v1.0", "--chexlocalize", root / "demo/CheXlocalize",
        "--output", out, "--size", 64, "--workers", WORKERS, "--packed"], ("demo",)),
    "manifest": Step("preprocessing.makeManifest", lambda root, out: [
        "--source", "chexlocalize", root / "demo/CheXlocalize", "--output", out], ("demo",)),
    "films": Step("preprocessing.preProcFilms", lambda root, out: [
        "--manifest", root / "manifest", "--films", root / "demo/CheXlocalize", "--output", out, "--size", 64,
        "--workers", WORKERS], ("manifest",)),
    "trained": Step("trainClassification", lambda root, out: [
        "--data", root / "copies", "--output", out, "--no-evaluation", *SMALL, "--epochs", 2, "--batch-size", 4,
        "--workers", WORKERS, *DEVICE], ("copies",)),
    "converted": Step("convertWeights", lambda root, out: ["convert", root / "trained", out], ("trained",)),
    "fitted": Step("fitAggregation", lambda root, out: [
        "--weights", root / "trained", "--data", root / "copies", "--output", out, "--batch-size", 4,
        "--workers", WORKERS, *DEVICE], ("trained",)),
    "evaluated": Step("evalClassification", lambda root, out: [
        "--weights", root / "trained", "--data", root / "copies", "--chexlocalize", root / "demo/CheXlocalize",
        "--output", out, "--steps-per-patch", 1, "--resamples", 20, "--protocols", "corrected",
        "--workers", WORKERS, *DEVICE], ("trained",)),
    "localized": Step("evalLocalization", lambda root, out: [
        out / "model", "--chexlocalize", root / "demo/CheXlocalize", "--resamples", 20,
        "--workers", WORKERS], ("evaluated",), "evaluated"),
    "audited": Step("evalFaithfulness", lambda root, out: [
        out / "model", "--weights", root / "trained", "--chexlocalize", root / "demo/CheXlocalize",
        "--data", root / "copies", "--resamples", 20, "--workers", WORKERS, *DEVICE], ("evaluated",), "evaluated"),
    "tuned": Step("tune_heatmap_threshold_opt", lambda root, out: [
        "--map_dir", root / MAPS / "val/raw", "--gt_path", root / f"{TRUTH}_val.json", "--save_dir", out,
        "--workers", WORKERS], ("evaluated",)),
    "scored": Step("evalLocalization", lambda root, out: [
        "--metric", "iou", "--map_dir", root / MAPS / "test/raw", "--gt_path", root / f"{TRUTH}_test.json",
        "--save_dir", out, "--resamples", 20, "--workers", WORKERS], ("evaluated",)),
    "predicted": Step("predictImage", lambda root, out: [
        root / "copies/valid", "--weights", root / "trained", "--output", out, "--batch-size", 2,
        "--workers", WORKERS, *DEVICE], ("trained",)),
    "reported": Step("makeReport", lambda root, out: [root / "localized", "--output", out], ("localized",)),
}  # fmt: skip


def log_of(out: Path, number: int = 0) -> Path:
    return out.parent / f"{out.name}.{number}.log"


def begun(step: Step, root: Path, out: Path, number: int = 0) -> Run:
    """number: of several that run at once."""
    if step.start and not out.exists():
        shutil.copytree(root / step.start, out / "model")
    out.parent.mkdir(parents=True, exist_ok=True)
    arguments = [str(argument) for argument in step.arguments(root, out)]
    return Run(step.script, arguments, log_of(out, number)).start()


def run(step: Step, root: Path, out: Path) -> int:
    return begun(step, root, out).wait()


def share_of(name: str, total: int) -> int:
    """A step's share of a number, the first ones getting what is left over."""
    position = list(STEPS).index(name)
    return total // len(STEPS) + (position < total % len(STEPS))
