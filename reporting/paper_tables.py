"""The paper's Table 1 from a results folder, in its layout and per label, with the paper's own numbers beside."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from cxr.labels import CHEXLOCALIZE_LABELS, TASKS, label_of
from reporting.format import UNDEFINED, Block, Cell, Table, interval, number, plain, ranked
from reporting.results import (
    HIT_RATE,
    LABEL_ORDER,
    MEAN_OF,
    METHODS,
    MIOU_ALL,
    MIOU_TP,
    Estimate,
    Localization,
    Model,
    Results,
)

METRICS: dict[str, tuple[str, str]] = {
    "AUROC": ("auroc", "-"),
    "Accuracy": ("accuracy", "youden"),
    "Sensitivity": ("sensitivity", "youden"),
    "Specificity": ("specificity", "youden"),
}
"""Name in the paper -> metric and rule in `classification_test.csv`."""

_MARKS = {"Mean (CheXlocalize 10)": "*", "Mean (14)": "All"}
_NAMING = "(*) one of the 10 labels of CheXlocalize, where Lung Opacity is called Airspace Opacity"


def table1(results: Results, paper: Any, dataset: str = "") -> Table:
    """Means of the four metrics for both models and their difference, taken before rounding."""
    cells = {f"{name} ({_MARKS[mean]})": (mean, *key) for name, key in METRICS.items() for mean in MEAN_OF}
    models = [model for model in results.models if model.scores]
    estimates = {model.name: [_score(model, key) for key in cells.values()] for model in models}
    ours = {name: [estimate.value for estimate in row] for name, row in estimates.items()}
    difference = _difference(ours)
    theirs, their_difference = _paper_rows(paper, [(metric, mean) for mean, metric, _ in cells.values()])
    rounding = ("Differences are taken before rounding.",) if difference else ()
    data = pd.DataFrame([[name, *row] for name, row in (ours | difference | theirs | their_difference).items()])
    data.columns = pd.Index(["Model", *cells])
    for place, column in enumerate(cells):
        data[f"{column} ci_low"] = pd.Series([row[place].low for row in estimates.values()])
        data[f"{column} ci_high"] = pd.Series([row[place].high for row in estimates.values()])
    return Table(
        "table1",
        "Table 1",
        "Means over the 10 labels of CheXlocalize (*) and over all 14 of CheXpert (All) on the test films"
        f"{of_dataset(dataset)}; accuracy, sensitivity and specificity at the Youden thresholds of the validation "
        "films. Bold: the better model.",
        ("Model", *cells),
        (Block("", _model_rows(ours, difference)), Block("", _model_rows(theirs, their_difference))),
        (*rounding, *_coverage(models, cells), source_note(paper)),
        data,
    )


_Rows = dict[str, list[float]]


def _difference(models: _Rows) -> _Rows:
    """First model - second; nothing where there is only one."""
    if len(models) != 2:
        return {}
    first, second = models.values()
    return {"Difference": [a - b for a, b in zip(first, second, strict=True)]}


def _paper_rows(paper: Any, columns: Sequence[tuple[str, str]]) -> tuple[_Rows, _Rows]:
    """Models and difference; the paper took the difference before rounding too, so it is not taken again."""
    values = {role: [row[metric][mean] for metric, mean in columns] for role, row in paper["table1"].items()}
    models = {f"Paper: {name}": values[role] for role, name in paper["models"].items()}
    return models, {"Paper: Difference": values["difference"]}


def _model_rows(models: _Rows, difference: _Rows) -> tuple[tuple[Cell, ...], ...]:
    """One row per model, the higher value of each column bold, and the difference below."""
    columns = [ranked(column) for column in zip(*models.values(), strict=True)]
    rows = [(Cell(name), *(column[place] for column in columns)) for place, name in enumerate(models)]
    return (*rows, *(plain(name, *map(number, row)) for name, row in difference.items()))


def of_dataset(dataset: str) -> str:
    return f" of {dataset}" if dataset else ""


def source_note(paper: Any) -> str:
    return f"Paper: doi {paper['source']['doi']}, trained and tested on CheXpert and CheXlocalize."


def _score(model: Model, key: tuple[str, str, str]) -> Estimate:
    return model.scores.get(*key) if model.scores else Estimate()


def _coverage(models: Sequence[Model], cells: Mapping[str, tuple[str, str, str]]) -> list[str]:
    """One note per set of labels that means leave out, with the models and columns it is about."""
    left_out: dict[tuple[str, tuple[str, ...]], list[tuple[str, str]]] = {}
    for model in models:
        for column, (mean, metric, rule) in cells.items():
            undefined = model.scores.undefined(mean, metric, rule) if model.scores else ()
            if undefined:
                left_out.setdefault((mean, undefined), []).append((model.name, column))
    notes = []
    for (mean, undefined), places in left_out.items():
        names, columns = (", ".join(dict.fromkeys(part)) for part in zip(*places, strict=True))
        covered = f"{len(MEAN_OF[mean]) - len(undefined)} of {len(MEAN_OF[mean])} labels"
        notes.append(
            f"{names}: {columns} taken over {covered}; undefined, for the reasons given in table1_per_label: "
            f"{', '.join(undefined)}."
        )
    return notes


def table1_per_label(results: Results, paper: Any, dataset: str = "") -> Table:
    """Each metric of each label with its interval; the paper gives AUROCs per label and means of the rest."""
    models = [model for model in results.models if model.scores]
    labels = (*LABEL_ORDER, *MEAN_OF)
    blocks, records = [], []
    for name, (metric, rule) in METRICS.items():
        rows = []
        for label in labels:
            estimates = [_score(model, (label, metric, rule)) for model in models]
            published = [_paper_value(paper, role, label, metric) for role in paper["models"]]
            values = [estimate.value for estimate in estimates]
            difference = values[0] - values[1] if len(values) == 2 else math.nan
            cells = ranked(values, [interval(*estimate) for estimate in estimates])
            rows.append((Cell(_marked(label)), *cells, *plain(number(difference), *map(number, published))))
            bounds = [bound for estimate in estimates for bound in estimate]
            records.append([name, label, *bounds, difference, *published])
        blocks.append(Block(name, tuple(rows)))
    names = [model.name for model in models]
    paper_names = [f"Paper: {name}" for name in paper["models"].values()]
    bounds_of = [f"{name}{part}" for name in names for part in ("", " ci_low", " ci_high")]
    return Table(
        "table1_per_label",
        "Table 1, per label",
        f"Values and 95% intervals on the test films{of_dataset(dataset)}; all but AUROC at the Youden thresholds of "
        "the validation films. Bold: the better model.",
        ("Label", *names, "Difference", *paper_names),
        tuple(blocks),
        (f"{_NAMING}.", *_undefined_labels(models), source_note(paper)),
        pd.DataFrame(records, columns=["Metric", "Label", *bounds_of, "Difference", *paper_names]),
    )


def _paper_value(paper: Any, role: str, label: str, metric: str) -> float:
    if label in MEAN_OF:
        return float(paper["table1"][role][metric][label])
    return float(paper["figure1"][label][role]) if metric == "auroc" else math.nan


def _marked(label: str) -> str:
    return f"{label} (*)" if label in CHEXLOCALIZE_LABELS else label


def _undefined_labels(models: Sequence[Model]) -> list[str]:
    """One note per metric that is undefined somewhere, with the labels and the file's reasons."""
    notes = []
    for name, key in METRICS.items():
        why: dict[str, list[str]] = {}
        for model in models:
            for label in LABEL_ORDER:
                if model.scores and math.isnan(model.scores.get(label, *key).value):
                    reason = model.scores.notes.get((label, *key)) or "no reason given"
                    why.setdefault(reason, []).append(label)
        for reason, labels in why.items():
            notes.append(f"{UNDEFINED} {name} undefined, {reason}: {', '.join(dict.fromkeys(labels))}.")
    return notes


