"""Two models on the same films: paired differences of every metric, with intervals and DeLong's test."""

from __future__ import annotations

import numpy as np
import pandas as pd

from cxr.files import InputError
from cxr.labels import LABELS
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
    """One row per label or group, metric and rule: both values, the difference a - b and its paired interval.

    Both models are evaluated on the same resamples, each with its own thresholds. A label counts in a mean only where
    it is defined for both models, so value_a - value_b = difference in every row. `delong_p` tests equal AUROC of a
    label, `delong_p_holm` corrects it for the number of labels tested. `names` are the files, for messages. Raises
    InputError when the films or their labels differ; their order may.
    """
    b = _same_films(a, b, names)
    panels = [panel_of(a, thresholds_a), panel_of(b, thresholds_b)]
    ones = np.ones((len(a.paths), 1))
    observed_a, observed_b = (panel_sums(panel, ones) for panel in panels)
    units = film_units(a.paths, unit)
    resampled_a, resampled_b = resampled_sums(panels, units, resamples=resamples, seed=seed)
    rows: list[dict[str, object]] = []
    for metric, rule in METRICS:
        values_a, values_b = (sums.metric(metric, rule)[:, 0] for sums in (observed_a, observed_b))
        samples = resampled_a.metric(metric, rule) - resampled_b.metric(metric, rule)
        why = [_why(metric, rule, i, a, (values_a, values_b), (thresholds_a, thresholds_b)) for i in range(len(LABELS))]
        summaries = summary_rows(values_a - values_b, samples, why, REASONS.get(metric, ""))
        for row, value_a, value_b in zip(summaries, *_paired_values(values_a, values_b), strict=True):
            row |= {"metric": metric, "rule": rule, "value_a": value_a, "value_b": value_b, "difference": row["value"]}
            rows.append(row)
    _add_delong(rows[: len(LABELS)], a, b)
    return by_label(rows, COLUMNS)


def _same_films(a: Predictions, b: Predictions, names: tuple[str, str]) -> Predictions:
    """`b` with its films in the order of `a`."""
    for one, other, (name, other_name) in ((a, b, names), (b, a, names[::-1])):
        known = set(other.paths)
        only = next((path for path in one.paths if path not in known), None)
        if only is not None:
            raise InputError(
                f"{only}: a film of {name} that {other_name} lacks; predict the same films with both models"
            )
    row = {path: index for index, path in enumerate(b.paths)}
    order = [row[path] for path in a.paths]
    differing = np.argwhere(a.labels != b.labels[order])
    if len(differing):
        film, label = differing[0]
        raise InputError(
            f"{a.paths[film]}, 'label {a.names[label]}': {a.labels[film, label]:g} in {names[0]}, "
            f"{b.labels[order][film, label]:g} in {names[1]}; compare against one ground truth"
        )
    return Predictions(a.paths, b.probabilities[order], b.labels[order], b.label_set, a.ids, a.patients)


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
        f"{model}: {undefined_reason(metric, rule, LABELS[label], films, chosen)}"
        for model, value, chosen in zip("ab", values, thresholds, strict=True)
        if np.isnan(value[label])
    ]
    return "; ".join(reasons)


def _paired_values(values_a: np.ndarray, values_b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Values of labels and groups, (14,) -> (14 + groups,); the means over the labels that both models define."""
    either = np.isnan(values_a) | np.isnan(values_b)
    pair = (values_a, values_b)
    means = (group_means(np.where(either, np.nan, values)[:, None])[:, 0] for values in pair)
    first, second = (np.append(values, mean) for values, mean in zip(pair, means, strict=True))
    return first, second


def _add_delong(auroc_rows: list[dict[str, object]], a: Predictions, b: Predictions) -> None:
    """Puts DeLong's p, and why there is none, into the AUROC rows of the 14 labels."""
    tests = [paired_test(a.labels[:, i], a.probabilities[:, i], b.probabilities[:, i]) for i in range(len(LABELS))]
    adjusted = holm(np.array([test.p for test in tests]))
    for row, test, holm_p in zip(auroc_rows, tests, adjusted, strict=True):
        row |= {"delong_p": test.p, "delong_p_holm": holm_p}
        if np.isnan(test.p):
            row["note"] = "; ".join(filter(None, (str(row["note"]), f"no DeLong test: {_why_no_test(test)}")))


def _why_no_test(test: PairedTest) -> str:
    return "fewer than 2 positives or 2 negatives" if np.isnan(test.standard_error) else "zero variance"
