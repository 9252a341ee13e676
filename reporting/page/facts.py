"""How a model's results came to be, as rows for the page: commands, versions and counts out of its `run.json`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from cxr.files import printable
from cxr.names import SPLITS
from reporting.format import UNDEFINED
from reporting.page.private import command_without_paths, shown_path, without_paths
from reporting.results import Model, Results

_LONGEST = 4000
"""Characters of a fact; a command may be long."""


@dataclass(frozen=True)
class RunFacts:
    """name: the model's. facts: name -> value. seconds: stage -> seconds. additivity: lines on the contributions."""

    name: str
    facts: Mapping[str, str]
    seconds: Mapping[str, str]
    additivity: tuple[str, ...]


def run_facts(model: Model) -> RunFacts:
    """Whatever is recorded, without absolute paths; a part of another kind than expected is left out."""
    record = model.record
    of_model, weights = _part(record, "model"), _part(record, "weights")
    versions = [f"{name} {_text(version)}" for name, version in _part(record, "versions").items() if _text(version)]
    facts = {
        "command": command_without_paths(_text(record.get("command"))),
        "seed": _text(record.get("seed")),
        "device": without_paths(_text(record.get("device"))),
        "cores": _text(record.get("cores")),
        "versions": without_paths(", ".join(versions)),
        "backbone": shown_path(_text(of_model.get("backbone"))),
        "image and patch size": _sizes(of_model),
        "weights": shown_path(_text(weights.get("path"))),
        "sha256 of the weights": _text(weights.get("sha256")),
        "evidence of the heat maps": _evidence(record),
    }
    stages = _part(record, "stages")
    seconds = {name: _part(stages, name).get("seconds") for name in stages}
    return RunFacts(
        model.name,
        {name: value for name, value in facts.items() if value},
        {without_paths(printable(name)): f"{value:,.1f}" for name, value in seconds.items() if _is_number(value)},
        _checks(record),
    )


def _part(of: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    part = of.get(name)
    return part if isinstance(part, dict) else {}


def _text(value: Any) -> str:
    """A text or number out of json, on one line; empty for any other kind."""
    if isinstance(value, str):
        return printable(value[:_LONGEST])
    return str(value) if _is_number(value) else ""


def _is_number(value: Any) -> bool:
    """Whether it is a number that can be written out; json allows whole numbers of any length."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return math.isfinite(value) if isinstance(value, float) else abs(value) < 10**15


def _sizes(model: Mapping[str, Any]) -> str:
    image, patch = _text(model.get("image_size")), _text(model.get("patch_size"))
    return f"{image} x {image} pixels, patches of {patch} x {patch}" if image and patch else ""


def _checks(record: Mapping[str, Any]) -> tuple[str, ...]:
    """Measured properties of the contributions, one line per check and split."""
    checks: list[tuple[str, Callable[[str, Mapping[str, Any]], str]]]
    checks = [("additivity", _additivity), ("certificates", _certificates)]
    checks += [("certificates", partial(_identity, name)) for name in _IDENTITIES]
    lines = (check(split, _part(_part(record, name), split)) for name, check in checks for split in SPLITS)
    return tuple(line for line in lines if line)


_IDENTITIES = {
    "unshifted_additivity": "mean of the unshifted patches − logit",
    "fine_additivity": "mean of the fine map − mean of its patches by their part inside the crop",
    "shapley_identity": "sum of the relative contributions − (logit − mean logit of the reference films)",
}
"""Key of a certificate of maps -> the difference that it measures."""


def _identity(name: str, split: str, measured: Mapping[str, Any]) -> str:
    """The largest error of an identity of the maps; empty where it was not measured."""
    error = _part(measured, name)
    if not _is_number(error.get("max_error")):
        return ""
    films = f"{_text(error.get('films'))} {SPLITS[split]} films"
    return f"largest |{_IDENTITIES[name]}| over {films}: {error['max_error']:.1e}"


def _certificates(split: str, measured: Mapping[str, Any]) -> str:
    """Whether contributions are complete and local; empty where it was not measured."""
    errors = [measured.get(f"{name}_error") for name in ("complete", "local")]
    if not all(map(_is_number, errors)):
        return ""
    complete, local = measured.get("complete") is True, measured.get("local") is True
    sums = "sum to the logit" if complete else "do not sum to the logit"
    others = "do not change with other patches" if local else "depend on neighbours"
    films = f"{_text(measured.get('films'))} {SPLITS[split]} films with patches swapped between them"
    return f"contributions {sums} (off by {errors[0]:.1e}) and {others} ({errors[1]:.1e}); {films}"


def certificates_of(model: Model | None) -> dict[str, bool]:
    """complete, local: as measured on the test films, else on validation; mean: whether contributions are patch logits
    over their number. Without a record all three are taken to hold, as for the published network."""
    record = model.record if model is not None else {}
    of_splits = _part(record, "certificates")
    measured = _part(of_splits, "test") or _part(of_splits, "val")
    verdicts = {name: measured.get(name, True) is True for name in ("complete", "local")}
    return verdicts | {"mean": _part(record, "model").get("aggregation", "mean") == "mean"}


def _evidence(record: Mapping[str, Any]) -> str:
    """How finely the evidence of the test maps was computed, and the error that is estimated for it."""
    options = _part(_part(_part(record, "stages"), "heat_maps_test"), "options")
    stride, steps = _text(options.get("stride")), _text(options.get("steps_per_patch"))
    if not stride:
        return f"{steps} steps per patch" if steps and _has_patches(record) else ""
    error = _part(_part(record, "estimated_map_error"), "test").get("mean_percent")
    estimate = f"; estimated error {error:.2g}% of a map's range" if _is_number(error) else ""
    return f"every {stride} pixels, linear in between{estimate}"


def _has_patches(record: Mapping[str, Any]) -> bool:
    model = _part(record, "model")
    return model.get("patch_size") != model.get("image_size")


def _additivity(split: str, error: Mapping[str, Any]) -> str:
    """How exactly the patches of the films add up to the logit; empty where it was not measured."""
    if not _is_number(error.get("max_error")):
        return ""
    count = _text(error.get("films"))
    films = f" over {count} {SPLITS[split]} films" if count else f" ({SPLITS[split]})"
    return f"largest |logit from the patches alone − logit|{films}: {error['max_error']:.1e}"


def data_counts(results: Results) -> tuple[tuple[str, ...], list[list[str]]]:
    """Columns and rows of the counts of films: all of a split, and the positive ones of each label.

    Taken from the first model that recorded them; no rows without one.
    """
    for model in results.models:
        data = _part(model.record, "data")
        splits = [split for split in SPLITS if _text(_part(data, split).get("films"))]
        if splits:
            rows = [["all films", *(_text(data[split]["films"]) for split in splits)]]
            for label in model.labels.names if model.labels else ():
                counts = [_text(_part(data[split], "positives").get(label)) or UNDEFINED for split in splits]
                rows.append([f"{label}, positive", *counts])
            return ("Films", *(SPLITS[split] for split in splits)), rows
    return (), []
