"""One npz per film with everything of the audit that needs forward passes of the film.

`<film id>.npz` holds `facts` (json text) and float32 arrays, per task `drop <fill> <task>` (k, k), what the logit falls
by when each patch is filled, and `cam <task>` (h, w), the signed CAM.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cxr.names import faithfulness_folder
from saliency.audit.film_arrays import film_arrays, write_film_arrays


def occlusion_file(results: Path, split: str, film_id: str) -> Path:
    return faithfulness_folder(results) / "films" / split / f"{film_id}.npz"


@dataclass(frozen=True)
class OcclusionFacts:
    """weights: sha256; side: patches per axis, 0 where none were filled; greys: fill -> grey; view: of the film."""

    weights: str
    side: int
    greys: Mapping[str, float]
    tasks: Sequence[str]
    view: str


@dataclass(frozen=True)
class Occlusion:
    """drops: (fill, task) -> (k, k); cams: task -> (h, w)."""

    facts: OcclusionFacts
    drops: Mapping[tuple[str, str], np.ndarray]
    cams: Mapping[str, np.ndarray]


def write_occlusion(path: Path, occlusion: Occlusion) -> None:
    """Writes one film's file, atomically."""
    arrays = {f"drop {fill} {task}": drops for (fill, task), drops in occlusion.drops.items()}
    arrays |= {f"cam {task}": cam for task, cam in occlusion.cams.items()}
    write_film_arrays(path, occlusion.facts, arrays)


def read_occlusion(path: Path) -> Occlusion:
    """Raises InputError in one line when the file is missing, damaged, or holds something else."""
    with film_arrays(path) as (known, arrays):
        facts = OcclusionFacts(**known)
        tasks = list(map(str, facts.tasks))
        drops = {
            (fill, task): _plane(arrays[f"drop {fill} {task}"], (facts.side, facts.side))
            for fill in facts.greys
            for task in tasks
        }
        cams = {task: _plane(arrays[f"cam {task}"], arrays[f"cam {tasks[0]}"].shape) for task in tasks}
    return Occlusion(facts, drops, cams)


def _plane(values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    if values.ndim != 2 or values.shape != shape or values.dtype != np.float32 or not np.isfinite(values).all():
        raise ValueError(f"expected finite float32 {shape}, found {values.dtype} {values.shape}")
    return values