def comparison_table(results: Results, dataset: str = "") -> Table:
    """AUROC of both models on the same films: difference, paired interval, DeLong's p before and after Holm."""
    assert results.comparison is not None and results.patch and results.baseline
    rows = results.comparison[results.comparison["metric"] == "auroc"].set_index("label")
    rows = rows.reindex([label for label in (*LABEL_ORDER, *MEAN_OF) if label in rows.index])
    cells = []
    for label, row in rows.iterrows():
        difference = interval(row["difference"], row["ci_low"], row["ci_high"])
        values = plain(_marked(str(label)), number(row["value_a"]), number(row["value_b"]))
        p_values = plain(_p_value(row["delong_p"]), _p_value(row["delong_p_holm"]))
        cells.append((*values, Cell(difference, bold=row["delong_p_holm"] < 0.05), *p_values))
    names = (results.patch.name, results.baseline.name)
    return Table(
        "comparison",
        "Comparison of the models",
        f"AUROC on the same test films{of_dataset(dataset)}: difference with its paired bootstrap 95% interval, and "
        "DeLong's test per label, before and after Holm's correction. Bold: p < 0.05 after correction.",
        ("Label", *names, "Difference", "p (DeLong)", "p (Holm)"),
        (Block("", tuple(cells)),),
        (
            f"{_NAMING}.",
            f"{UNDEFINED} no DeLong test: it is made per label; comparison.csv says which lack the films for it.",
        ),
        rows.reset_index(),
    )


def _p_value(value: float) -> str:
    return "< 0.001" if value < 0.001 else number(value)


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
