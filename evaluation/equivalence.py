"""Are two models equally good? Non-inferiority and equivalence of the AUROC on the same films, label by label.

The tests are those of `evaluation.margin_tests`. A label's difference is normal with DeLong's paired variance, over
patients with Obuchowski's; that of a mean of labels is the paired bootstrap's. The p values of the labels are corrected
for their number (Holm); each mean is a question of its own and is not corrected.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from cxr.predictions import Predictions
from cxr.thresholds import Thresholds
from evaluation.bootstrap import film_units, resampled_sums
from evaluation.classification import group_means, panel_of
from evaluation.comparison import paired_films
from evaluation.delong import paired_test
from evaluation.margin_tests import QUESTIONS, Estimate, Normal, Resampled, holm_tests, smallest_margin, verdict
from evaluation.metrics import panel_sums

FEWEST, FEW = 10, 30
"""Positives and negatives below which a label is not tested, and below which `note` warns.

The normal approximation is then too sure of itself. Simulated at the border of the margin (two binormal scores of
correlation 0.9 without finding, AUROC 0.90 and 0.95, margin 0.05, 1,000 data sets each), the tests at 5% hold in 27% of
data sets with 5 positives, 16% with 10, 14% with 15, 9% with 30, 7% with 100 and 6% with 300.
"""

COLUMNS = (
    "label",
    "metric",
    "margin",
    "value_a",
    "value_b",
    "difference",
    "ci90_low",
    "ci90_high",
    "method",
    *(f"p_{question}" for question in QUESTIONS),
    *(f"p_{question}_holm" for question in QUESTIONS),
    "smallest_margin_noninferior",
    "smallest_margin_equivalent",
    "verdict",
    "note",
)


def equivalence(
    a: Predictions,
    b: Predictions,
    *,
    margin: float,
    names: tuple[str, str] = ("a", "b"),
    resamples: int = 100_000,
    seed: int = 0,
    unit: str = "film",
) -> pd.DataFrame:
    """One row per label and mean of labels (`COLUMNS`): AUROC of both, difference a - b, 90% interval, tests, verdict.

    verdict: `different beyond margin`, `equivalent`, `non-inferior` or `inconclusive`, by the corrected p values;
    `undefined` where nothing is tested, and `note` says why. The smallest margins are those from which a label would be
    non-inferior, and equivalent, under the same correction: they describe the data, and a margin chosen from them tests
    nothing. Intervals are not corrected. unit: `film` or `patient`, of labels and means alike.
    Raises InputError when the films or their labels differ, or no label is shared; ValueError unless 0 < margin < 1.
    """
    if not 0 < margin < 1:
        raise ValueError(f"margin {margin} is not between 0 and 1")
    a, b = paired_films(a, b, names)
    units = film_units(a, unit)
    of_labels = [_label_estimate(a, b, label, units if unit == "patient" else None) for label in range(len(a.names))]
    values, of_means = _mean_estimates(a, b, units, resamples, seed)
    families = [[estimate for estimate, _ in of_labels], *([estimate] for estimate, _ in of_means)]
    notes = [note for _, note in (*of_labels, *of_means)]
    methods = ["DeLong" if unit == "film" else "DeLong over patients"] * len(of_labels)
    methods += [f"bootstrap over {unit}s"] * len(of_means)
    tested = [row for family in families for row in _family_rows(family, margin)]
    rows = [
        {"label": label, "metric": "auroc", "margin": margin, "value_a": value_a, "value_b": value_b}
        | {"difference": value_a - value_b, "method": method, "note": note, **row}
        for label, (value_a, value_b), method, note, row in zip(
            (*a.names, *a.label_set.means), values, methods, notes, tested, strict=True
        )
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _family_rows(estimates: Sequence[Estimate | None], margin: float) -> list[dict[str, object]]:
    """Interval, p values, smallest margins and verdict of tests that are corrected for each other."""
    rows: list[dict[str, object]] = []
    for index, (estimate, test) in enumerate(zip(estimates, holm_tests(estimates, margin), strict=True)):
        low, high = (np.nan, np.nan) if estimate is None else estimate.interval()
        margins = {f"smallest_margin_{q}": smallest_margin(estimates, index, q) for q in ("noninferior", "equivalent")}
        tests = {f"p_{question}": p for question, p in test.items()}
        rows.append({"ci90_low": low, "ci90_high": high, **tests, **margins, "verdict": verdict(test)})
    return rows


def _label_estimate(
    a: Predictions, b: Predictions, label: int, clusters: np.ndarray | None
) -> tuple[Estimate | None, str]:
    """DeLong's estimate of a label on the films that are labelled; or None and why there is none."""
    known = ~np.isnan(a.labels[:, label])
    labels, scores_a, scores_b = a.labels[known, label], a.probabilities[known, label], b.probabilities[known, label]
    counts = {"positives": int((labels == 1).sum()), "negatives": int((labels == 0).sum())}
    for what, count in counts.items():
        if count < FEWEST:
            return None, f"{count} {what}: fewer than {FEWEST}"
    test = paired_test(labels, scores_a, scores_b, None if clusters is None else clusters[known])
    if np.isnan(test.standard_error):
        return None, "fewer than 2 patients with positives or negatives"
    if test.standard_error == 0 and not np.array_equal(rankdata(scores_a), rankdata(scores_b)):
        return None, "zero variance"
    notes = [f"{count} {what}: the tests hold too easily" for what, count in counts.items() if count < FEW]
    if test.standard_error == 0:
        notes.append("both rank every film alike")
    return Normal(test.difference, test.standard_error), "; ".join(notes)


def _mean_estimates(
    a: Predictions, b: Predictions, units: np.ndarray, resamples: int, seed: int
) -> tuple[list[tuple[float, float]], list[tuple[Estimate | None, str]]]:
    """AUROCs of both for labels and means, (C + means) pairs; and the paired bootstrap's estimate of each mean."""
    unused = Thresholds(dict.fromkeys(a.names))
    panels = [panel_of(model, unused) for model in (a, b)]
    ones = np.ones((len(a.paths), 1))
    observed = [panel_sums(panel, ones).metric("auroc", "-") for panel in panels]  # two (C, 1), NaN in the same places
    means = [group_means(a.label_set, values) for values in observed]  # two (means, 1)
    values = np.concatenate([np.hstack(observed), np.hstack(means)])  # (C + means, 2)
    drawn = [sums.metric("auroc", "-") for sums in resampled_sums(panels, units, resamples=resamples, seed=seed)]
    samples = group_means(a.label_set, drawn[0] - drawn[1])  # (means, B)
    defined = dict(zip(a.names, ~np.isnan(observed[0][:, 0]), strict=True))
    estimates = [
        _mean_estimate(first - second, of_mean[~np.isnan(of_mean)], [defined[name] for name in members])
        for members, (first, second), of_mean in zip(
            a.label_set.means.values(), values[len(a.names) :], samples, strict=True
        )
    ]
    return [(float(first), float(second)) for first, second in values], estimates


def _mean_estimate(difference: float, samples: np.ndarray, defined: Sequence[bool]) -> tuple[Estimate | None, str]:
    """defined: of each of the mean's labels, whether it has an AUROC."""
    note = f"mean of {sum(defined)} of {len(defined)} labels"
    if not any(defined):
        return None, note
    if not len(samples):
        return None, f"{note}; no resamples"
    return Resampled(float(difference), np.sort(samples)), note
