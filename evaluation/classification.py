"""The classification table of one model, the thresholds it needs, and the points of its curves, as tables.

Every table is computed from predictions as they were read from a file, so it can be recomputed to the last digit.
A film that is not labelled with a label counts in none of its rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from cxr.labels import LabelSet, positions
from cxr.predictions import Predictions
from cxr.thresholds import Thresholds
from evaluation.bootstrap import film_units, interval, mean_of_defined, resampled_sums
from evaluation.metrics import (
    METRICS,
    NOT_LABELLED,
    REASONS,
    LabelSums,
    calibration_bin,
    calibration_edges,
    labelled,
    panel_sums,
    roc_counts,
    youden_threshold,
)


def youden_thresholds(validation: Predictions) -> Thresholds:
    """The threshold of each label with the largest tpr - fpr on the validation films."""
    found = {
        name: youden_threshold(validation.labels[:, i], validation.probabilities[:, i])
        for i, name in enumerate(validation.names)
    }
    return Thresholds(
        {name: threshold for name, (threshold, _) in found.items()},
        {name: reason for name, (_, reason) in found.items() if reason is not None},
    )


def panel_of(predictions: Predictions, thresholds: Thresholds) -> list[LabelSums]:
    """The sums of every label, under the rules 0.5 and Youden; thresholds are those of the labels' names."""
    columns = zip(predictions.names, predictions.labels.T, predictions.probabilities.T, strict=True)
    return [
        LabelSums(labels, probabilities, {"0.5": 0.5, "youden": thresholds.get(name)})
        for name, labels, probabilities in columns
    ]


def classification_table(
    predictions: Predictions,
    thresholds: Thresholds,
    *,
    resamples: int = 100_000,
    seed: int = 0,
    unit: str = "film",
) -> pd.DataFrame:
    """One row per label or mean of labels, metric and rule: the value and its bootstrap interval.

    Columns: label, metric, rule, threshold, value, ci_low, ci_high, bootstrap_mean, bootstrap_median, resamples, note.
    `resamples` counts the resamples where the metric is defined; `note` says why a value is undefined, how many
    resamples were left out, and how many labels a mean covers. `unit` is `film` or `patient`. With resamples=0 the
    interval columns are NaN.
    """
    panel = panel_of(predictions, thresholds)
    observed = panel_sums(panel, np.ones((len(predictions.paths), 1)))
    units = film_units(predictions, unit)
    (resampled,) = resampled_sums([panel], units, resamples=resamples, seed=seed)
    rows = []
    for metric, rule in METRICS:
        values = observed.metric(metric, rule)[:, 0]
        samples = resampled.metric(metric, rule)
        why = [undefined_reason(metric, rule, name, predictions, thresholds) for name in predictions.names]
        for row in summary_rows(predictions.label_set, values, samples, why, REASONS[metric]):
            threshold = {"-": None, "0.5": 0.5, "youden": thresholds.get(str(row["label"]))}[rule]
            rows.append({"metric": metric, "rule": rule, "threshold": threshold, **row})
    columns = ["label", "metric", "rule", "threshold", "value", "ci_low", "ci_high", "bootstrap_mean"]
    columns += ["bootstrap_median", "resamples", "note"]
    return by_label(predictions.label_set, rows, columns)


def undefined_reason(metric: str, rule: str, name: str, predictions: Predictions, thresholds: Thresholds) -> str:
    """Why this metric of a label would be undefined on these films."""
    labels = predictions.labels[:, predictions.names.index(name)]
    if np.isnan(labels).all():
        return NOT_LABELLED
    if rule == "youden" and thresholds.get(name) is None:
        return f"no Youden threshold: {thresholds.reasons.get(name, 'not a label of the validation films')}"
    if metric == "auroc":
        return "no negatives" if (labels == 1).any() else "no positives"
    return REASONS[metric]


