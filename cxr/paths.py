"""Film identity out of a path: film id, patient, study, view; and where the film of a table's path lies on disk.

A manifest's own columns come first; this is for tables that have none. CheXpert writes who and what into the path:
`CheXpert-v1.0/valid/patient64541/study1/view1_frontal.jpg`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

from cxr.files import InputError, place, quoted

_RELEASE = "CheXpert-v1.0"
_RELEASE_FOLDER = re.compile(r"CheXpert-v1\.0[^/]*$")
_BATCH_FOLDER = re.compile(r"CheXpert-v1\.0 batch \d+ \((?P<split>train|valid)")
_CHEXPERT_FILM = re.compile(r"(?:^|/)(patient\d+)/(study\d+)/(view\d+_[a-z]+)$")
_PATIENT = re.compile(r"(?<![A-Za-z])patient\d+")
_ORDINARY = re.compile(r"(?:\w[\w.&() -]*/)*\w[\w.&() -]*", re.ASCII)
_LONGEST_PART = 255  # bytes of a file's name that file systems take


def relative_path(path: str, source: str) -> str:
    """The path below the data folder, normalised: `./` and double slashes go.

    source: where the path stands, for the message. Raises InputError for a path that is absolute, leaves its folder,
    or cannot be a file's name.
    """
    if is_ordinary(path):
        return path
    parts = PurePosixPath(path).parts
    inside = "/".join(parts)
    reason = ""
    if not parts:
        reason = "blank"
    elif path.startswith("/") or re.match(r"[A-Za-z]:", path):
        reason = "an absolute path"
    elif "\\" in path:
        reason = "written with backslashes"
    elif ".." in parts or inside_release(inside).startswith("/"):
        reason = "a path out of the data folder"
    elif not inside.isprintable():
        reason = "a path with control characters"
    elif max(len(part.encode("utf-8", "surrogatepass")) for part in parts) > _LONGEST_PART or len(inside) > 4000:
        reason = "longer than a file's name can be"
    if reason:
        example = "CheXpert-v1.0/train/patient00001/study1/view1_frontal.jpg"
        raise InputError(
            f"{source}: {quoted(path)} is {reason}; expected a path below the data folder, such as {example}"
        )
    return inside


def is_ordinary(path: str) -> bool:
    """Whether a path is plainly relative and normalised, as nearly all of a table's paths are."""
    return len(path) <= _LONGEST_PART and _ORDINARY.fullmatch(path) is not None


def film_id(path: str) -> str:
    """`patient64541_study1_view1_frontal`; of another form of path, all of it below the release, joined by `_`.

    The ending of the file is left out. Two paths may have one id: whoever reads a table checks that none has.
    """
    inside = _without_ending(inside_release(path))
    found = _CHEXPERT_FILM.search(inside)
    return "_".join(found.groups()) if found else inside.replace("/", "_")


def patient_of(path: str) -> str:
    """`patient64541`; empty where a path names nobody."""
    found = _PATIENT.search(path)
    return found.group() if found else ""


def study_of(path: str) -> str:
    """`patient64541/study1`; empty where the path is not of CheXpert's form."""
    found = _CHEXPERT_FILM.search(_without_ending(path))
    return "/".join(found.groups()[:2]) if found else ""


def view_of(path: str) -> str:
    """`frontal` or `lateral` by the file's name; empty where it says neither."""
    name = path.rpartition("/")[2]
    return next((view for view in ("frontal", "lateral") if view in name), "")


_LATERAL = ("lateral", "L", "LL", "RL", "LATERAL")


def projection_of(view: str) -> str:
    """`frontal` or `lateral` for a film's view (PA, AP, L, ...), the two that every table tells apart; else empty."""
    if not view:
        return ""
    return "lateral" if view in _LATERAL else "frontal"


def inside_release(path: str) -> str:
    """A film's path without the leading `CheXpert-v1.0...` folder; a batch of the download counts as its split."""
    if not path.startswith(_RELEASE):
        return path
    release, _, rest = path.partition("/")
    batch = _BATCH_FOLDER.match(release)
    if batch and not rest.startswith(f"{batch['split']}/"):
        return f"{batch['split']}/{rest}"
    return rest if _RELEASE_FOLDER.match(release) else path


def copy_path(path: str) -> str:
    """Where the square JPEG copy of a film lies below the folder of copies: the path inside the release, as `.jpg`.

    An ending that is none, as of DICOM UIDs (`1.2.276.0.7230010.3`), stays a part of the name.
    """
    return f"{_without_ending(inside_release(path))}.jpg"


FILM_ENDINGS = frozenset(".png .jpg .jpeg .jpe .jfif .tif .tiff .bmp .webp .jp2 .gif .dcm .dicom".split())


def _without_ending(path: str) -> str:
    stem, _, ending = path.rpartition(".")
    return stem if f".{ending.lower()}" in FILM_ENDINGS and stem and not stem.endswith("/") else path


def check_unique(values: Iterable[str], lines: Iterable[int], table: Path, column: str, what: str) -> None:
    """Raises InputError, naming both lines, when two rows have one value. Blank values do not count."""
    values = list(values)
    if len(set(values)) == len(values):
        return
    first: dict[str, int] = {}
    for value, line in zip(values, lines, strict=True):
        if value and value in first:
            reason = f"{what} {quoted(value)} is also that of line {first[value]}; remove or rename one of the two"
            raise InputError(f"{place(table, line, column)}: {reason}")
        first[value] = line


class FilmFinder:
    """Finds the films of a table below a data folder.

    root: the folder that holds `train/`, or the one above the release folder, or the one that the official download was
    unpacked in (`CheXpert-v1.0 batch 2 (train 1)/...`). CheXlocalize lists its validation films as
    `CheXpert-v1.0/valid/...` and keeps them in `val/`. A folder of square copies holds every film as `.jpg`.
    """

    def __init__(self, root: Path) -> None:
        self.root, self._root = Path(root), str(root)
        if not self.root.is_dir():
            raise InputError(f"{self.root}: no such data folder")
        self._batches = [folder for folder in sorted(self.root.glob("CheXpert-v1.0 batch*")) if folder.is_dir()]

    def file(self, path: str) -> Path:
        """The first place of the film that exists, else the first that is tried. `path` as `relative_path` gives it."""
        return self.found(path) or next(self._candidates(path))

    def found(self, path: str) -> Path | None:
        """The first place of the film that exists."""
        first = os.path.join(self._root, inside_release(path))
        if os.path.isfile(first):  # as text: a table has 200,000 paths
            return Path(first)
        return next((file for file in self._candidates(path) if file.is_file()), None)

    def _candidates(self, path: str) -> Iterator[Path]:
        inside = inside_release(path)
        yield self.root / inside
        if inside.startswith("valid/"):
            yield self.root / "val" / inside.removeprefix("valid/")
        yield self.root / path
        split, _, rest = inside.partition("/")
        for batch in self._batches:
            if f"({split}" in batch.name:
                yield batch / rest
            yield batch / inside
        yield self.root / copy_path(path)
