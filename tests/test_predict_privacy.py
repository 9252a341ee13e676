"""predictImage.py and what films say of patients: of it nothing comes out, but for file names without --anonymous."""

from __future__ import annotations

import logging
from pathlib import Path

import pydicom
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from cxr.labels import CHEXPERT
from tests.dicom_films import CANARY, set_canaries, write_dicom
from tests.films import film_pixels
from tests.predicting import predict, results, save_patch_network


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    return save_patch_network(tmp_path_factory.mktemp("weights") / "patches")


READABLE, UNREADABLE = 5, 3


def films_with_canaries(folder: Path) -> Path:
    """Films that can be read and some that cannot, every word in them CANARY; FOLDERBIRD / FILEBIRD are names."""
    place = folder / "FOLDERBIRD"
    place.mkdir()
    write_dicom(place / "FILEBIRD1.dcm", film_pixels(), canaries=True)
    write_dicom(place / "FILEBIRD2", film_pixels(seed=1), canaries=True, PhotometricInterpretation="MONOCHROME1")
    set_odd_canaries(place / "FILEBIRD2")
    film, note = Image.fromarray(film_pixels()), PngInfo()
    note.add_text("Description", CANARY)
    film.save(place / "FILEBIRD3.png", pnginfo=note)
    film.save(place / "FILEBIRD4.tif", description=CANARY, artist=CANARY)
    exif = Image.Exif()
    exif[_IMAGE_DESCRIPTION] = CANARY
    film.save(place / "FILEBIRD5.jpg", comment=CANARY, exif=exif)

    write_dicom(place / "FILEBIRD6.dcm", film_pixels(), canaries=True, PhotometricInterpretation=CANARY)
    (place / "FILEBIRD7.png").write_bytes((place / "FILEBIRD3.png").read_bytes()[:500])
    (place / "FILEBIRD8.jpg").write_text(CANARY)
    return place


_IMAGE_DESCRIPTION = 0x010E


def set_odd_canaries(path: Path) -> None:
    film = pydicom.dcmread(path)
    set_canaries(film, odd=True)
    film.save_as(path)


@pytest.mark.parametrize("anonymous", [False, True])
def test_nothing_that_a_film_says_comes_out(weights, tmp_path, capfd, caplog, recwarn, anonymous):
    films = films_with_canaries(tmp_path)
    caplog.clear()
    recwarn.clear()
    out = tmp_path / "out"
    with caplog.at_level(logging.DEBUG):
        assert predict(weights, out, films, *(["--anonymous"] if anonymous else []), "--overlays", "all") == 2
    told = results(out)[1]
    assert (len(told["films"]), len(told["unreadable"])) == (READABLE, UNREADABLE)
    printed = "".join(capfd.readouterr())
    files = [path for path in out.rglob("*") if path.is_file()]
    assert len(files) == 3 + READABLE * len(CHEXPERT.names)
    said = [
        printed,
        caplog.text,
        *(str(warning.message) for warning in recwarn.list),
        *(str(p.relative_to(out)) for p in files),
    ]
    said += [path.read_bytes().decode("latin-1") for path in files]
    assert all(Image.open(path).info == {} for path in files if path.suffix == ".png")  # where text could be packed
    for text in said:
        assert CANARY not in text
        assert "FOLDERBIRD" not in text
        assert not anonymous or "FILEBIRD" not in text
    if not anonymous:  # then the search is able to find something
        assert all(f"FILEBIRD{number}" in printed for number in range(1, READABLE + UNREADABLE + 1))
