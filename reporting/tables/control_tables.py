"""Tables of localization that the paper does not have: controls, added value over the location prior, lesion sizes."""

from __future__ import annotations

import pandas as pd

from cxr.names import CENTRE, CHANCE, LOCALIZED, PRIOR, SHUFFLED, SHUFFLED_WITH_PRIOR, WITH_PRIOR
from reporting.control_results import MEAN, MEASURES, Controls, mean_of, title, verdicts
from reporting.format import UNDEFINED, Block, Cell, Table, interval, number, plain
from reporting.label_words import task_heading
from reporting.numbers import Estimate
from reporting.results import Results
from reporting.tables.paper_tables import of_dataset

_NOT_IN_PAPER = "Not in the paper."


def control_tables(results: Results, protocol: str, dataset: str = "") -> list[Table]:
    """Those of the protocol whose files are there."""
    controls = results.controls.get(protocol)
    if controls is None:
        return []
    tables = [_baselines(results, controls, protocol, dataset), _added_value(controls, protocol, dataset)]
    return [*tables, _sizes(controls, protocol, dataset)] if controls.sizes else tables


def _baselines(results: Results, controls: Controls, protocol: str, dataset: str) -> Table:
    """A row per pathology, a column per control that belongs to no method, and one per method's shuffled maps."""
    columns = [(control, "") for control in (CHANCE, CENTRE, PRIOR)]
    methods = controls.baselines["method"]
    columns += [(SHUFFLED, method) for method in LOCALIZED if (methods == method).any()]
    heads = [_CONTROL_HEADS.get(control) or f"{title(method)} of another film" for control, method in columns]
    blocks, records = [], []
    for metric, name in MEASURES.items():
        found = [controls.of(control, method, metric) for control, method in columns]
        rows = []
        for task in (*results.tasks, MEAN):
            estimates = [of_control.get(task, Estimate()) for of_control in found]
            shown = task if task == MEAN else task_heading(task, results.labels)
            rows.append((Cell(shown, bold=task == MEAN), *plain(*(interval(*estimate) for estimate in estimates))))
            records.append([name, task, *(bound for estimate in estimates for bound in estimate)])
        blocks.append(Block(_heading(name), tuple(rows)))
    bounds = [f"{head}{part}" for head in heads for part in ("", " lower", " upper")]
    return Table(
        f"controls_{protocol}",
        f"Controls of localization, {protocol} protocol",
        f"Maps that never saw the film, scored like a method, with 95% intervals; test films{of_dataset(dataset)}.",
        ("Pathology", *heads),
        tuple(blocks),
        (_NOT_IN_PAPER, *_reasons(results, controls.baselines)),
        pd.DataFrame(records, columns=["Measure", "Pathology", *bounds]),
    )


def _heading(measure: str) -> str:
    """With a capital, but for one that begins as `mIoU` does."""
    return measure if measure[1:2].isupper() else measure[0].upper() + measure[1:]


_CONTROL_HEADS = {CHANCE: "Chance (mask area)", CENTRE: "Centre", PRIOR: "Location prior"}


def _reasons(results: Results, baselines: pd.DataFrame) -> list[str]:
    """One note per reason why a value of a pathology has none, or an exact interval."""
    why: dict[str, list[str]] = {}
    rows = baselines[(baselines["note"] != "") & (baselines["name"] != MEAN) & (baselines["films"] == 0)]
    for note, task in zip(rows["note"], rows["name"], strict=True):
        why.setdefault(str(note), []).append(task_heading(str(task), results.labels))
    notes = [f"{UNDEFINED} {reason}: {', '.join(dict.fromkeys(tasks))}." for reason, tasks in why.items()]
    exact = baselines["note"].str.startswith("exact").any()
    return [
        *notes,
        *(["Where every film is a hit, or none, the interval is exact (Clopper-Pearson)."] if exact else []),
    ]


