"""The whole classification table with its intervals, against one torchmetrics call per resample as published.

    python -m benchmarks.bench_bootstrap
    python -m benchmarks.bench_bootstrap --resamples 2000 --sample 10 --out /tmp/quick.csv

Films, labels and prevalences are like CheXpert's test set (668 films), the scores simulated. Ours is timed as a whole,
on the one core it uses. The published way is timed on a sample of calls per metric and rule, spread over the labels, in
one process with one thread, and extrapolated to labels x metrics x rules x resamples; it has no Brier score, no
calibration error and no means. It can run in several processes: divide its seconds, not its CPU seconds, by the cores.
All are the least CPU seconds of three runs.
"""

from __future__ import annotations

import resource
from collections.abc import Callable, Sequence
from functools import partial
from itertools import cycle, islice
from pathlib import Path

import numpy as np
import pandas as pd

import cli
from benchmarks.measure import least, load, machine, report
from cxr.labels import CHEXPERT
from cxr.predictions import Predictions
from evaluation.classification import Thresholds, classification_table, youden_thresholds

POSITIVES_OF_668 = (62, 253, 151, 310, 8, 78, 29, 11, 153, 9, 104, 4, 5, 261)
REPEATS = 3
PUBLISHED_METRICS = ("auroc", "accuracy", "precision", "recall", "specificity", "f1_score")


def main(argv: Sequence[str] | None = None) -> int:
    parser = cli.parser(__doc__.splitlines()[0], "python -m benchmarks.bench_bootstrap")
    parser.add_argument("--films", type=int, default=668, help="films of the simulated test set")
    parser.add_argument("--resamples", type=int, default=100_000, help="resamples per metric")
    parser.add_argument("--sample", type=int, default=50, help="published calls timed per metric and rule")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/bench_bootstrap.csv"), help="result file")
    arguments = parser.parse_args(argv)

    facts = {"films": arguments.films, "resamples": arguments.resamples, "machine": machine(), "load_before": load()}
    predictions = simulated(arguments.films)
    thresholds = youden_thresholds(predictions)
    ours = time_ours(predictions, thresholds, arguments.resamples)
    published = time_published(predictions, thresholds, arguments.sample)

    calls = len(CHEXPERT.names) * arguments.resamples
    published["calls"] = calls
    published[["seconds", "cpu_seconds"]] *= calls
    total = published[["calls", "seconds", "cpu_seconds"]].sum().to_dict()
    extrapolated = f"extrapolated from {arguments.sample} calls"
    table = pd.concat(
        [
            pd.DataFrame([{"what": "ours, the whole table", "how": "measured", "calls": 1, **ours}]),
            published.assign(how=extrapolated),
            pd.DataFrame([{"what": "published, all", "how": "sum of these", **total}]),
        ]
    )[["what", "how", "calls", "seconds", "cpu_seconds"]].astype({"calls": int})
    ratios = {f"ratio_{name}": total[name] / ours[name] for name in ("seconds", "cpu_seconds")}
    summary = {name: round(value, 2) for name, value in (ours | ratios).items()}
    report("bench_bootstrap", table.assign(peak_rss_mib=ours["peak_rss_mib"]), arguments.out, summary, facts)
    return 0


def simulated(films: int) -> Predictions:
    """Predictions with CheXpert's prevalences and AUROCs around 0.87."""
    rng = np.random.default_rng(0)
    labels = np.zeros((films, len(CHEXPERT.names)), np.int8)
    for i, positives in enumerate(POSITIVES_OF_668):
        labels[rng.permutation(films)[: max(1, round(positives * films / 668))], i] = 1
    probabilities = 1 / (1 + np.exp(1.5 - 1.6 * labels - rng.normal(size=labels.shape)))
    paths = tuple(f"test/patient{i}/study1/view1_frontal.jpg" for i in range(films))
    return Predictions(paths, probabilities, labels.astype(float), CHEXPERT)


def time_ours(predictions: Predictions, thresholds: Thresholds, resamples: int) -> dict[str, float]:
    """Seconds, and the peak memory of the process in MiB; to be called before torch is imported."""
    _, seconds = least(lambda: classification_table(predictions, thresholds, resamples=resamples), REPEATS)
    return seconds | {"peak_rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def time_published(predictions: Predictions, thresholds: Thresholds, sample: int) -> pd.DataFrame:
    """Seconds per call of each metric and rule: draw the films, index them, call torchmetrics, take the number."""
    import torch
    import torchmetrics.functional as functional

    torch.set_num_threads(1)
    probabilities = torch.tensor(predictions.probabilities, dtype=torch.float32)
    labels = torch.tensor(predictions.labels, dtype=torch.int32)

    def call(metric: Callable[..., torch.Tensor], label: int, options: dict[str, float]) -> float:
        drawn = torch.multinomial(torch.ones(len(labels)), len(labels), replacement=True)
        return metric(probabilities[drawn, label], labels[drawn, label], task="binary", **options).item()

    def calls(metric: Callable[..., torch.Tensor], jobs: Sequence[tuple[int, dict[str, float]]]) -> None:
        for label, options in jobs:
            call(metric, label, options)

    rows = []
    for name in PUBLISHED_METRICS:
        metric = getattr(functional, name)
        for rule in ("-",) if name == "auroc" else ("0.5", "youden"):
            options = [{"threshold": thresholds[label]} if rule == "youden" else {} for label in CHEXPERT.names]
            jobs = list(islice(cycle(enumerate(options)), sample))
            call(metric, *jobs[0])  # the first call of a metric sets things up
            _, seconds = least(partial(calls, metric, jobs), REPEATS)
            per_call = {key: value / sample for key, value in seconds.items()}
            rows.append({"what": f"published, {name} {rule}", **per_call})
    return pd.DataFrame(rows)


if __name__ == "__main__":
    cli.run(main)
