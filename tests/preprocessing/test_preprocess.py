"""Preprocessing: the published pixels, resuming, and films that cannot be read."""

import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import cli
from cxr.files import host
from preprocessing import preProcCheXpert
from tests.films import alternating_labels, write_film, write_labels

COUNT = 6


@pytest.fixture
def release(tmp_path):
    """A CheXpert of COUNT films and a CheXlocalize of two."""
    paths = [f"CheXpert-v1.0/train/patient{i:05d}/study1/view1_frontal.jpg" for i in range(COUNT)]
    for seed, path in enumerate(paths):
        write_film(tmp_path / path, 50, 40, seed)
    for name in ("train.csv", "train_visualCheXbert.csv"):
        write_labels(tmp_path / "CheXpert-v1.0" / name, paths, alternating_labels(COUNT))
    tests = [f"test/patient6474{i}/study1/view1_frontal.jpg" for i in range(2)]
    for seed, path in enumerate(tests):
        write_film(tmp_path / "CheXlocalize/CheXpert" / path, 40, 50, seed)
    write_labels(tmp_path / "CheXlocalize/CheXpert/test_labels.csv", tests, alternating_labels(2), demographics=False)
    return tmp_path


def command(release, *more):
    folders = ["--chexpert", str(release / "CheXpert-v1.0"), "--chexlocalize", str(release / "CheXlocalize")]
    return [*folders, "--output", str(release / "out"), "--size", "32", "--workers", "2", *more]


def run(release, *more):
    return cli.guarded(preProcCheXpert.main, command(release, *more))


def test_neither_the_script_nor_its_workers_load_what_films_do_not_need(release):
    code = "import sys; from preprocessing import preProcCheXpert\nassert preProcCheXpert.main(sys.argv[1:]) == 0\n"
    code += "print(sorted({'torch', 'torchvision', 'scipy', 'matplotlib', 'pydicom'} & sys.modules.keys()))"
    told = subprocess.run([sys.executable, "-c", code, *command(release)], capture_output=True, text=True, check=True)
    assert told.stdout.splitlines()[-1] == "[]"


def test_tree_tables_and_pixels(release):
    assert run(release) == 0
    out = release / "out"
    assert sorted(p.name for p in out.glob("*.csv")) == ["test_labels.csv", "train.csv", "train_visualCheXbert.csv"]
    assert (out / "train.csv").read_bytes() == (release / "CheXpert-v1.0/train.csv").read_bytes()
    copies = sorted(out.rglob("*.jpg"))
    assert len(copies) == COUNT + 2
    with Image.open(out / "train/patient00003/study1/view1_frontal.jpg") as copy:
        assert copy.size == (32, 32)
        assert copy.mode == "L"
        assert set(copy.quantization[0]) == {1}  # quality 100
        got = np.asarray(copy, dtype=float)
    with Image.open(release / "CheXpert-v1.0/train/patient00003/study1/view1_frontal.jpg") as film:
        expected = film.crop((5, 0, 45, 40)).resize((32, 32), Image.Resampling.LANCZOS)
    assert np.abs(got - np.asarray(expected, dtype=float)).max() <= 2  # rounding of the JPEG transform


def test_a_second_run_does_nothing_and_a_missing_copy_is_made_again(release):
    run(release)
    before = {path: path.stat().st_mtime_ns for path in (release / "out").rglob("*.jpg")}
    victim = next(iter(before))
    victim.unlink()
    assert run(release) == 0
    after = {path: path.stat().st_mtime_ns for path in (release / "out").rglob("*.jpg")}
    assert after.keys() == before.keys()
    assert {path for path in before if after[path] != before[path]} == {victim}


def test_unreadable_films_are_listed_and_all_others_done(release):
    (release / "CheXpert-v1.0/train/patient00001/study1/view1_frontal.jpg").write_bytes(b"no image")
    (release / "CheXpert-v1.0/train/patient00004/study1/view1_frontal.jpg").unlink()
    assert run(release) == 1
    errors = pd.read_csv(release / "out/preprocessing_errors.csv")
    assert sorted(errors["row"]) == [3, 6]
    assert errors["reason"].str.contains("not a readable image|no such film").all()
    assert len(list((release / "out").rglob("*.jpg"))) == COUNT  # of COUNT + 2
    for name in ("patient00001", "patient00004"):
        write_film(release / f"CheXpert-v1.0/train/{name}/study1/view1_frontal.jpg")
    assert run(release) == 0
    assert not (release / "out/preprocessing_errors.csv").exists()


