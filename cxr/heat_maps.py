"""Heat maps as CheXlocalize stores them: one pickle per film and task, read without running what a pickle may ask for.

The pickle is a dict: `map` (1, 1, h, w) float32 tensor, `prob` float, `task`, `gt` int, `cxr_img` (3, h, w) tensor of
what the network saw, `cxr_dims` (width, height) of the film. Its name is `<image id>_<task>_map.pkl`.
"""

from __future__ import annotations

import io
import math
import pickle
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from cxr.files import InputError, replacing
from cxr.labels import LABELS, task_of

SUFFIX = "_map.pkl"
_TASKS_OF_ALL_LABELS = tuple(task_of(label) for label in LABELS)

# The order in which CheXlocalize reads `prob` when it is a tensor of all 14 labels.
_PROBABILITY_ORDER = (
    "No Finding",
    "Enlarged Cardiomediastinum",
    "Cardiomegaly",
    "Lung Lesion",
    "Airspace Opacity",
    "Edema",
    "Consolidation",
    "Pneumonia",
    "Atelectasis",
    "Pneumothorax",
    "Pleural Effusion",
    "Pleural Other",
    "Fracture",
    "Support Devices",
)


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

    def __init__(self, folder: Path) -> None:
        """Raises InputError when the folder is missing or holds no map, a task is unknown, or a map is there twice."""
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise InputError(f"{folder}: no such folder of heat maps")
        self._paths: dict[tuple[str, str], Path] = {}
        for path in sorted(self.folder.rglob(f"*{SUFFIX}")):
            key = parse_heat_map_name(path)
            if key in self._paths:
                raise InputError(f"{path}: {self._paths[key]} holds a map of the same film and task; keep one of them")
            self._paths[key] = path
        if not self._paths:
            raise InputError(f"{folder}: no *{SUFFIX} in it; evalClassification.py --heatmaps writes them")
        self.entries = sorted(self._paths)

    def load(self, image_id: str, task: str) -> HeatMap:
        return read_heat_map(self._paths[image_id, task])

    def film_pixels(self, image_id: str) -> np.ndarray:
        return read_film_pixels(next(path for (name, _), path in self._paths.items() if name == image_id))


def heat_map_name(image_id: str, task: str) -> str:
    """The file's name, by which CheXlocalize knows film and task."""
    return f"{image_id}_{task}{SUFFIX}"


def parse_heat_map_name(path: Path) -> tuple[str, str]:
    """(image id, task) of a heat map's file. Raises InputError when the name does not say them."""
    image_id, _, task = Path(path).name.removesuffix(SUFFIX).rpartition("_")
    if not image_id or not Path(path).name.endswith(SUFFIX):
        raise InputError(f"{path}: not a heat map's name; expected <image id>_<task>{SUFFIX}")
    if task not in _TASKS_OF_ALL_LABELS:
        hint = f"CheXlocalize calls it {task_of(task)}" if task in LABELS else "the tasks are CheXlocalize's"
        raise InputError(f"{path}: unknown task {task!r}; {hint}")
    return image_id, task


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

    map: (h, w); film_pixels: (h', w') in [0, 1], what the network saw; film_size: (width, height) of the film.
    The three channels of `cxr_img` share one channel's memory, so the file holds each number once.
    Raises ValueError for a task, shape or value that a reader would refuse.
    """
    plane = _own_plane(map)
    if task not in _TASKS_OF_ALL_LABELS or not _is_finite(plane.numpy()):
        raise ValueError(f"{path}: unknown task {task!r}, or a map with values that are not finite")
    content = {
        "map": plane[None, None],
        "prob": float(probability),
        "task": task,
        "gt": int(ground_truth),
        "cxr_img": _own_plane(film_pixels).expand(3, -1, -1),
        "cxr_dims": (int(film_size[0]), int(film_size[1])),
    }
    with replacing(path) as temporary, open(temporary, "wb") as handle:
        pickle.dump(content, handle, protocol=4)  # the newest that CheXlocalize's Python 3.8 and older ones read


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
    """Reads one map. Nothing in the file is run: a pickle that asks for more than tensors is refused.

    Raises InputError, one line with the file, for a missing, damaged or refused file, and for content that is not as
    the module says.
    """
    image_id, task = parse_heat_map_name(path)
    content = _unpickle(Path(path))
    missing = [key for key in ("map", "prob", "task", "gt", "cxr_dims") if key not in content]
    if missing:
        raise InputError(f"{path}: no {missing[0]!r} in it; expected map, prob, task, gt, cxr_img, cxr_dims")
    if not isinstance(content["task"], str) or task_of(content["task"]) != task:
        raise InputError(f"{path}: its task is {content['task']!r}, but its name says {task!r}")
    return HeatMap(
        image_id,
        task,
        _as_map(content["map"], path),
        _as_probability(content["prob"], task, path),
        _as_ground_truth(content["gt"], path),
        _as_film_size(content["cxr_dims"], path),
    )


def read_film_pixels(path: Path) -> np.ndarray:
    """(h, w) float32 in [0, 1]: what the network saw of the film, as a heat map's pickle keeps it.

    Raises InputError when the pickle holds no picture.
    """
    pixels = _unpickle(path).get("cxr_img")
    if not torch.is_tensor(pixels) or pixels.ndim != 3 or not pixels.numel():
        raise InputError(f"{path}: cxr_img is no (3, height, width) tensor: no film to show; export the maps again")
    return pixels[0].float().clamp(0, 1).numpy()


def _unpickle(path: Path) -> dict[str, Any]:
    try:
        with open(path, "rb") as handle:
            content = _TensorUnpickler(handle).load()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except _RefusedGlobal as refused:
        raise InputError(f"{path}: refused, nothing run: it asks for {refused}, which no heat map needs") from None
    except OSError:
        raise
    except Exception as error:  # whatever a damaged pickle provokes in pickle and torch
        reason = str(error).split("\n")[0] or type(error).__name__
        raise InputError(f"{path}: not a readable heat map ({reason}); export it again") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds a {type(content).__name__}, expected a heat map's dict")
    return content


class _RefusedGlobal(Exception):
    pass


class _TensorUnpickler(pickle.Unpickler):
    """Builds numbers, strings, containers and CPU tensors; any other name in the pickle stops it before the call."""

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise _RefusedGlobal(f"{module}.{name}") from None


def _load_memory(data: bytes) -> torch.Tensor:
    """All values (n,) of a tensor's storage, on the CPU even if they were saved from a GPU."""
    storage = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    return torch.empty(0, dtype=storage.dtype).set_(storage)


