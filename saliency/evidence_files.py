"""One small file per film in the place of its heat-map pickles: the evidence that all its maps follow from.

`<image id>.npz` holds `facts` (json text: the crop, sizes, and per task probability and ground truth) and float32
arrays, one per task so that reading one map reads little: `grid <task>` (n, n) and `<CAM method> <task>` (h, w);
`film` is the whole film, uint8, as it lies under the corrected maps.
Nothing in it is pickled.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cxr.files import InputError, replacing
from cxr.heat_maps import HeatMap, HeatMapFolder, HeatMapSource
from cxr.images import Crop, resize
from cxr.labels import TASKS
from cxr.names import PROTOCOLS, Protocol
from saliency.cam import CAM_METHODS
from saliency.film_maps import METHODS, Evidence, film_maps
from saliency.patch_maps import PATCH_METHODS, ShiftGrid

SUFFIX = ".npz"
_GRID = "grid"


@dataclass(frozen=True)
class FilmLabels:
    """What is known of a film besides its pixels; the three sequences run over the rows of its `Evidence`."""

    image_id: str
    tasks: Sequence[str]
    probabilities: Sequence[float]
    ground_truth: Sequence[int]


def write_evidence(path: Path, evidence: Evidence, labels: FilmLabels, film: torch.Tensor) -> None:
    """Writes one film's evidence, atomically; the maps read from it are those of `film_maps`, to the last bit.

    film: (h, w) in [0, 1], the whole film at the size of the corrected maps.
    """
    facts = {
        "crop": asdict(evidence.crop),
        "patch_size": evidence.patch_size,
        "steps_per_patch": evidence.steps_per_patch,
        "image_size": evidence.image_size,
        "probability": dict(zip(labels.tasks, labels.probabilities, strict=True)),
        "ground_truth": dict(zip(labels.tasks, labels.ground_truth, strict=True)),
    }
    arrays = {"facts": np.array(json.dumps(facts)), "film": (film * 255).round().to(torch.uint8).numpy()}
    parts = dict(evidence.cams) | ({} if evidence.grid is None else {_GRID: evidence.grid})
    for kind, values in parts.items():
        arrays |= {f"{kind} {task}": plane.numpy() for task, plane in zip(labels.tasks, values, strict=True)}
    with replacing(path) as temporary, open(temporary, "wb") as handle:
        np.savez(handle, **arrays)  # type: ignore[arg-type]  # numpy's stub takes the arrays for its own options


class EvidenceFolder:
    """The evidence files of a folder as a source of one method's heat maps, like a folder of pickles."""

    def __init__(self, folder: Path, *, method: str, protocol: Protocol, tasks: Sequence[str]) -> None:
        """Raises InputError when the folder holds no evidence of `method`, or a file in it cannot be read."""
        self.folder = Path(folder)
        self.method = method
        self.protocol = protocol
        self.entries: list[tuple[str, str]] = []
        for path in _evidence_files(self.folder):
            stored = set(_names(path))
            found = [task for task in tasks if f"{_kind_of(method)} {task}" in stored]
            self.entries += [(path.name.removesuffix(SUFFIX), task) for task in found]
        if not self.entries:
            raise InputError(
                f"{folder}: its files hold no evidence of {method}; run evalClassification.py --heatmaps {method}"
            )
        self.entries.sort()

    def load(self, image_id: str, task: str) -> HeatMap:
        """Makes one map. Raises InputError when the file is missing or damaged."""
        evidence, facts = self._evidence(image_id, task)
        with self._naming(image_id):
            map = film_maps(evidence, [self.method], self.protocol)[self.method][0].numpy()
            probability, ground_truth = float(facts["probability"][task]), int(facts["ground_truth"][task])
        film_size = (evidence.crop.film_width, evidence.crop.film_height)
        return HeatMap(image_id, task, map, probability, ground_truth, film_size)

    def evidence(self, image_id: str, task: str) -> Evidence:
        """What one map follows from, with C = 1. Raises InputError when the file is missing or damaged."""
        return self._evidence(image_id, task)[0]

    def _evidence(self, image_id: str, task: str) -> tuple[Evidence, dict[str, Any]]:
        facts, values = _read(self._path(image_id), f"{_kind_of(self.method)} {task}")
        with self._naming(image_id):
            grid, cams = (values, {}) if self.method in PATCH_METHODS else (None, {self.method: values})
            patch_size, steps, image_size = (facts[name] for name in ("patch_size", "steps_per_patch", "image_size"))
            return Evidence(Crop(**facts["crop"]), patch_size, steps, image_size, grid, cams), facts

    @contextmanager
    def _naming(self, image_id: str) -> Iterator[None]:
        """What does not fit together in a film's file becomes an error that names the file."""
        try:
            yield
        except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            reason = f"not an evidence file of this program ({error})"
            raise InputError(f"{self._path(image_id)}: {reason}; delete it and run again") from None

    def _path(self, image_id: str) -> Path:
        return self.folder / f"{image_id}{SUFFIX}"

    def film_pixels(self, image_id: str) -> np.ndarray:
        """(h, w) float32 in [0, 1]: the whole film, or under published maps the crop that they show."""
        facts, film = _read(self._path(image_id), "film")
        pixels = film.float() / 255  # (1, h, w)
        if self.protocol == "published":
            crop = Crop.centred(pixels.shape[2], pixels.shape[1])
            left, top, right, bottom = crop.box
            pixels = resize(pixels[:, top:bottom, left:right], facts["image_size"])
        return pixels[0].numpy()

    def patch_logits(self, image_id: str, task: str) -> np.ndarray:
        """(k, k) float32: the logits of the unshifted patches, whose mean is the film's logit.

        Raises InputError when the file is missing, damaged, or holds no evidence grid of the task.
        """
        facts, grid = _read(self._path(image_id), f"{_GRID} {task}")
        with self._naming(image_id):
            shifts = ShiftGrid(facts["patch_size"], facts["steps_per_patch"], facts["image_size"])
            return shifts.unshifted(grid[0]).numpy()

    @staticmethod
    def kinds(folder: Path) -> list[tuple[str, str]]:
        """(protocol, method) of all maps that a folder gives, sorted. Raises InputError when there are none."""
        kinds = {name.partition(" ")[0] for name in _names(_evidence_files(folder)[0])}
        methods = [method for method in METHODS if _kind_of(method) in kinds]
        return sorted((protocol, method) for protocol in PROTOCOLS for method in methods)


