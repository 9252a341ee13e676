"""Tables beside the paper's: equivalence within a margin, calibration and AUPRC, and subgroups of the test films."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd

from reporting.format import UNDEFINED, Block, Cell, Table, interval, number, plain
from reporting.label_words import marks_note, means, ordered
from reporting.results import Model, Results
from reporting.tables.label_tables import p_value, shown
from reporting.tables.paper_tables import of_dataset

_VERDICTS = ("equivalent", "non-inferior", "different beyond margin")
"""Verdicts in bold: statements that the data support."""


def statistics_tables(results: Results, dataset: str = "") -> list[Table]:
    """Those of the tables whose files are there."""
    tables = []
    if results.equivalence is not None:
        tables.append(equivalence_table(results, results.equivalence, dataset))
    if any(model.recalibration is not None for model in results.models):
        tables.append(calibration_table(results, dataset))
    if any(model.subgroups is not None for model in results.models):
        tables.append(subgroup_table(results, dataset))
    return tables


def equivalence_table(results: Results, rows: pd.DataFrame, dataset: str = "") -> Table:
    """AUROC difference with its 90% interval, and what it shows about a margin that was stated beforehand.

    rows: of `equivalence_<a>_vs_<b>.csv`, with model a as the file has it.
    """
    rows = _in_order(rows.drop_duplicates("label"), results)
    margin = rows["margin"].iloc[0]
    cells = []
    for _, row in rows.iterrows():
        texts = plain(
            shown(str(row["label"]), results),
            interval(row["difference"], row["ci90_low"], row["ci90_high"]),
            p_value(row["p_noninferior_holm"]),
            p_value(row["p_equivalent_holm"]),
            number(row["smallest_margin_equivalent"]),
        )
        cells.append((*texts, Cell(str(row["verdict"]), bold=row["verdict"] in _VERDICTS)))
    first, second = results.equivalence_names
    return Table(
        "equivalence",
        f"Equivalence within {margin:g}",
        f"AUROC of {first} against {second} on the same test films{of_dataset(dataset)}, within a margin of {margin:g} "
        f"that was stated beforehand. Difference {first} - {second} with its 90% interval; one-sided tests, by DeLong "
        "per label and by the paired bootstrap for means; labels corrected for their number (Holm).",
        ("Label", "Difference", "p (not inferior)", "p (equivalent)", "Smallest margin", "Verdict"),
        (Block("", tuple(cells)),),
        (
            *marks_note(results.labels),
            "Smallest margin: from it on, the models would count as equivalent. It describes the data; a margin chosen "
            "from it tests nothing.",
            *_reasons(rows, "verdict", "undefined", results),
        ),
        rows,
    )


def _in_order(rows: pd.DataFrame, results: Results) -> pd.DataFrame:
    order = {label: place for place, label in enumerate((*ordered(results.labels), *means(results.labels)))}
    return rows.sort_values("label", key=lambda column: column.map(lambda label: order.get(label, len(order))))


def _reasons(rows: pd.DataFrame, column: str, value: str, results: Results) -> list[str]:
    """One note per reason of the rows whose `column` is `value`, with their labels."""
    why: dict[str, list[str]] = {}
    for _, row in rows[rows[column] == value].iterrows():
        why.setdefault(str(row["note"]) or "no reason given", []).append(shown(str(row["label"]), results))
    return [f"{UNDEFINED} {value}, {reason}: {', '.join(labels)}." for reason, labels in why.items()]


def calibration_table(results: Results, dataset: str = "") -> Table:
    """Per model and label: Brier score and calibration error before and after the line, AUPRC and prevalence."""
    blocks, records = [], []
    for model in results.models:
        found = _calibration_values(model)
        rows = []
        for label in (*ordered(results.labels), *means(results.labels)):
            values = [found.get((label, column), math.nan) for column in _CALIBRATION]
            rows.append(plain(shown(label, results), *map(number, values)))
            records.append([model.name, label, *values])
        blocks.append(Block(model.name, tuple(rows)))
    return Table(
        "calibration",
        "Calibration",
        f"Test films{of_dataset(dataset)}: Brier score and expected calibration error (ECE) of the probabilities as "
        "predicted and after a straight line on the logit that was fitted to the validation films (Platt); area under "
        "the precision-recall curve (AUPRC), whose chance level is the prevalence.",
        ("Label", *_CALIBRATION),
        tuple(blocks),
        (*marks_note(results.labels), f"{UNDEFINED} no line, or no positives; recalibration_test.csv says why."),
        pd.DataFrame(records, columns=["Model", "Label", *_CALIBRATION]),
    )


_CALIBRATION = ("Brier", "Brier, calibrated", "ECE", "ECE, calibrated", "AUPRC", "Prevalence")


def _calibration_values(model: Model) -> dict[tuple[str, str], float]:
    """(label, column of `_CALIBRATION`) -> value."""
    found: dict[tuple[str, str], float] = {}
    titles = {"brier": "Brier", "ece": "ECE", "auprc": "AUPRC", "prevalence": "Prevalence"}
    for table, columns in (
        (model.recalibration, {"value_before": "", "value_after": ", calibrated"}),
        (model.precision_recall, {"value": ""}),
    ):
        for row in table.to_dict("records") if table is not None else ():
            if row["metric"] in titles:
                for column, ending in columns.items():
                    found[row["label"], titles[row["metric"]] + ending] = row[column]
    return found


def subgroup_table(results: Results, dataset: str = "") -> Table:
    """Mean AUROC of each group of films, and its difference to the largest group of the same attribute."""
    mean = next(iter(results.labels.means))
    models = [model for model in results.models if model.subgroups is not None]
    found = {model.name: _group_rows(model.subgroups, mean) for model in models if model.subgroups is not None}
    keys = list(dict.fromkeys(key for rows in found.values() for key in rows))
    blocks = []
    for attribute in dict.fromkeys(attribute for attribute, _ in keys):
        groups = [key for key in keys if key[0] == attribute]
        blocks.append(Block(attribute, tuple(_group_cells(key, list(found.values())) for key in groups)))
    records = [
        {"Model": name, **{str(column): value for column, value in row.items()}}
        for name, rows in found.items()
        for row in rows.values()
    ]
    columns = [text for model in models for text in (model.name, f"{model.name}: difference")]
    return Table(
        "subgroups",
        "Subgroups",
        f"AUROC by groups of the test films{of_dataset(dataset)}, {mean}, with 95% intervals, and the difference to "
        "the largest group, which stands first, over the labels that both have. Bold: the interval of the difference "
        "leaves out 0. The differences are not corrected for their number.",
        ("Group", "Films", *columns),
        tuple(blocks),
        (
            "A label counts where the group has at least 10 positives and 10 negatives of it; subgroups_test.csv has "
            "every label, sensitivity and specificity.",
        ),
        pd.DataFrame(records),
    )


def _group_rows(table: pd.DataFrame, mean: str) -> dict[tuple[str, str], pd.Series]:
    """(attribute, group) -> its row of the mean AUROC."""
    rows = table[(table["metric"] == "auroc") & (table["label"] == mean)]
    return {(str(row["attribute"]), str(row["group"])): row for _, row in rows.iterrows()}


def _group_cells(key: tuple[str, str], of_models: Sequence[dict[tuple[str, str], pd.Series]]) -> tuple[Cell, ...]:
    rows = [rows.get(key) for rows in of_models]
    films = next(row["films"] for row in rows if row is not None)
    cells = list(plain(key[1], number(films, 0)))
    for row in rows:
        if row is None:
            cells += plain(UNDEFINED, UNDEFINED)
            continue
        low, high = row["difference_low"], row["difference_high"]
        difference = interval(row["difference"], low, high)
        cells += [Cell(interval(row["value"], row["ci_low"], row["ci_high"])), Cell(difference, low > 0 or high < 0)]
    return tuple(cells)
