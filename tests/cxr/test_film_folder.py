"""Films that no table lists: which files of a folder are films, what they are called, and how they are read."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, features

from cxr.files import InputError
from cxr.film_folder import LONGEST_NAME, FilmFile, FilmFolder, UniqueNames, film_names, find_films, shortened
from tests.dicom_films import write_dicom
from tests.films import film_pixels


def save(path: Path, seed: int = 0, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(film_pixels(32, 48, seed)).save(path, **({"format": "png"} | options))
    return path


def below(*names: str) -> list[FilmFile]:
    return [FilmFile(Path("root", name), name) for name in names]


def found_below(folder: Path, **options: object) -> list[str]:
    return [film.below for film in find_films([folder], anonymous=False, **options).films]


# ---------------------------------------------------------------------------------------------------------------- names


def test_names_are_paths_below_the_given_folder():
    films = below("a/film.png", "b/film.dcm", "film.jpeg", "c/1.2.3", "d/x.gif")
    assert film_names(films, anonymous=False) == ["a_film", "b_film", "film", "c_1.2.3", "d_x"]
    assert film_names(films * 2, anonymous=True)[:2] == ["film-01", "film-02"]


@pytest.mark.parametrize("given", ["CheXpert-v1.0/valid", "CheXpert-v1.0/valid/patient64541", "."])
def test_films_of_chexpert_are_named_after_patient_study_and_view(tmp_path, given):
    path = "CheXpert-v1.0/valid/patient64541/study1/view1_frontal.jpg"
    save(tmp_path / path)
    found = find_films([tmp_path / given], anonymous=False).films
    assert film_names(found, anonymous=False) == ["patient64541_study1_view1_frontal"]
    alone = find_films([tmp_path / path], anonymous=False).films
    assert film_names(alone, anonymous=False) == ["patient64541_study1_view1_frontal"]


def test_no_two_names_are_one_file_on_any_file_system():
    films = below("a.png", "A.dcm", "a-2.png", "b/c.png", "b_c.png", "\u00e9.png", "e\u0301.png", "a.jpg", "a-2.jpg")
    names = film_names(films, anonymous=False)
    assert names[:5] == ["a", "A-2", "a-2-2", "b_c", "b_c-2"]
    assert len({name.casefold() for name in names}) == len(films)
    assert names[6] == "e\u0301-2"


def test_counting_up_gives_each_number_once():
    unique = UniqueNames()
    assert [unique.of(name) for name in ["x"] * 3 + ["x-2", "x"]] == ["x", "x-2", "x-3", "x-2-2", "x-4"]


def test_names_are_printable_whatever_the_file_is_called():
    raw = os.fsdecode(b"bad\xff\x1b[31m\nname\xc2\x85.png")
    name = film_names(below(raw), anonymous=False)[0]
    assert name == "bad%FF%1B[31m%0Aname%C2%85" and name.isprintable() and name.encode()


def test_long_names_are_shortened_to_different_ones():
    long = [f"{'x' * 120}{middle}{'y' * 120}" for middle in ("1", "2", "\u00fc" * 60)]
    names = film_names(below(*[f"{name}.png" for name in long]), anonymous=False)
    assert len(set(names)) == 3
    for name in names:
        assert 0.9 * LONGEST_NAME < len(name.encode()) <= LONGEST_NAME
        assert name.startswith("x" * 60) and name.endswith("y" * 60)
    assert film_names(below(f"{long[0]}.png"), anonymous=False) == names[:1]  # the same alone as among others
    assert shortened("\u00fc" * 100, 50).encode().decode() == shortened("\u00fc" * 100, 50)


# -------------------------------------------------------------------------------------------------------------- folders


def test_a_folder_is_searched_for_films_and_what_is_left_out_is_counted(tmp_path):
    for name in ("b/ünïcødé 肺.PNG", ".trash/gone.png", ".a.png", "out/overlays/b_Edema.png"):
        save(tmp_path / name)
    for name in ("IM0001", "DICOMDIR"):  # as they lie on a hospital's disc
        write_dicom(tmp_path / name, film_pixels(32, 48))
    (tmp_path / "notes.txt").write_text("not a film")
    (tmp_path / "out/predictions.json").write_text("of an earlier run")
    found = find_films([tmp_path], anonymous=False, overlays=tmp_path / "out/overlays")
    assert [film.below for film in found.films] == ["IM0001", "b/ünïcødé 肺.PNG"]
    assert found.left_out_line() == "left out of the folders: 1 files that are not images, 3 hidden files and indexes"
    named = find_films([tmp_path / ".a.png"], anonymous=False)
    assert [film.path for film in named.films] == [tmp_path / ".a.png"]  # what is named is taken
    assert named.left_out_line() == ""


@pytest.mark.parametrize(
    ("ending", "format"),
    [
        ("jfif", "JPEG"),
        ("jpe", "JPEG"),
        ("JPEG", "JPEG"),
        ("bmp", "BMP"),
        ("webp", "WEBP"),
        ("jp2", "JPEG2000"),
        ("gif", "GIF"),
        ("tif", "TIFF"),
    ],
)
def test_films_of_every_ending_are_found_and_read(tmp_path, ending, format):
    if format == "JPEG2000" and not features.check("jpg_2000"):
        pytest.skip("this Pillow reads no JPEG 2000")
    options = {"lossless": True} if format == "WEBP" else {"quality": 100} if format == "JPEG" else {}
    save(tmp_path / f"a.{ending}", format=format, **options)
    film = FilmFolder(find_films([tmp_path], anonymous=False).films, 32, anonymous=False)[0]
    assert (film.name, film.error) == ("a", "")
    expected = film_pixels(32, 48)[:, 8:40] / 255
    np.testing.assert_allclose(film.image[0].numpy(), expected, atol=0.02 if format == "JPEG" else 1e-6)


def test_links_are_followed_once(tmp_path):
    films, elsewhere = tmp_path / "films", tmp_path / "elsewhere"
    real, linked = save(films / "z.png"), save(elsewhere / "deep/linked.png", 1)
    alone = save(tmp_path / "alone.png", 2)
    (films / "a_link.png").symlink_to(real)  # sorted before the film itself, which is kept all the same
    (films / "folder").symlink_to(elsewhere)
    (films / "again").symlink_to(elsewhere / "deep")
    (films / "one.png").symlink_to(alone)
    (films / "gone.png").symlink_to(tmp_path / "nowhere.png")
    (films / "circle").symlink_to(films / "circle")
    (films / "up").symlink_to(tmp_path)
    (films / "self").symlink_to(films)
    (elsewhere / "back").symlink_to(films)
    found = find_films([films], anonymous=False)
    assert {film.path.resolve() for film in found.films} == {real, linked, alone}
    assert [film.below for film in found.films] == ["again/linked.png", "one.png", "z.png"]
    expected = {"broken links": 2, "links upwards": 3, "links to what is there already": 1}
    assert {kind: count for kind, count in found.left_out.items() if count} == expected


def test_a_link_from_one_given_folder_into_another_ends_nothing(tmp_path):
    save(tmp_path / "one/a.png")
    save(tmp_path / "two/b.png", 1)
    (tmp_path / "two/linked.png").symlink_to(tmp_path / "one/a.png")
    found = find_films([tmp_path / "one", tmp_path / "two"], anonymous=False)
    assert [film.below for film in found.films] == ["a.png", "b.png"]
    assert found.left_out_line() == "left out of the folders: 1 links to what is there already"
    for again in ("two", "two/b.png"):
        with pytest.raises(InputError, match="given twice"):
            find_films([tmp_path / "one", tmp_path / "two", tmp_path / again], anonymous=False)


def test_folders_that_cannot_be_read_are_counted(tmp_path, monkeypatch):
    save(tmp_path / "a.png")
    save(tmp_path / "sealed/b.png")
    scan = os.scandir

    def sealed(path):  # root may read everything
        if Path(path).name == "sealed":
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", sealed)
    found = find_films([tmp_path], anonymous=False)
    assert [film.below for film in found.films] == ["a.png"]
    assert found.left_out == {"folders that cannot be read": 1}
    with pytest.raises(InputError, match="sealed: Permission denied"):
        find_films([tmp_path / "sealed"], anonymous=False)


def test_deep_folders_are_searched(tmp_path):
    deep = tmp_path.joinpath(*["d"] * 900)
    made = tmp_path
    for part in deep.relative_to(tmp_path).parts:
        made = made / part
        made.mkdir()
    save(deep / "a.png")
    names = film_names(find_films([tmp_path], anonymous=False).films, anonymous=False)
    assert len(names) == 1 and len(names[0]) <= LONGEST_NAME and names[0].endswith("d_a")


@pytest.mark.parametrize(
    ("given", "told", "told_anonymously"),
    [
        (["FILEBIRD.png", "../FOLDERBIRD/FILEBIRD.png"], "FILEBIRD.png: given twice", "a film: given twice"),
        ([".", "FILEBIRD.png"], "FILEBIRD.png: given twice", "a film: given twice"),
        (["FILEBIRD.png", "gone.png"], "gone.png: no such file", "argument 2: no such file"),
        (["gone\x1b[31m.png"], "gone\\x1b[31m.png: no such file", "argument 1: no such file"),
        (["FILEBIRD.png/x.png"], "x.png: no such file", "argument 1: no such file"),
        (["empty"], "empty: no film in this folder", "argument 1: no film in this folder"),
    ],
)
def test_mistakes_are_told_without_folders(tmp_path, given, told, told_anonymously):
    folder = tmp_path / "FOLDERBIRD"
    (folder / "empty").mkdir(parents=True)
    save(folder / "FILEBIRD.png")
    for anonymous, expected in ((False, told), (True, told_anonymously)):
        with pytest.raises(InputError) as caught:
            find_films([folder / name for name in given], anonymous=anonymous)
        assert str(caught.value).startswith(expected)
        assert "FOLDERBIRD" not in str(caught.value)


# -------------------------------------------------------------------------------------------------------------- reading


def test_a_film_that_cannot_be_read_says_why_without_its_folder(tmp_path):
    folder = tmp_path / "it's \\ a FOLDERBIRD"  # a path that is quoted otherwise than it is written
    folder.mkdir()
    (folder / "film.png").touch()
    for anonymous, expected in ((False, "not a readable image (of no format that is known)"), (True, "not a readable")):
        films = [FilmFile(folder / name, name) for name in ("film.png", "gone.png")]
        film, gone = FilmFolder(films, 32, anonymous=anonymous)
        assert film.error.startswith(expected) and film.image is None
        assert gone.error.startswith("no such film" if not anonymous else "not a readable")
        assert "FOLDERBIRD" not in film.error + gone.error


def test_the_network_is_given_the_centred_square(tmp_path):
    pixels = np.zeros((32, 48), dtype=np.uint8)
    pixels[:, 8:40] = 200
    Image.fromarray(pixels).save(tmp_path / "a.png")
    film = FilmFolder([FilmFile(tmp_path / "a.png", "a.png")], 16, anonymous=False)[0]
    assert (film.crop.left, film.crop.side) == (8, 32)
    np.testing.assert_allclose(film.image.numpy(), np.full((1, 16, 16), 200 / 255), atol=1e-6)
