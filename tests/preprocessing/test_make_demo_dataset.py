"""The synthetic releases on disk: tree, tables, masks, repeatability, resuming, and mistakes in the arguments."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import cli
from cxr.labels import CHEXPERT
from cxr.masks import decode_mask
from preprocessing import makeDemoDataset

PATIENTS = 20


def run(output, *more):
    return cli.guarded(makeDemoDataset.main, ["--output", str(output), "--patients", str(PATIENTS), *more])


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    folder = tmp_path_factory.mktemp("release") / "demo"
    assert run(folder, "--workers", "1") == 0
    return folder


def test_every_row_has_its_film_and_every_film_its_row(release):
    listed = set()
    for csv, base in (
        ("CheXpert-v1.0/train.csv", release),
        ("CheXpert-v1.0/valid.csv", release),
        ("CheXlocalize/CheXpert/test_labels.csv", release / "CheXlocalize/CheXpert"),
    ):
        table = pd.read_csv(release / csv)
        assert table["Path"].is_unique
        listed |= {base / path for path in table["Path"]}
    val = {path for path in release.rglob("*.jpg") if path.is_relative_to(release / "CheXlocalize/CheXpert/val")}
    assert {path for path in release.rglob("*.jpg")} - val == listed
    for path in listed:
        with Image.open(path) as film:
            assert film.mode == "L" and film.format == "JPEG" and film.size[0] != film.size[1]
            film.load()


def test_validation_films_lie_in_both_releases(release):
    ours, theirs = release / "CheXpert-v1.0/valid", release / "CheXlocalize/CheXpert/val"
    assert contents(ours) and contents(ours) == contents(theirs)
    table = release / "CheXlocalize/CheXpert/val_labels.csv"
    assert table.read_bytes() == (release / "CheXpert-v1.0/valid.csv").read_bytes()


def test_labels_of_both_training_tables_are_of_the_same_films(release):
    reports = pd.read_csv(release / "CheXpert-v1.0/train.csv")
    visual = pd.read_csv(release / "CheXpert-v1.0/train_visualCheXbert.csv")
    assert list(reports.columns[5:]) == list(CHEXPERT.names)
    assert list(visual.columns[5:]) == [*CHEXPERT.names[1:], "No Finding"]
    assert list(reports["Path"]) == list(visual["Path"])
    assert set(np.unique(visual[list(CHEXPERT.names)])) <= {0.0, 1.0}


@pytest.mark.parametrize(("split", "csv"), [("val", "CheXpert/val_labels.csv"), ("test", "CheXpert/test_labels.csv")])
def test_masks_are_those_of_the_positive_labels(release, split, csv):
    table = pd.read_csv(release / "CheXlocalize" / csv)
    codes = json.loads((release / f"CheXlocalize/CheXlocalize/gt_segmentations_{split}.json").read_text())
    positive = table[table[[CHEXPERT.label_of(task) for task in CHEXPERT.task_names]].any(axis=1)]
    assert set(codes) == {"_".join(path.removesuffix(".jpg").split("/")[-3:]) for path in positive["Path"]}
    for row in positive.to_dict("records"):
        *_, patient, study, view = row["Path"].split("/")
        masks = codes[f"{patient}_{study}_{view.removesuffix('.jpg')}"]
        assert set(masks) == set(CHEXPERT.task_names)
        film = release / "CheXlocalize/CheXpert" / split / patient / study / view
        with Image.open(film) as image:
            size = image.size[::-1]
        for task, code in masks.items():
            assert decode_mask(code).shape == size
            assert decode_mask(code).any() == (row[CHEXPERT.label_of(task)] == 1)


def test_same_bytes_whatever_the_worker_count(release, tmp_path):
    assert run(tmp_path / "again", "--workers", "2") == 0
    assert contents(tmp_path / "again") == contents(release)


def test_a_second_run_redoes_nothing(release, capsys):
    before = {path: path.stat().st_mtime_ns for path in release.rglob("*")}
    assert run(release) == 0
    assert {path: path.stat().st_mtime_ns for path in release.rglob("*")} == before
    assert "train 32 films of 14 patients" in capsys.readouterr().out


def test_a_run_that_was_killed_is_completed(release, tmp_path):
    wounded = tmp_path / "wounded"
    shutil.copytree(release, wounded)
    expected = contents(wounded)
    gone = [
        "CheXpert-v1.0/train/patient00002/study1/view1_frontal.jpg",
        "CheXlocalize/CheXlocalize/gt_segmentations_val.json",
        "CheXlocalize/CheXpert/test_labels.csv",
        "CheXlocalize/CheXpert/val/patient64541/study1/view1_frontal.jpg",
    ]
    for name in gone:
        (wounded / name).unlink()
    kept = wounded / "CheXpert-v1.0/train/patient00001/study1/view1_frontal.jpg"
    before = kept.stat().st_mtime_ns
    assert run(wounded, "--workers", "1") == 0
    assert contents(wounded) == expected
    assert kept.stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("more", "hint"),
    [
        (["--patients", "19"], "--patients 19"),
        (["--patients", "64541"], "--patients 64541"),
        (["--workers", "0"], "--workers 0"),
    ],
)
def test_arguments_out_of_range(tmp_path, capsys, more, hint):
    assert run(tmp_path / "out", *more) == 2
    message = capsys.readouterr().err
    assert hint in message and message.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_folder_of_another_cohort_is_refused(release, tmp_path, capsys):
    assert run(release, "--seed", "1") == 2
    assert "seed 0, not 1" in capsys.readouterr().err
    assert run(release, "--patients", "21") == 2
    assert "patients 20, not 21" in capsys.readouterr().err
    (tmp_path / "notes.txt").write_text("mine")
    assert run(tmp_path) == 2
    assert "not empty" in capsys.readouterr().err
