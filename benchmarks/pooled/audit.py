"""The audits of several data seeds, film by film, as `benchmarks.pool_seeds` tabulates them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from cxr.labels import LabelSet
from cxr.names import AUDITED, PATCHES, RUN_RECORD, SIGNED_CAM, SIGNED_CAM_RELATIVE, faithfulness_folder
from cxr.runs.run_record import RunRecord
from cxr.tables import read_csv

_FILLS = {"black": "black", "mean": "film mean"}
_METRICS = {
    "correlation": "rank correlation with the effect of occlusion",
    "top1": "top patch",
    "deletion_gain": "deletion, gain in logits over a random order",
    "insertion_gain": "insertion, gain in logits over a random order",
    "deletion": "deletion, share of the best order's gain",
    "insertion": "insertion, share of the best order's gain",
}
WORDS = {f"{metric} {fill}": f"{words}, {_FILLS[fill]}" for metric, words in _METRICS.items() for fill in _FILLS}
"""Metric of the audit -> its title."""
HIT = "hit"


def audit_of(model: Path) -> pd.DataFrame | None:
    """`films_test.csv` of a results folder with a column `task`; None where it was not audited."""
    path = faithfulness_folder(model) / "films_test.csv"
    if not path.is_file():
        return None
    table = read_csv(path, ["Film", "label", "method"])
    label_set = LabelSet.from_json(RunRecord(model).content["label_set"], str(model / RUN_RECORD))
    return table.assign(task=table["label"].map({label: label_set.task_of(label) for label in label_set.names}))


def film_tables(
    audit: pd.DataFrame, metrics: Sequence[str], methods: Sequence[str]
) -> dict[tuple[str, str], pd.DataFrame]:
    """(metric, method) -> film x task, for what the audit has."""
    found = {}
    for method in methods:
        rows = audit[audit["method"] == method]
        for metric in metrics:
            if metric in rows and not rows.empty:
                values = rows.assign(value=pd.to_numeric(rows[metric])).pivot(
                    index="Film", columns="task", values="value"
                )
                if values.notna().to_numpy().any():
                    found[metric, method] = values
    return found


def audit_tables(models: Sequence[Path]) -> dict[tuple[str, str], pd.DataFrame]:
    """(metric, method) -> film x task of all models, the films of all in order; empty where none was audited."""
    found: dict[tuple[str, str], pd.DataFrame] = {}
    for model in models:
        audit = audit_of(model)
        found |= {} if audit is None else film_tables(audit, list(WORDS), list(AUDITED))
    films = sorted({film for table in found.values() for film in table.index})
    return {key: table.reindex(index=films) for key, table in found.items()}


def audited_hits(models: Sequence[Path], films: Sequence[str], tasks: Sequence[str]) -> dict[str, pd.DataFrame]:
    """Method that has no heat maps of its own -> hits, film x task."""
    found = {}
    for model in models:
        audit = audit_of(model)
        if audit is not None:
            tables = film_tables(audit, [HIT], [SIGNED_CAM, SIGNED_CAM_RELATIVE])
            found |= {method: table.reindex(index=films, columns=tasks) for (_, method), table in tables.items()}
    return found


def compared(tables: Mapping[tuple[str, str], pd.DataFrame]) -> list[tuple[str, str, str]]:
    """(metric, a, b) of the differences that are tabulated: each method's agreement with its own network.

    Gains are compared within a network alone: the logits of two networks have two scales.
    """
    within = [(SIGNED_CAM, "gradcam"), (SIGNED_CAM, SIGNED_CAM_RELATIVE), ("raw", "relative")]
    between = [(PATCHES, "gradcam"), ("raw", "gradcam"), ("raw", SIGNED_CAM)]
    found = [(metric, a, b) for metric in WORDS for a, b in (*within, *(between if "_gain" not in metric else ()))]
    return [of for of in found if all((of[0], side) in tables for side in of[1:])]
