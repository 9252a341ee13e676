"""What travels with the weights besides tensors: the `details` of `config.json`, and the model card made from them.

`details` is a json object: `preprocessing` and `licence` (texts), `training_data` (facts by name), `thresholds`
(probability per label, null where there is none), `classification` and `localization` (rows of measured values).
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cxr.files import InputError

Details = dict[str, Any]

_PREPROCESSING = (
    "The film's centred square, resized to the image size with antialiased bilinear interpolation; one grey channel in "
    "[0, 1], bones bright; no further normalisation."
)
_LICENCE = (
    "The code, and weights shared by its authors, are under the MIT licence. CheXpert and CheXlocalize are under "
    "Stanford's research use agreements: weights trained on them are for research, and the films must not be passed on."
)
_METRICS = {("auroc", "-"): "AUROC", ("sensitivity", "youden"): "sensitivity", ("specificity", "youden"): "specificity"}


def check_details(details: Mapping[str, Any]) -> None:
    """Raises InputError that names the entry when something else stands there than the project reads."""
    for name, kind in _KINDS.items():
        if type(details.get(name, kind())) is not kind:
            raise InputError(f"details, {name}: {details[name]!r} is no {kind.__name__}")
    for label, value in details.get("thresholds", {}).items():
        if value is not None and (type(value) not in (int, float) or not 0 <= value <= 1):
            raise InputError(f"details, thresholds, {label}: {value!r} is no probability and not null")
    for name in ("classification", "localization"):
        for row in details.get(name, ()):
            if type(row) is not dict or not all(_is_number_or_null(row.get(column, "")) for column in _NUMBERS):
                raise InputError(f"details, {name}: {row!r} is no row with {', '.join(_NUMBERS)}")


_KINDS = {
    "preprocessing": str,
    "licence": str,
    "training_data": dict,
    "grey": dict,
    "thresholds": dict,
    "classification": list,
    "localization": list,
}
_NUMBERS = ("value", "ci_low", "ci_high")


def _is_number_or_null(value: object) -> bool:
    return value is None or type(value) in (int, float)


def standard_details() -> Details:
    """What is true of every network of this project; anything else a network's own details say comes on top."""
    return {"preprocessing": _PREPROCESSING, "licence": _LICENCE}


def measured_details(results: Path) -> Details:
    """`thresholds`, `classification` and `localization` from a results folder, each when it is there.

    Raises InputError when nothing was measured, or a file is not what the evaluation writes.
    """
    found: Details = {}
    if (path := results / "thresholds.json").is_file():
        found["thresholds"] = _thresholds(path)
    if (path := results / "classification_test.csv").is_file():
        rows = [row for row in _rows(path) if (row["metric"], row["rule"]) in _METRICS]
        found["classification"] = [
            {"label": row["label"], "metric": _METRICS[row["metric"], row["rule"]]}
            | _numbers(path, row, value="value", ci_low="ci_low", ci_high="ci_high")
            for row in rows
        ]
    summaries = sorted((results / "localization").rglob("*_summary_results.csv"))
    found["localization"] = [
        {"measure": "/".join([*path.parent.relative_to(results / "localization").parts, path.name.partition("_")[0]])}
        | _numbers(path, row, value="mean", ci_low="lower", ci_high="upper")
        for path in summaries
        for row in _rows(path)
        if row["name"] == "Mean"
    ]
    if not any(found.values()):
        raise InputError(f"{results}: no thresholds.json, classification_test.csv or localization/ in this folder")
    return found


def measured_weights(results: Path) -> str | None:
    """The sha256 of the weights that a results folder was measured with; None where it does not say."""
    path = results / "run.json"
    try:
        sha256 = json.loads(path.read_text(encoding="utf-8"))["weights"]["sha256"]
    except (FileNotFoundError, KeyError):  # of predictions that were made elsewhere
        return None
    except (ValueError, TypeError):
        raise InputError(f"{path}: not the record that evalClassification.py writes") from None
    return str(sha256)


def _thresholds(path: Path) -> dict[str, float | None]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return {str(label): entry["threshold"] for label, entry in content.items()}
    except (ValueError, AttributeError, TypeError, KeyError):
        raise InputError(f"{path}: not the thresholds that evalClassification.py writes") from None


def _rows(path: Path) -> list[dict[str, str]]:
    with open(path, encoding="utf-8", newline="") as handle:
        return list(csv.DictReader(handle))


