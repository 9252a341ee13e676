"""Tables of films: who and what every film is, from columns where a table has them, else from CheXpert's paths.

A manifest is a folder with `films.csv` (or `.parquet`) and `dataset.json`. CheXpert's own tables are manifests as they
are: `train.csv`, `train_visualCheXbert.csv`, `valid.csv` (full and `-small` release), CheXlocalize's `val_labels.csv`
and `test_labels.csv`; so is the `metadata.csv` of a Hugging Face ImageFolder. Columns are found by name, in any order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cxr.files import InputError, place, quoted, read_json
from cxr.labels import CHEXPERT, LabelSet, UncertainOrKept, is_label_name, label_values
from cxr.packed import PackedFilms, open_packed
from cxr.paths import (
    FilmFinder,
    check_unique,
    copy_path,
    film_id,
    inside_release,
    is_ordinary,
    patient_of,
    projection_of,
    relative_path,
    study_of,
    view_of,
)
from cxr.pixels.grey import PREPROCESSING, Grey
from cxr.splits import DRAWN_SHARES, in_split
from cxr.tables import line_of, read_csv

DATASET, REGIONS = "dataset.json", "regions.json"

_FACTS = ("Film", "Patient", "Study", "View", "Sex", "Age", "Split")
_CHEXPERT_FACTS = ("Sex", "Age", "Frontal/Lateral", "AP/PA")


@dataclass(frozen=True)
class DataSet:
    """The facts of a data set that its table does not say.

    labels: None where the table's own columns decide. blank_is_negative: whether a blank label is negative, else the
    film is not labelled; None where nothing says so, and CheXpert's columns decide. grey: the rule for its pixels, as
    `cxr.images` reads it. shares, seed: of splits that are drawn.
    """

    name: str = ""
    labels: LabelSet | None = None
    blank_is_negative: bool | None = None
    grey: Mapping[str, Any] | None = None
    shares: Mapping[str, float] = field(default_factory=lambda: dict(DRAWN_SHARES))
    seed: int = 0


@dataclass(frozen=True)
class Films:
    """N films of a table, in its order.

    labels: (N, C) float32, C labels of `label_set`: 0, 1, or NaN where a film is not labelled or its label is ignored.
    ids, patients, studies, views, sexes, ages: text, empty where unknown; ids are unique. lines: each film's line in
    `table`. files: the images, or the arrays that hold them when the films are `packed`. grey: the rule to read them.
    mapping: what the labels were made of, where they are not the table's own, as `cxr.mappings` records it.
    """

    table: Path
    label_set: LabelSet
    paths: tuple[str, ...]
    ids: tuple[str, ...]
    patients: tuple[str, ...]
    studies: tuple[str, ...]
    views: tuple[str, ...]
    sexes: tuple[str, ...]
    ages: tuple[str, ...]
    lines: tuple[int, ...]
    files: tuple[Path, ...]
    labels: np.ndarray
    packed: PackedFilms | None = None
    grey: Grey = Grey.STORED
    mapping: Mapping[str, Any] | None = None

    def __len__(self) -> int:
        return len(self.paths)

    def where(self, index: int) -> str:
        """The file and line that a film comes from, for messages."""
        return place(self.table, self.lines[index])

    def select(self, keep: np.ndarray) -> Films:
        """The films where `keep` (N,) is true, in the same order."""
        (kept,) = np.nonzero(keep)
        columns: dict[str, Any] = {name: tuple(getattr(self, name)[i] for i in kept) for name in _PER_FILM}
        return replace(self, labels=self.labels[kept], **columns)


_COLUMNS = {"ids": "Film", "patients": "Patient", "studies": "Study", "views": "View", "sexes": "Sex", "ages": "Age"}
_PER_FILM = ("paths", *_COLUMNS, "lines", "files")


def read_dataset(table: Path) -> DataSet:
    """Reads `dataset.json` beside a table; without one, nothing is known. Raises InputError for another form."""
    path = Path(table).with_name(DATASET)
    if not path.is_file():
        return DataSet()
    content = read_json(path)
    if not isinstance(content, dict):
        raise InputError(f"{path}: expected a json object, found {quoted(content)}; makeManifest.py writes one")
    blank, drawn = content.get("blank"), content.get("split", {})
    if blank not in (None, "negative", "not labelled"):
        raise InputError(f"{place(path, column='blank')}: {quoted(blank)}; expected 'negative' or 'not labelled'")
    labels = None
    if "labels" in content:
        facts = {"names": content["labels"], "groups": content.get("groups"), "tasks": content.get("tasks")}
        labels = LabelSet.from_json(facts, place(path, column="labels"))
    if not isinstance(drawn, dict) or not _are_shares(drawn):
        raise InputError(f"{place(path, column='split')}: expected seed (whole number), val and test (shares below 1)")
    shares = {name: float(drawn.get(name, DRAWN_SHARES[name])) for name in DRAWN_SHARES}
    name = content.get("name", "")
    return DataSet(
        name if isinstance(name, str) else "",
        labels,
        None if blank is None else blank == "negative",
        content.get("grey"),
        shares,
        drawn.get("seed", 0),
    )


def _are_shares(drawn: Mapping[str, Any]) -> bool:
    shares = [drawn.get(name, DRAWN_SHARES[name]) for name in DRAWN_SHARES]
    numbers = all(type(share) in (int, float) and 0 <= share < 1 for share in shares)
    return numbers and sum(shares) < 1 and type(drawn.get("seed", 0)) is int


def read_films(
    table: Path,
    root: Path,
    *,
    split: str | None = None,
    label_set: LabelSet | None = None,
    uncertain: UncertainOrKept = "zeros",
    frontal_only: bool = False,
    patients: slice = slice(None),
    fraction: float = 1.0,
) -> Films:
    """Reads a table; film paths in it are below `root` (see `FilmFinder`).

    split: of a manifest that holds several, the one to keep; None keeps all rows. label_set: the labels wanted; None
    takes those of `dataset.json`, CheXpert's where the table has one of their columns, else every further column.
    uncertain: what -1 becomes; `ignore` gives NaN, `keep` leaves it. patients: a range of patients in the order of
    first appearance; fraction: of these, spread evenly, in (0, 1].

    Raises InputError, naming file, line and column, for a missing column, an unknown label value, a repeated or unsafe
    path, two films with one id, a missing film, and for a selection that leaves nothing.
    """
    table, root = Path(table), Path(root)
    content, dataset = read_table(table), read_dataset(table)
    label_set = label_set or _label_set(content, table, dataset)
    identity = film_identity(content, table)
    keep = np.ones(len(content), dtype=bool)
    if split is not None:
        keep &= in_split(identity, table, split, dataset.shares, dataset.seed)
    keep &= _chosen_patients(identity, patients, fraction, keep)
    if frontal_only:
        keep &= (identity["View"].map(projection_of) != "lateral").to_numpy()
    if not keep.any():
        named = f" of split {split!r}" if split is not None else ""
        raise InputError(f"{table}: no film{named} is left by the filters (frontal only, patients, fraction)")
    rows = np.nonzero(keep)[0]
    negative = _is_chexpert(content) if dataset.blank_is_negative is None else dataset.blank_is_negative
    labels = label_values(content, table, label_set, negative, uncertain)
    films = _located(table, root, identity.iloc[rows], label_set, labels[rows])
    return replace(films, grey=_grey(table, root, dataset))


def _grey(table: Path, root: Path, dataset: DataSet) -> Grey:
    """The data set's rule for films as they are; copies were made by it and are plain 8 bit."""
    if (root / PREPROCESSING).is_file():
        return Grey.STORED
    return Grey.from_json(dataset.grey, place(table.with_name(DATASET)))


