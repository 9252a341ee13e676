"""Film identity out of a path: film id, patient, study, view; and which paths stay below the data folder.

A manifest's own columns come first; this is for tables that have none. CheXpert writes who and what into the path:
`CheXpert-v1.0/valid/patient64541/study1/view1_frontal.jpg`.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from cxr.files import InputError, place, quoted

_RELEASE = "CheXpert-v1.0"
_RELEASE_FOLDER = re.compile(r"CheXpert-v1\.0[^/]*$")
_BATCH_FOLDER = re.compile(r"CheXpert-v1\.0 batch \d+ \((?P<split>train|valid)")
_CHEXPERT_FILM = re.compile(r"(?:^|/)(patient\d+)/(study\d+)/(view\d+_[a-z]+)$")
_PATIENT = re.compile(r"(?<![A-Za-z])patient\d+")
_ORDINARY = re.compile(r"(?:\w[\w.&() -]*/)*\w[\w.&() -]*", re.ASCII)
_LONGEST_PART = 255  # bytes of a file's name that file systems take
_LONGEST_ID = 200  # bytes; a map's name has a task and an ending behind it


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


_USUAL = re.compile(
    r"(?:CheXpert-v1\.0(?:-small)?/)?(?:train|valid|val|test)"
    r"/(patient\d{1,9})/(study\d{1,9})/(view\d{1,9}_(frontal|lateral))\.jpg",
    re.ASCII,
)


class PathFacts(NamedTuple):
    """Normalised paths of N films, and the film ids, patients, studies and views that are read from them."""

    paths: list[str]
    films: list[str]
    patients: list[str]
    studies: list[str]
    views: list[str]


def path_facts(paths: Iterable[str], source: Callable[[int], str]) -> PathFacts:
    """The facts of many paths, as `relative_path`, `film_id`, `patient_of`, `study_of` and `view_of` give them.

    CheXpert's own form is read in one match, for a table has 200,000 of them; a patient's and a study's name is kept
    once for films that follow each other. source: the place of the path with an index, for the message. Raises
    InputError for a path that is not one below the data folder.
    """
    facts = PathFacts([], [], [], [], [])
    add_path, add_film, add_patient, add_study, add_view = (column.append for column in facts)
    patient = study = folder = ""
    for index, path in enumerate(paths):
        found = _USUAL.fullmatch(path)
        if found is None:
            path = path if is_ordinary(path) else relative_path(path, source(index))
            film, patient, study, view = film_id(path), patient_of(path), study_of(path), view_of(path)
            folder = ""
        else:
            of_patient, of_study, name, view = found.groups()
            film = f"{of_patient}_{of_study}_{name}"
            if of_patient != patient or of_study != folder:
                patient = patient if of_patient == patient else of_patient
                study, folder = f"{patient}/{of_study}", of_study
            view = sys.intern(view)
        add_path(path)
        add_film(film)
        add_patient(patient)
        add_study(study)
        add_view(view)
    return facts


def film_id(path: str) -> str:
    """`patient64541_study1_view1_frontal`; of another form of path, all of it below the release, joined by `_`.

    The ending of the file is left out. Two paths may have one id: whoever reads a table checks that none has.
    """
    inside = _without_ending(inside_release(path))
    found = _CHEXPERT_FILM.search(inside)
    return "_".join(found.groups()) if found else inside.replace("/", "_")


def check_film_ids(ids: Sequence[str], lines: Iterable[int], table: Path, column: str) -> None:
    """Raises InputError for an id that cannot be a file's name: evidence, maps and pictures of a film are called so.

    A path in its place would write outside the results folder.
    """
    together = " ".join(["", *ids])  # looked at as one text: a table has 200,000 ids
    if together.isascii() and not _suspect(together) and max(map(len, ids), default=0) <= _LONGEST_ID:
        return
    for value, line in zip(ids, lines, strict=True):
        reason = ""
        if len(value.encode("utf-8", "surrogatepass")) > _LONGEST_ID:
            reason = f"longer than {_LONGEST_ID} bytes, and files are named after it; a column Film gives a shorter one"
        elif value[:1] == "." or _suspect(value.replace(" .", "")):
            reason = "files are named after it: no / and \\, no . at its start, nothing unprintable"
        if reason:
            raise InputError(f"{place(table, line, column)}: {quoted(value)} cannot be a film id: {reason}")


def _suspect(text: str) -> bool:
    """Whether one of some ids, with a blank before each, may be no file's name."""
    return "/" in text or "\\" in text or " ." in text or not text.isprintable()


def patient_of(path: str) -> str:
    """`patient64541`; empty where a path names nobody."""
    found = _PATIENT.search(path)
    return found.group() if found else ""


def study_of(path: str) -> str:
    """`patient64541/study1`; empty where the path is not of CheXpert's form."""
    found = _CHEXPERT_FILM.search(_without_ending(path))
    return "/".join(found.groups()[:2]) if found else ""


_VIEWS = ("frontal", "lateral")


def view_of(path: str) -> str:
    """`frontal` or `lateral` by the file's name; empty where it says neither."""
    name = path.rpartition("/")[2]
    return next((view for view in _VIEWS if view in name), "")


_LATERAL = re.compile(r"l|ll|rl|[lr]?lat|(.*\W)?(lat|lateral)", re.IGNORECASE)
_NO_VIEW = ("", "unknown", "other", "?", "-")


def projection_of(view: str) -> str:
    """`frontal` or `lateral` for a film's view (PA, AP, L, ...), the two that every table tells apart; else empty."""
    if view.lower() in _NO_VIEW:
        return ""
    return "lateral" if _LATERAL.fullmatch(view) else "frontal"


def inside_release(path: str) -> str:
    """A film's path without the leading `CheXpert-v1.0...` folder; a batch of the download counts as its split."""
    if not path.startswith(_RELEASE):
        return path
    release, _, rest = path.partition("/")
    is_release, split = _release(release)
    if split and not rest.startswith(f"{split}/"):
        return f"{split}/{rest}"
    return rest if is_release else path


@lru_cache(maxsize=64)
def _release(folder: str) -> tuple[bool, str]:
    """Whether a folder is a release of CheXpert, and the split of a batch of the official download."""
    batch = _BATCH_FOLDER.match(folder)
    return _RELEASE_FOLDER.match(folder) is not None, batch["split"] if batch else ""


def copy_path(path: str) -> str:
    """Where the square JPEG copy of a film lies below the folder of copies: the path inside the release, as `.jpg`.

    An ending that is none, as of DICOM UIDs (`1.2.276.0.7230010.3`), stays a part of the name.
    """
    return f"{_without_ending(inside_release(path))}.jpg"


FILM_ENDINGS = frozenset(".png .jpg .jpeg .jpe .jfif .tif .tiff .bmp .webp .jp2 .gif .dcm .dicom".split())


def _without_ending(path: str) -> str:
    stem, _, ending = path.rpartition(".")
    return stem if f".{ending.lower()}" in FILM_ENDINGS and stem and not stem.endswith("/") else path
