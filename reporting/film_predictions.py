"""Predictions of single films as text on the terminal, tables and json, and the folder that holds them.

An entry is a plain dict: `film`, `width`, `height`, `warnings`, and `labels`, a list of dicts with `label`,
`probability`, `threshold`, `positive`, `logit`, `sum_of_patches`, `strongest_for`, `strongest_against`, `overlay`.
With a reference of the weights, `reference` says whose average the film is compared with, and `relative` of a label
holds `average_film` and `patches`, which sum to the logit, `strongest_for`, `strongest_against` with shares, `overlay`.
With calibration lines of the weights, `calibrated` holds `probability`, `log_odds`, and those of all `patches`.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from cxr.files import InputError, place, read_json, write_json
from cxr.tables import write_csv

OVERLAYS = "overlays"
"""Folder of the pictures below that of the results."""

_JSON = "predictions.json"
_TABLES = ("predictions.csv", "predictions_wide.csv")
_COLUMNS = ("label", "probability", "threshold", "positive", "logit", "sum_of_patches")
_RELATIVE = ("average_film", "patches")
_CALIBRATED = "calibrated_probability"

Entry = Mapping[str, Any]


def full_text(entry: Entry, thresholds: str, agreement: str) -> str:
    """A film's warnings and a line per label; thresholds: their source; agreement: of patches and logits."""
    lines = [entry["film"], *(f"  warning: {warning}" for warning in entry["warnings"])]
    lines.append("  label                       probability  threshold  decision      logit  sum of patches")
    for row in entry["labels"]:
        numbers = f"{row['probability']:11.3f} {row['threshold']:10.3f}  {_decision(row)}"
        lines.append(f"  {row['label']:27} {numbers} {row['logit']:10.4f} {row['sum_of_patches']:15.4f}")
    lines += _relative_lines(entry)
    return "\n".join([*lines, f"  thresholds: {thresholds}", f"  {agreement}"])


def _relative_lines(entry: Entry) -> list[str]:
    """Of every label with a reference its logit as that of the average film and what the patches add."""
    reference = entry.get("reference")
    if not reference:
        return []
    whose = "film" if reference["compared_with"] == "all" else f"{reference['compared_with']} film"
    lines = [f"  the average {whose} is the mean of {reference['films']} films"]
    lines += [f"  note: {reference['note']}"] if reference["note"] else []
    for row in entry["labels"]:
        if row["relative"] is not None:
            average, added = row["relative"]["average_film"], row["relative"]["patches"]
            text = f"  {row['label']}: logit {row['logit']:.2f} = average {whose} {average:.2f} + patches {added:+.2f}"
            lines.append(f"{text}{_share_text(row['relative'], added)}")
    return lines


def _share_text(relative: Mapping[str, Any], added: float) -> str:
    """The patches with the largest shares of the difference."""
    patches = relative["strongest_for" if added >= 0 else "strongest_against"]
    shares = [f"{patch['share']:.0%} row {patch['row'] + 1}, column {patch['column'] + 1}" for patch in patches]
    return f" ({'; '.join(shares)})" if shares else ""


def _decision(row: Mapping[str, Any]) -> str:
    return "positive" if row["positive"] else "negative"


def one_line(entry: Entry) -> str:
    """A film's positive labels, the most probable first, or its most probable one; and its warnings."""
    ordered = sorted(entry["labels"], key=lambda row: -row["probability"])
    positive = [f"{row['label']} {row['probability']:.2f}" for row in ordered if row["positive"]]
    best = f"none positive, highest {ordered[0]['label']} {ordered[0]['probability']:.2f}"
    warnings = "".join(f"; warning: {warning}" for warning in entry["warnings"])
    decided = f"positive: {', '.join(positive)}" if positive else best
    return f"{entry['film']}: {decided}{warnings}"


def write_predictions(
    output: Path,
    facts: Mapping[str, Any],
    entries: Sequence[Entry],
    unreadable: Mapping[str, str],
    pictures: Sequence[str],
) -> None:
    """`predictions.csv` (a row per film and label), `predictions_wide.csv` (a row per film) and `predictions.json`.

    unreadable: film -> reason; pictures: files in `overlays/` that this run writes, by which the next one knows them.
    """
    rows = [
        {"film": entry["film"]}
        | {name: row[name] for name in _COLUMNS}
        | (row.get("relative") or {})
        | _calibrated(row)
        for entry in entries
        for row in entry["labels"]
    ]
    more = [*_RELATIVE] if any(entry.get("reference") for entry in entries) else []
    more += [_CALIBRATED] if any(_CALIBRATED in row for row in rows) else []
    content = {"films": list(entries), "unreadable": list(unreadable), "pictures": list(pictures)}
    write_json(output / _JSON, {**facts, **content})
    write_csv(output / _TABLES[0], pd.DataFrame(rows, columns=["film", *_COLUMNS, *more]))
    write_csv(output / _TABLES[1], pd.DataFrame([*map(_wide_row, entries), *_error_rows(unreadable)]))


def _calibrated(row: Mapping[str, Any]) -> dict[str, Any]:
    return {_CALIBRATED: row["calibrated"]["probability"]} if row.get("calibrated") else {}


def _wide_row(entry: Entry) -> dict[str, Any]:
    row = {"film": entry["film"], "error": "", "warnings": "; ".join(entry["warnings"])}
    row |= {f"prob {of_label['label']}": of_label["probability"] for of_label in entry["labels"]}
    return row | {f"positive {of_label['label']}": of_label["positive"] for of_label in entry["labels"]}


def _error_rows(unreadable: Mapping[str, str]) -> list[dict[str, Any]]:
    return [{"film": film, "error": error, "warnings": ""} for film, error in unreadable.items()]


def earlier_results(output: Path) -> list[Path]:
    """The files of an earlier run in a folder, empty where there was none; whatever else lies there is not looked at.

    Raises InputError when files have the names of results and are not those of an earlier run.
    """
    folder = output / OVERLAYS
    held = [path for name in (_JSON, *_TABLES) if (path := output / name).exists()]
    drawn = sorted(folder.iterdir()) if folder.is_dir() else []
    if not held and not drawn:
        return []
    known = _pictures(output / _JSON) if (output / _JSON).is_file() else set()
    foreign = [path for path in drawn if path.name not in known or not path.is_file()]
    if not (output / _JSON).is_file() or foreign:
        other = foreign[0] if foreign else held[0] if held else folder
        raise InputError(f"{place(other)}: not from an earlier run of this program; give an empty --output folder")
    return held + drawn


def _pictures(path: Path) -> set[str]:
    """The pictures of a run by its json, whichever version of this program wrote it. Raises InputError for another."""
    content = read_json(path)
    try:
        labels = [label for film in content["films"] for label in film["labels"]]
        drawn = {label["overlay"]["file"] for label in labels if label["overlay"]}
        return {str(name).removeprefix(f"{OVERLAYS}/") for name in drawn} | set(map(str, content.get("pictures", [])))
    except (KeyError, TypeError, AttributeError):
        raise InputError(f"{place(path)}: not written by this program; give an empty --output folder") from None


def remove_results(output: Path, files: Sequence[Path]) -> None:
    """Removes an earlier run's files, pictures first: none may outlive the json that names it."""
    for path in sorted(files, key=lambda path: path.parent == output):
        path.unlink(missing_ok=True)
    if files and (output / OVERLAYS).is_dir():
        shutil.rmtree(output / OVERLAYS)