def has_split(table: Path, split: str) -> bool:
    """Whether a table is there and holds films of a split."""
    table = Path(table)
    if not table.is_file():
        return False
    dataset = read_dataset(table)
    return bool(in_split(film_identity(read_table(table), table), table, split, dataset.shares, dataset.seed).any())


def shared_labels(table: Path, network: LabelSet) -> LabelSet:
    """The labels of a network that a table has columns of, in the order of the data set, with its groups and tasks.

    Raises InputError when there are none.
    """
    columns, labels = list(read_table(table).columns), read_dataset(table).labels
    order = dict.fromkeys((*CHEXPERT.names, *columns)) if labels is None else labels.names
    shared = [name for name in order if name in columns and name in network.names]
    if not shared:
        wanted, found = (", ".join(map(quoted, names[:20])) for names in (network.names, columns))
        raise InputError(f"{place(table)}: none of the network's labels ({wanted}) is a column; it has {found}")
    return (labels or network).restrict(shared)


def _located(table: Path, root: Path, identity: pd.DataFrame, label_set: LabelSet, labels: np.ndarray) -> Films:
    """Films with the files that hold them. Raises InputError for one that is not there."""
    packed = open_packed(root)
    paths = tuple(identity["Path"])
    lines = tuple(int(line) for line in identity["line"])
    locate = _locate if packed is None else _locate_packed
    files = locate(paths, lines, table, root, packed)
    columns: dict[str, Any] = {field: tuple(identity[name]) for field, name in _COLUMNS.items()}
    return Films(table, label_set, paths, lines=lines, files=files, labels=labels, packed=packed, **columns)


