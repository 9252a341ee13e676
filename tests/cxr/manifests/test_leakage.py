"""Patients and films in two splits: refused with both lines, in files and packed."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cxr.files import InputError
from cxr.manifests.films import Films, read_films
from cxr.manifests.leakage import check_apart
from cxr.packed import Packing, write_row
from tests.films import alternating_labels, write_film, write_labels

PATHS = {
    "train": [f"train/patient0000{i}/study1/view1_frontal.jpg" for i in range(3)],
    "valid": [f"valid/patient6454{i}/study1/view1_frontal.jpg" for i in range(3)],
    "test": [f"test/patient6474{i}/study1/view1_frontal.jpg" for i in range(3)],
}


@pytest.fixture
def films(tmp_path) -> list[Films]:
    for number, (split, listed) in enumerate(PATHS.items()):
        for row, path in enumerate(listed):
            write_film(tmp_path / path, seed=row + 10 * number)
        write_labels(tmp_path / f"{split}.csv", listed, alternating_labels(3))
    return [read_films(tmp_path / f"{split}.csv", tmp_path) for split in PATHS]


def test_splits_that_are_apart(films):
    assert check_apart(*films) is None
    with pytest.raises(InputError, match="is also in"):  # the same call sees a split that is there twice
        check_apart(*films, films[0])


@pytest.mark.parametrize(("first", "second"), [("train", "valid"), ("train", "test"), ("valid", "test")])
def test_a_patient_in_two_splits_is_refused_with_both_lines(first, second, films):
    one, other = (list(PATHS).index(name) for name in (first, second))
    films[other] = replace(films[other], patients=(films[one].patients[1], *films[other].patients[1:]))
    said = rf"{second}\.csv, line 2: patient '{films[one].patients[1]}' is also in .*{first}\.csv, line 3; "
    with pytest.raises(InputError, match=said):
        check_apart(*films)


def test_a_film_in_two_splits_is_refused_with_both_lines(films, tmp_path):
    shutil.copy(tmp_path / PATHS["train"][1], tmp_path / PATHS["valid"][2])
    with pytest.raises(InputError, match=r"valid\.csv, line 4: the same film as .*train\.csv, line 3"):
        check_apart(*films)


def test_unknown_patients_are_nobodys_twins(films):
    unknown = [replace(split, patients=("",) * 3) for split in films]
    assert check_apart(*unknown) is None
    with pytest.raises(InputError, match="the same film as"):  # content is compared all the same
        check_apart(*unknown, unknown[0])


def pack(folder: Path, name: str, pixels: np.ndarray) -> Films:
    """Packed films (N, S, S) uint8 of one split."""
    folder.mkdir(exist_ok=True)
    write_labels(folder / f"{name}.csv", PATHS[name], alternating_labels(3))
    making = Packing(folder, name, PATHS[name], pixels.shape[1], {"labels": {}})
    for row, film in enumerate(pixels):
        making.done(row, write_row(making.part, row, film))
    making.finish()
    return read_films(folder / f"{name}.csv", folder)


@pytest.fixture
def pixels() -> np.ndarray:
    """(split, film, S, S) uint8 of noise."""
    return np.random.default_rng(0).integers(0, 256, (2, 3, 8, 8), dtype=np.uint8)


def test_packed_films_of_the_same_pixels_are_refused(pixels, tmp_path):
    check_apart(*(pack(tmp_path / "apart", name, pixels[i]) for i, name in enumerate(("train", "valid"))))
    pixels[1, 0] = pixels[0, 2]
    films = [pack(tmp_path / "shared", name, pixels[i]) for i, name in enumerate(("train", "valid"))]
    with pytest.raises(InputError, match=r"valid\.csv, line 2: the same film as .*train\.csv, line 4"):
        check_apart(*films)


def test_packed_films_of_one_crc32_may_be_different(pixels, tmp_path):
    """A crc32 is linear: adding the same polynomial multiple to pixels keeps it."""
    pixels[1, 0] = pixels[0, 2]
    polynomial = (1 << 32) | 0x04C11DB7  # bits of a byte are taken lowest first, so the pattern is written reversed
    pattern = int(f"{polynomial:033b}"[::-1], 2).to_bytes(5, "little")
    pixels[1, 0].reshape(-1)[:5] ^= np.frombuffer(pattern, np.uint8)
    films = [pack(tmp_path, name, pixels[i]) for i, name in enumerate(("train", "valid"))]
    assert films[0].packed.crc(PATHS["train"][2]) == films[1].packed.crc(PATHS["valid"][0]) is not None
    check_apart(*films)


def test_names_of_patients_are_shown_on_one_line(films):
    hostile = tuple("a\nb\x1b[31m" for _ in range(3))
    with pytest.raises(InputError) as caught:
        check_apart(*(replace(split, patients=hostile) for split in films))
    assert re.search(r"patient 'a\\nb\\x1b", str(caught.value)) and "\n" not in str(caught.value)
