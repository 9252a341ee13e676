"""The paper's Tables 1, 2 and 3 from a results folder, in its layout, with the paper's own numbers below."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import pandas as pd

from cxr.names import METHODS
from reporting.format import UNDEFINED, Block, Cell, Table, number, plain, ranked
from reporting.label_words import means, means_caption, task_heading
from reporting.localization_results import HIT_RATE, MIOU_ALL, MIOU_TP, Localization
from reporting.numbers import Estimate
from reporting.paper import MEAN, Paper
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


def table2(results: Results, protocol: str, paper: Paper, dataset: str = "") -> Table:
    """Hit rate per pathology and method, over the films that have a mask of it."""
    scored, tasks = results.scored(protocol, HIT_RATE), results.tasks
    rows = {_shown(task, results): {method: item.of(task) for method, item in scored.items()} for task in tasks}
    rows[MEAN] = {method: item.mean for method, item in scored.items()}
    published = {_shown(task, results): {m: paper.hit_rate(task, m) for m in results.methods} for task in tasks}
    published[MEAN] = {method: paper.mean_hit_rate(tasks, method) for method in results.methods}
    return _localization_table(
        results,
        f"table2_{protocol}",
        f"Table 2, {protocol} protocol",
        f"Hit rate of the map's maximum, on the test films{of_dataset(dataset)} that have a mask of the pathology.",
        ("Pathology", rows, published),
        {MEAN: scored},
        (*_gaps(results, scored), *_unequal_films(results, scored)),
        _protocol_notes(protocol, paper),
    )


def table3(results: Results, protocol: str, paper: Paper, dataset: str = "") -> Table:
    """Mean over the tasks of the mean IoU, with and without false positives and false negatives."""
    scored, tasks = {measure: results.scored(protocol, measure) for measure in (MIOU_ALL, MIOU_TP)}, results.tasks
    rows = {measure: {method: item.mean for method, item in items.items()} for measure, items in scored.items()}
    published = {of: {method: paper.mean_iou(tasks, of, method) for method in results.methods} for of in scored}
    gaps = [f"{measure}: {note}" for measure, items in scored.items() for note in _gaps(results, items)]
    return _localization_table(
        results,
        f"table3_{protocol}",
        f"Table 3, {protocol} protocol",
        f"Mean over the {_in_words(len(tasks))} pathologies of the mean intersection over union on the test "
        f"films{of_dataset(dataset)}.",
        ("Included cases", rows, published),
        scored,
        gaps,
        _protocol_notes(protocol, paper),
    )


def _in_words(count: int) -> str:
    words = "no one two three four five six seven eight nine ten".split()
    return words[count] if count < len(words) else str(count)


def _shown(task: str, results: Results) -> str:
    return task_heading(task, results.labels)


def _localization_table(
    results: Results,
    name: str,
    title: str,
    caption: str,
    content: tuple[str, Mapping[str, Mapping[str, Estimate]], Mapping[str, Mapping[str, float]]],
    means_of: Mapping[str, Mapping[str, Localization]],
    notes: Sequence[str],
    of_paper: Sequence[str],
) -> Table:
    """content: what the rows are, the estimates by row and method, and the paper's values by row and method.

    means_of: the rows that are means over tasks, with the scores they are taken from. of_paper: notes on the paper's
    values, where it has any.
    """
    first, rows, published = content
    methods, titles = results.methods, [METHODS[method].title for method in results.methods]
    estimates = {label: [row.get(method, Estimate()) for method in methods] for label, row in rows.items()}
    ours = {label: [estimate.value for estimate in row] for label, row in estimates.items()}
    theirs = {label: [row[method] for method in methods] for label, row in published.items()}
    unranked = {label for label, scored in means_of.items() if not _same_tasks(scored)}
    blocks = [Block("This run", _ranked_rows(ours, unranked))]
    if known := any(not math.isnan(value) for row in theirs.values() for value in row):
        blocks.append(Block("Paper", _ranked_rows(theirs)))
    bounds = [f"{method} {bound}" for method in titles for bound in ("lower", "upper")]
    records = [
        [label, *ours[label], *(bound for _, low, high in row for bound in (low, high)), *theirs[label]]
        for label, row in estimates.items()
    ]
    return Table(
        name,
        title,
        f"{caption} Bold: best, underlined: second best.",
        (first, *map(column_title, methods)),
        tuple(blocks),
        (*notes, *_unranked_note(unranked), *_not_in_paper(methods), *(of_paper if known else ())),
        pd.DataFrame(records, columns=[first, *titles, *bounds, *(f"Paper: {title}" for title in titles)]),
    )


def column_title(method: str) -> str:
    """The method's title, with a dagger where the paper does not have it."""
    return METHODS[method].title + ("" if METHODS[method].in_paper else " †")


def _not_in_paper(methods: Sequence[str]) -> tuple[str, ...]:
    return ("† not in the paper.",) if any(not METHODS[method].in_paper for method in methods) else ()


def _same_tasks(scored: Mapping[str, Localization]) -> bool:
    """Whether the means of all methods that have one are taken over the same tasks."""
    return len({item.covered for item in scored.values() if item.covered}) < 2


def _unranked_note(unranked: set[str]) -> tuple[str, ...]:
    return ("Means over different pathologies do not compare, so none of them is marked as best.",) if unranked else ()


def _ranked_rows(
    rows: Mapping[str, Sequence[float]], unranked: set[str] | frozenset[str] = frozenset()
) -> tuple[tuple[Cell, ...], ...]:
    return tuple(
        (
            Cell(label, bold=label == MEAN),
            *(plain(*map(number, values)) if label in unranked else ranked(values, second=True)),
        )
        for label, values in rows.items()
    )


def _gaps(results: Results, scored: Mapping[str, Localization]) -> list[str]:
    """Why there are dashes, and how many tasks a mean covers."""
    notes = []
    absent = [METHODS[method].title for method in results.methods if method not in scored]
    if absent:
        notes.append(f"{UNDEFINED} not scored: {', '.join(absent)}.")
    empty: dict[tuple[str, ...], list[str]] = {}
    for method, item in scored.items():
        tasks = tuple(_shown(task, results) for task in results.tasks if task not in item.covered)
        if tasks:
            empty.setdefault(tasks, []).append(METHODS[method].title)
    for tasks, methods in empty.items():
        covered = f"{len(results.tasks) - len(tasks)} of {len(results.tasks)} pathologies"
        notes.append(f"{', '.join(methods)}: mean over {covered}; no film to score for {', '.join(tasks)}.")
    return notes


def _unequal_films(results: Results, scored: Mapping[str, Localization]) -> list[str]:
    """Hit rates of a pathology compare only on the same films."""
    notes = []
    for task in results.tasks:
        films = {METHODS[method].title: item.films.get(task, 0) for method, item in scored.items()}
        if len(set(films.values())) > 1:
            counts = ", ".join(f"{name} {count}" for name, count in films.items())
            notes.append(f"{_shown(task, results)}: the methods were scored on different numbers of films: {counts}.")
    return notes


def _protocol_notes(protocol: str, paper: Paper) -> tuple[str, ...]:
    if protocol == "published":
        return (paper.note,)
    return (
        paper.note,
        "The paper's numbers follow the published protocol; this table follows the corrected one.",
    )
