"""The name of the outlines that maps are compared with, by who made them: recorded beside them, never guessed."""

from __future__ import annotations

from pathlib import Path

from cxr.files import read_json
from cxr.manifests.dataset_file import DATASET

TRUE_OUTLINE = "true outline"
"""Where it is not recorded who made them."""

DRAWN_OUTLINE = "drawn outline"
"""Of films that were drawn with their findings, such as the demo's."""

_NAMES = {"drawn": DRAWN_OUTLINE, "radiologists": "radiologist’s outline", "reviewed": "reviewed outline"}
"""Value of `outlines` in dataset.json -> what one of them is called."""


def outline_name(ground_truth: Path) -> str:
    """The name of an outline in this file, by the `dataset.json` beside it. Raises InputError when that is damaged."""
    path = Path(ground_truth).with_name(DATASET)
    content = read_json(path) if path.is_file() else None
    recorded = content.get("outlines") if isinstance(content, dict) else None
    return _NAMES.get(recorded, TRUE_OUTLINE) if isinstance(recorded, str) else TRUE_OUTLINE
