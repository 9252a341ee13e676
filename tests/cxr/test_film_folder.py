"""Films that no table lists: which files of a folder are films, what they are called, and how they are read."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from cxr.files import InputError
from cxr.film_folder import LooseFilms, film_names, find_films
from tests.dicom_films import write_dicom
from tests.films import film_pixels


def test_names_are_unique_and_without_folders(tmp_path):
    files = [tmp_path / name for name in ("a/film.png", "b/film.dcm", "b/film-2.png", "c/film.png", "c/1.2.3")]
    assert film_names(files, anonymous=False) == ["film", "film-2", "film-2-2", "film-3", "1.2.3"]
    assert film_names(files * 2, anonymous=True)[:2] == ["film-01", "film-02"]


def test_a_folder_is_searched_for_films_and_nothing_else(tmp_path):
    pixels = film_pixels(32, 48)
    for name in ("b/ünïcødé 肺.PNG", ".trash/gone.png", ".a.png", "out/overlays/b_Edema.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / name, format="png")
    for name in ("IM0001", "DICOMDIR"):  # as they lie on a hospital's disc
        write_dicom(tmp_path / name, pixels)
    (tmp_path / "notes.txt").write_text("no film")
    found = find_films([tmp_path], anonymous=False, overlays=tmp_path / "out/overlays")
    assert [str(path.relative_to(tmp_path)) for path in found] == ["IM0001", "b/ünïcødé 肺.PNG"]
    assert find_films([tmp_path / ".a.png"], anonymous=False) == [tmp_path / ".a.png"]  # what is named is taken


@pytest.mark.parametrize(
    ("given", "told", "told_anonymously"),
    [
        (["FILEBIRD.png", "../FOLDERBIRD/FILEBIRD.png"], "FILEBIRD.png: given twice", "a film: given twice"),
        ([".", "FILEBIRD.png"], "FILEBIRD.png: given twice", "a film: given twice"),
        (["FILEBIRD.png", "gone.png"], "gone.png: no such file", "argument 2: no such file"),
        (["empty"], "empty: no film in this folder", "argument 1: no film in this folder"),
    ],
)
def test_mistakes_are_told_without_folders(tmp_path, given, told, told_anonymously):
    folder = tmp_path / "FOLDERBIRD"
    (folder / "empty").mkdir(parents=True)
    Image.fromarray(film_pixels(32, 48)).save(folder / "FILEBIRD.png")
    for anonymous, expected in ((False, told), (True, told_anonymously)):
        with pytest.raises(InputError) as caught:
            find_films([folder / name for name in given], anonymous=anonymous)
        assert str(caught.value).startswith(expected)
        assert "FOLDERBIRD" not in str(caught.value)


def test_a_film_that_cannot_be_read_says_why_without_its_folder(tmp_path):
    folder = tmp_path / "it's \\ a FOLDERBIRD"  # a path that is quoted otherwise than it is written
    folder.mkdir()
    (folder / "film.png").touch()
    for anonymous, expected in ((False, "not a readable image (of no format that is known)"), (True, "not a readable")):
        film = LooseFilms([folder / "film.png"], 32, anonymous=anonymous)[0]
        assert film.error.startswith(expected) and film.image is None
        assert "FOLDERBIRD" not in film.error


def test_the_network_is_given_the_centred_square(tmp_path):
    pixels = np.zeros((32, 48), dtype=np.uint8)
    pixels[:, 8:40] = 200
    Image.fromarray(pixels).save(tmp_path / "a.png")
    film = LooseFilms([tmp_path / "a.png"], 16, anonymous=False)[0]
    assert (film.crop.left, film.crop.side) == (8, 32)
    np.testing.assert_allclose(film.image.numpy(), np.full((1, 16, 16), 200 / 255), atol=1e-6)
