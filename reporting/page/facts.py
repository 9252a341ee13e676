"""What a model's `run.json` tells about how its results came to be, as plain rows for the page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cxr.files import read_json
from cxr.labels import LABELS
from reporting.format import UNDEFINED
from reporting.results import Model, Results

_SPLITS = {"val": "validation", "test": "test"}


@dataclass(frozen=True)
class RunFacts:
    """name: the model's; facts: what -> value; seconds: stage -> seconds; additivity: one line per split."""

    name: str
    facts: Mapping[str, str]
    seconds: Mapping[str, str]
    additivity: tuple[str, ...]


def run_facts(model: Model) -> RunFacts:
    """Whatever is recorded; a part of another kind than expected is left out."""
    record = _record(model)
    of_model, weights = _part(record, "model"), _part(record, "weights")
    versions = ", ".join(f"{name} {version}" for name, version in _part(record, "versions").items())
    facts = {
        "command": record.get("command"),
        "seed": record.get("seed"),
        "device": record.get("device"),
        "cores": record.get("cores"),
        "versions": versions,
        "backbone": of_model.get("backbone"),
        "image and patch size": _sizes(of_model),
        "weights": weights.get("path"),
        "sha256 of the weights": weights.get("sha256"),
    }
    stages = _part(record, "stages")
    seconds = {name: _part(stages, name).get("seconds") for name in stages}
    errors = {split: _part(_part(record, "additivity"), split) for split in _SPLITS}
    return RunFacts(
        model.name,
        {name: str(value) for name, value in facts.items() if value not in (None, "")},
        {name: f"{value:,.1f}" for name, value in seconds.items() if isinstance(value, (int, float))},
        tuple(
            _additivity(_SPLITS[s], error) for s, error in errors.items() if isinstance(error.get("max_error"), float)
        ),
    )


def _record(model: Model) -> Mapping[str, Any]:
    path = model.folder / "run.json"
    content = read_json(path) if path.exists() else {}
    return content if isinstance(content, dict) else {}


def _part(of: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    part = of.get(name)
    return part if isinstance(part, dict) else {}


def _sizes(model: Mapping[str, Any]) -> str:
    image, patch = model.get("image_size"), model.get("patch_size")
    return f"{image} x {image} pixels, patches of {patch} x {patch}" if image and patch else ""


def _additivity(split: str, error: Mapping[str, Any]) -> str:
    films = f" over {error['films']} {split} films" if "films" in error else f" ({split})"
    return f"largest |mean of the patch logits − logit|{films}: {error['max_error']:.1e}"


def data_counts(results: Results) -> tuple[tuple[str, ...], list[list[str]]]:
    """Columns and rows of the counts of films: all of a split, and the positive ones of each label.

    Taken from the first model that recorded them; no rows without one.
    """
    for model in results.models:
        data = _part(_record(model), "data")
        splits = [split for split in _SPLITS if "films" in _part(data, split)]
        if splits:
            rows = [["all films", *(str(data[split]["films"]) for split in splits)]]
            for label in LABELS:
                counts = [_part(data[split], "positives").get(label, UNDEFINED) for split in splits]
                rows.append([f"{label}, positive", *map(str, counts)])
            return ("Films", *(_SPLITS[split] for split in splits)), rows
    return (), []
