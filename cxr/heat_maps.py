"""Heat maps as CheXlocalize stores them: one pickle per film and task, read without Python's unpickler.

The pickle is a dict: `map` (1, 1, h, w) float32 tensor, `prob` float, `task`, `gt` int, `cxr_img` (3, h, w) tensor of
the network's input, `cxr_dims` (width, height) of the film. Its name is `<image id>_<task>_map.pkl`.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from cxr.files import InputError, place, quoted, replacing
from cxr.labels import CHEXPERT, is_label_name
from cxr.pickles.pickled_tensors import PickledTensor, TensorPickler, read_tensor_pickle
from cxr.pickles.plain_pickle import Damaged, Refused
from cxr.pixels.pixel_limit import check_size

SUFFIX = "_map.pkl"

LARGEST_FILE = 2**31
"""Bytes of one heat map's pickle."""

# The order in which CheXlocalize reads `prob` when it is a tensor of all 14 labels: two are swapped.
_PROBABILITY_ORDER = tuple(CHEXPERT.task_of(CHEXPERT.names[place]) for place in (0, 1, 2, 4, 3, *range(5, 14)))


@dataclass(frozen=True)
class HeatMap:
    """One task's map of one film.

    map: (h, w) float32, finite, stretched over the film when scored; probability: the model's, of the task;
    film_size: (width, height) in pixels.
    """

    image_id: str
    task: str
    map: np.ndarray
    probability: float
    ground_truth: int
    film_size: tuple[int, int]


class HeatMapSource(Protocol):
    """Where scoring takes its maps from: a folder of pickles, or anything that makes them when asked."""

    @property
    def entries(self) -> Sequence[tuple[str, str]]:
        """(image id, task) of every map, sorted, each once."""

    def load(self, image_id: str, task: str) -> HeatMap:
        """Raises InputError when the map cannot be had."""

    def film_pixels(self, image_id: str) -> np.ndarray:
        """(h, w) float32 in [0, 1]: the film under its maps. Raises InputError when there is none."""


class HeatMapFolder:
    """The heat-map pickles below a folder, at any depth, as CheXlocalize finds them."""

    def __init__(self, folder: Path, tasks: Sequence[str] = ()) -> None:
        """tasks: known ones, needed where names of tasks hold a `_`.

        Raises InputError when the folder is missing or holds no map, or a map is there twice.
        """
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise InputError(f"{place(self.folder)}: no such folder of heat maps")
        self._paths: dict[tuple[str, str], Path] = {}
        for path in sorted(self.folder.rglob(f"*{SUFFIX}")):
            key = parse_heat_map_name(path, tasks)
            if key in self._paths:
                raise InputError(
                    f"{place(path)}: {place(self._paths[key])} holds the same film and task; keep one of them"
                )
            self._paths[key] = path
        if not self._paths:
            raise InputError(f"{place(self.folder)}: no *{SUFFIX} in it; evalClassification.py --heatmaps writes them")
        self.entries = sorted(self._paths)

    def load(self, image_id: str, task: str) -> HeatMap:
        return read_heat_map(self._paths[image_id, task])

    def film_pixels(self, image_id: str) -> np.ndarray:
        return read_film_pixels(next(path for (name, _), path in self._paths.items() if name == image_id))


def heat_map_name(image_id: str, task: str) -> str:
    """The file's name, by which CheXlocalize knows film and task."""
    return f"{image_id}_{task}{SUFFIX}"


def parse_heat_map_name(path: Path, tasks: Sequence[str] = ()) -> tuple[str, str]:
    """(image id, task) of a heat map's file: the longest of `tasks` that it ends with, else what follows the last `_`.

    Raises InputError when the name does not say them.
    """
    name = Path(path).name
    stem = name.removesuffix(SUFFIX)
    known = max((task for task in tasks if stem.endswith(f"_{task}")), key=len, default=stem.rpartition("_")[2])
    image_id = stem.removesuffix(f"_{known}")
    if not name.endswith(SUFFIX) or image_id in ("", stem) or not is_label_name(known):
        raise InputError(f"{place(path)}: not a heat map's name; expected <image id>_<task>{SUFFIX}")
    return image_id, known


def write_heat_map(
    path: Path,
    *,
    map: np.ndarray | torch.Tensor,
    probability: float,
    task: str,
    ground_truth: int,
    film_size: tuple[int, int],
    film_pixels: np.ndarray | torch.Tensor,
) -> None:
    """Writes one map, atomically, so that CheXlocalize's own scripts and plain `pickle.load` read it.

    map: (h, w); film_pixels: (h', w') in [0, 1], the network's input; film_size: (width, height) of the film.
    The three channels of `cxr_img` share one channel's memory, so the file holds each number once.
    Raises ValueError for a task, shape or value that a reader would refuse.
    """
    plane = _own_plane(map)
    if not is_label_name(task) or not _is_finite(plane.numpy()):
        raise ValueError(f"{path}: {quoted(task)} cannot be a task, or the map has values that are not finite")
    content = {
        "map": plane[None, None],
        "prob": float(probability),
        "task": task,
        "gt": int(ground_truth),
        "cxr_img": _own_plane(film_pixels).expand(3, -1, -1),
        "cxr_dims": (int(film_size[0]), int(film_size[1])),
    }
    with replacing(path) as temporary, open(temporary, "wb") as handle:
        TensorPickler(handle, protocol=4).dump(content)  # the newest that CheXlocalize's Python 3.8 and older ones read


