"""Tables of a results folder as stages of its record: metrics, subgroups, and two models on the same films.

A table is made once, and again when what it was made from changes. Every function returns lines to print.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from cxr.files import InputError, place, quoted, sha256
from cxr.labels import LabelSet
from cxr.manifests.splits import split_table
from cxr.names import CALIBRATION, MAPS, RUN_RECORD, SPLITS, THRESHOLDS, comparison_file, predictions_file, table_file
from cxr.predictions import Predictions, read_predictions
from cxr.runs.run_record import RunRecord
from cxr.tables import write_csv
from cxr.thresholds import read_thresholds
from evaluation.comparison import compare
from evaluation.equivalence import equivalence
from evaluation.result_tables import (
    film_groups,
    read_saved,
    saved_predictions,
    shared_patients,
    table_files,
    with_groups,
    write_subgroups,
    write_tables,
)

PRINTED = ("auroc", "accuracy", "sensitivity", "specificity")
"""Metrics whose means are printed."""


def recorded_labels(record: RunRecord) -> LabelSet | None:
    """The label set of the network whose results these are; None where the folder does not say."""
    content = record.content.get("label_set")
    if content is None:
        return None
    return LabelSet.from_json(content, place(record.folder / RUN_RECORD, column="label_set"))


def statistics_inputs(record: RunRecord, start: str = "") -> dict[str, Any]:
    """Fingerprints of what the statistics of a folder are made from: its predictions, or with `MAPS` those of its maps.

    Without predictions of validation, thresholds and calibration lines that somebody laid into the folder are inputs
    too. Raises InputError for predictions that were changed, or that are gone, since they or the statistics were made.
    """
    folder, saved = record.folder, saved_predictions(record.folder, start)
    for path in saved.values():
        record.check_unchanged(path)
    known = record.inputs(f"{start}statistics").get("predictions")
    for split in SPLITS:
        path = predictions_file(folder, split, start)
        of_them = isinstance(known, dict) and split in known
        if split not in saved and (of_them or path.name in record.outputs(f"{start}predictions_{split}")):
            raise InputError(
                f"{place(path)}: gone since results were made of it ({RUN_RECORD}); "
                "bring it back, or run evalClassification.py --weights again"
            )
    inputs: dict[str, Any] = {"predictions": {split: sha256(path) for split, path in saved.items()}}
    for name in () if "val" in saved else (f"{start}{THRESHOLDS}", f"{start}{CALIBRATION}"):
        made = record.outputs(f"{start}statistics").get(name)
        if (folder / name).is_file() and (made is None or made.now(folder / name) is None):
            inputs[name] = sha256(folder / name)
    return inputs


def make_statistics(folder: Path, resampling: Mapping[str, Any], start: str = "") -> list[str]:
    """Thresholds, metrics and curves of the predictions in `folder`; with `MAPS`, of what its fine maps predict.

    Raises InputError when there are none, or they were changed.
    """
    record, name = RunRecord(folder), f"{start}statistics"
    inputs = statistics_inputs(record, start)
    options = {"resamples": resampling["resamples"], "resample_unit": resampling["unit"], "seed": resampling["seed"]}
    files = [path for path in table_files(folder, start) if path.name not in inputs]
    if record.is_complete(name, inputs=inputs, options=options, outputs=files):
        return [f"{folder}: the tables{_OF[start]} are complete"]
    with record.stage(name, inputs=inputs, options=options, outputs=files) as stage:
        predictions = read_saved(folder, recorded_labels(record), start)
        warning = shared_patients(predictions)
        tables, thresholds = write_tables(folder, predictions, start, **resampling)
        stage.wrote(*files)
    lines = [f"warning: {folder}: {warning}"] if warning else []
    lines += [f"{label}: no Youden threshold ({reason})" for label, reason in thresholds.reasons.items()]
    return lines + [
        f"{folder}, {split}{_OF[start]}, {_means(predictions[split], table)}" for split, table in tables.items()
    ]


_OF = {"": "", MAPS: ", fine maps"}


def _means(predictions: Predictions, table: pd.DataFrame) -> str:
    """The means of PRINTED over the first group of labels."""
    mean, members = next(iter(predictions.label_set.means.items()))
    rows = table[(table["label"] == mean) & table["rule"].isin(["-", "youden"])].set_index("metric")["value"]
    values = ", ".join(f"{metric} {rows[metric]:.3f}" for metric in PRINTED)
    return f"mean of the {len(members)} labels: {values}"


def make_subgroups(folder: Path, data: Path, *, resamples: int, seed: int) -> list[str]:
    """`subgroups_<split>.csv` of every split whose films' sex, age or view the tables of `data` know."""
    record, lines = RunRecord(folder), []
    options = {"resamples": resamples, "seed": seed}
    for split, predictions in read_saved(folder, recorded_labels(record)).items():
        name, table, target = f"subgroups_{split}", split_table(data, split), table_file(folder, "subgroups", split)
        if not table.is_file():
            continue
        read = {"predictions": saved_predictions(folder)[split], "films": table, "thresholds": folder / THRESHOLDS}
        inputs = {what: sha256(path) for what, path in read.items()}
        if record.is_complete(name, inputs=inputs, options=options, outputs=[target]):
            continue
        groups = film_groups(predictions, table)
        if not groups:
            lines.append(f"{place(table)}: no sex, age or view that tells its films apart, hence no {target.name}")
            continue
        with record.stage(name, inputs=inputs, options=options, outputs=[target]) as stage:
            write_subgroups(target, predictions, groups, read_thresholds(folder / THRESHOLDS), **options)
            stage.wrote(target)
        lines.append(f"{target}: by {', '.join(groups).lower()}")
    return lines


