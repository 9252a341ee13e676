"""The films and labels of CheXpert, VisualCheXbert and CheXlocalize, read by column name.

Accepted are `train.csv`, `train_visualCheXbert.csv`, `valid.csv` (full and `-small` release), and CheXlocalize's
`val_labels.csv` and `test_labels.csv`: a `Path` column and one column per label, in any order, with or without
demographics.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.utils.data import Dataset

from cxr.files import InputError, csv_row, read_csv
from cxr.images import Crop, open_film, read_square, resize, to_unit
from cxr.labels import LABELS
from cxr.packed import PackedFilms, open_packed
from cxr.paths import patient_of

UncertainPolicy = Literal["zeros", "ones", "ignore"]

_RELEASE_FOLDER = re.compile(r"CheXpert-v1\.0[^/]*$")


@dataclass(frozen=True)
class Films:
    """A table of films. `labels` is (N, 14) float32 in the project's order: 0, 1, or NaN where it is to be ignored.

    `files` are the images, or the arrays that hold them when the films are `packed`.
    """

    csv: Path
    rows: tuple[int, ...]
    paths: tuple[str, ...]
    files: tuple[Path, ...]
    labels: np.ndarray
    packed: PackedFilms | None = None

    def __len__(self) -> int:
        return len(self.paths)

    def image_id(self, index: int) -> str:
        """`patient64541_study1_view1_frontal`, from the last three parts of the path."""
        return image_id(self.paths[index])

    def where(self, index: int) -> str:
        """The file and line that a film comes from, for messages."""
        return f"{self.csv}, row {self.rows[index]}"

    def select(self, keep: np.ndarray) -> Films:
        """The films where `keep` (N,) is true, in the same order."""
        (kept,) = np.nonzero(keep)
        return Films(
            self.csv,
            tuple(self.rows[i] for i in kept),
            tuple(self.paths[i] for i in kept),
            tuple(self.files[i] for i in kept),
            self.labels[kept],
            self.packed,
        )


def image_id(path: str) -> str:
    """CheXlocalize's name of a film: patient, study and view joined by `_`, without the file's ending."""
    return "_".join(PurePosixPath(path).with_suffix("").parts[-3:])


def training_csv(root: Path) -> Path:
    """`train_visualCheXbert.csv` where it is there (the published choice), else `train.csv`."""
    preferred = root / "train_visualCheXbert.csv"
    return preferred if preferred.is_file() else root / "train.csv"


def read_films(
    csv: Path,
    root: Path,
    *,
    uncertain: UncertainPolicy = "zeros",
    frontal_only: bool = False,
    patients: slice = slice(None),
    fraction: float = 1.0,
) -> Films:
    """Reads a label file; film paths in it are below `root`, which may be the release folder or the one above it.

    uncertain: what -1 becomes; `ignore` gives NaN, which the training loss leaves out. Blank is negative.
    patients: a range of patients in the order of first appearance; fraction: of these, spread evenly, in (0, 1].

    Raises InputError, naming file, row and column, for a missing column, an unknown label value, a duplicate or
    unsafe path, a missing film, and for a selection that leaves nothing.
    """
    csv, root = Path(csv), Path(root)
    table = read_csv(csv, columns=("Path", *LABELS))
    check_paths(table["Path"], csv)
    keep = _chosen_patients(table["Path"], patients, fraction)
    if frontal_only:
        keep &= np.array([_is_frontal(path) for path in table["Path"]])
    if not keep.any():
        raise InputError(f"{csv}: no film is left by the filters (frontal only, patients, fraction)")
    rows = np.nonzero(keep)[0]
    paths = tuple(table["Path"].iloc[rows])
    packed = open_packed(root)
    return Films(
        csv=csv,
        rows=tuple(csv_row(int(row)) for row in rows),
        paths=paths,
        files=_locate(paths, rows, root, csv) if packed is None else _locate_packed(paths, rows, packed, csv),
        labels=_labels(table, csv, uncertain)[rows],
        packed=packed,
    )


def check_paths(paths: pd.Series, csv: Path) -> None:
    """Raises InputError, naming the row, for a path that leaves the data folder, names no film, or comes twice."""
    for row, path in enumerate(paths):
        parts = PurePosixPath(path).parts
        if not path or path.startswith("/") or "\\" in path or ".." in parts or len(parts) < 3:
            raise InputError(
                f"{csv}, row {csv_row(row)}, Path: {path!r} is not a path inside the data folder; "
                "expected something like CheXpert-v1.0/train/patient00001/study1/view1_frontal.jpg"
            )
    repeated = paths.duplicated()
    if repeated.any():
        row = int(np.argmax(repeated))
        raise InputError(f"{csv}, row {csv_row(row)}, Path: {paths[row]!r} is listed twice; remove one of the rows")


def _chosen_patients(paths: pd.Series, patients: slice, fraction: float) -> np.ndarray:
    if not 0 < fraction <= 1:
        raise InputError(f"fraction of patients {fraction} is not in (0, 1]")
    units = [patient_of(path) or str(PurePosixPath(path).parent) for path in paths]  # else the films of one folder
    codes, names = pd.factorize(np.array(units, dtype=object))  # numbered in the order of first appearance
    in_range = np.zeros(len(names), dtype=bool)
    in_range[patients] = True
    position = np.cumsum(in_range)
    kept = in_range & (np.floor(position * fraction) > np.floor((position - 1) * fraction))
    return kept[codes]


def _is_frontal(path: str) -> bool:
    return "frontal" in PurePosixPath(path).name


_LABEL_VALUES = {"": 0.0, "0": 0.0, "0.0": 0.0, "1": 1.0, "1.0": 1.0, "-1": -1.0, "-1.0": -1.0}
_UNCERTAIN_VALUE = {"zeros": 0.0, "ones": 1.0, "ignore": np.nan}


def _labels(table: pd.DataFrame, csv: Path, uncertain: UncertainPolicy) -> np.ndarray:
    """(N, 14) float32 in the project's order, whatever the order of the columns."""
    values = np.empty((len(table), len(LABELS)), dtype=np.float32)
    for column, label in enumerate(LABELS):
        numbers = table[label].str.strip().map(_LABEL_VALUES)
        if numbers.isna().any():
            row = int(np.argmax(numbers.isna()))
            raise InputError(
                f"{csv}, row {csv_row(row)}, {label}: {table[label][row]!r} is no label; "
                "expected 1.0, 0.0, -1.0 (uncertain) or nothing"
            )
        values[:, column] = numbers
    values[values == -1] = _UNCERTAIN_VALUE[uncertain]
    return values


