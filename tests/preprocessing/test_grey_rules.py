"""Preprocessing with a rule of grey values: no black copies, the rule recorded, and never applied twice."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import cli
from cxr.packed import open_packed
from preprocessing import preProcCheXpert
from tests.films import alternating_labels, film_pixels, write_labels

COUNT = 3
BITS = 12


def film(index: int) -> np.ndarray:
    """(40, 40) in whole numbers of 12 bit."""
    return np.rint(film_pixels(640, 640, seed=index)[::16, ::16] / 255 * (2**BITS - 1)).astype(np.uint16)


@pytest.fixture
def release(tmp_path) -> Path:
    """A CheXpert of 12-bit films in PNGs of 16 bit."""
    root = tmp_path / "CheXpert-v1.0"
    paths = [f"CheXpert-v1.0/train/patient{i:05d}/study1/view1_frontal.png" for i in range(COUNT)]
    for index, path in enumerate(paths):
        (tmp_path / path).parent.mkdir(parents=True)
        Image.fromarray(film(index)).save(tmp_path / path)
    write_labels(root / "train.csv", paths, alternating_labels(COUNT))
    return root


def run(source: Path, output: Path, *more: str) -> int:
    arguments = ["--chexpert", str(source), "--output", str(output), "--size", "40", "--workers", "1", *more]
    return cli.guarded(preProcCheXpert.main, arguments)


def copy_of(output: Path, index: int) -> np.ndarray:
    with Image.open(output / f"train/patient{index:05d}/study1/view1_frontal.jpg") as copy:
        return np.asarray(copy, dtype=float)


def record(output: Path) -> dict:
    return json.loads((output / "preprocessing.json").read_text())


def test_films_that_would_be_black_are_refused_with_their_range(release, tmp_path):
    assert run(release, tmp_path / "out") == 1
    errors = pd.read_csv(tmp_path / "out/preprocessing_errors.csv")
    assert len(errors) == COUNT
    assert errors["reason"].str.contains("of 65535, too small a part; give --grey range 0 4095, or --grey perc").all()
    assert not list((tmp_path / "out").rglob("*.jpg"))


def test_a_range_is_applied_and_recorded(release, tmp_path):
    assert run(release, tmp_path / "out", "--grey", "range", "0", "4095") == 0
    assert record(tmp_path / "out")["grey"] == {"rule": "range", "low": 0, "high": 4095}
    for index in range(COUNT):
        assert np.abs(copy_of(tmp_path / "out", index) - film(index) / 4095 * 255).max() <= 2  # JPEG's rounding


def test_percentiles_are_applied_and_recorded(release, tmp_path):
    assert run(release, tmp_path / "out", "--grey", "percentile") == 0
    assert record(tmp_path / "out")["grey"] == {"rule": "percentile", "low": 0.5, "high": 99.5}
    low, high = np.percentile(film(0), [0.5, 99.5], method="inverted_cdf")
    expected = np.clip((film(0) - float(low)) / (high - low), 0, 1) * 255
    assert np.abs(copy_of(tmp_path / "out", 0) - expected).max() <= 2


@pytest.mark.parametrize(
    "other", [[], ["--grey", "stored"], ["--grey", "range", "0", "4000"], ["--grey", "percentile"]]
)
def test_a_folder_of_another_rule_is_refused(release, tmp_path, capsys, other):
    assert run(release, tmp_path / "out", "--grey", "range", "0", "4095") == 0
    before = copy_of(tmp_path / "out", 0)
    assert run(release, tmp_path / "out", *other) == 2
    assert "holds copies made otherwise" in capsys.readouterr().err
    np.testing.assert_array_equal(copy_of(tmp_path / "out", 0), before)


def test_copies_are_packed_as_they_are_and_keep_their_rule(release, tmp_path, capsys):
    copies, packed = tmp_path / "copies", tmp_path / "packed"
    assert run(release, copies, "--grey", "range", "0", "4095") == 0
    labels = pd.read_csv(copies / "train.csv", dtype=str, keep_default_na=False)
    labels["Path"] = labels["Path"].str.replace(".png", ".jpg")
    labels.to_csv(copies / "train.csv", index=False)
    assert run(copies, packed, "--packed") == 0
    assert record(packed)["grey"] == {"rule": "range", "low": 0, "high": 4095}
    films = open_packed(packed)
    np.testing.assert_array_equal(films.pixels("train/patient00000/study1/view1_frontal.jpg"), copy_of(copies, 0))
    assert run(copies, tmp_path / "again", "--packed", "--grey", "range", "0", "65535") == 2
    assert "were made with --grey range 0 4095" in capsys.readouterr().err


def test_the_record_of_stored_is_as_it_always_was(tmp_path, sample):
    assert cli.guarded(preProcCheXpert.main, ["--chexpert", str(sample), "--output", str(tmp_path / "out")]) == 0
    assert record(tmp_path / "out") == {
        "size": 1024, "crop": "centred square", "resampling": "Lanczos", "jpeg_quality": 100
    }  # fmt: skip


@pytest.mark.parametrize("words", [["range"], ["range", "9", "1"], ["12", "bit"]])
def test_mistakes_are_one_line_and_exit_code_2(release, tmp_path, capsys, words):
    assert run(release, tmp_path / "out", "--grey", *words) == 2
    assert "--grey: " in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