def make_comparison(folder: Path, other: Path, resampling: Mapping[str, Any]) -> list[str]:
    """`comparison_<a>_vs_<b>.csv` beside the two folders, on the test films and the labels that both have."""

    def table(a: Predictions, b: Predictions, names: tuple[str, str]) -> pd.DataFrame:
        thresholds = [read_thresholds(results / THRESHOLDS) for results in (folder, other)]
        return compare(a, b, *thresholds, names=names, **resampling)

    made, target, pair = _make_of_two("comparison", folder, other, dict(resampling), table)
    if made is None:
        return [f"{target}: complete"]
    alone = sorted(set(pair[0].names) ^ set(pair[1].names))
    without = [f"compared without {', '.join(map(quoted, alone))}, which only one of the two has"] if alone else []
    return [*without, f"{target}: differences of {folder.name} and {other.name} on the same films"]


def make_equivalence(folder: Path, other: Path, margin: float, resampling: Mapping[str, Any]) -> list[str]:
    """`equivalence_<a>_vs_<b>.csv` beside the two folders: is the AUROC of the test films the same within a margin?"""
    options = {**resampling, "margin": margin}

    def table(a: Predictions, b: Predictions, names: tuple[str, str]) -> pd.DataFrame:
        return equivalence(a, b, names=names, **options)

    made, target, _ = _make_of_two("equivalence", folder, other, options, table)
    if made is None:
        return [f"{target}: complete"]
    verdicts = ", ".join(f"{count} {verdict}" for verdict, count in made["verdict"].value_counts().items())
    return [f"{target}: AUROC within {margin:g}, labels and means: {verdicts}"]


def _make_of_two(
    kind: str,
    folder: Path,
    other: Path,
    options: Mapping[str, Any],
    table: Callable[[Predictions, Predictions, tuple[str, str]], pd.DataFrame],
) -> tuple[pd.DataFrame | None, Path, tuple[Predictions, Predictions]]:
    """The table of two folders' test predictions, None where it is complete; its file, and the predictions.

    Raises InputError for predictions that were changed since they were made.
    """
    files = (predictions_file(folder, "test"), predictions_file(other, "test"))
    for file in files:
        RunRecord(file.parent).check_unchanged(file)
    a, b = (with_groups(read_predictions(file), recorded_labels(RunRecord(file.parent))) for file in files)
    read = {side: (file, file.parent / THRESHOLDS) for side, file in zip("ab", files, strict=True)}
    inputs = {side: {path.name: sha256(path) for path in paths if path.is_file()} for side, paths in read.items()}
    record, name, target = RunRecord(folder), f"{kind} with {other.name}", comparison_file(folder, other, kind)
    if record.is_complete(name, inputs=inputs, options=options, outputs=[target]):
        return None, target, (a, b)
    made = table(a, b, (str(files[0]), str(files[1])))
    with record.stage(name, inputs=inputs, options=options, outputs=[target]) as stage:
        write_csv(target, made)
        stage.wrote(target)
    return made, target, (a, b)
