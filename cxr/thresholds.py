"""`thresholds.json`: the probability from which a film is decided positive, per label."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cxr.files import InputError, composed, place, quoted, read_json, write_json


class Thresholds(dict[str, float | None]):
    """Threshold per label, None where there is none; `reasons` says why, for each label without one."""

    def __init__(self, values: Mapping[str, float | None], reasons: Mapping[str, str] | None = None) -> None:
        super().__init__(values)
        self.reasons = dict(reasons or {})


def write_thresholds(path: Path, thresholds: Thresholds) -> None:
    """Writes `{label: {"threshold": number or null, "reason": text or null}}`."""
    content = {
        name: {"threshold": threshold, "reason": thresholds.reasons.get(name)} for name, threshold in thresholds.items()
    }
    write_json(path, content)


def read_thresholds(path: Path, labels: Sequence[str] | None = None) -> Thresholds:
    """The thresholds of `labels`, in their order; of all that the file holds where None are named.

    Raises InputError with the label when one is missing, or its threshold is neither a number nor null.
    """
    content = {composed(label): entry for label, entry in read_json(path).items()}
    values: dict[str, float | None] = {}
    reasons: dict[str, str] = {}
    for label in content if labels is None else labels:
        values[label] = _threshold(content.get(label), place(path, column=label))
        if values[label] is None:
            reasons[label] = str(content[label].get("reason") or "no threshold given")
    return Thresholds(values, reasons)


def _threshold(entry: Any, where: str) -> float | None:
    if not isinstance(entry, dict) or "threshold" not in entry:
        raise InputError(f'{where}: expected {{"threshold": number or null, "reason": text or null}}')
    threshold = entry["threshold"]
    if threshold is not None and (type(threshold) not in (int, float) or not 0 <= threshold <= 1):
        raise InputError(f"{where}: threshold {quoted(threshold)} is not a probability; give one from 0 to 1, or null")
    return threshold
