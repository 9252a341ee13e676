"""The paper's Tables 2 and 3 from a results folder, in its layout, with the paper's numbers and the controls below."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import pandas as pd

from cxr.names import CONTROLS, LOCALIZED, POSTERIOR
from reporting.control_results import Controls, not_above_prior
from reporting.format import UNDEFINED, Block, Cell, Table, number, plain, ranked
from reporting.label_words import task_heading
from reporting.localization_results import HIT_RATE, MIOU_ALL, MIOU_TP, Localization
from reporting.numbers import Estimate
from reporting.paper import MEAN, Paper
from reporting.results import Results
from reporting.tables.paper_tables import of_dataset

_Rows = Mapping[str, Mapping[str, Estimate]]
"""Row -> method -> value."""


def table2(results: Results, protocol: str, paper: Paper, dataset: str = "") -> Table:
    """Hit rate per pathology and method, over the films that have a mask of it."""
    scored, tasks = results.scored(protocol, HIT_RATE), results.tasks
    rows = {_shown(task, results): {method: item.of(task) for method, item in scored.items()} for task in tasks}
    rows[MEAN] = results.localization_means(protocol, HIT_RATE)
    published = {_shown(task, results): {m: paper.hit_rate(task, m) for m in results.methods} for task in tasks}
    published[MEAN] = {method: paper.mean_hit_rate(tasks, method) for method in results.methods}
    return _localization_table(
        results,
        f"table2_{protocol}",
        f"Table 2, {protocol} protocol",
        f"Hit rate of the map's maximum, on the test films{of_dataset(dataset)} that have a mask of the pathology.",
        ("Pathology", rows, published, control_means(results, protocol, HIT_RATE)),
        (*gaps(results, protocol, HIT_RATE), *_unequal_films(results, scored), *_verdicts(results, protocol, HIT_RATE)),
        _protocol_notes(protocol, paper),
    )


def table3(results: Results, protocol: str, paper: Paper, dataset: str = "") -> Table:
    """Mean over the tasks of the mean IoU, with and without false positives and false negatives."""
    measures, tasks = (MIOU_ALL, MIOU_TP), results.tasks
    rows = {measure: results.localization_means(protocol, measure) for measure in measures}
    published = {of: {method: paper.mean_iou(tasks, of, method) for method in results.methods} for of in measures}
    controls = {f"{MIOU_TP}: {name}": row for name, row in control_means(results, protocol, MIOU_TP).items()}
    notes = [f"{measure}: {note}" for measure in measures for note in gaps(results, protocol, measure)]
    return _localization_table(
        results,
        f"table3_{protocol}",
        f"Table 3, {protocol} protocol",
        f"Mean over the {_in_words(len(tasks))} pathologies of the mean intersection over union on the test "
        f"films{of_dataset(dataset)}.",
        ("Included cases", rows, published, controls),
        (*notes, *_verdicts(results, protocol, MIOU_TP)),
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
    content: tuple[str, _Rows, Mapping[str, Mapping[str, float]], _Rows],
    notes: Sequence[str],
    of_paper: Sequence[str],
) -> Table:
    """content: what the rows are, the estimates by row and method, the paper's values, and the rows of the controls.

    of_paper: notes on the paper's values, where it has any.
    """
    first, rows, published, controls = content
    methods, titles = results.methods, [LOCALIZED[method].title for method in results.methods]
    ours = {
        label: [row.get(method, Estimate()) for method in methods] for label, row in (*rows.items(), *controls.items())
    }
    theirs = {label: [row[method] for method in methods] for label, row in published.items()}
    values = {label: [estimate.value for estimate in row] for label, row in ours.items()}
    blocks = [Block("This run", _ranked_rows({label: values[label] for label in rows}, methods))]
    if controls:
        plain_rows = tuple(plain(label, *map(number, values[label])) for label in controls)
        blocks.append(Block(CONTROL_BLOCK, plain_rows))
    if known := any(not math.isnan(value) for row in theirs.values() for value in row):
        blocks.append(Block("Paper", _ranked_rows(theirs, methods)))
    nothing = [math.nan] * len(methods)
    records = [
        [label, *values[label], *(bound for _, low, high in row for bound in (low, high)), *theirs.get(label, nothing)]
        for label, row in ours.items()
    ]
    bounds = [f"{method} {bound}" for method in titles for bound in ("lower", "upper")]
    return Table(
        name,
        title,
        f"{caption} Bold: best, underlined: second best.",
        (first, *map(column_title, methods)),
        tuple(blocks),
        (*notes, *(_control_notes() if controls else ()), *not_in_paper(methods), *(of_paper if known else ())),
        pd.DataFrame(records, columns=[first, *titles, *bounds, *(f"Paper: {title}" for title in titles)]),
    )


def column_title(method: str) -> str:
    """The method's title, with a dagger where the paper does not have it."""
    return LOCALIZED[method].title + ("" if LOCALIZED[method].in_paper else " †")


