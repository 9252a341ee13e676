"""Films that no table lists: finds them in files and folders as given, names them, and reads them.

A film's name says which film it is: its path below the given folder, for CheXpert's patient, study and view. With
`anonymous`, films are numbered and neither names nor reasons that quote a file come out.
"""

from __future__ import annotations

import hashlib
import os
import stat
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from cxr.dataset import network_input
from cxr.dicom.header import is_dicom
from cxr.files import InputError, place, printable
from cxr.images import Crop, open_film, read_stored
from cxr.paths import FILM_ENDINGS, film_id, study_of
from cxr.pixels.film_warnings import film_warnings
from cxr.pixels.grey import Grey

LONGEST_NAME = 150
"""Bytes of a film's name in results; the names of its pictures add a label."""

LONGEST_FILE_NAME = 200
"""Bytes of a picture's name without its ending; file systems take 255, and a temporary name is longer."""


# -------------------------------------------------------------------------------------------------------------- finding


@dataclass(frozen=True)
class FilmFile:
    """A film's file. below: its path below the folder that was given; of a file that was given, its name."""

    path: Path
    below: str


@dataclass
class FoundFilms:
    """films: in the order given, each folder's sorted; left_out: kind of file -> how many of a folder were left out."""

    films: list[FilmFile] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)

    def left_out_line(self) -> str:
        """One line for the user; empty when everything was taken."""
        counts = ", ".join(f"{count} {kind}" for kind, count in sorted(self.left_out.items()) if count)
        return f"left out of the folders: {counts}" if counts else ""


_THERE_ALREADY = "links to what is there already"


def find_films(given: Sequence[Path], *, anonymous: bool, overlays: Path | None = None) -> FoundFilms:
    """The files given, and those of a folder and its subfolders that have an image's ending or are DICOM.

    Linked files and folders are followed, each once. Left out of a folder, and counted: hidden files, what is not an
    image, links that lead nowhere, upwards or to a film that is there already. `overlays`, the folder of an earlier
    run's pictures, is not searched.
    Raises InputError when a path is not there, a folder holds no film, or everything in a path was given before.
    """
    found = FoundFilms()
    seen: set[str] = set()
    for number, path in enumerate(given, start=1):
        called = f"argument {number}" if anonymous else printable(path.name or str(path))
        try:
            films = _films_of(path, overlays, found.left_out)
        except OSError as error:  # a name that is too long, a folder that must not be read
            raise InputError(f"{called}: {error.strerror}") from None
        if films is None:
            raise InputError(f"{called}: no such file or folder")
        if not films:
            raise InputError(f"{called}: no film in this folder; expected {', '.join(sorted(FILM_ENDINGS))}, or DICOM")
        new = {real: film for real, film in films if real not in seen}
        if not new:
            twice = "a film" if anonymous else printable(path.name or str(path))
            raise InputError(f"{twice}: given twice; name each file or folder once")
        found.left_out += Counter({_THERE_ALREADY: len(films) - len(new)})
        seen |= set(new)
        found.films += new.values()
    return found


def _films_of(path: Path, overlays: Path | None, left_out: Counter[str]) -> list[tuple[str, FilmFile]] | None:
    """(real path, film) of a file or of everything in a folder; None when there is neither."""
    kind = _kind(path)
    if kind == "file":
        return [(os.path.realpath(path), FilmFile(path, path.name))]
    return _Search(path, overlays, left_out).films() if kind == "folder" else None


def _kind(path: Path) -> str:
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return ""
    return "folder" if stat.S_ISDIR(mode) else "file" if stat.S_ISREG(mode) else ""


class _Search:
    """A walk through a folder that follows links after everything else, so that a film is known by its own path."""

    def __init__(self, root: Path, overlays: Path | None, left_out: Counter[str]) -> None:
        self.root, self.left_out = root, left_out
        self.real_root = os.path.realpath(root)
        skipped = None if overlays is None else os.path.realpath(overlays)
        self.visited = {skipped} - {self.real_root, None}
        self.found: dict[str, Path] = {}
        self.links: list[Path] = []

    def films(self) -> list[tuple[str, FilmFile]]:
        self._walk(str(self.root), self.real_root)
        while self.links:
            links, self.links = sorted(self.links), []
            for link in links:
                self._follow(link)
        ordered = sorted(self.found.items(), key=lambda item: item[1])
        return [(real, FilmFile(path, path.relative_to(self.root).as_posix())) for real, path in ordered]

    def _walk(self, folder: str, real: str) -> None:
        folders = [(folder, real)]
        while folders:
            folder, real = folders.pop()
            if real in self.visited:
                continue
            self.visited.add(real)
            for entry in self._entries(folder):
                if entry.name.startswith(".") or entry.name == "DICOMDIR":
                    self.left_out["hidden files and indexes"] += entry.name not in _OURS
                elif entry.is_symlink():
                    self.links.append(Path(entry.path))
                elif entry.is_dir(follow_symlinks=False):
                    folders.append((entry.path, os.path.join(real, entry.name)))
                else:
                    self._file(Path(entry.path), os.path.join(real, entry.name))

    def _entries(self, folder: str) -> Iterator[os.DirEntry[str]]:
        try:
            with os.scandir(folder) as entries:
                yield from sorted(entries, key=lambda entry: entry.name)
        except PermissionError:
            if folder == str(self.root):
                raise
            self.left_out["folders that cannot be read"] += 1

    def _follow(self, link: Path) -> None:
        real = os.path.realpath(link)
        try:
            kind = _kind(link)
        except OSError:  # a circle of links
            kind = ""
        if not kind:
            self.left_out["broken links"] += 1
        elif kind == "folder" and os.path.join(self.real_root, "").startswith(os.path.join(real, "")):
            self.left_out["links upwards"] += 1
        elif real in (self.visited if kind == "folder" else self.found):
            self.left_out[_THERE_ALREADY] += 1
        elif kind == "folder":
            self._walk(str(link), real)
        else:
            self._file(link, real)

    def _file(self, path: Path, real: str) -> None:
        if real in self.found:
            self.left_out[_THERE_ALREADY] += 1
        elif _kind(path) == "file" and (path.suffix.lower() in FILM_ENDINGS or is_dicom(path)):
            self.found[real] = path
        else:
            self.left_out["files that are not images"] += path.name not in _OURS


