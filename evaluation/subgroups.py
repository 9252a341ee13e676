"""Metrics within groups of films (sex, age, view), and the differences between the groups.

A group's cell is the films of the group that have the label. Cells with fewer than 10 positives or 10 negatives are
refused: their intervals would be too wide to read and their films could be told apart. The differences are many and not
corrected for their number; they point to what a study should be designed to test.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from cxr.predictions import Predictions
from cxr.thresholds import Thresholds
from evaluation.bootstrap import film_units, resampled_sums
from evaluation.classification import by_label, group_means, panel_of, summary_rows, undefined_reason
from evaluation.metrics import REASONS, RULES, panel_sums

FEWEST = 10
"""Positives and negatives of a cell."""

METRICS = (("auroc", "-"), *((metric, rule) for rule in RULES for metric in ("sensitivity", "specificity")))
COLUMNS = (
    "attribute",
    "group",
    "films",
    "label",
    "metric",
    "rule",
    "threshold",
    "positives",
    "negatives",
    "value",
    "ci_low",
    "ci_high",
    "resamples",
    "reference",
    "reference_value",
    "difference",
    "difference_low",
    "difference_high",
    "resample_unit",
    "note",
)
AGE_BANDS = {"under 18": 0, "18 to 39": 18, "40 to 59": 40, "60 to 79": 60, "80 and over": 80}
"""Group -> its youngest age in years."""

_OLDEST = 130


def age_band(age: str) -> str:
    """The group of an age in years; empty for an age that is blank, not a number, or not a human's."""
    try:
        years = float(age)
    except ValueError:
        return ""
    if not math.isfinite(years) or not 0 <= years <= _OLDEST:
        return ""
    return [band for band, youngest in AGE_BANDS.items() if years >= youngest][-1]


