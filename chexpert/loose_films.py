"""Films that no table lists: files and folders as they are given, and what may be said of them.

A film's folder is never repeated, only its file's name; `anonymous` keeps that back too and numbers the films.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor
from torch.utils.data import Dataset

from chexpert.files import InputError
from chexpert.images import Crop, is_dicom, open_image, resize, to_grey, to_unit
from chexpert.plausibility import doubts

ENDINGS = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".dcm", ".dicom")


@dataclass(frozen=True)
class LooseFilm:
    """A film as read. image: the crop, (1, S, S) in [0, 1]. `error` says why there is none, in one line."""

    name: str
    file: Path
    doubts: tuple[str, ...] = ()
    image: Tensor | None = None
    crop: Crop | None = None
    error: str = ""


def find_films(given: Sequence[Path], *, anonymous: bool) -> list[Path]:
    """The files given, and those of a folder and its subfolders that have an image's ending or are DICOM, by name.

    Raises InputError when a path is not there, a folder holds no film, or a file is given twice.
    """
    files: list[Path] = []
    for number, path in enumerate(given, start=1):
        called = f"argument {number}" if anonymous else path.name
        if path.is_dir():
            found = sorted(file for file in path.rglob("*") if file.is_file() and _is_film(file))
            if not found:
                raise InputError(f"{called}: no film in this folder; expected {', '.join(ENDINGS)}, or DICOM")
            files += found
        elif path.is_file():
            files.append(path)
        else:
            raise InputError(f"{called}: no such file or folder")
    if len({file.resolve() for file in files}) < len(files):
        raise InputError("a film is given twice; name each file or folder once")
    return files


def _is_film(file: Path) -> bool:
    return not file.name.startswith(".") and (file.suffix.lower() in ENDINGS or is_dicom(file))


def film_names(files: Sequence[Path], *, anonymous: bool) -> list[str]:
    """A name for each, no two alike: the file's own without its ending (the second `a` is `a-2`), or its number."""
    if anonymous:
        return [f"film-{number:0{len(str(len(files)))}d}" for number in range(1, len(files) + 1)]
    names: list[str] = []
    for file in files:
        stem = file.stem if file.suffix.lower() in ENDINGS else file.name
        name, count = stem, 1
        while name in names:
            count += 1
            name = f"{stem}-{count}"
        names.append(name)
    return names


class LooseFilms(Dataset[LooseFilm]):
    """Films as the network takes them, cropped and resized like CheXpert's; one that cannot be read says so."""

    def __init__(self, files: Sequence[Path], image_size: int, *, anonymous: bool) -> None:
        self.files = files
        self.names = film_names(files, anonymous=anonymous)
        self.image_size = image_size
        self.anonymous = anonymous

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> LooseFilm:
        name, file = self.names[index], self.files[index]
        try:
            stored = open_image(file)
            film = to_grey(stored, file)
        except InputError as error:
            return LooseFilm(name, file, error=self._without_path(str(error), file))
        crop = Crop.centred(*film.size)
        image = resize(to_unit(film.crop(crop.box)), self.image_size).clamp_(0, 1)
        return LooseFilm(name, file, tuple(doubts(stored, film)), image, crop)

    def _without_path(self, error: str, file: Path) -> str:
        if self.anonymous:
            return "not a readable film (without --anonymous the reason is given)"
        reason = error.removeprefix(f"{file}: ")
        return reason.replace(str(file), file.name)