def test_killed_and_started_again_gives_the_same_copies(release):
    for path in (release / "CheXpert-v1.0/train").rglob("*.jpg"):  # large enough to be caught in the middle
        write_film(path, 2500, 2000)
    script = os.path.abspath(preProcCheXpert.__file__)
    process = subprocess.Popen([sys.executable, script, *command(release, "--size", "1024")], start_new_session=True)
    deadline = time.monotonic() + 60
    while not list((release / "out").rglob("*.jpg")) and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    survived = list((release / "out").rglob("*.jpg"))
    assert survived
    for path in survived:
        with Image.open(path) as copy:
            copy.load()  # whole
    (survived[0].parent / f".{survived[0].name}.{host()}_{process.pid}_01234567.tmp").write_bytes(b"half")
    survived[0].unlink()
    assert run(release, "--size", "1024") == 0
    assert len(list((release / "out").rglob("*.jpg"))) == COUNT + 2
    assert not list((release / "out").rglob("*.tmp"))


def test_mistakes_are_one_line_and_exit_code_2(release, capsys):
    run(release)
    assert run(release, "--size", "64") == 2
    assert "made otherwise" in capsys.readouterr().err
    shutil.rmtree(release / "out")
    table = pd.read_csv(release / "CheXpert-v1.0/train.csv", dtype=str)
    table.loc[0, "Path"] = "../../etc/patient1/study1/view1.jpg"
    table.to_csv(release / "CheXpert-v1.0/train.csv", index=False)
    assert run(release) == 2
    assert "line 2, Path" in capsys.readouterr().err
    assert cli.guarded(preProcCheXpert.main, ["--output", str(release / "o")]) == 2
    assert "give --chexpert" in capsys.readouterr().err


def test_the_two_real_films(sample, tmp_path):
    assert cli.guarded(preProcCheXpert.main, ["--chexpert", str(sample), "--output", str(tmp_path / "out")]) == 0
    with Image.open(tmp_path / "out/valid/patient64541/study1/view1_frontal.jpg") as copy:
        assert copy.size == (1024, 1024)
        pixels = np.asarray(copy, dtype=float)
    with Image.open(sample / "valid/patient64541/study1/view1_frontal.jpg") as film:
        expected = film.crop((254, 0, 2574, 2320)).resize((1024, 1024), Image.Resampling.LANCZOS)
    assert np.abs(pixels - np.asarray(expected.convert("L"), dtype=float)).max() <= 2


@pytest.mark.parametrize("packed", [False, True])
def test_the_official_download_is_preprocessed_as_it_unpacks(release, packed):
    """Batches beside each other, the tables in the first; `train.csv` says CheXpert-v1.0/train/... all the same."""
    expected = release / "expected"
    more = ["--packed"] if packed else []
    apart = ["--chexpert", str(release / "CheXpert-v1.0"), "--output", str(expected), "--size", "32", "--workers", "1"]
    assert cli.guarded(preProcCheXpert.main, [*apart, *more]) == 0
    download = release / "download"
    first = download / "CheXpert-v1.0 batch 1 (validate & csv)"
    first.mkdir(parents=True)
    for name in ("train.csv", "train_visualCheXbert.csv"):
        (release / "CheXpert-v1.0" / name).rename(first / name)
    for number, patient in enumerate(sorted((release / "CheXpert-v1.0/train").iterdir())):
        batch = download / f"CheXpert-v1.0 batch {2 + number % 3} (train {1 + number % 3})"
        batch.mkdir(exist_ok=True)
        patient.rename(batch / patient.name)
    output = release / "out"
    arguments = ["--chexpert", str(download), "--output", str(output), "--size", "32", "--workers", "1", *more]
    assert cli.guarded(preProcCheXpert.main, arguments) == 0
    made = {path.relative_to(expected): path for path in expected.rglob("*") if path.is_file() and path.name != ".lock"}
    assert any(path.suffix == (".npy" if packed else ".jpg") for path in made)
    for name, path in made.items():
        assert (output / name).read_bytes() == path.read_bytes(), name
    assert len(list(output.glob("*.npy"))) == packed  # one array for the split, not one for each patient