def attributes_of(sexes: Sequence[str], ages: Sequence[str], views: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Attribute -> group of each film, empty where unknown; without those that do not tell the films apart."""
    found = {"Sex": tuple(sexes), "Age": tuple(map(age_band, ages)), "View": tuple(views)}
    return {attribute: groups for attribute, groups in found.items() if len(set(groups)) > 1}


def subgroup_table(
    predictions: Predictions,
    thresholds: Thresholds,
    attributes: Mapping[str, Sequence[str]],
    *,
    resamples: int = 10_000,
    seed: int = 0,
) -> pd.DataFrame:
    """One row per attribute, group, label or mean of labels, and metric (`COLUMNS`).

    attributes: attribute -> group of each of the N films, empty where unknown. `difference` is the group's value minus
    that of `reference`, the attribute's largest group. Of a mean, the difference and `reference_value` cover the labels
    that both groups have, and so does `value`, but in the reference's own rows, where it covers all that it has.
    Intervals are 95% percentile intervals; all groups share their resamples, of patients where every film's patient is
    known (`resample_unit`), so that a patient with films in two groups counts as one.
    """
    unit = "film" if "" in predictions.patients else "patient"
    units = film_units(predictions, unit)
    tables = [
        _attribute_rows(predictions, thresholds, np.asarray(groups), units, resamples=resamples, seed=seed)
        for groups in attributes.values()
    ]
    rows = [
        {**row, "attribute": attribute, "resample_unit": unit}
        for attribute, table in zip(attributes, tables, strict=True)
        for row in table
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS))


@dataclass(frozen=True)
class _Group:
    """The films of a group. refused: label -> why its cell is not evaluated. values, samples: (C,) and (C, B) each."""

    name: str
    films: Predictions
    size: int
    refused: Mapping[str, str]
    values: Mapping[tuple[str, str], np.ndarray]
    samples: Mapping[tuple[str, str], np.ndarray]


def _attribute_rows(
    predictions: Predictions,
    thresholds: Thresholds,
    groups: np.ndarray,
    units: np.ndarray,
    *,
    resamples: int,
    seed: int,
) -> list[dict[str, object]]:
    """groups: (N,) text. The largest group comes first, the others by age or name."""
    names, sizes = np.unique(groups[groups != ""], return_counts=True)
    reference = str(names[np.argmax(sizes)])
    order = sorted(map(str, names), key=lambda name: (name != reference, AGE_BANDS.get(name, -1), name))
    members = [_masked(predictions, groups == name) for name in order]
    panels = [panel_of(films, thresholds) for films in members]
    drawn = resampled_sums(panels, units, resamples=resamples, seed=seed)
    found = []
    for name, films, panel, sums in zip(order, members, panels, drawn, strict=True):
        refused = _refused(films)
        hidden = np.array([[label in refused] for label in films.names])  # (C, 1)
        observed = panel_sums(panel, np.ones((len(groups), 1)))
        values = {key: np.where(hidden, np.nan, observed.metric(*key))[:, 0] for key in METRICS}
        samples = {key: np.where(hidden, np.nan, sums.metric(*key)) for key in METRICS}
        found.append(_Group(name, films, int((groups == name).sum()), refused, values, samples))
    return [row for group in found for row in _group_rows(group, found[0], thresholds)]


def _masked(predictions: Predictions, inside: np.ndarray) -> Predictions:
    """The predictions with the films outside a group not labelled, so that they count nowhere; inside: (N,) bool."""
    return replace(predictions, labels=np.where(inside[:, None], predictions.labels, np.nan))


def _refused(films: Predictions) -> dict[str, str]:
    """Label -> why there are too few films of it."""
    refused = {}
    for name, labels in zip(films.names, films.labels.T, strict=True):
        counts = {"positives": np.count_nonzero(labels == 1), "negatives": np.count_nonzero(labels == 0)}
        few = [f"{count} {what}" for what, count in counts.items() if count < FEWEST]
        if few:
            refused[name] = f"{' and '.join(few)}: fewer than {FEWEST}"
    return refused


def _group_rows(group: _Group, reference: _Group, thresholds: Thresholds) -> list[dict[str, object]]:
    """The rows of one group, in the order of labels and means."""
    label_set = group.films.label_set
    counts = {
        name: {"positives": np.count_nonzero(labels == 1), "negatives": np.count_nonzero(labels == 0)}
        for name, labels in zip(label_set.names, group.films.labels.T, strict=True)
    }
    rows = []
    for metric, rule in METRICS:
        for row in _metric_rows(group, reference, metric, rule, thresholds):
            label = str(row["label"])
            threshold = {"-": None, "0.5": 0.5, "youden": thresholds.get(label)}[rule]
            facts = {"group": group.name, "films": group.size, "metric": metric, "rule": rule, "threshold": threshold}
            rows.append({**facts, **counts.get(label, {}), **row})
    return by_label(label_set, rows, COLUMNS).to_dict("records")


def _metric_rows(
    group: _Group, reference: _Group, metric: str, rule: str, thresholds: Thresholds
) -> list[dict[str, object]]:
    """One row per label and mean: the group's value, and its difference to the reference's on the same labels."""
    films, key = group.films, (metric, rule)
    why = [group.refused.get(name) or undefined_reason(metric, rule, name, films, thresholds) for name in films.names]

    def summaries(values: np.ndarray, samples: np.ndarray) -> list[dict[str, object]]:
        return summary_rows(films.label_set, values, samples, why, REASONS[metric])

    values, theirs = group.values[key], reference.values[key]  # (C,)
    if group is reference:
        return summaries(values, group.samples[key])
    gaps = summaries(values - theirs, group.samples[key] - reference.samples[key])
    shared = ~np.isnan(values - theirs)
    of_shared = (np.where(shared, values, np.nan), np.where(shared[:, None], group.samples[key], np.nan))
    rows = summaries(values, group.samples[key])[: len(shared)] + summaries(*of_shared)[len(shared) :]
    their_means = group_means(films.label_set, np.where(shared, theirs, np.nan)[:, None])[:, 0]
    values = np.append(values, their_means)  # a mean of shared labels is undefined for both or for neither
    for row, gap, value, their_value in zip(rows, gaps, values, np.append(theirs, their_means), strict=True):
        row |= {"reference": reference.name, "reference_value": their_value, "difference": gap["value"]}
        row |= {"difference_low": gap["ci_low"], "difference_high": gap["ci_high"]}
        if np.isnan(their_value) and not np.isnan(value):
            reason = reference.refused.get(str(row["label"]), REASONS[metric])
            row["note"] = "; ".join(filter(None, (str(row["note"]), f"{reference.name}: {reason}")))
    return rows
