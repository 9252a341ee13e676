"""Facts that travel with the weights: the `details` of `config.json`, and the model card made from them.

`details` is a json object: `preprocessing` and `licence` (texts), `training_data` (facts by name), `thresholds`
(probability per label, null where there is none), `calibration` (slope and intercept per label, see
`cxr.calibration_lines`), `classification` and `localization` (rows of measured values),
`certificates` (properties of the contributions as `saliency.certificates` measures them).
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from cxr.files import InputError, printable, quoted
from cxr.pixels.grey import Grey

Details = dict[str, Any]

_PREPROCESSING = (
    "The film's centred square, resized to the image size with antialiased bilinear interpolation; one grey channel in "
    "[0, 1], bones bright; no further normalisation."
)
_LICENCE = (
    "The code, and weights shared by its authors, are under the MIT licence. CheXpert and CheXlocalize are under "
    "Stanford's research use agreements: weights trained on them are for research, and the films must not be passed on."
)


def check_details(details: Mapping[str, Any]) -> None:
    """Raises InputError that names the entry when something else stands there than the project reads."""
    if _is_deeper_than(_MAX_DEPTH, details):
        raise InputError(f"details: nested more than {_MAX_DEPTH} deep")
    for name, kind in _KINDS.items():
        if type(details.get(name, kind())) is not kind:
            raise InputError(f"details, {name}: {quoted(details[name])} is not a {_JSON_NAMES[kind]}")
    Grey.from_json(details.get("grey"), "details")
    for label, value in details.get("thresholds", {}).items():
        if not _is_number_or_null(value) or not 0 <= (value or 0) <= 1:
            raise InputError(f"details, thresholds, {printable(label[:60])}: {quoted(value)} is not a probability")
    for label, line in details.get("calibration", {}).items():
        if type(line) is not dict or set(line) != {"slope", "intercept"} or not all(map(_is_number, line.values())):
            raise InputError(f"details, calibration, {printable(label[:60])}: expected a slope and an intercept")
    for name in ("classification", "localization"):
        for line, row in enumerate(details.get(name, ())):
            if type(row) is not dict or not all(_is_number_or_null(row.get(column, "")) for column in _NUMBERS):
                raise InputError(f"details, {name}, row {line}: expected {', '.join(_NUMBERS)}, each a number or null")


_KINDS = {
    "preprocessing": str,
    "licence": str,
    "training_data": dict,
    "grey": dict,
    "thresholds": dict,
    "calibration": dict,
    "classification": list,
    "localization": list,
    "certificates": dict,
}
_JSON_NAMES = {str: "text", dict: "json object", list: "list"}
_NUMBERS = ("value", "ci_low", "ci_high")
_MAX_DEPTH = 10


def _is_deeper_than(levels: int, content: object) -> bool:
    """Level by level, for what is nested deep enough ends a recursion."""
    level = [content]
    for _ in range(levels):
        level = [inner for outer in level for inner in _inside(outer)]
    return bool(level)


def _inside(content: object) -> Iterable[object]:
    return content.values() if isinstance(content, Mapping) else content if isinstance(content, list) else ()


def _is_number_or_null(value: object) -> bool:
    return value is None or _is_number(value)


def _is_number(value: object) -> bool:
    return type(value) in (int, float) and abs(value) < 1e15  # type: ignore[arg-type]


def standard_details() -> Details:
    """Details of every network of this project; a network's own details come on top."""
    return {"preprocessing": _PREPROCESSING, "licence": _LICENCE}


def model_card(config: Mapping[str, Any], details: Mapping[str, Any]) -> str:
    """The README.md of a network's folder or repository, in Markdown with the hub's metadata on top.

    Texts of `config` and `details` are shown as they are: none of their characters acts as Markdown or HTML.
    """
    side, patch = config["image_size"], config["patch_size"]
    baseline = side == patch
    title = f"{'Baseline' if baseline else 'MedicalPatchNet'}: {escaped(config['backbone'])}, {side} px"
    parts = [
        _METADATA,
        f"# {title}\n",
        f"A chest X-ray classifier with {len(config['labels'])} labels. {_explained(config)}{_certified(details)}\n",
        _USE.format(patch_argument="" if baseline else "\npatch_logits = model.patch_logits(images)  # (B, P, C)"),
        f"## Input\n\n{side} x {side} px. {escaped(details['preprocessing'])}{_grey(details.get('grey'))}\n",
        "## Labels and thresholds\n\n" + _labels(config["labels"], details.get("thresholds", {})),
        "## Measured on the test split\n\n" + _measured(details),
        "## Training data\n\n" + _facts(details.get("training_data")),
        f"## Licence\n\n{escaped(details['licence'])}\n",
        _CITATION,
    ]
    return "\n".join(parts)


def _explained(config: Mapping[str, Any]) -> str:
    side, patch = config["image_size"], config["patch_size"]
    if side == patch:
        return "It sees the film as a whole: the plain network that MedicalPatchNet is compared with."
    patches = f"Each of its {(side // patch) ** 2} patches of {patch} px is classified alone"
    if (name := config.get("aggregation", "mean")) == "mean":
        return f"{patches}; the mean of their logits is the prediction, so that each patch's contribution is exact."
    return f"{patches}; the aggregation `{name}` makes the prediction of their logits."


def _certified(details: Mapping[str, Any]) -> str:
    """Whether contributions are complete and local, where it was measured."""
    measured = details.get("certificates", {})
    verdicts = [measured.get(name) for name in ("complete", "local")]
    if not all(type(verdict) is bool for verdict in verdicts):
        return ""
    complete, local = verdicts
    sums = "sum to the logit (complete)" if complete else "do not sum to the logit (not complete)"
    others = "do not change with" if local else "depend on"
    return (
        f" Measured by swapping patches between films: the patches' contributions {sums}, and {others} the other "
        f"patches ({'local' if local else 'not local'})."
    )


def _grey(rule: Any) -> str:
    return f" Rule from stored values to grey: {Grey.from_json(rule, 'details')}." if rule else ""


def escaped(text: str) -> str:
    """The text on one line, with every character that Markdown or HTML would act on written as itself."""
    line = html.escape(printable(" ".join(text.split())), quote=False)
    line = re.sub(r"[\\`*|~#$]|\](?=[(\[:]|$)|(?<![^\W_])_|_(?![^\W_])", r"\\\g<0>", line)
    return re.sub(r"^([-+=]|\d+(?=[.)]\s))", lambda start: _started(start[0]), line)


def _started(start: str) -> str:
    """The start of a list or rule, written so that it begins none."""
    return f"&#{ord(start[0])};{start[1:]}"


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

- Films of one hospital, as CheXpert's are, and training labels that a program took from reports, as CheXpert's were,
  carry that hospital's habits and that program's errors.
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
    rows = [(str(output), escaped(label), _number(thresholds.get(label))) for output, label in enumerate(labels)]
    note = (
        "Thresholds are Youden's, from the validation split." if thresholds else "No thresholds are recorded; use 0.5."
    )
    return _table(("output", "label", "threshold"), rows) + f"\n{note}\n"


def _measured(details: Mapping[str, Any]) -> str:
    rows = [
        (
            _shown(row.get("label", row.get("measure"))),
            _shown(row.get("metric", "mean over tasks")),
            *_with_interval(row),
        )
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
    return "".join(f"- {escaped(name.replace('_', ' '))}: {_shown(value)}\n" for name, value in facts.items())


def _shown(value: object) -> str:
    return escaped(value if isinstance(value, str) else quoted(value))


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
