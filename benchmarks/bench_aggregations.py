"""Every aggregation on trained networks: AUROC, hit rates, certificates of the contributions, over several demos.

    python -m benchmarks.bench_aggregations demo             # or several folders of demos, of other data seeds
    python -m benchmarks.bench_aggregations demo --epochs 3 --networks demo/aggregations    # all weights trained

`benchmarks.aggregations.networks` says how a network gets another aggregation. Differences are paired with the mean's
values on the same test films; AUROC's intervals draw patients, those of the hit rates films. Rows of the result file
of a demo with the same weights and settings are kept where they are complete, so that a run that was stopped goes on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import cli
from benchmarks.aggregations.networks import Split, aggregated, frozen_logits, trained_further
from benchmarks.aggregations.scoring import Grids, Scored, auroc_facts, scored
from benchmarks.measure import load, machine, report
from cxr.files import sha256
from cxr.manifests.films import read_films
from cxr.manifests.splits import split_table
from cxr.names import predictions_file
from cxr.predictions import read_predictions
from models.aggregation import AGGREGATIONS
from models.checkpoint import load_model
from models.weights_folder import weights_file
from training.split_films import read_splits

EXAMPLE = "python -m benchmarks.bench_aggregations demo"
BASELINE = "whole film (baseline)"


@dataclass(frozen=True)
class Settings:
    """epochs: of further training of all weights, into folders below `networks`; 0: on frozen patch logits."""

    resamples: int
    steps: int
    epochs: int
    networks: Path

    def facts(self, demo: Path) -> dict[str, Any]:
        """The columns by which rows of a result file are known again."""
        weights = sha256(weights_file(demo / "savedModels/MedicalPatchNet"))[:12]
        own = {"resamples": self.resamples, "steps_per_patch": self.steps, "further_epochs": self.epochs}
        return {"demo": demo.name, "weights": weights, **own}


def main(argv: Sequence[str] | None = None) -> int:
    parser = cli.parser(__doc__.splitlines()[0], EXAMPLE)
    add = parser.add_argument
    add(
        "demos", type=cli.existing_folder, nargs="+", help="folders with data/, savedModels/ and results/ of runDemo.sh"
    )
    add("--resamples", type=cli.whole_number(1, 10**6), default=2000, help="of patients, or of films for the hit rates")
    add("--steps-per-patch", type=cli.whole_number(1, 64), default=8, help="of the maps")
    add("--epochs", type=cli.whole_number(0, 1000), default=0, help="train all weights further; 0: frozen patch logits")
    add("--networks", type=cli.path, default=Path("aggregations"), help="where networks that are trained further lie")
    add("--out", type=cli.path, default=Path("benchmarks/results/bench_aggregations.csv"), help="result file")
    args = parser.parse_args(argv)
    facts = {"machine": machine(), "load_before": load()}
    settings = Settings(args.resamples, args.steps_per_patch, args.epochs, args.networks)
    rows = pd.read_csv(args.out) if args.out.is_file() else pd.DataFrame()
    for demo in args.demos:
        known = settings.facts(demo)
        there = _rows_of(rows, known)
        if not len(there) or not set(AGGREGATIONS) <= set(there["aggregation"]):
            rows = rows.drop(there.index)
            new = pd.DataFrame([known | row for row in demo_rows(demo, settings)])
            rows = pd.concat([rows, new.assign(**facts)], ignore_index=True)
            report("bench_aggregations", rows.drop(columns="command", errors="ignore"), args.out, known, {})
    return 0


def _rows_of(rows: pd.DataFrame, known: Mapping[str, Any]) -> pd.DataFrame:
    same = [rows[name] == value for name, value in known.items() if name in rows]
    return rows[np.logical_and.reduce(same)] if len(same) == len(known) else rows[:0]


def demo_rows(demo: Path, settings: Settings) -> Iterator[dict[str, Any]]:
    """One row per aggregation, the mean first, and one of the whole-film baseline where it was evaluated."""
    weights = demo / "savedModels/MedicalPatchNet"
    model = load_model(weights)
    data = next(path for path in sorted((demo / "data").glob("CheXpert-*")) if (path / "valid.csv").is_file())
    films = [*read_splits(data)]
    films.append(read_films(split_table(data, "test"), data, split="test", label_set=films[0].label_set))
    splits = [Split(part, frozen_logits(model, part)) for part in films] if not settings.epochs else []
    grids = None if settings.epochs else Grids(model, demo / "data/CheXlocalize", settings.steps)
    results = predictions_file(demo / "results/EfficientNetB0", "test")
    baseline = read_predictions(results, model.label_set) if results.is_file() else None
    mean: Scored | None = None
    for name in AGGREGATIONS:
        if grids is not None:
            made = model if name == "mean" else aggregated(model, name, *splits[:2])
            own = scored(made, splits[2], grids)
        else:
            folder = settings.networks / demo.name / name
            made = trained_further(weights, data, name, settings.epochs, folder)
            test = Split(films[2], frozen_logits(made, films[2]))
            own = scored(made, test, Grids(made, demo / "data/CheXlocalize", settings.steps))
        mean = mean or own
        yield {"backbone": model.backbone, "aggregation": name} | own.row(mean, baseline, settings.resamples)
    if baseline is not None and mean is not None:
        row = {"backbone": "", "aggregation": BASELINE}
        yield row | auroc_facts(baseline, mean.predictions, "mean", settings.resamples)


if __name__ == "__main__":
    cli.run(main)