_OURS = (".lock", "predictions.csv", "predictions.json", "predictions_wide.csv")
"""Files of an earlier run, which are not worth a word."""


# --------------------------------------------------------------------------------------------------------------- naming


def film_names(films: Sequence[FilmFile], *, anonymous: bool) -> list[str]:
    """A name for each film, no two alike even where upper and lower case are one: printable, without `/`.

    CheXpert's `patient64541_study1_view1_frontal`, else the path below the given folder without its ending, joined by
    `_`; the second of a name is `name-2`. With `anonymous` a number.
    """
    if anonymous:
        return [f"film-{number:0{len(str(len(films)))}d}" for number in range(1, len(films) + 1)]
    names = UniqueNames()
    return [names.of(shortened(_printable_name(film), LONGEST_NAME)) for film in films]


def _printable_name(film: FilmFile) -> str:
    path = film.path.as_posix()
    name = film_id(path if study_of(path) else film.below)
    return name if name.isprintable() else "".join(map(_percent_encoded, name))


def _percent_encoded(character: str) -> str:
    """`%0A` for a line end, `%FF` for a byte that is not UTF-8; printable characters stay."""
    if character.isprintable():
        return character
    return "".join(f"%{byte:02X}" for byte in character.encode("utf-8", "surrogateescape"))


def shortened(name: str, most: int) -> str:
    """The name in at most `most` bytes of UTF-8: both ends of a longer one, around a fingerprint of the whole."""
    data = name.encode()
    if len(data) <= most:
        return name
    fingerprint = hashlib.sha256(data).hexdigest()[:8]
    side = (most - len(fingerprint) - 2) // 2
    return f"{data[:side].decode(errors='ignore')}~{fingerprint}~{data[-side:].decode(errors='ignore')}"


class UniqueNames:
    """Names of which no two are the same file, on any file system; each costs the same however many there are."""

    def __init__(self) -> None:
        self._count: dict[str, int] = {}

    def of(self, name: str) -> str:
        """The name, or the first of `name-2`, `name-3`, ... that is not taken."""
        key, unique = _folded(name), name
        while _folded(unique) in self._count:
            self._count[key] += 1
            unique = f"{name}-{self._count[key]}"
        self._count[_folded(unique)] = 1
        return unique


def _folded(name: str) -> str:
    return name.casefold() if name.isascii() else unicodedata.normalize("NFC", name).casefold()


# -------------------------------------------------------------------------------------------------------------- reading


@dataclass(frozen=True)
class ReadFilm:
    """A film as read. image: the crop, (1, S, S) in [0, 1], or None; `error` then says why, in one line."""

    name: str
    file: Path
    warnings: tuple[str, ...] = ()
    image: Tensor | None = None
    crop: Crop | None = None
    error: str = ""


class FilmFolder(Dataset[ReadFilm]):
    """Films as the network's input; one that cannot be read carries its error instead."""

    def __init__(
        self, films: Sequence[FilmFile], image_size: int, *, anonymous: bool, grey: Grey = Grey.STORED
    ) -> None:
        self.files = [film.path for film in films]
        self.names = film_names(films, anonymous=anonymous)
        self.image_size = image_size
        self.anonymous = anonymous
        self.grey = grey

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> ReadFilm:
        name, file = self.names[index], self.files[index]
        try:
            stored = read_stored(file)
            film = stored.grey(self.grey)
        except (InputError, OSError) as error:
            return ReadFilm(name, file, error=self._reason(error, file))
        image, crop = network_input(film, self.image_size)
        return ReadFilm(name, file, tuple(film_warnings(stored.image, film)), image, crop)

    def read_again(self, film: ReadFilm) -> Image.Image:
        """The whole film in grey. Raises InputError that names the film and not its path."""
        try:
            return open_film(film.file, self.grey)
        except (InputError, OSError) as error:
            raise InputError(self._reason(error, film.file)) from None

    def _reason(self, error: Exception, file: Path) -> str:
        """The error without the path of the film's file; OSError: a file that is gone or must not be read."""
        if self.anonymous:
            return "not a readable film (without --anonymous the reason is given)"
        reason = getattr(error, "strerror", None) or str(error)
        return printable(reason.removeprefix(f"{place(file)}: "))