def read_table(table: Path) -> pd.DataFrame:
    """A table's cells as text, with the column `Path` (or `file_name`, which is renamed). Raises InputError."""
    if table.suffix == ".parquet":
        content = _read_parquet(table)
    else:
        content = read_csv(table)
    if "Path" not in content.columns and "file_name" in content.columns:
        content = content.rename(columns={"file_name": "Path"})
    if "Path" not in content.columns:
        raise InputError(
            f"{table}: no column named 'Path' (or 'file_name'); the header has: {', '.join(content.columns)}"
        )
    return content


def _read_parquet(table: Path) -> pd.DataFrame:
    try:
        content = pd.read_parquet(table)
    except ImportError:
        raise InputError(f"{table}: parquet needs pyarrow; pip install pyarrow, or save it as films.csv") from None
    except Exception as error:  # whatever a damaged file makes of pyarrow
        raise InputError(f"{table}: not a readable parquet file ({type(error).__name__})") from None
    return content.astype(object).where(content.notna(), "").astype(str)


def film_identity(content: pd.DataFrame, table: Path) -> pd.DataFrame:
    """One row per film: Path (normalised), Film, Patient, Study, View, Sex, Age, Split, and its line in the table.

    All but the line are text, empty where unknown.

    Raises InputError for a path that leaves the data folder, and for two rows with one path, film id or name of copy.
    """
    lines = [line_of(content, row) for row in range(len(content))]
    paths = [
        path if is_ordinary(path) else relative_path(path, place(table, line, "Path"))
        for path, line in zip(content["Path"], lines, strict=True)
    ]
    found = {"Path": paths, "line": lines}
    for name, derive in (("Film", film_id), ("Patient", patient_of), ("Study", study_of), ("View", view_of)):
        found[name] = _given(content, name) or list(map(derive, paths))
    for name in ("Sex", "Age", "Split"):
        found[name] = _given(content, name) or [""] * len(paths)
    identity = pd.DataFrame(found)
    identity["View"] = _chexpert_views(content, identity["View"])
    identity["Sex"] = identity["Sex"].replace({"Male": "M", "Female": "F", "Unknown": ""})
    if "Film" in content.columns:
        identity["Film"] = identity["Film"].where(identity["Film"] != "", [film_id(path) for path in paths])
    check_unique(paths, lines, table, "Path", "the film")
    check_unique(identity["Film"], lines, table, "Film" if "Film" in content else "Path", "the film id")
    check_unique(map(copy_path, paths), lines, table, "Path", "the name of its copy,")
    return identity


