"""preProcFilms.py: the squares of any manifest, its files beside them, and what training and packing make of them."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pydicom.data import get_testdata_file

import cli
from cxr.dataset import FilmDataset
from cxr.files import write_json
from cxr.manifests.films import read_films
from preprocessing import makeManifest, preProcFilms
from tests.films import film_pixels, write_film
from tests.training_runs import ROOT

SIZE = 64
COUNT = 9
SPLITS = ["train"] * 4 + ["val"] * 2 + ["test"] * 3
REAL = ROOT.parent / "shared" / "real_films"


def squares(manifest: Path, films: Path | None, output: Path, *more: str) -> int:
    words = ["--manifest", str(manifest), "--output", str(output), "--size", str(SIZE), "--workers", "1", *more]
    return cli.guarded(preProcFilms.main, words if films is None else [*words, "--films", str(films)])


def write_manifest(folder: Path, rows: Sequence[dict[str, str]], **facts) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "films.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    if facts:
        write_json(folder / "dataset.json", facts)
    return folder


@pytest.fixture
def films(tmp_path) -> Path:
    for i in range(COUNT):
        write_film(tmp_path / f"films/ward{i % 2}/{i}.png", 90, 80, seed=i)
    return tmp_path / "films"


@pytest.fixture
def manifest(tmp_path) -> Path:
    """Nine films of nine patients in flat folders, three labels, one of them blank here and there."""
    rows = [
        {"Path": f"ward{i % 2}/{i}.png", "Patient": f"p{i}", "Split": split, "Mass": str(i % 2), "ICU": "01"[i % 3 > 0]}
        for i, split in enumerate(SPLITS)
    ]
    return write_manifest(tmp_path / "manifest", rows, name="ward", labels=["Mass", "ICU"], blank="not labelled")


def expected_square(film: Path) -> np.ndarray:
    """(SIZE, SIZE): of a film of 90 x 80, the centred 80 x 80."""
    with Image.open(film) as image:
        return np.asarray(image.crop((5, 0, 85, 80)).resize((SIZE, SIZE), Image.Resampling.LANCZOS))


@pytest.mark.parametrize("packed", [False, True])
def test_squares_with_the_manifest_beside_them(packed, manifest, films, tmp_path):
    write_json(manifest / "regions.json", {"ward0_0": {}})
    assert squares(manifest, films, tmp_path / "out", *(["--packed"] if packed else [])) == 0
    for name in ("films.csv", "dataset.json", "regions.json"):
        assert (tmp_path / "out" / name).read_bytes() == (manifest / name).read_bytes()
    record = {"size": SIZE, "crop": "centred square", "resampling": "Lanczos", "data_set": "ward"}
    kind = {"packed": True} if packed else {"jpeg_quality": 100}
    assert json.loads((tmp_path / "out/preprocessing.json").read_text()) == record | kind
    read = read_films(tmp_path / "out/films.csv", tmp_path / "out")
    dataset = FilmDataset(read, SIZE)
    for index, path in enumerate(read.paths):
        difference = np.abs(dataset.pixels(index).astype(int) - expected_square(films / path))
        assert difference.max() <= (0 if packed else 3)  # rounding of the JPEG transform


def test_packed_arrays_are_those_of_the_splits(manifest, films, tmp_path):
    assert squares(manifest, films, tmp_path / "out", "--packed") == 0
    arrays = {path.stem: np.load(path) for path in (tmp_path / "out").glob("*.npy")}
    assert {name: len(array) for name, array in arrays.items()} == {"train": 4, "val": 2, "test": 3}
    np.testing.assert_array_equal(arrays["val"][1], expected_square(films / "ward1/5.png"))
    for split in ("train", "val", "test"):
        read = read_films(tmp_path / "out/films.csv", tmp_path / "out", split=split)
        assert {file.name for file in read.files} == {f"{split}.npy"}
    assert cli.guarded(preProcFilms.main, ["--output", str(tmp_path / "out"), "--verify"]) == 0


def test_films_without_patients_and_splits_are_one_array(films, tmp_path):
    rows = [{"Path": f"ward{i % 2}/{i}.png", "Mass": "1"} for i in range(COUNT)]
    assert squares(write_manifest(tmp_path / "m", rows), films, tmp_path / "out", "--packed") == 0
    assert [path.name for path in (tmp_path / "out").glob("*.npy")] == ["films.npy"]
    assert len(read_films(tmp_path / "out/films.csv", tmp_path / "out")) == COUNT


def test_copies_are_packed_pixel_by_pixel_even_with_another_split(manifest, films, tmp_path):
    copies, packed = tmp_path / "copies", tmp_path / "packed"
    assert squares(manifest, films, copies) == 0
    assert squares(copies, None, packed, "--packed") == 0
    table = packed / "films.csv"
    table.write_text(table.read_text().replace(",test,", ",val,"))  # films of the array `test` are validation now
    one, other = (FilmDataset(read_films(root / "films.csv", root), 32) for root in (copies, packed))
    assert len(other) == COUNT
    for index in range(COUNT):
        assert torch.equal(one.image(index)[0], other.image(index)[0])
    assert len(read_films(table, packed, split="val")) == 5


def test_the_grey_rule_is_the_data_sets_unless_another_is_given(tmp_path, capsys):
    deep = np.rint(film_pixels(96, 96)[::1, ::1] / 255 * 4095).astype(np.uint16)
    (tmp_path / "films").mkdir()
    Image.fromarray(deep).save(tmp_path / "films/a.png")
    rule = {"rule": "range", "low": 0, "high": 4095}
    rows = [{"Path": "a.png", "Mass": "1"}]
    manifest = write_manifest(tmp_path / "m", rows, labels=["Mass"], grey=rule)
    assert squares(manifest, tmp_path / "films", tmp_path / "own", "--packed") == 0
    assert json.loads((tmp_path / "own/preprocessing.json").read_text())["grey"] == rule
    expected = Image.fromarray((deep / 4095 * 255).astype(np.float32)).resize((SIZE, SIZE), Image.Resampling.LANCZOS)
    assert np.abs(np.load(tmp_path / "own/films.npy")[0] - np.clip(np.asarray(expected), 0, 255)).max() <= 1
    given = ["--packed", "--grey", "percentile", "1", "99"]
    assert squares(manifest, tmp_path / "films", tmp_path / "given", *given) == 0
    recorded = json.loads((tmp_path / "given/preprocessing.json").read_text())["grey"]
    assert recorded == {"rule": "percentile", "low": 1, "high": 99}
    assert squares(manifest, tmp_path / "films", tmp_path / "given", "--packed") == 2
    assert "made otherwise" in capsys.readouterr().err
    assert squares(manifest, tmp_path / "films", tmp_path / "stored", "--grey", "stored") == 1
    assert "too small a part" in (tmp_path / "stored/preprocessing_errors.csv").read_text()


def test_dicom_tiff_jpeg_and_names_with_dots(tmp_path):
    """A DICOM that is named by its UID without an ending, and a film of each other kind."""
    films = tmp_path / "films"
    films.mkdir()
    dicom = get_testdata_file("CT_small.dcm")
    (films / "1.3.6.1.4.1").write_bytes(Path(dicom).read_bytes())
    pixels = film_pixels(96, 96)
    Image.fromarray(pixels).save(films / "a.tiff")
    Image.fromarray(pixels).save(films / "b.JPEG", quality=100)
    Image.fromarray(pixels.astype(np.uint16) * 257).save(films / "c.png")
    names = ("1.3.6.1.4.1", "a.tiff", "b.JPEG", "c.png")
    manifest = write_manifest(tmp_path / "m", [{"Path": name, "Mass": "0"} for name in names])
    assert squares(manifest, films, tmp_path / "out") == 0
    copies = sorted(path.name for path in (tmp_path / "out").glob("*.jpg"))
    assert copies == ["1.3.6.1.4.1.jpg", "a.jpg", "b.jpg", "c.jpg"]
    assert squares(manifest, films, tmp_path / "packed", "--packed") == 0
    ct, tiff, jpeg, deep = np.load(tmp_path / "packed/films.npy").astype(int)
    assert np.abs(tiff - jpeg).max() <= 2 and np.abs(tiff - deep).max() <= 1
    assert abs((tiff - deep).mean()) < 0.1  # rounded, not cut off
    assert ct.std() > 10


def test_chexperts_own_tables_are_manifests(tiny_chexpert, tmp_path):
    assert squares(tiny_chexpert, None, tmp_path / "out", "--packed") == 0
    assert {path.name for path in (tmp_path / "out").glob("*.csv")} == {"train.csv", "valid.csv", "test_labels.csv"}
    assert {path.name for path in (tmp_path / "out").glob("*.npy")} == {"train.npy", "valid.npy", "test.npy"}


def test_another_data_set_is_kept_apart(manifest, films, tmp_path, capsys):
    assert squares(manifest, films, tmp_path / "out") == 0
    facts = json.loads((manifest / "dataset.json").read_text())
    write_json(manifest / "dataset.json", facts | {"name": "clinic"})
    before = (tmp_path / "out/films.csv").stat().st_mtime_ns
    assert squares(manifest, films, tmp_path / "out") == 2
    assert "made otherwise" in capsys.readouterr().err
    assert (tmp_path / "out/films.csv").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("no table", "no films.csv in this folder"),
        ("into itself", "holds the films themselves"),
        ("two splits", "patient 'p0' is in val, and in train on line 2"),
        ("way out", "line 3, Path: '../1.png' is a path out of the data folder"),
        ("grey", "grey: 'bright' is not a rule"),
        ("split", "line 2, Split: 'learn'; expected train, val or test"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(change, said, manifest, films, tmp_path, capsys):
    table, output = manifest / "films.csv", tmp_path / "out"
    text = table.read_text()
    if change == "no table":
        table.unlink()
    elif change == "into itself":
        output = films
    elif change == "two splits":
        table.write_text(text.replace("p5,val", "p0,val"))
    elif change == "way out":
        table.write_text(text.replace("ward1/1.png", "../1.png"))
    elif change == "split":
        table.write_text(text.replace("p0,train", "p0,learn"))
    else:
        facts = json.loads((manifest / "dataset.json").read_text())
        write_json(manifest / "dataset.json", facts | {"grey": "bright"})
    assert squares(manifest, films, output, "--packed") == 2
    told = capsys.readouterr().err
    assert said in told and told.count("\n") == 1
    assert not list(output.glob("*.npy"))


def test_a_film_that_is_not_there_is_listed_with_its_line(manifest, films, tmp_path):
    (films / "ward1/3.png").unlink()
    assert squares(manifest, films, tmp_path / "out") == 1
    (row,) = csv.DictReader(open(tmp_path / "out/preprocessing_errors.csv"))
    assert (row["row"], row["film"]) == ("5", str(films / "ward1/3.png")) and "no such film" in row["reason"]
    write_film(films / "ward1/3.png", 90, 80)
    assert squares(manifest, films, tmp_path / "out") == 0


def test_the_243_real_films(tmp_path):
    if not REAL.is_dir():
        pytest.skip(f"{REAL} is not here")
    words = ["--source", "hannover", str(REAL), "--output", str(tmp_path / "manifest")]
    assert cli.guarded(makeManifest.main, words) == 0
    assert squares(tmp_path / "manifest", REAL, tmp_path / "out", "--packed") == 0
    splits = [read_films(tmp_path / "out/films.csv", tmp_path / "out", split=s) for s in ("train", "val", "test")]
    assert sum(map(len, splits)) == 243
    assert len({patient for films in splits for patient in films.patients}) == 71
    film = splits[0].paths[0]
    with Image.open(REAL / film) as image:
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        square = image.convert("L").crop((left, top, left + side, top + side))
        expected = np.asarray(square.resize((SIZE, SIZE), Image.Resampling.LANCZOS))
    np.testing.assert_array_equal(FilmDataset(splits[0], SIZE).pixels(0), expected)