def _view(memory: torch.Tensor, offset: int, size: Any, stride: Any, *_: Any) -> torch.Tensor:
    """A tensor in `memory`, without gradient or hooks; one that reaches beyond it raises, where torch's own loader
    would append whatever lies in RAM."""
    return memory.as_strided(size, stride, offset)


def _numpy_number(kind: np.dtype, data: bytes) -> np.generic:
    return np.frombuffer(data, kind, count=1)[0]


_ALLOWED: dict[tuple[str, str], Any] = {
    ("torch._utils", "_rebuild_tensor_v2"): _view,
    ("torch.storage", "_load_from_bytes"): _load_memory,
    ("collections", "OrderedDict"): OrderedDict,
    ("numpy", "dtype"): np.dtype,  # a probability may be a numpy number
    ("numpy._core.multiarray", "scalar"): _numpy_number,
    ("numpy.core.multiarray", "scalar"): _numpy_number,
}


def _as_map(value: Any, path: Path) -> np.ndarray:
    if not torch.is_tensor(value) or value.dtype != torch.float32:
        found = value.dtype if torch.is_tensor(value) else type(value).__name__
        raise InputError(f"{path}: map is {found}; expected a float32 tensor")
    stored = value.untyped_storage().nbytes() // value.itemsize
    if value.ndim != 4 or value.shape[:2] != (1, 1) or not 0 < value.numel() <= stored:
        raise InputError(f"{path}: map has shape {tuple(value.shape)}; expected (1, 1, height, width), stored in full")
    plane = np.ascontiguousarray(value[0, 0].numpy())
    if not _is_finite(plane):
        raise InputError(f"{path}: map holds values that are not finite")
    return plane


def _as_probability(value: Any, task: str, path: Path) -> float:
    if torch.is_tensor(value) and tuple(value.shape) == (len(_PROBABILITY_ORDER),):
        value = value[_PROBABILITY_ORDER.index(task)]
    if torch.is_tensor(value) and value.ndim == 0:
        value = value.item()
    if isinstance(value, (int, float, np.integer, np.floating)) and math.isfinite(value):
        return float(value)
    raise InputError(f"{path}: prob is {_short(value)}; expected a number")


def _as_ground_truth(value: Any, path: Path) -> int:
    if isinstance(value, (int, float, np.integer, np.floating)) and math.isfinite(value) and value == int(value):
        return int(value)
    raise InputError(f"{path}: gt is {_short(value)}; expected a whole number")


def _as_film_size(value: Any, path: Path) -> tuple[int, int]:
    sides = list(value) if isinstance(value, (tuple, list)) else []
    if len(sides) == 2 and all(isinstance(side, (int, np.integer)) and side > 0 for side in sides):
        return int(sides[0]), int(sides[1])
    raise InputError(f"{path}: cxr_dims is {_short(value)}; expected (width, height) of the film in pixels")


def _short(value: Any) -> str:
    return repr(value).replace("\n", " ")[:60]
