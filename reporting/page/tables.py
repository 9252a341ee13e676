"""The tables of the page: those of the paper with the difference to its numbers, and localization with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from cxr.labels import TASKS, label_of
from reporting.format import UNDEFINED, Block, Cell, Table, interval, number, plain
from reporting.paper_tables import of_dataset
from reporting.results import HIT_RATE, METHODS, MIOU_ALL, MIOU_TP, Estimate, Results

_MEASURES = {
    HIT_RATE: "share of the films with a mask in which the map's maximum lies in it",
    MIOU_ALL: "mean IoU over true positives, false positives and false negatives (films without either are left out)",
    MIOU_TP: "mean IoU over the films that have a mask and a predicted region",
}
_MINUS_PAPER = "This run − paper"


def beside_paper(table: Table, results: Results, paper: Any) -> Table:
    """The table with what it differs by from the paper's numbers, before rounding; others come back unchanged.

    Tables 1 to 3 get rows below, Table 1 per label columns at the right: there the paper stands in columns.
    """
    if table.name == "table1":
        return replace(table, blocks=(*table.blocks, Block(_MINUS_PAPER, _model_differences(table, results, paper))))
    if table.name == "table1_per_label":
        return _with_columns(table, results, paper)
    if table.name.startswith(("table2", "table3")):
        columns = table.columns[1:]
        ours, theirs = table.data[list(columns)], table.data[[f"Paper: {column}" for column in columns]]
        rows = _rows(table.data.iloc[:, 0], ours.to_numpy() - theirs.to_numpy())
        return replace(table, blocks=(*table.blocks, Block(_MINUS_PAPER, rows)))
    return table


def _rows(names: Sequence[str] | pd.Series, values: Any) -> tuple[tuple[Cell, ...], ...]:
    return tuple(plain(name, *map(_signed, row)) for name, row in zip(names, values, strict=True))


def _signed(value: float) -> str:
    text = number(value)
    return f"+{text}" if value > 0 and float(text) > 0 else text


def _model_differences(table: Table, results: Results, paper: Any) -> tuple[tuple[Cell, ...], ...]:
    values = table.data.set_index("Model")[list(table.columns[1:])]
    scored = {role: model.name for role, model in results.roles.items() if model.scores}
    pairs = {name: (name, f"Paper: {paper['models'][role]}") for role, name in scored.items()}
    if len(scored) == 2:
        pairs["Difference"] = ("Difference", "Paper: Difference")
    return _rows(list(pairs), [values.loc[ours] - values.loc[theirs] for ours, theirs in pairs.values()])


def _with_columns(table: Table, results: Results, paper: Any) -> Table:
    names = {role: model.name for role, model in results.roles.items() if model.scores}
    differences = [table.data[name] - table.data[f"Paper: {paper['models'][role]}"] for role, name in names.items()]
    cells = iter([plain(*map(_signed, row)) for row in zip(*differences, strict=True)])
    blocks = [Block(block.heading, tuple((*row, *next(cells)) for row in block.rows)) for block in table.blocks]
    columns = (*table.columns, *(f"{name} − paper" for name in names.values()))
    return replace(table, columns=columns, blocks=tuple(blocks))


def localization_tables(results: Results, dataset: str = "") -> list[Table]:
    """One table per protocol: each measure per pathology and method, with its 95% interval and number of films."""
    return [_localization_table(results, protocol, dataset) for protocol in results.protocols]


def _localization_table(results: Results, protocol: str, dataset: str) -> Table:
    scored = {measure: results.scored(protocol, measure) for measure in _MEASURES}
    shown = [method for method in METHODS if any(method in items for items in scored.values())]
    blocks, records = [], []
    for measure, meaning in _MEASURES.items():
        rows = []
        for task in (*TASKS, "Mean"):
            items = [scored[measure].get(method) for method in shown]
            estimates = [item and (item.mean if task == "Mean" else item.tasks[task]) or Estimate() for item in items]
            films = sorted({item.films[task] for item in items if item and task in item.films})
            name = label_of(task) + (f" ({', '.join(map(str, films))} films)" if films else "")
            rows.append((Cell(name, bold=task == "Mean"), *plain(*(interval(*estimate) for estimate in estimates))))
            records.append([measure, task, *(bound for estimate in estimates for bound in estimate)])
        blocks.append(Block(f"{measure[0].upper()}{measure[1:]}: {meaning}", tuple(rows)))
    bounds = [f"{method}{part}" for method in shown for part in ("", " lower", " upper")]
    return Table(
        f"localization_{protocol}",
        f"Localization per pathology, {protocol} protocol",
        f"Values and 95% bootstrap intervals, test films{of_dataset(dataset)}; {UNDEFINED} where no film has it.",
        ("Pathology", *(METHODS[method] for method in shown)),
        tuple(blocks),
        (),
        pd.DataFrame(records, columns=["Measure", "Pathology", *bounds]),
    )
