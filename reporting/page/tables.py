"""The tables of the page: those of the paper with the difference to its numbers, and localization with intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from cxr.names import LOCALIZED
from reporting.format import UNDEFINED, Block, Cell, Table, interval, number, plain
from reporting.label_words import means
from reporting.localization_results import HIT_RATE, MIOU_ALL, MIOU_TP
from reporting.numbers import Estimate
from reporting.paper import MEAN, Paper
from reporting.results import Results
from reporting.tables.localization_tables import CONTROL_BLOCK, column_title, not_in_paper
from reporting.tables.paper_tables import METRICS, of_dataset

_MEASURES = {
    HIT_RATE: "share of the films with a mask in which the map's maximum lies in it",
    MIOU_ALL: "mean IoU over true positives, false positives and false negatives (films without either are left out)",
    MIOU_TP: "mean IoU over the films that have a mask and a predicted region",
}
_MINUS_PAPER = "This run − paper"


def beside_paper(table: Table, results: Results, paper: Paper) -> Table:
    """The table with what it differs by from the paper's numbers, before rounding; others come back unchanged.

    Tables 1 to 3 get rows below, Table 1 per label columns at the right: there the paper stands in columns. A mean that
    does not cover all of its labels or tasks has no difference: the paper's does.
    """
    if table.name == "table1":
        return _with_rows(table, _model_differences(table, results, paper))
    if table.name == "table1_per_label":
        return _with_columns(table, results, paper)
    if table.name.startswith(("table2", "table3")):
        return _with_rows(table, _localization_differences(table, results))
    return table


def _with_rows(table: Table, rows: tuple[tuple[Cell, ...], ...]) -> Table:
    if all(cell.text == UNDEFINED for row in rows for cell in row[1:]):
        return table
    return replace(table, blocks=(*table.blocks, Block(_MINUS_PAPER, rows)))


def _localization_differences(table: Table, results: Results) -> tuple[tuple[Cell, ...], ...]:
    titles = [LOCALIZED[method].title for method in results.methods]
    controls = {row[0].text for block in table.blocks if block.heading == CONTROL_BLOCK for row in block.rows}
    data = table.data[~table.data.iloc[:, 0].isin(controls)]
    names, protocol = data.iloc[:, 0], table.name.partition("_")[2]
    differences = data[titles].to_numpy(float) - data[[f"Paper: {title}" for title in titles]].to_numpy(float)
    for row, name in enumerate(names):
        measure = HIT_RATE if name == MEAN else name
        if measure in _MEASURES and len(results.shared_tasks(protocol, measure)) < len(results.tasks):
            differences[row] = math.nan
    return _rows(names, differences)


def _rows(names: Sequence[str] | pd.Series, values: Any) -> tuple[tuple[Cell, ...], ...]:
    return tuple(plain(name, *map(_signed, row)) for name, row in zip(names, values, strict=True))


def _signed(value: float) -> str:
    text = number(value)
    return f"+{text}" if value > 0 and float(text) > 0 else text


def _model_differences(table: Table, results: Results, paper: Paper) -> tuple[tuple[Cell, ...], ...]:
    columns = list(table.columns[1:])
    values = table.data.set_index("Model")[columns].astype(float)
    scored = {role: model.name for role, (model, _) in results.scored_models.items()}
    pairs = {name: (name, f"Paper: {paper.models[role]}") for role, name in scored.items()}
    if len(scored) == 2:
        pairs["Difference"] = ("Difference", "Paper: Difference")
    keys = [(mean, *key) for key in METRICS.values() for mean in means(results.labels)]
    partial = [len(results.covered(*key)) < len(means(results.labels)[key[0]][1]) for key in keys]
    known = {name: names for name, names in pairs.items() if names[1] in values.index}
    return _rows(list(known), [(values.loc[a] - values.loc[b]).mask(partial) for a, b in known.values()])


def _with_columns(table: Table, results: Results, paper: Paper) -> Table:
    names = {role: model.name for role, (model, _) in results.scored_models.items()}
    paired = [(table.data[name], f"Paper: {paper.models[role]}") for role, name in names.items()]
    if not all(column in table.data for _, column in paired):
        return table
    differences = [ours - table.data[column] for ours, column in paired]
    partial = [_is_partial(results, metric, label) for metric, label in zip(*_metric_and_label(table), strict=True)]
    cells = iter([plain(*map(_signed, row)) for row in zip(*(d.mask(partial) for d in differences), strict=True)])
    blocks = [Block(block.heading, tuple((*row, *next(cells)) for row in block.rows)) for block in table.blocks]
    columns = (*table.columns, *(f"{name} − paper" for name in names.values()))
    return replace(table, columns=columns, blocks=tuple(blocks))


def _metric_and_label(table: Table) -> tuple[Sequence[str], Sequence[str]]:
    return table.data["Metric"].tolist(), table.data["Label"].tolist()


def _is_partial(results: Results, metric: str, label: str) -> bool:
    """Whether it is a mean that does not cover all of its labels."""
    labels = means(results.labels)
    return label in labels and len(results.covered(label, *METRICS[metric])) < len(labels[label][1])


def localization_tables(results: Results, dataset: str = "") -> list[Table]:
    """One table per protocol: each measure per pathology and method, with its 95% interval and number of films."""
    return [_localization_table(results, protocol, dataset) for protocol in results.protocols]


def _mean_notes(results: Results, protocol: str, measure: str) -> list[str]:
    shared, tasks = results.shared_tasks(protocol, measure), results.tasks
    if len(shared) in (0, len(tasks)):
        return []
    return [f"{measure}: means over the {len(shared)} of {len(tasks)} pathologies that every method defines."]


def _localization_table(results: Results, protocol: str, dataset: str) -> Table:
    scored = {measure: results.scored(protocol, measure) for measure in _MEASURES}
    shown = [method for method in LOCALIZED if any(method in items for items in scored.values())]
    blocks, records = [], []
    for measure, meaning in _MEASURES.items():
        rows, means_of = [], results.localization_means(protocol, measure)
        for task in (*sorted(results.tasks), MEAN):
            items = [scored[measure].get(method) for method in shown]
            estimates = [item and item.of(task) or Estimate() for item in items]
            if task == MEAN:
                estimates = [means_of.get(method, Estimate()) for method in shown]
            films = sorted({item.films[task] for item in items if item and task in item.films})
            name = results.labels.label_of(task) + (f" ({', '.join(map(str, films))} films)" if films else "")
            rows.append((Cell(name, bold=task == MEAN), *plain(*(interval(*estimate) for estimate in estimates))))
            records.append([measure, task, *(bound for estimate in estimates for bound in estimate)])
        blocks.append(Block(f"{measure[0].upper()}{measure[1:]}: {meaning}", tuple(rows)))
    bounds = [f"{method}{part}" for method in shown for part in ("", " lower", " upper")]
    return Table(
        f"localization_{protocol}",
        f"Localization per pathology, {protocol} protocol",
        f"Values and 95% bootstrap intervals, test films{of_dataset(dataset)}; {UNDEFINED} where no film has it.",
        ("Pathology", *map(column_title, shown)),
        tuple(blocks),
        (*(note for measure in _MEASURES for note in _mean_notes(results, protocol, measure)), *not_in_paper(shown)),
        pd.DataFrame(records, columns=["Measure", "Pathology", *bounds]),
    )
