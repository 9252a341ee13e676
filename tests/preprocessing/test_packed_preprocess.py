"""`preProcCheXpert.py --packed`: the same squares as the copies, in arrays; verified, mended, resumed when killed."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import cli
from cxr.dataset import FilmDataset
from cxr.manifests.films import read_films
from cxr.packed import HEADER_BYTES
from preprocessing import preProcCheXpert
from tests.films import alternating_labels, write_film, write_labels

COUNT = 5


@pytest.fixture
def release(tmp_path):
    """A CheXpert of COUNT films in two label files of different order, and a CheXlocalize of two."""
    paths = [f"CheXpert-v1.0/train/patient{i:05d}/study1/view1_frontal.jpg" for i in range(COUNT)]
    for seed, path in enumerate(paths):
        write_film(tmp_path / path, 50, 40, seed)
    write_labels(tmp_path / "CheXpert-v1.0/train.csv", paths, alternating_labels(COUNT))
    write_labels(tmp_path / "CheXpert-v1.0/train_visualCheXbert.csv", paths[::-1], alternating_labels(COUNT))
    tests = [f"test/patient6474{i}/study1/view1_frontal.jpg" for i in range(2)]
    for seed, path in enumerate(tests):
        write_film(tmp_path / "CheXlocalize/CheXpert" / path, 40, 50, seed)
    write_labels(tmp_path / "CheXlocalize/CheXpert/test_labels.csv", tests, alternating_labels(2), demographics=False)
    return tmp_path


def command(release, *more):
    folders = ["--chexpert", str(release / "CheXpert-v1.0"), "--chexlocalize", str(release / "CheXlocalize")]
    return [*folders, "--output", str(release / "packed"), "--packed", "--size", "32", "--workers", "1", *more]


def run(arguments):
    return cli.guarded(preProcCheXpert.main, arguments)


def test_arrays_hold_the_published_squares_in_the_order_of_the_first_table(release):
    assert run(command(release)) == 0
    array = np.load(release / "packed/train.npy")
    assert array.shape == (COUNT, 32, 32)
    for row in range(COUNT):
        with Image.open(release / f"CheXpert-v1.0/train/patient{row:05d}/study1/view1_frontal.jpg") as film:
            expected = film.crop((5, 0, 45, 40)).resize((32, 32), Image.Resampling.LANCZOS)
        assert np.array_equal(array[row], np.asarray(expected))
    manifest = json.loads((release / "packed/train.json").read_text())
    assert set(manifest["labels"]) == {"train.csv", "train_visualCheXbert.csv"}
    assert manifest["crop"] == "centred square"


@pytest.mark.parametrize("csv", ["train.csv", "train_visualCheXbert.csv", "test_labels.csv"])
def test_packed_copies_are_the_copies(release, csv):
    copies = release / "copies"
    arguments = command(release)
    arguments.remove("--packed")
    assert run([*arguments, "--output", str(copies)]) == 0
    packed = release / "packed"
    assert run(["--chexpert", str(copies), "--output", str(packed), "--packed", "--size", "32", "--workers", "1"]) == 0
    one, other = (FilmDataset(read_films(root / csv, root), 16) for root in (copies, packed))
    assert len(one) == len(other) > 0
    for index in range(len(one)):
        assert torch.equal(one.image(index)[0], other.image(index)[0])
        assert one.image(index)[1] == other.image(index)[1]
        assert np.array_equal(one.pixels(index), other.pixels(index))
        assert torch.equal(one[index][1], other[index][1])


def test_verify_names_every_damaged_film_and_mends_it(release, capsys):
    run(command(release))
    verify = ["--output", str(release / "packed"), "--verify"]
    assert run(verify) == 0
    with open(release / "packed/train.npy", "r+b") as array:
        for row in (1, 4):
            array.seek(HEADER_BYTES + row * 32 * 32 + 5)
            array.write(b"\x00\xff\x00\xff")
    capsys.readouterr()
    assert run(verify) == 1
    said = capsys.readouterr()
    assert [line.split(": ")[1] for line in said.out.splitlines()] == [
        f"train/patient0000{row}/study1/view1_frontal.jpg" for row in (1, 4)
    ]
    assert "2 damaged" in said.err
    assert run(command(release, "--verify")) == 0
    assert run(verify) == 0


def test_an_unreadable_film_is_listed_and_packed_when_it_is_whole_again(release):
    film = release / "CheXpert-v1.0/train/patient00002/study1/view1_frontal.jpg"
    whole = film.read_bytes()
    film.write_bytes(whole[:200])
    assert run(command(release)) == 1
    assert pd.read_csv(release / "packed/preprocessing_errors.csv")["film"].tolist() == [str(film)]
    before = (release / "packed/test.npy").stat().st_mtime_ns
    film.write_bytes(whole)
    assert run(command(release)) == 0
    assert run(["--output", str(release / "packed"), "--verify"]) == 0
    assert (release / "packed/test.npy").stat().st_mtime_ns == before  # what was whole is left alone


def test_killed_and_started_again_gives_the_same_arrays(tmp_path):
    paths = [f"CheXpert-v1.0/train/patient{i:05d}/study1/view1_frontal.jpg" for i in range(25)]
    for seed, path in enumerate(paths):
        write_film(tmp_path / path, 800, 700, seed)
    write_labels(tmp_path / "CheXpert-v1.0/train.csv", paths, alternating_labels(len(paths)))
    arguments = ["--chexpert", str(tmp_path / "CheXpert-v1.0"), "--packed", "--size", "512", "--workers", "1"]
    assert run([*arguments, "--output", str(tmp_path / "whole")]) == 0

    script = os.path.abspath(preProcCheXpert.__file__)
    killed = [*arguments, "--output", str(tmp_path / "killed")]
    process = subprocess.Popen([sys.executable, script, *killed], start_new_session=True)
    journal = tmp_path / "killed/.train.journal"
    while process.poll() is None and not (journal.is_file() and journal.read_text().count("\n") > 1):
        time.sleep(0.001)
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (tmp_path / "killed/train.npy").exists()

    assert run(killed) == 0
    for name in ("train.npy", "train.json", "train.csv"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert not list((tmp_path / "killed").glob(".*"))


def test_mistakes_are_one_line_and_exit_code_2(release, capsys):
    assert run(["--output", str(release), "--verify"]) == 2
    assert "no packed films" in capsys.readouterr().err
    run(command(release))
    arguments = command(release)
    arguments.remove("--packed")
    assert run(arguments) == 2
    assert "made otherwise" in capsys.readouterr().err
    extra = release / "packed/train.csv"
    row = extra.read_text().splitlines()[1].replace("patient00000", "patient00099")
    extra.write_text(extra.read_text() + row + "\n")
    with pytest.raises(Exception, match=rf"line {COUNT + 2}, Path: not in .*train\.npy"):
        read_films(extra, release / "packed")