def not_in_paper(methods: Sequence[str]) -> tuple[str, ...]:
    notes = ["† not in the paper."] if any(not LOCALIZED[method].in_paper for method in methods) else []
    if POSTERIOR in methods:
        notes.append(
            f"{LOCALIZED[POSTERIOR].title}: relative maps times the mean validation mask. It uses the masks of the "
            "validation films, so it is not an explanation of the network and does not compete for the marks."
        )
    return tuple(notes)


def _ranked_rows(rows: Mapping[str, Sequence[float]], methods: Sequence[str]) -> tuple[tuple[Cell, ...], ...]:
    """The best and the second best method of each row marked; the posterior, a control, does not compete."""
    competing = [method != POSTERIOR for method in methods]
    shown = []
    for label, values in rows.items():
        of_methods = iter(
            ranked([v for v, takes_part in zip(values, competing, strict=True) if takes_part], second=True)
        )
        cells = [next(of_methods) if part else Cell(number(v)) for v, part in zip(values, competing, strict=True)]
        shown.append((Cell(label, bold=label == MEAN), *cells))
    return tuple(shown)


# -------------------------------------------------------------------------------------------------------- the controls

CONTROL_BLOCK = "Controls, means, not in the paper"
_METRICS = {HIT_RATE: "hit_rate", MIOU_TP: "iou"}


def control_means(results: Results, protocol: str, measure: str) -> dict[str, dict[str, Estimate]]:
    """Title of a control -> method -> its mean over the tasks of the methods' means; empty where none was scored.

    Undefined for a control that lacks one of these tasks. The interval is that of the file where it covers the same.
    """
    controls, shared = results.controls.get(protocol), results.shared_tasks(protocol, measure)
    if controls is None:
        return {}
    rows = {
        title: {
            method: _mean_over(controls.of(control, method, _METRICS[measure]), shared)
            for method in results.scored(protocol, measure)
        }
        for control, title in CONTROLS.items()
    }
    return {
        title: row for title, row in rows.items() if any(not math.isnan(estimate.value) for estimate in row.values())
    }


def _mean_over(estimates: Mapping[str, Estimate], tasks: frozenset[str]) -> Estimate:
    defined = {name for name, estimate in estimates.items() if not math.isnan(estimate.value)} - {MEAN}
    if not tasks or not tasks <= defined:
        return Estimate()
    if tasks == defined:
        return estimates.get(MEAN, Estimate())
    return Estimate(sum(estimates[task].value for task in tasks) / len(tasks))


def _control_notes() -> Iterator[str]:
    yield (
        "Controls: chance is the share of the film that the mask covers; the location prior is the mean validation "
        "mask of the view and never sees the film; another film's map is that of another positive film of the view."
    )


def _verdicts(results: Results, protocol: str, measure: str) -> list[str]:
    """A sentence for every method that does not beat the location prior."""
    controls: Controls | None = results.controls.get(protocol)
    return [] if controls is None else list(not_above_prior(controls.added_value, (_METRICS[measure],)))


# --------------------------------------------------------------------------------------------------------------- notes


def gaps(results: Results, protocol: str, measure: str) -> list[str]:
    """Why there are dashes, and which tasks no mean covers."""
    scored, shared, notes = results.scored(protocol, measure), results.shared_tasks(protocol, measure), []
    absent = [LOCALIZED[method].title for method in results.methods if method not in scored]
    if absent:
        notes.append(f"{UNDEFINED} not scored: {', '.join(absent)}.")
    empty: dict[tuple[str, ...], list[str]] = {}
    for method, item in scored.items():
        tasks = tuple(_shown(task, results) for task in results.tasks if task not in item.covered)
        if tasks:
            empty.setdefault(tasks, []).append(LOCALIZED[method].title)
    notes += [f"{', '.join(methods)}: no film to score for {', '.join(tasks)}." for tasks, methods in empty.items()]
    if len(shared) < len(results.tasks):
        notes.append(
            f"Means over the {len(shared)} of {len(results.tasks)} pathologies that every method defines: means over "
            "different pathologies do not compare."
        )
    return notes


def _unequal_films(results: Results, scored: Mapping[str, Localization]) -> list[str]:
    """Hit rates of a pathology compare only on the same films."""
    notes = []
    for task in results.tasks:
        films = {LOCALIZED[method].title: item.films.get(task, 0) for method, item in scored.items()}
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