def heat_map_source(
    results: Path, protocol: Protocol, split: str, method: str, tasks: Sequence[str] = TASKS
) -> HeatMapSource:
    """The maps of a model's results folder: its pickles where there are some, else its evidence files of `tasks`.

    Raises InputError when it has neither.
    """
    pickles = results / "heatmaps" / protocol / split / method
    if pickles.is_dir():
        return HeatMapFolder(pickles, tasks)
    return EvidenceFolder(results / "evidence" / split, method=method, protocol=protocol, tasks=tasks)


def holds_evidence(path: Path, methods: Sequence[str], tasks: Sequence[str]) -> bool:
    """Whether a film's file is there with the evidence of all methods and tasks. Raises InputError if it is damaged."""
    wanted = {f"{_kind_of(method)} {task}" for method in methods for task in tasks}
    return path.is_file() and wanted <= set(_names(path))


def _kind_of(method: str) -> str:
    return method if method in CAM_METHODS else _GRID


def _evidence_files(folder: Path) -> list[Path]:
    files = sorted(Path(folder).glob(f"*{SUFFIX}"))
    if not files:
        raise InputError(
            f"{folder}: no evidence files (*{SUFFIX}) in it; evalClassification.py --no-pickles writes them"
        )
    return files


def _names(path: Path) -> list[str]:
    """What a file holds, told by its directory alone."""
    try:
        with zipfile.ZipFile(path) as archive:
            return [name.removesuffix(".npy") for name in archive.namelist()]
    except zipfile.BadZipFile as error:
        raise InputError(f"{path}: damaged ({error}); delete it and run again") from None


def _read(path: Path, name: str) -> tuple[dict[str, Any], torch.Tensor]:
    """The facts and one array, as (1, h, w)."""
    try:
        with np.load(path, allow_pickle=False) as content:
            return json.loads(str(content["facts"])), torch.from_numpy(content[name])[None]
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (zipfile.BadZipFile, EOFError, KeyError, TypeError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{path}: damaged or without {name!r} ({reason}); delete it and run again") from None