def _given(content: pd.DataFrame, name: str) -> list[str] | None:
    return list(content[name].str.strip()) if name in content.columns else None


def _chexpert_views(content: pd.DataFrame, views: pd.Series) -> pd.Series:
    """PA, AP, ... or lateral, from CheXpert's two columns; what they leave open stays as it was."""
    if "View" in content.columns:
        return views
    if "Frontal/Lateral" in content.columns:
        views = content["Frontal/Lateral"].str.strip().str.lower().where(lambda kind: kind != "", views)
    if "AP/PA" in content.columns:
        projection = content["AP/PA"].str.strip()
        views = views.where((views == "lateral") | ~projection.isin(["AP", "PA"]), projection)
    return views


def _is_chexpert(content: pd.DataFrame) -> bool:
    return set(CHEXPERT.names) <= set(content.columns)


def _label_set(content: pd.DataFrame, table: Path, dataset: DataSet) -> LabelSet:
    if dataset.labels is not None:
        return dataset.labels
    if any(label in content.columns for label in CHEXPERT.names):
        missing = [label for label in CHEXPERT.names if label not in content.columns]
        if missing:
            named = ", ".join(map(quoted, missing))
            raise InputError(
                f"{table}: no column named {named}, of CheXpert's 14 labels; "
                f'a data set of other labels names them in {DATASET} beside it: {{"labels": [...]}}'
            )
        return CHEXPERT
    known = {"Path", *_FACTS, *_CHEXPERT_FACTS}
    names = [name for name in content.columns if name not in known]
    if not names or not all(map(is_label_name, names)):
        raise InputError(f"{table}: no column of labels; its header has: {', '.join(map(quoted, content.columns))}")
    return LabelSet.of(names)


def _chosen_patients(identity: pd.DataFrame, patients: slice, fraction: float, among: np.ndarray) -> np.ndarray:
    """(N,) bool. Raises InputError for a choice of patients where nobody's patient is known."""
    if not 0 < fraction <= 1:
        raise InputError(f"fraction of patients {fraction} is not in (0, 1]")
    if patients == slice(None) and fraction == 1:
        return np.ones(len(identity), dtype=bool)
    units = identity["Patient"].to_numpy()[among]
    if (units == "").any():
        line = int(identity["line"].to_numpy()[among][int(np.argmax(units == ""))])
        raise InputError(f"line {line}: no patient is known, so none can be chosen (fraction); add a column Patient")
    codes, names = pd.factorize(units)  # numbered in the order of first appearance
    in_range = np.zeros(len(names), dtype=bool)
    in_range[patients] = True
    position = np.cumsum(in_range)
    chosen = in_range & (np.floor(position * fraction) > np.floor((position - 1) * fraction))
    kept = np.zeros(len(identity), dtype=bool)
    kept[among] = chosen[codes]
    return kept


def _locate(
    paths: Sequence[str], lines: Sequence[int], table: Path, root: Path, packed: PackedFilms | None
) -> tuple[Path, ...]:
    finder, files = FilmFinder(root), []
    for path, line in zip(paths, lines, strict=True):
        file = finder.found(path)
        if file is None:
            raise InputError(f"{place(table, line, 'Path')}: no film at {finder.file(path)}; is {root} complete?")
        files.append(file)
    return tuple(files)


def _locate_packed(
    paths: Sequence[str], lines: Sequence[int], table: Path, root: Path, packed: PackedFilms | None
) -> tuple[Path, ...]:
    if packed is None:
        raise ValueError(f"{root} holds no packed films")
    films = [inside_release(path) for path in paths]
    for film, line in zip(films, lines, strict=True):
        if film not in packed:
            reason = f"not in {packed.array(film)}; was this table packed?"
            raise InputError(f"{place(table, line, 'Path')}: {reason}")
    return tuple(packed.array(film) for film in films)