def _numbers(path: Path, row: Mapping[str, str], **columns: str) -> dict[str, float | None]:
    """The row's numbers under new names; None for a blank, which says that the value is undefined."""
    try:
        return {name: float(row[column]) if row[column] else None for name, column in columns.items()}
    except (KeyError, ValueError) as error:
        raise InputError(f"{path}: not a table of this project's evaluation ({error})") from None


def model_card(config: Mapping[str, Any], details: Mapping[str, Any]) -> str:
    """The README.md of a network's folder or repository, in Markdown with the hub's metadata on top."""
    side, patch = config["image_size"], config["patch_size"]
    baseline = side == patch
    seen = (
        "It sees the film as a whole: the plain network that MedicalPatchNet is compared with."
        if baseline
        else f"Each of its {(side // patch) ** 2} patches of {patch} px votes for every label; their mean is "
        "the prediction, so that each patch's share of it is known exactly."
    )
    parts = [
        _METADATA,
        f"# {'Baseline' if baseline else 'MedicalPatchNet'}: {config['backbone']}, {side} px\n",
        f"A chest X-ray classifier with {len(config['labels'])} labels. {seen}\n",
        _USE.format(patch_argument="" if baseline else "\npatch_logits = model.patch_logits(images)  # (B, P, C)"),
        f"## Input\n\n{side} x {side} px. {details['preprocessing']}\n",
        "## Labels and thresholds\n\n" + _labels(config["labels"], details.get("thresholds", {})),
        "## Measured on the test split\n\n" + _measured(details),
        "## Training data\n\n" + _facts(details.get("training_data")),
        f"## Licence\n\n{details['licence']}\n",
        _CITATION,
    ]
    return "\n".join(parts)


_METADATA = """\
---
license: mit
library_name: medicalpatchnet
pipeline_tag: image-classification
tags:
- chest-x-ray
- medical-imaging
- self-explainable
- pytorch_model_hub_mixin
---
"""

_USE = """\
## Intended use

Research on the classification of chest radiographs and on its explanation. **Not a medical device**: not approved, not
validated for patients, and not to be used for diagnosis or treatment.

```python
from models.patch_net import MedicalPatchNet

model = MedicalPatchNet.from_pretrained("THIS_REPOSITORY")
probabilities = model(images).sigmoid()  # images (B, 1, S, S) in [0, 1]{patch_argument}
```

## Limits

- The films of CheXpert come from one hospital; a program took their training labels from reports, with errors.
- Other scanners, views, ages and processing than those of the training data were not measured.
- The film outside its centred square is not seen. A patch is judged without its surroundings.
- A probability is a score, not calibrated for any population but the training data's.
"""

_CITATION = """\
## Citation

Wienholt, Kuhl, Kather, Nebelung, Truhn: MedicalPatchNet: a patch-based self-explainable AI architecture for chest X-ray
classification. Scientific Reports, 2026. <https://doi.org/10.1038/s41598-026-40358-0>
"""


def _labels(labels: Sequence[str], thresholds: Mapping[str, float | None]) -> str:
    rows = [(str(place), label, _number(thresholds.get(label))) for place, label in enumerate(labels)]
    note = (
        "Thresholds are Youden's, from the validation split." if thresholds else "No thresholds are recorded; use 0.5."
    )
    return _table(("output", "label", "threshold"), rows) + f"\n{note}\n"


def _measured(details: Mapping[str, Any]) -> str:
    rows = [
        (str(row.get("label", row.get("measure"))), str(row.get("metric", "mean over tasks")), *_with_interval(row))
        for row in [*details.get("classification", ()), *details.get("localization", ())]
    ]
    if not rows:
        return "Nothing is recorded: `python convertWeights.py describe FOLDER --results RESULTS` adds the tables.\n"
    return _table(("", "", "value", "95% interval"), rows) + "\nSensitivity and specificity at the thresholds above.\n"


def _with_interval(row: Mapping[str, Any]) -> tuple[str, str]:
    low, high = _number(row["ci_low"]), _number(row["ci_high"])
    return _number(row["value"]), f"{low} to {high}" if low and high else ""


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _facts(facts: Mapping[str, Any] | None) -> str:
    if not facts:
        return "Not recorded.\n"
    return "".join(f"- {name.replace('_', ' ')}: {value}\n" for name, value in facts.items())


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
