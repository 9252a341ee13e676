"""Two models on the same films: paired differences of every metric, with intervals and DeLong's test."""

from __future__ import annotations

import numpy as np
import pandas as pd

from cxr.files import InputError, printable, quoted
from cxr.labels import LabelSet
from cxr.predictions import Predictions
from cxr.thresholds import Thresholds
from evaluation.bootstrap import film_units, resampled_sums
from evaluation.classification import (
    by_label,
    group_means,
    panel_of,
    summary_rows,
    undefined_reason,
)
from evaluation.delong import PairedTest, holm, paired_test
from evaluation.metrics import METRICS, REASONS, panel_sums

COLUMNS = (
    "label",
    "metric",
    "rule",
    "value_a",
    "value_b",
    "difference",
    "ci_low",
    "ci_high",
    "bootstrap_mean",
    "bootstrap_median",
    "resamples",
    "delong_p",
    "delong_p_holm",
    "note",
)


def compare(
    a: Predictions,
    b: Predictions,
    thresholds_a: Thresholds,
    thresholds_b: Thresholds,
    *,
    names: tuple[str, str] = ("a", "b"),
    resamples: int = 100_000,
    seed: int = 0,
    unit: str = "film",
) -> pd.DataFrame:
    """One row per label or mean of labels, metric and rule: both values, the difference a - b and its paired interval.

    Only labels that both predictions have are compared. Both models are evaluated on the same resamples, each with its
    own thresholds. A label counts in a mean only where it is defined for both models, so value_a - value_b = difference
    in every row. `delong_p` tests equal AUROC of a label, with patients as clusters where `unit` is the patient;
    `delong_p_holm` corrects it for the number of labels tested.
    `names` are the files, for messages. Raises InputError when no label is shared, and when the films or their labels
    differ; their order may.
    """
    a, b = paired_films(a, b, names)
    panels = [panel_of(a, thresholds_a), panel_of(b, thresholds_b)]
    ones = np.ones((len(a.paths), 1))
    observed_a, observed_b = (panel_sums(panel, ones) for panel in panels)
    units = film_units(a, unit)
    resampled_a, resampled_b = resampled_sums(panels, units, resamples=resamples, seed=seed)
    rows: list[dict[str, object]] = []
    for metric, rule in METRICS:
        values_a, values_b = (sums.metric(metric, rule)[:, 0] for sums in (observed_a, observed_b))
        samples = resampled_a.metric(metric, rule) - resampled_b.metric(metric, rule)
        why = [
            _why(metric, rule, i, a, (values_a, values_b), (thresholds_a, thresholds_b))
            for i in range(len(a.label_set))
        ]
        summaries = summary_rows(a.label_set, values_a - values_b, samples, why, REASONS[metric])
        for row, value_a, value_b in zip(summaries, *_paired_values(a.label_set, values_a, values_b), strict=True):
            row |= {"metric": metric, "rule": rule, "value_a": value_a, "value_b": value_b, "difference": row["value"]}
            rows.append(row)
    _add_delong(rows[: len(a.label_set)], a, b, None if unit == "film" else units)
    return by_label(a.label_set, rows, COLUMNS)


def paired_films(a: Predictions, b: Predictions, names: tuple[str, str]) -> tuple[Predictions, Predictions]:
    """Both with the labels that they share and the films in the order of `a`.

    Raises InputError when no label is shared, and when the films or their labels differ.
    """
    a, b = _shared_labels(a, b, names)
    return a, _same_films(a, b, names)


def _shared_labels(a: Predictions, b: Predictions, names: tuple[str, str]) -> tuple[Predictions, Predictions]:
    """Both restricted to the labels they share, in the order of `a`."""
    shared = [name for name in a.names if name in b.names]
    if not shared:
        raise InputError(
            f"{printable(names[1])}: none of its labels is one of {printable(names[0])}; nothing to compare"
        )
    return a.restrict(shared, names[0]), b.restrict(shared, names[1])


def _same_films(a: Predictions, b: Predictions, names: tuple[str, str]) -> Predictions:
    """`b` with its films in the order of `a`."""
    for one, other, (name, other_name) in ((a, b, names), (b, a, names[::-1])):
        known = set(other.paths)
        only = next((path for path in one.paths if path not in known), None)
        if only is not None:
            raise InputError(
                f"{printable(only)}: a film of {name} that {other_name} lacks; predict the same films with both models"
            )
    row = {path: index for index, path in enumerate(b.paths)}
    order = [row[path] for path in a.paths]
    theirs = b.labels[order]
    differing = np.argwhere((a.labels != theirs) & ~(np.isnan(a.labels) & np.isnan(theirs)))
    if len(differing):
        film, label = differing[0]
        values = [_label_text(labels[film, label]) for labels in (a.labels, theirs)]
        raise InputError(
            f"{printable(a.paths[film])}, {quoted(f'label {a.names[label]}')}: {values[0]} in {names[0]}, "
            f"{values[1]} in {names[1]}; compare against one ground truth"
        )
    return Predictions(a.paths, b.probabilities[order], theirs, b.label_set, a.ids, a.patients)


def _label_text(label: float) -> str:
    return "not labelled" if np.isnan(label) else f"{label:g}"


def _why(
    metric: str,
    rule: str,
    label: int,
    films: Predictions,
    values: tuple[np.ndarray, np.ndarray],
    thresholds: tuple[Thresholds, Thresholds],
) -> str:
    """Why a label's difference is undefined: the reason of each model whose value is."""
    reasons = [
        f"{model}: {undefined_reason(metric, rule, films.names[label], films, chosen)}"
        for model, value, chosen in zip("ab", values, thresholds, strict=True)
        if np.isnan(value[label])
    ]
    return "; ".join(reasons)


def _paired_values(label_set: LabelSet, values_a: np.ndarray, values_b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Values of labels and means, (C,) -> (C + means,); the means over the labels that both models define."""
    either = np.isnan(values_a) | np.isnan(values_b)
    pair = (values_a, values_b)
    means = (group_means(label_set, np.where(either, np.nan, values)[:, None])[:, 0] for values in pair)
    first, second = (np.append(values, mean) for values, mean in zip(pair, means, strict=True))
    return first, second


def _add_delong(
    auroc_rows: list[dict[str, object]], a: Predictions, b: Predictions, clusters: np.ndarray | None
) -> None:
    """Puts DeLong's p, and why there is none, into the AUROC rows of the labels. clusters: (N,) patients."""
    columns = zip(a.labels.T, a.probabilities.T, b.probabilities.T, strict=True)
    tests = [_delong(*of_label, clusters) for of_label in columns]
    adjusted = holm(np.array([test.p for test in tests]))
    for row, test, holm_p in zip(auroc_rows, tests, adjusted, strict=True):
        row |= {"delong_p": test.p, "delong_p_holm": holm_p}
        if np.isnan(test.p):
            row["note"] = "; ".join(filter(None, (str(row["note"]), f"no DeLong test: {_why_no_test(test)}")))


def _delong(labels: np.ndarray, scores_a: np.ndarray, scores_b: np.ndarray, clusters: np.ndarray | None) -> PairedTest:
    """The test on the films that are labelled."""
    known = ~np.isnan(labels)
    return paired_test(labels[known], scores_a[known], scores_b[known], None if clusters is None else clusters[known])


def _why_no_test(test: PairedTest) -> str:
    return "fewer than 2 positives or 2 negatives" if np.isnan(test.standard_error) else "zero variance"