def _locate(paths: Sequence[str], rows: np.ndarray, root: Path, csv: Path) -> tuple[Path, ...]:
    if not root.is_dir():
        raise InputError(f"{root}: no such data folder")
    files = tuple(film_file(path, root) for path in paths)
    for file, row in zip(files, rows, strict=True):
        if not file.is_file():
            raise InputError(f"{csv}, row {csv_row(int(row))}, Path: no film at {file}; is {root} complete?")
    return files


def _locate_packed(paths: Sequence[str], rows: np.ndarray, packed: PackedFilms, csv: Path) -> tuple[Path, ...]:
    films = [inside_release(path) for path in paths]
    for film, row in zip(films, rows, strict=True):
        if film not in packed:
            array = packed.array(film)
            raise InputError(f"{csv}, row {csv_row(int(row))}, Path: not in {array}; was this label file packed?")
    return tuple(packed.array(film) for film in films)


def film_file(path: str, root: Path) -> Path:
    """Where a film of a label file lies below `root`: the first place that exists, else the first that is tried.

    `root` is the folder that holds `train/`, or the one above the release folder. CheXlocalize lists its validation
    films as `CheXpert-v1.0/valid/...` and keeps them in `val/`.
    """
    inside = inside_release(path)
    names = [inside, path]
    if inside.startswith("valid/"):
        names.insert(1, "val/" + inside.removeprefix("valid/"))
    return next((root / name for name in names if (root / name).is_file()), root / inside)


def inside_release(path: str) -> str:
    """A film's path without the leading `CheXpert-v1.0...` folder."""
    release, _, rest = path.partition("/")
    return rest if _RELEASE_FOLDER.match(release) else path


class CheXpertDataset(Dataset[tuple[Tensor, Tensor]]):
    """Films and labels as the network takes them: (1, S, S) float32 in [0, 1] and (14,) float32, S = `image_size`.

    Every film is cropped to its centred square and resized with antialiasing; a film that is square already is only
    resized. Raises InputError naming the CSV row when a film cannot be read.
    """

    def __init__(self, films: Films, image_size: int) -> None:
        self.films = films
        self.image_size = image_size

    def __len__(self) -> int:
        return len(self.films)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.image(index)[0], torch.from_numpy(self.films.labels[index])

    def image(self, index: int) -> tuple[Tensor, Crop]:
        """The film's square at the network's size, and its place in the film."""
        square, crop = self.square(index)
        return resize(square, self.image_size).clamp_(0, 1), crop

    def square(self, index: int) -> tuple[Tensor, Crop]:
        """The film's square at its own resolution, (1, side, side), and its place in the film."""
        if self.films.packed is not None:
            pixels = self.pixels(index)
            return to_unit(pixels), Crop.centred(*pixels.shape)
        with self._naming(index):
            return read_square(self.films.files[index])

    def pixels(self, index: int) -> np.ndarray:
        """The film's square at its own resolution in 8 bit, (side, side) uint8; deeper films are rounded."""
        with self._naming(index):
            if self.films.packed is not None:
                return self.films.packed.pixels(inside_release(self.films.paths[index]))
            film = open_film(self.films.files[index])
        square = np.asarray(film.crop(Crop.centred(*film.size).box))
        return square if square.dtype == np.uint8 else np.rint(square).astype(np.uint8)

    @contextmanager
    def _naming(self, index: int) -> Iterator[None]:
        """Adds the film's row to an error."""
        try:
            yield
        except InputError as error:
            raise InputError(f"{self.films.where(index)}: {error}") from None
