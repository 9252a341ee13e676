"""The facts in an evidence file: film, network and settings that its arrays belong to."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cxr.files import InputError, place, quoted
from cxr.images import Crop
from saliency.evidence.pixel_grid import PixelGrid
from saliency.evidence.shift_grid import ShiftGrid
from saliency.reference import Settings

_LARGEST_IMAGE = 4096  # px; a larger size in a file would ask for gigabytes of map


@dataclass(frozen=True)
class FilmLabels:
    """Facts about a film besides its pixels; the three sequences run over the rows of its `Evidence`.

    ground_truth: 1 or 0, -1 where the film is not labelled. view: frontal or lateral, empty where it is not known.
    """

    film_id: str
    tasks: Sequence[str]
    probabilities: Sequence[float]
    ground_truth: Sequence[int]
    view: str = ""


@dataclass(frozen=True)
class Facts:
    """The json text of a file. weights: sha256 of the network's weights, view: of the film; empty where not known.

    stride: pixels between the starts of the evidence grid; 1, which is not written, where every start of the steps is
    computed.
    """

    crop: Crop
    patch_size: int
    steps_per_patch: int
    image_size: int
    probability: Mapping[str, float]
    ground_truth: Mapping[str, int]
    weights: str = ""
    view: str = ""
    stride: int = 1

    @property
    def settings(self) -> Settings:
        return Settings(self.weights, self.patch_size, self.steps_per_patch, self.image_size, self.stride)

    @property
    def grid(self) -> PixelGrid:
        return self.settings.grid

    def to_json(self) -> str:
        left_out = {"weights": "", "view": "", "stride": 1}
        return json.dumps({name: value for name, value in asdict(self).items() if left_out.get(name) != value})

    @classmethod
    def from_json(cls, text: str) -> Facts:
        """Raises ValueError, TypeError, KeyError or RecursionError for anything that `to_json` does not write."""
        content = json.loads(text)
        crop = Crop(**content["crop"])
        sizes = [*(content[name] for name in ("patch_size", "steps_per_patch", "image_size")), content.get("stride", 1)]
        if not all(type(size) is int and 0 < size <= _LARGEST_IMAGE for size in sizes):
            raise ValueError(f"sizes are whole numbers from 1 to {_LARGEST_IMAGE}")
        if not all(type(length) is int for length in asdict(crop).values()) or min(crop.film_width, crop.side) < 1:
            raise ValueError("the crop's numbers are whole and positive")
        if crop != Crop.centred(crop.film_width, crop.film_height):
            raise ValueError("the crop is not the centred square of its film")
        PixelGrid(ShiftGrid(*sizes[:3]), sizes[3])
        probability = {str(task): float(value) for task, value in content["probability"].items()}
        if not all(0 <= value <= 1 for value in probability.values()):  # written so that NaN fails
            raise ValueError("a probability is a number from 0 to 1")
        ground_truth = {str(task): int(value) for task, value in content["ground_truth"].items()}
        weights, view = (str(content.get(name, "")) for name in ("weights", "view"))
        patch_size, steps, image_size, stride = sizes
        return cls(crop, patch_size, steps, image_size, probability, ground_truth, weights, view, stride)


WAY_OUT = "delete the folder of the evidence, or give another --output"


def require_same(path: Path, stored: Facts, wanted: Mapping[str, Any]) -> None:
    """Raises InputError when a file was made by another network or setting.

    wanted: name of a fact -> its value; None fits every value, and weights that either does not know fit.
    """
    for name, value in wanted.items():
        found = getattr(stored, name)
        known = value is not None and (name != "weights" or (value and found))
        if known and found != value:
            difference = f"{name.replace('_', ' ')} {quoted(found)}, not {quoted(value)}"
            raise InputError(f"{place(path)}: evidence of another network or setting ({difference}); {WAY_OUT}")