def _own_plane(values: np.ndarray | torch.Tensor) -> torch.Tensor:
    """(h, w) float32 on the CPU with memory of its own: a pickled view takes everything it looks at along."""
    plane = torch.as_tensor(values).detach().to("cpu", torch.float32).clone(memory_format=torch.contiguous_format)
    if plane.ndim != 2 or not plane.numel():
        raise ValueError(f"expected (height, width), got {tuple(plane.shape)}")
    return plane


def _is_finite(values: np.ndarray) -> bool:
    """Also false for a range beyond float32's, which no normalisation survives."""
    with np.errstate(over="ignore", invalid="ignore"):
        return bool(np.isfinite(values.max() - values.min()))


def read_heat_map(path: Path) -> HeatMap:
    """Reads one map. Nothing in the file is run: a pickle that asks for more than plain values and tensors is refused.

    Raises InputError, one line with the file, for a missing, damaged or refused file, and for content that is not as
    the module says.
    """
    parse_heat_map_name(path)
    content = _unpickle(Path(path))
    missing = [key for key in ("map", "prob", "task", "gt", "cxr_dims") if key not in content]
    if missing:
        raise InputError(f"{place(path)}: no '{missing[0]}' in it; expected map, prob, task, gt, cxr_img, cxr_dims")
    named = content["task"] if isinstance(content["task"], str) else ""
    names = (named, CHEXPERT.task_of(named))
    image_id, task = parse_heat_map_name(path, names)
    if task not in names:
        raise InputError(f"{place(path)}: its task is {quoted(content['task'])}, but its name says {quoted(task)}")
    return HeatMap(
        image_id,
        task,
        _as_map(content["map"], path),
        _as_probability(content["prob"], task, path),
        _as_ground_truth(content["gt"], path),
        _as_film_size(content["cxr_dims"], path),
    )


def read_film_pixels(path: Path) -> np.ndarray:
    """(h, w) float32 in [0, 1]: the network's input, as a heat map's pickle keeps it.

    Raises InputError when the pickle holds no picture.
    """
    found = _unpickle(path).get("cxr_img")
    tensor = found if isinstance(found, PickledTensor) else PickledTensor(np.empty(0), 0)
    values = tensor.values
    if values.ndim != 3 or not 0 < values[:1].size <= tensor.stored:
        raise InputError(
            f"{place(path)}: cxr_img is not a (3, height, width) tensor: no film to show; export the maps again"
        )
    return np.clip(values[0].astype(np.float32), 0, 1)


def _unpickle(path: Path) -> dict[str, Any]:
    try:
        with open(path, "rb") as handle:
            if os.fstat(handle.fileno()).st_size > LARGEST_FILE:
                raise InputError(f"{place(path)}: larger than {LARGEST_FILE} bytes; a heat map holds one film's map")
            content = read_tensor_pickle(handle)
    except FileNotFoundError:
        raise InputError(f"{place(path)}: no such file") from None
    except Refused as refused:
        raise InputError(
            f"{place(path)}: refused, nothing run: it asks for {refused}, which no heat map needs"
        ) from None
    except Damaged as damage:
        raise InputError(f"{place(path)}: not a readable heat map ({damage}); export it again") from None
    if not isinstance(content, dict):
        raise InputError(f"{place(path)}: holds {quoted(content)}, expected a heat map's dict")
    return content


def _as_map(value: Any, path: Path) -> np.ndarray:
    if not isinstance(value, PickledTensor) or value.values.dtype != np.float32:
        found = f"a tensor of {value.values.dtype}" if isinstance(value, PickledTensor) else quoted(value)
        raise InputError(f"{place(path)}: map is {found}; expected a float32 tensor")
    shape = value.values.shape
    if len(shape) != 4 or shape[:2] != (1, 1) or not 0 < value.values.size <= value.stored:
        raise InputError(f"{place(path)}: map has shape {shape}; expected (1, 1, height, width), stored in full")
    plane = np.array(value.values[0, 0], order="C")
    if not _is_finite(plane):
        raise InputError(f"{place(path)}: map holds values that are not finite")
    return plane


def _as_probability(value: Any, task: str, path: Path) -> float:
    of_all = isinstance(value, PickledTensor) and value.values.shape == (len(_PROBABILITY_ORDER),)
    if of_all and task in _PROBABILITY_ORDER:
        value = value.values[_PROBABILITY_ORDER.index(task)].item()
    if isinstance(value, PickledTensor) and value.values.ndim == 0:
        value = value.values.item()
    if _is_number(value):
        return float(value)
    raise InputError(f"{place(path)}: prob is {quoted(value)}; expected a number")


def _as_ground_truth(value: Any, path: Path) -> int:
    if _is_number(value) and value == int(value):
        return int(value)
    raise InputError(f"{place(path)}: gt is {quoted(value)}; expected a whole number")


def _as_film_size(value: Any, path: Path) -> tuple[int, int]:
    sides = list(value) if isinstance(value, (tuple, list)) and len(value) == 2 else []
    if not sides or not all(type(side) is int and side > 0 for side in sides):
        raise InputError(f"{place(path)}: cxr_dims is {quoted(value)}; expected (width, height) of the film in pixels")
    width, height = sides
    check_size(width, height, f"{place(path)}: cxr_dims")
    return width, height


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)
