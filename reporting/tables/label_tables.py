"""Tables with a row per label: the four metrics of Table 1, and the comparison of the two models."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd

from reporting.format import UNDEFINED, Block, Cell, Table, interval, number, plain, ranked
from reporting.label_words import marked, marks_note, means, ordered
from reporting.paper import Paper
from reporting.results import Results
from reporting.tables.paper_tables import METRICS, of_dataset, shared_note


def table1_per_label(results: Results, paper: Paper, dataset: str = "") -> Table:
    """Each metric of each label with its interval; the paper gives AUROCs per label and means of the rest."""
    beside = {role: name for role, name in paper.models.items() if paper.knows(results.labels.names)}
    blocks, records = [], []
    for name in METRICS:
        rows, of_metric = _metric_rows(results, paper, name, tuple(beside))
        blocks.append(Block(name, rows))
        records += of_metric
    names = [model.name for model, _ in results.scored_models.values()]
    paper_names = [f"Paper: {name}" for name in beside.values()]
    bounds_of = [f"{name}{part}" for name in names for part in ("", " ci_low", " ci_high")]
    of_paper = (paper.note,) if beside else ()
    return Table(
        "table1_per_label",
        "Table 1, per label",
        f"Values and 95% intervals on the test films{of_dataset(dataset)}; all but AUROC at the Youden thresholds of "
        "the validation films. Bold: the better model.",
        ("Label", *names, "Difference", *paper_names),
        tuple(blocks),
        (*marks_note(results.labels), *_undefined_labels(results), *shared_note(results), *of_paper),
        pd.DataFrame(records, columns=["Metric", "Label", *bounds_of, "Difference", *paper_names]),
    )


def _metric_rows(
    results: Results, paper: Paper, name: str, beside: Sequence[str]
) -> tuple[tuple[tuple[Cell, ...], ...], list[list[object]]]:
    """The rows of one metric as shown, and as the CSV has them; beside: the roles of the paper's columns."""
    metric, rule = METRICS[name]
    rows, records = [], []
    for label in (*ordered(results.labels), *means(results.labels)):
        estimates = [results.estimate(model, label, metric, rule) for model, _ in results.scored_models.values()]
        published = [_paper_value(results, paper, role, label, metric) for role in beside]
        values = [estimate.value for estimate in estimates]
        difference = values[0] - values[1] if len(values) == 2 else math.nan
        cells = ranked(values, [interval(*estimate) for estimate in estimates])
        rows.append((Cell(shown(label, results)), *cells, *plain(number(difference), *map(number, published))))
        records.append([name, label, *(bound for estimate in estimates for bound in estimate), difference, *published])
    return tuple(rows), records


def shown(label: str, results: Results) -> str:
    """The label with the marks of its groups; a mean as it is."""
    return label if label in means(results.labels) else marked(label, results.labels)


def _paper_value(results: Results, paper: Paper, role: str, label: str, metric: str) -> float:
    if label in means(results.labels):
        return paper.mean(role, metric, means(results.labels)[label][1])
    return paper.auroc(role, label) if metric == "auroc" else math.nan


def _undefined_labels(results: Results) -> list[str]:
    """One note per metric that is undefined somewhere, with the labels and the file's reasons."""
    notes = []
    for name, key in METRICS.items():
        why: dict[str, list[str]] = {}
        for _, scores in results.scored_models.values():
            for label in ordered(results.labels):
                if not scores.is_defined(label, *key):
                    reason = scores.notes.get((label, *key)) or _no_reason(label, scores.labels)
                    why.setdefault(reason, []).append(label)
        for reason, labels in why.items():
            notes.append(f"{UNDEFINED} {name} undefined, {reason}: {', '.join(dict.fromkeys(labels))}.")
    return notes


def _no_reason(label: str, labels: Sequence[str]) -> str:
    return "no reason given" if label in labels else "one of the models does not have the label"


def comparison_table(results: Results, dataset: str = "") -> Table:
    """AUROC of both models on the same films: difference, paired interval, DeLong's p before and after Holm.

    Raises ValueError for results without a comparison.
    """
    if results.comparison is None:
        raise ValueError("no comparison was read")
    rows = results.comparison[results.comparison["metric"] == "auroc"].drop_duplicates("label").set_index("label")
    order = {label: place for place, label in enumerate((*ordered(results.labels), *means(results.labels)))}
    rows = rows.reindex(sorted(rows.index, key=lambda label: order.get(label, len(order))))  # unknown ones come last
    cells = []
    for label, row in rows.iterrows():
        difference = interval(row["difference"], row["ci_low"], row["ci_high"])
        values = plain(shown(str(label), results), number(row["value_a"]), number(row["value_b"]))
        p_values = plain(p_value(row["delong_p"]), p_value(row["delong_p_holm"]))
        cells.append((*values, Cell(difference, bold=row["delong_p_holm"] < 0.05), *p_values))
    return Table(
        "comparison",
        "Comparison of the models",
        f"AUROC on the same test films{of_dataset(dataset)}: difference with its paired bootstrap 95% interval, and "
        "DeLong's test per label, before and after Holm's correction. Bold: p < 0.05 after correction.",
        ("Label", *(model.name for model in results.models), "Difference", "p (DeLong)", "p (Holm)"),
        (Block("", tuple(cells)),),
        (
            *marks_note(results.labels),
            f"{UNDEFINED} no DeLong test: it is made per label; comparison.csv says which lack the films for it.",
        ),
        rows.reset_index(),
    )


def p_value(value: float) -> str:
    """Three decimals, or `< 0.001`."""
    return "< 0.001" if value < 0.001 else number(value)
