"""The paper's Table 1 from a results folder, in its layout, with the paper's own numbers below."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pandas as pd

from reporting.format import Block, Cell, Table, number, plain, ranked
from reporting.label_words import means, means_caption
from reporting.paper import Paper
from reporting.results import Results

METRICS: dict[str, tuple[str, str]] = {
    "AUROC": ("auroc", "-"),
    "Accuracy": ("accuracy", "youden"),
    "Sensitivity": ("sensitivity", "youden"),
    "Specificity": ("specificity", "youden"),
}
"""Name in the paper -> metric and rule in `classification_test.csv`."""

_Rows = dict[str, list[float]]


def of_dataset(dataset: str) -> str:
    """` (CheXpert)`: the name of the films, to follow "the test films"."""
    return f" ({dataset})" if dataset else ""


def table1(results: Results, paper: Paper, dataset: str = "") -> Table:
    """Means of the four metrics for both models and their difference, taken before rounding."""
    cells = _table1_cells(results)
    models = [model for model, _ in results.scored_models.values()]
    estimates = {model.name: [results.estimate(model, *key) for key in cells.values()] for model in models}
    ours = {name: [estimate.value for estimate in row] for name, row in estimates.items()}
    difference = _difference(ours)
    theirs, their_difference = _paper_rows(results, paper)
    rounding = ("Differences are taken before rounding.",) if difference else ()
    data = pd.DataFrame([[name, *row] for name, row in (ours | difference | theirs | their_difference).items()])
    data.columns = pd.Index(["Model", *cells])
    for place, column in enumerate(cells):
        data[f"{column} ci_low"] = pd.Series([row[place].low for row in estimates.values()])
        data[f"{column} ci_high"] = pd.Series([row[place].high for row in estimates.values()])
    return Table(
        "table1",
        "Table 1",
        f"{means_caption(results.labels)} on the test films{of_dataset(dataset)}; accuracy, sensitivity and "
        "specificity at the Youden thresholds of the validation films. Bold: the better model.",
        ("Model", *cells),
        tuple(Block("", _model_rows(*rows)) for rows in ((ours, difference), (theirs, their_difference)) if rows[0]),
        (*rounding, *_coverage(results, cells), *([paper.note] if theirs else [])),
        data,
    )


def _table1_cells(results: Results) -> dict[str, tuple[str, str, str]]:
    """Column -> the row of the model's scores that it shows."""
    marks = {mean: mark for mean, (mark, _) in means(results.labels).items()}
    return {f"{name} ({mark})": (mean, *key) for name, key in METRICS.items() for mean, mark in marks.items()}


def _difference(models: _Rows) -> _Rows:
    """First model - second; nothing where there is only one."""
    if len(models) != 2:
        return {}
    first, second = models.values()
    return {"Difference": [a - b for a, b in zip(first, second, strict=True)]}


def _paper_rows(results: Results, paper: Paper) -> tuple[_Rows, _Rows]:
    """Models and difference; the paper took the difference before rounding too, so it is not taken again.

    Empty where the paper has none of these means.
    """
    columns = [(metric, members) for metric, _ in METRICS.values() for _, members in means(results.labels).values()]
    values = {role: [paper.mean(role, *column) for column in columns] for role in (*paper.models, "difference")}
    if all(math.isnan(value) for row in values.values() for value in row):
        return {}, {}
    models = {f"Paper: {name}": values[role] for role, name in paper.models.items()}
    return models, {"Paper: Difference": values["difference"]}


def _model_rows(models: _Rows, difference: _Rows) -> tuple[tuple[Cell, ...], ...]:
    """One row per model, the higher value of each column bold, and the difference below."""
    columns = [ranked(column) for column in zip(*models.values(), strict=True)]
    rows = [(Cell(name), *(column[place] for column in columns)) for place, name in enumerate(models)]
    return (*rows, *(plain(name, *map(number, row)) for name, row in difference.items()))


def _coverage(results: Results, cells: Mapping[str, tuple[str, str, str]]) -> list[str]:
    """One note per set of labels that means leave out, with the columns it is about.

    A mean covers the labels that every model defines: means of different labels do not compare.
    """
    left_out: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for column, (mean, metric, rule) in cells.items():
        covered = results.covered(mean, metric, rule)
        undefined = tuple(label for label in means(results.labels)[mean][1] if label not in covered)
        if undefined:
            left_out.setdefault((mean, undefined), []).append(column)
    names = ", ".join(model.name for model, _ in results.scored_models.values())
    notes = []
    for (mean, undefined), columns in left_out.items():
        members = means(results.labels)[mean][1]
        notes.append(
            f"{names}: {', '.join(columns)} taken over {len(members) - len(undefined)} of {len(members)} labels; "
            f"undefined, for the reasons given in table1_per_label: {', '.join(undefined)}."
        )
    return [*notes, *shared_note(results)]


def shared_note(results: Results) -> list[str]:
    """Why a mean differs from the one in the model's own file, where some mean does."""
    rows = [(mean, *key) for mean in means(results.labels) for key in METRICS.values()]
    if not any(_differs_from_own(results, *row) for row in rows):
        return []
    return [
        "A label that is undefined for one of the models enters neither's mean; the intervals, which are of each "
        "model's own mean, are then left out."
    ]


def _differs_from_own(results: Results, mean: str, metric: str, rule: str) -> bool:
    """Whether a model defines labels of the mean that the other does not."""
    labels, shared = means(results.labels)[mean][1], results.covered(mean, metric, rule)
    return any(
        sum(scores.is_defined(label, metric, rule) for label in labels) > len(shared)
        for _, scores in results.scored_models.values()
    )