def _added_value(controls: Controls, protocol: str, dataset: str) -> Table:
    """A row per method: its hit rate, alone and times the prior, and the differences to what never saw the film."""
    added, rows, records = controls.added_value, [], []
    for method in (method for method in LOCALIZED if (added["method"] == method).any()):
        pairs = (("map", PRIOR), ("map", SHUFFLED), (WITH_PRIOR, PRIOR), (WITH_PRIOR, SHUFFLED_WITH_PRIOR))
        found = [mean_of(added, method, a, b, "hit_rate") for a, b in pairs]
        values = [_value(found[0]), _value(found[2])]
        differences = [_difference(row) for row in found]
        cells = [Cell(interval(*estimate), bold=estimate.low > 0) for estimate in differences]
        first, second = plain(*map(number, values))
        floor = float("nan") if found[2] is None else float(found[2]["floor"])
        rows.append((Cell(title(method)), first, *cells[:2], second, *cells[2:], Cell(number(floor))))
        records.append([title(method), *values, *(bound for estimate in differences for bound in estimate), floor])
    heads = (
        "Map",
        "− prior",
        "− another film's map",
        "Map × prior",
        "− prior",
        "− another film's map × prior",
        "Floor",
    )
    bounds = [f"{a} minus {b}{part}" for a, b in _PAIR_NAMES for part in ("", " lower", " upper")]
    return Table(
        f"added_value_{protocol}",
        f"Added value over the location prior, {protocol} protocol",
        "Mean hit rates, and their differences on the same films with paired 95% intervals, test films"
        f"{of_dataset(dataset)}. Bold: above 0. The last but one column says whether a map localizes beyond habit.",
        ("Method", *heads),
        (Block("", tuple(rows)),),
        (
            _NOT_IN_PAPER,
            "Map × prior: (map - its minimum) × (mean validation mask + floor); the floor is chosen by the hit rate on "
            "the validation films, each with the masks of the other patients.",
            *verdicts(added),
        ),
        pd.DataFrame(records, columns=["Method", "map", "map x prior", *bounds, "floor"]),
    )


_PAIR_NAMES = (
    ("map", "prior"),
    ("map", "another film's map"),
    ("map x prior", "prior"),
    ("map x prior", "another film's map x prior"),
)


def _value(row: pd.Series | None) -> float:
    return float("nan") if row is None else float(row["value_a"])


def _difference(row: pd.Series | None) -> Estimate:
    return Estimate() if row is None else Estimate(*(float(row[name]) for name in ("difference", "ci_low", "ci_high")))


def _sizes(controls: Controls, protocol: str, dataset: str) -> Table:
    """A row per bin of lesion sizes, a column per method."""
    methods = [method for method in LOCALIZED if method in controls.sizes]
    sizes = list(dict.fromkeys(size for table in controls.sizes.values() for size in table["size"]))
    blocks, records = [], []
    for metric, name in MEASURES.items():
        rows = []
        for size in sizes:
            of_size = [_of_size(controls.sizes[method], size, metric) for method in methods]
            counts = sorted({int(films) for _, films in of_size})
            cells = plain(*(interval(*estimate) for estimate, _ in of_size))
            rows.append((Cell(f"{size} ({', '.join(map(str, counts))})"), *cells))
            records.append([name, size, *(bound for estimate, films in of_size for bound in (*estimate, films))])
        blocks.append(Block(_heading(name), tuple(rows)))
    parts = ("", " lower", " upper", " films")
    return Table(
        f"sizes_{protocol}",
        f"Localization by lesion size, {protocol} protocol",
        "Hit rate and IoU over all film-pathology pairs of a size, the share of the film that the mask covers (number "
        f"of pairs), with 95% intervals; test films{of_dataset(dataset)}.",
        ("Size", *(title(method) for method in methods)),
        tuple(blocks),
        (_NOT_IN_PAPER,),
        pd.DataFrame(records, columns=["Measure", "Size", *(f"{title(m)}{part}" for m in methods for part in parts)]),
    )


def _of_size(table: pd.DataFrame, size: str, metric: str) -> tuple[Estimate, float]:
    rows = table[(table["size"] == size) & (table["metric"] == metric)]
    if rows.empty:
        return Estimate(), 0.0
    row = rows.iloc[0]
    return Estimate(*(float(row[name]) for name in ("value", "ci_low", "ci_high"))), float(row["films"])
