"""The paper's Tables 2 and 3 from a results folder, one of each per protocol, with the paper's own numbers beside."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from chexpert.labels import TASKS, label_of
from reporting.format import UNDEFINED, Block, Cell, Table, number, ranked
from reporting.localization_results import HIT_RATE, METHODS, MIOU_ALL, MIOU_TP, Localization
from reporting.reading import Estimate
from reporting.results import Results
from reporting.tables import of_dataset, source_note

_SHORT = {"Enlarged Cardiomediastinum": "Enlarged Card."}


def table2(results: Results, protocol: str, paper: Any, dataset: str = "") -> Table:
    """Hit rate per pathology and method, over the films that have a mask of it."""
    scored = results.scored(protocol, HIT_RATE)
    rows = {_shown(task): {method: item.tasks[task] for method, item in scored.items()} for task in _task_order()}
    rows["Mean"] = {method: item.mean for method, item in scored.items()}
    published = {_shown(task): paper["table2"][task] for task in (*_task_order(), "Mean")}
    return _localization_table(
        f"table2_{protocol}",
        f"Table 2, {protocol} protocol",
        f"Hit rate of the map's maximum, on the test films{of_dataset(dataset)} that have a mask of the pathology.",
        ("Pathology", rows, published),
        (*_gaps(scored), *_unequal_films(scored), *_protocol_notes(protocol, paper)),
    )


def table3(results: Results, protocol: str, paper: Any, dataset: str = "") -> Table:
    """Mean over the ten tasks of the mean IoU, with and without false positives and false negatives."""
    scored = {measure: results.scored(protocol, measure) for measure in (MIOU_ALL, MIOU_TP)}
    rows = {measure: {method: item.mean for method, item in items.items()} for measure, items in scored.items()}
    gaps = [f"{measure}: {note}" for measure, items in scored.items() for note in _gaps(items)]
    return _localization_table(
        f"table3_{protocol}",
        f"Table 3, {protocol} protocol",
        f"Mean over the ten pathologies of the mean intersection over union on the test films{of_dataset(dataset)}.",
        ("Included cases", rows, paper["table3"]),
        (*gaps, *_protocol_notes(protocol, paper)),
    )


def _task_order() -> list[str]:
    return sorted(TASKS, key=_shown)


def _shown(task: str) -> str:
    """As in the paper's tables: under CheXpert's name, shortened."""
    return _SHORT.get(task, label_of(task))


def _localization_table(
    name: str,
    title: str,
    caption: str,
    content: tuple[str, Mapping[str, Mapping[str, Estimate]], Mapping[str, Mapping[str, float]]],
    notes: Sequence[str],
) -> Table:
    """`content`: what the rows are, the estimates by row and method, and the paper's values by row and method."""
    first, rows, published = content
    estimates = {label: [row.get(method, Estimate()) for method in METHODS] for label, row in rows.items()}
    ours = {label: [estimate.value for estimate in row] for label, row in estimates.items()}
    theirs = {label: [row[method] for method in METHODS] for label, row in published.items()}
    bounds = [f"{method} {bound}" for method in METHODS.values() for bound in ("lower", "upper")]
    records = [
        [label, *ours[label], *(bound for _, low, high in row for bound in (low, high)), *theirs[label]]
        for label, row in estimates.items()
    ]
    return Table(
        name,
        title,
        f"{caption} Bold: best, underlined: second best.",
        (first, *METHODS.values()),
        (Block("This run", _ranked_rows(ours)), Block("Paper", _ranked_rows(theirs))),
        tuple(notes),
        pd.DataFrame(records, columns=[first, *METHODS.values(), *bounds, *(f"Paper: {m}" for m in METHODS.values())]),
    )


def _ranked_rows(rows: Mapping[str, Sequence[float]]) -> tuple[tuple[Cell, ...], ...]:
    return tuple((Cell(label, bold=label == "Mean"), *ranked(values, second=True)) for label, values in rows.items())


def _gaps(scored: Mapping[str, Localization]) -> list[str]:
    """Why there are dashes, and how many tasks a mean covers."""
    notes = []
    absent = [name for method, name in METHODS.items() if method not in scored]
    if absent:
        notes.append(f"{UNDEFINED} not scored: {', '.join(absent)}.")
    empty: dict[tuple[str, ...], list[str]] = {}
    for method, item in scored.items():
        tasks = tuple(_shown(task) for task in _task_order() if math.isnan(item.tasks[task].value))
        if tasks:
            empty.setdefault(tasks, []).append(METHODS[method])
    for tasks, methods in empty.items():
        covered = f"{len(TASKS) - len(tasks)} of {len(TASKS)} pathologies"
        notes.append(f"{', '.join(methods)}: mean over {covered}; no film to score for {', '.join(tasks)}.")
    return notes


def _unequal_films(scored: Mapping[str, Localization]) -> list[str]:
    """Hit rates of a pathology compare only on the same films."""
    notes = []
    for task in _task_order():
        films = {METHODS[method]: item.films[task] for method, item in scored.items()}
        if len(set(films.values())) > 1:
            counts = ", ".join(f"{name} {count}" for name, count in films.items())
            notes.append(f"{_shown(task)}: the methods were scored on different numbers of films: {counts}.")
    return notes


def _protocol_notes(protocol: str, paper: Any) -> tuple[str, ...]:
    if protocol == "published":
        return (source_note(paper),)
    return (
        source_note(paper),
        "The paper's numbers follow the published protocol; this table follows the corrected one.",
    )


def mean_hit_rates(results: Results, protocol: str) -> str:
    """One line: the evidence maps' mean hit rates beside the baseline's Grad-CAM."""
    scored = results.scored(protocol, HIT_RATE)
    raw, scaled, cam = (
        number(scored[m].mean.value) if m in scored else UNDEFINED for m in ("raw", "scaled", "gradcam")
    )
    return f"mean hit rate ({protocol}): MedicalPatchNet raw {raw}, scaled {scaled}; Grad-CAM {cam} (baseline)"
