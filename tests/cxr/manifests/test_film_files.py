"""Where films lie: the first place that exists, put together when it is asked for, in every process."""

import pickle

import pytest

from cxr.files import InputError
from cxr.manifests.film_files import FilmFinder, located

PATHS = ("CheXpert-v1.0/train/a.jpg", "CheXpert-v1.0/valid/b.jpg", "CheXpert-v1.0/valid/c.jpg", "d.png")


@pytest.fixture
def places(tmp_path):
    """The files of PATHS: as listed, of validation below val/, with the release folder, and as a square copy."""
    found = [tmp_path / name for name in ("train/a.jpg", "val/b.jpg", "CheXpert-v1.0/valid/c.jpg", "d.jpg")]
    for file in found:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    return found


def test_files_are_those_that_the_finder_finds_one_by_one(places, tmp_path):
    files = located(PATHS, (2, 3, 4, 5), tmp_path / "films.csv", tmp_path)
    finder = FilmFinder(tmp_path)
    assert list(files) == places == [finder.file(path) for path in PATHS]
    assert (files[-1], files[1:3], len(files)) == (places[-1], tuple(places[1:3]), 4)
    assert list(pickle.loads(pickle.dumps(files))) == places
    with pytest.raises(IndexError):
        files[4]


def test_the_first_film_that_is_nowhere_is_named_with_its_line(places, tmp_path):
    places[1].unlink()
    places[3].unlink()
    with pytest.raises(InputError) as found:
        located(PATHS, (2, 3, 5, 8), tmp_path / "films.csv", tmp_path)
    expected = f"no film at {tmp_path / 'valid/b.jpg'}; is {tmp_path} complete?"
    assert str(found.value) == f"{tmp_path / 'films.csv'}, line 3, Path: {expected}"
    assert FilmFinder(tmp_path).file(PATHS[1]) == tmp_path / "valid/b.jpg"