def summary_rows(
    label_set: LabelSet, values: np.ndarray, samples: np.ndarray, why: Sequence[str], why_sometimes: str
) -> list[dict[str, object]]:
    """Rows of the C labels and their means: value, interval, number of defined resamples, note.

    values (C,) and samples (C, B), NaN where undefined; why (C,): the reason a value is undefined, if it is;
    why_sometimes: the reason in a resample.
    """
    rows = []
    for i, name in enumerate(label_set.names):
        left_out = int(np.isnan(samples[i]).sum())
        note = f"{left_out} resamples undefined: {why_sometimes}" if left_out else ""
        rows.append(_summary_row(name, values[i], samples[i], why[i] if np.isnan(values[i]) else note))
    means, mean_samples = group_means(label_set, values[:, None])[:, 0], group_means(label_set, samples)
    for i, (mean, members) in enumerate(label_set.means.items()):
        index = positions(members, label_set.names, mean)
        note = _coverage(members, ~np.isnan(values[index]), ~np.isnan(samples[index]))
        rows.append(_summary_row(mean, means[i], mean_samples[i], note))
    return rows


def group_means(label_set: LabelSet, values: np.ndarray) -> np.ndarray:
    """(C, B) -> (len(label_set.means), B): each mean over those of its labels that are defined."""
    indices = [positions(members, label_set.names, mean) for mean, members in label_set.means.items()]
    return np.stack([mean_of_defined(values[index]) for index in indices])


def _summary_row(label: str, value: float, samples: np.ndarray, note: str) -> dict[str, object]:
    summary = interval(samples)
    return {
        "label": label,
        "value": float(value),
        "ci_low": summary.low,
        "ci_high": summary.high,
        "bootstrap_mean": summary.mean,
        "bootstrap_median": summary.median,
        "resamples": summary.defined,
        "note": note,
    }


def _coverage(members: Sequence[str], observed: np.ndarray, resampled: np.ndarray) -> str:
    """How many labels a mean covers. observed (C,), resampled (C, B): where the metric is defined."""
    missing = [name for name, there in zip(members, observed, strict=True) if not there]
    text = f"mean of {observed.sum()} of {len(members)} labels"
    if missing:
        text += f", without {', '.join(missing)}"
    fewer = int((~resampled[observed]).any(axis=0).sum())
    return f"{text}; of fewer in {fewer} resamples" if fewer else text


def by_label(label_set: LabelSet, rows: Sequence[Mapping[str, object]], columns: Sequence[str]) -> pd.DataFrame:
    """The rows ordered by label, then means; the metrics of a label keep their order."""
    order = {name: position for position, name in enumerate((*label_set.names, *label_set.means))}
    return pd.DataFrame(sorted(rows, key=lambda row: order[str(row["label"])]), columns=list(columns))


def roc_points(predictions: Predictions) -> pd.DataFrame:
    """ROC curve per label (label, fpr, tpr, threshold), corners only; no rows for a label without both classes."""
    columns = ["label", "fpr", "tpr", "threshold"]
    tables = []
    for i, name in enumerate(predictions.names):
        tp, fp, thresholds = roc_counts(predictions.labels[:, i], predictions.probabilities[:, i])
        if tp[-1] and fp[-1]:
            corner = np.ones(len(tp), bool)
            corner[1:-1] = np.diff(tp, 2).astype(bool) | np.diff(fp, 2).astype(bool)
            points = (name, fp / fp[-1], tp / tp[-1], thresholds)
            tables.append(pd.DataFrame(dict(zip(columns, points, strict=True)))[corner])
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=columns)


def calibration_points(predictions: Predictions) -> pd.DataFrame:
    """Reliability diagram per label: label, bin_low, bin_high, count, mean_probability, fraction_positive.

    The bins are those of the expected calibration error; the last two columns are NaN for an empty bin.
    """
    edges = calibration_edges()
    tables = []
    for i, name in enumerate(predictions.names):
        labels, probabilities = labelled(predictions.labels[:, i], predictions.probabilities[:, i])
        films = pd.DataFrame({"p": probabilities, "y": labels}).groupby(calibration_bin(probabilities))
        table = pd.DataFrame({"label": name, "bin_low": edges[:-1], "bin_high": edges[1:]})
        table["count"] = films.size().reindex(table.index, fill_value=0)
        table["mean_probability"] = films["p"].mean()
        table["fraction_positive"] = films["y"].mean()
        tables.append(table)
    return pd.concat(tables, ignore_index=True)
