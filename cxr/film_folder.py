"""Films that no table lists: files and folders as they are given, and what may be said of them.

A film's folder is never repeated, only its file's name; `anonymous` keeps that back too and numbers the films.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from cxr.dicom_header import is_dicom
from cxr.files import InputError, place
from cxr.film_warnings import film_warnings
from cxr.grey import Grey
from cxr.images import Crop, open_film, read_stored, resize, to_unit

ENDINGS = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".dcm", ".dicom")


@dataclass(frozen=True)
class LooseFilm:
    """A film as read. image: the crop, (1, S, S) in [0, 1]. `error` says why there is none, in one line."""

    name: str
    file: Path
    warnings: tuple[str, ...] = ()
    image: Tensor | None = None
    crop: Crop | None = None
    error: str = ""


def find_films(given: Sequence[Path], *, anonymous: bool, overlays: Path | None = None) -> list[Path]:
    """The files given, and those of a folder and its subfolders that have an image's ending or are DICOM, by name.

    Left out of a folder: what is hidden, a DICOM medium's index, and the pictures in `overlays`.
    Raises InputError when a path is not there, a folder holds no film, or a file is given twice.
    """
    files: list[Path] = []
    for number, path in enumerate(given, start=1):
        called = f"argument {number}" if anonymous else path.name or str(path)
        try:
            found = _films_in(path, overlays) if path.is_dir() else [path] if path.is_file() else None
        except OSError as error:  # a name that is too long, a folder that must not be read
            raise InputError(f"{called}: {error.strerror}") from None
        if found is None:
            raise InputError(f"{called}: no such file or folder")
        if not found:
            raise InputError(f"{called}: no film in this folder; expected {', '.join(ENDINGS)}, or DICOM")
        files += found
    seen: set[Path] = set()
    for file in files:
        if file.resolve() in seen:
            raise InputError(f"{'a film' if anonymous else file.name}: given twice; name each file or folder once")
        seen.add(file.resolve())
    return files


def _films_in(folder: Path, overlays: Path | None) -> list[Path]:
    files = (file for file in folder.rglob("*") if not _is_hidden(file.relative_to(folder)) and file.is_file())
    if overlays is not None and overlays.resolve() != folder.resolve():
        files = (file for file in files if overlays.resolve() not in file.resolve().parents)
    return sorted(file for file in files if file.suffix.lower() in ENDINGS or is_dicom(file))


def _is_hidden(inside: Path) -> bool:
    return inside.name == "DICOMDIR" or any(part.startswith(".") for part in inside.parts)


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

    def __init__(self, files: Sequence[Path], image_size: int, *, anonymous: bool, grey: Grey = Grey.STORED) -> None:
        self.files = files
        self.names = film_names(files, anonymous=anonymous)
        self.image_size = image_size
        self.anonymous = anonymous
        self.grey = grey

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> LooseFilm:
        name, file = self.names[index], self.files[index]
        try:
            stored = read_stored(file)
            film = stored.grey(self.grey)
        except InputError as error:
            return LooseFilm(name, file, error=self._reason(error, file))
        crop = Crop.centred(*film.size)
        warnings = tuple(film_warnings(stored.image, film))
        return LooseFilm(name, file, warnings, network_input(film, crop, self.image_size), crop)

    def read_again(self, film: LooseFilm) -> Image.Image:
        """The whole film in grey. Raises InputError, as silent about its path as everything here."""
        try:
            return open_film(film.file, self.grey)
        except InputError as error:
            raise InputError(f"{film.name}: {self._reason(error, film.file)}") from None

    def _reason(self, error: InputError, file: Path) -> str:
        """What an error says of a film, without the path of its file."""
        if self.anonymous:
            return "not a readable film (without --anonymous the reason is given)"
        return str(error).removeprefix(f"{place(file)}: ")


def network_input(film: Image.Image, crop: Crop, image_size: int) -> Tensor:
    """The crop of a grey film as the network takes it: (1, S, S) in [0, 1], S = image_size."""
    return resize(to_unit(film.crop(crop.box)), image_size).clamp_(0, 1)
