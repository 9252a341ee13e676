"""Who and what a film is: paths that leave their folder, ids and copies that coincide, patients, splits, manifests."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cxr.files import InputError
from cxr.labels import CHEXPERT, LabelSet
from cxr.manifests.film_files import FilmFinder
from cxr.manifests.films import read_films
from cxr.manifests.splits import drawn_split, split_table
from cxr.paths import copy_path, film_id, inside_release, projection_of, relative_path
from tests.films import alternating_labels, write_film, write_labels

STUDY = "patient00001/study1"


def manifest(root: Path, rows: list[dict[str, str]], **facts: object) -> Path:
    """A manifest of noise films in `root`; facts go into dataset.json."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    root.mkdir(parents=True, exist_ok=True)
    with open(root / "films.csv", "w", newline="") as handle:
        writer = csv.DictWriter(handle, columns, restval="")
        writer.writeheader()
        writer.writerows(rows)
    if facts:
        (root / "dataset.json").write_text(json.dumps(facts))
    for number, row in enumerate(rows):
        write_film(root / row["Path"], seed=number)
    return root / "films.csv"


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/etc/passwd", "an absolute path"),
        ("//etc/passwd", "an absolute path"),
        ("C:/films/a.jpg", "an absolute path"),
        ("CheXpert-v1.0/../../secret.jpg", "out of the data folder"),
        ("a/..", "out of the data folder"),
        ("..", "out of the data folder"),
        ("CheXpert-v1.0 batch 2 (train 1)/../../x.jpg", "out of the data folder"),
        ("a\\b.jpg", "backslashes"),
        ("a/b\x00.jpg", "control characters"),
        ("a/\x1b[2Jb.jpg", "control characters"),
        ("a\nb.jpg", "control characters"),
        ("a/" + "x" * 300 + ".jpg", "longer than a file's name"),
        ("a/" * 2500 + "b.jpg", "longer than a file's name"),
        ("", "blank"),
        (".", "blank"),
        ("./", "blank"),
    ],
)
def test_paths_that_are_no_place_below_the_data_folder(path, reason):
    with pytest.raises(InputError, match=reason) as refused:
        relative_path(path, "films.csv, line 2, Path")
    message = str(refused.value)
    assert message.startswith("films.csv, line 2, Path: ") and message.isprintable() and len(message) < 300


@pytest.mark.parametrize(
    ("path", "inside"),
    [
        ("CheXpert-v1.0//absolute/path.jpg", "CheXpert-v1.0/absolute/path.jpg"),
        ("./CheXpert-v1.0/train/a.jpg", "CheXpert-v1.0/train/a.jpg"),
        ("a/./b.jpg", "a/b.jpg"),
        ("a//b.jpg", "a/b.jpg"),
        (".hidden/b.jpg", ".hidden/b.jpg"),
        ("Röntgen/München 1.jpg", "Röntgen/München 1.jpg"),
        ("00000001_000.png", "00000001_000.png"),
    ],
)
def test_paths_are_normalised(path, inside):
    assert relative_path(path, "films.csv") == inside
    assert not Path(inside_release(inside)).is_absolute()


def test_a_path_that_becomes_absolute_behind_the_release_is_neither_read_nor_written_outside(tmp_path):
    outside = tmp_path / "outside/study1/view1_frontal.jpg"
    write_film(outside)
    root = tmp_path / "data"
    write_labels(root / "train.csv", [f"CheXpert-v1.0/{outside}"], alternating_labels(1))
    with pytest.raises(InputError, match="line 2, Path: no film at") as refused:
        read_films(root / "train.csv", root)
    assert str(root) in str(refused.value).partition("no film at")[2]
    assert not Path(copy_path(relative_path(f"CheXpert-v1.0/{outside}", ""))).is_absolute()


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("CheXpert-v1.0/valid/patient64541/study1/view1_frontal.jpg", "patient64541_study1_view1_frontal"),
        ("CheXpert-v1.0-small/train/patient00001/study2/view2_lateral.jpg", "patient00001_study2_view2_lateral"),
        ("test/patient64741/study1/view1_frontal.jpg", "patient64741_study1_view1_frontal"),
        ("00000001_000.png", "00000001_000"),
        ("files/p10/p10000032/s50414267/02aa804e.jpg", "files_p10_p10000032_s50414267_02aa804e"),
        ("1.2.276.0.7230010.3", "1.2.276.0.7230010.3"),
        ("a/1.2.3.dcm", "a_1.2.3"),
    ],
)
def test_film_ids(path, expected):
    assert film_id(path) == expected


@pytest.mark.parametrize(
    ("first", "second", "what"),
    [
        ("a.png", "a.jpg", "film id 'a'"),
        ("a_b/c.jpg", "a/b_c.jpg", "film id 'a_b_c'"),
        (f"train/{STUDY}/view1_frontal.jpg", f"valid/{STUDY}/view1_frontal.jpg", f"{STUDY.replace('/', '_')}_view1"),
        ("x/a.jpg", "x//a.jpg", "the film 'x/a.jpg'"),
        ("x/a.jpg", "./x/a.jpg", "the film 'x/a.jpg'"),
        ("1.2.3.tif", "1.2.3.png", "film id '1.2.3'"),
    ],
)
def test_two_rows_with_one_identity_are_refused_with_both_lines(tmp_path, first, second, what):
    table = manifest(tmp_path, [{"Path": first, "L": "1"}, {"Path": "other.png", "L": "0"}, {"Path": second, "L": "0"}])
    with pytest.raises(InputError, match=r"films\.csv, line 4, Path: .*line 2") as refused:
        read_films(table, tmp_path)
    assert what in str(refused.value)


def test_copies_of_one_name_are_refused_although_the_films_have_ids_of_their_own(tmp_path):
    rows = [{"Path": "a.png", "Film": "one", "L": "1"}, {"Path": "a.jpg", "Film": "two", "L": "0"}]
    with pytest.raises(InputError, match=r"line 3, Path: the name of its copy, 'a\.jpg' is also that of line 2"):
        read_films(manifest(tmp_path, rows), tmp_path)


@pytest.mark.parametrize(
    ("film", "reason"),
    [
        ("../../x", "no / and"),
        ("/tmp/x", "no / and"),
        ("a\\x", "no / and"),
        ("..", "no . at its start"),
        ("a\nb", "nothing unprintable"),
        ("x" * 201, "longer than 200 bytes"),
        ("é" * 101, "longer than 200 bytes"),
    ],
)
def test_an_id_that_no_file_can_be_named_after_is_refused(tmp_path, film, reason):
    table = manifest(tmp_path, [{"Path": "a.png", "Film": "a", "L": "1"}, {"Path": "b.png", "Film": film, "L": "0"}])
    with pytest.raises(InputError, match=r"films\.csv, line 3, Film: .* cannot be a film id") as refused:
        read_films(table, tmp_path)
    assert reason in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("first", "second"),
    [("Ward/A.png", "ward/a.png"), ("\u00e9.png", "E\u0301.png"), ("a.png", "A.jpg")],
)
def test_films_that_some_file_systems_take_for_one_are_refused(tmp_path, first, second):
    table = manifest(tmp_path, [{"Path": first, "L": "1"}, {"Path": second, "L": "0"}])
    with pytest.raises(InputError, match=r"line 3, Path: the film id .* of line 2, to some file systems"):
        read_films(table, tmp_path)


def test_accents_are_read_in_either_spelling(tmp_path):
    composed, apart = "\u0152d\u00e8me", "\u0152de\u0300me"
    table = manifest(tmp_path, [{"Path": "a.png", "Film": apart, apart: "1"}], labels=[composed])
    films = read_films(table, tmp_path, label_set=LabelSet((apart,)))
    assert films.ids == (composed,) and films.label_set.names == (composed,) and films.labels.tolist() == [[1]]
    with pytest.raises(InputError, match="is there twice"):
        read_films(manifest(tmp_path / "two", [{"Path": "a.png", apart: "1", composed: "0"}]), tmp_path / "two")


def test_what_programs_write_for_nothing_and_for_whole_numbers(tmp_path):
    rows = [
        {"Path": "a.png", "Patient": "17.0", "Sex": "male", "Age": "61.0", "View": "nan", "L": "1"},
        {"Path": "b.png", "Patient": "017", "Sex": "F", "Age": "61.5", "View": "Lateral", "L": "1"},
        {"Path": "c.png", "Patient": "NA", "Sex": "FEMALE", "Age": "None", "View": "PA", "L": "1"},
        {"Path": "d.png", "Patient": "1.2.840.0", "Sex": "nan", "Age": "", "View": "", "L": "1"},
    ]
    films = read_films(manifest(tmp_path, rows), tmp_path)
    assert films.patients == ("17", "017", "NA", "1.2.840.0") and films.ages == ("61", "61.5", "", "")
    assert films.sexes == ("M", "F", "F", "") and films.views == ("", "Lateral", "PA", "")


@pytest.mark.parametrize(
    ("view", "projection"),
    [
        *((view, "lateral") for view in ("L", "LL", "ll", "Lateral", "LATERAL", "LAT", "LLAT", "left lateral")),
        *((view, "frontal") for view in ("PA", "ap", "AP_horizontal", "LLD", "left lateral decubitus", "Frontal")),
        *((view, "") for view in ("", "unknown", "Other")),
    ],
)
def test_projections_of_views(view, projection):
    assert projection_of(view) == projection


def test_names_with_dots_keep_them(tmp_path):
    paths = ["1.2.840.1.png", "1.2.840.2.png"]
    films = read_films(manifest(tmp_path, [{"Path": path, "L": "1"} for path in paths]), tmp_path)
    assert films.ids == ("1.2.840.1", "1.2.840.2")
    assert [copy_path(path) for path in ("1.2.840.1", "1.2.840.2")] == ["1.2.840.1.jpg", "1.2.840.2.jpg"]


def test_films_of_any_ending_are_found_in_a_folder_of_copies(tmp_path):
    paths = ["x/a.png", "x/b.TIF", "c.dcm", "1.2.840.5"]
    for path in paths:
        write_film(tmp_path / copy_path(path))
    pd.DataFrame({"Path": paths, "L": 1}).to_csv(tmp_path / "films.csv", index=False)
    films = read_films(tmp_path / "films.csv", tmp_path)
    assert [file.relative_to(tmp_path).as_posix() for file in films.files] == [
        "x/a.jpg",
        "x/b.jpg",
        "c.jpg",
        "1.2.840.5.jpg",
    ]


def test_an_official_download_is_found_as_it_unpacks(tmp_path):
    first_batch = "CheXpert-v1.0 batch 1 (validate & csv)"
    places = {
        "CheXpert-v1.0/train/patient00001/study1/view1_frontal.jpg": "CheXpert-v1.0 batch 2 (train 1)/patient00001",
        "CheXpert-v1.0/train/patient40000/study1/view1_frontal.jpg": "CheXpert-v1.0 batch 3 (train 2)/patient40000",
        "CheXpert-v1.0/valid/patient64541/study1/view1_frontal.jpg": f"{first_batch}/valid/patient64541",
    }
    for folder in places.values():
        write_film(tmp_path / folder / "study1/view1_frontal.jpg")
    table = tmp_path / first_batch / "train.csv"
    write_labels(table, list(places)[:2], alternating_labels(2))
    assert split_table(tmp_path, "train") == table
    finder = FilmFinder(tmp_path)
    assert [finder.file(path) for path in places] == [
        tmp_path / f / "study1/view1_frontal.jpg" for f in places.values()
    ]
    assert len(read_films(table, tmp_path)) == 2
    assert inside_release("CheXpert-v1.0 batch 2 (train 1)/patient00001/study1/view1_frontal.jpg").startswith("train/")
    assert inside_release("CheXpert-v1.0 batch 1 (validate & csv)/valid/patient1/a.jpg") == "valid/patient1/a.jpg"


@pytest.mark.parametrize(
    ("text", "value"), [("1.00", 1), (" 1.0 ", 1), ("+1", 1), ("-1.", np.nan), ("0.000", 0), ("1.", 1), ("-0.0", 0)]
)
def test_every_way_to_write_a_label(tmp_path, text, value):
    table = manifest(tmp_path, [{"Path": "a.png", "L": text}, {"Path": "b.png", "L": "1"}])
    np.testing.assert_array_equal(read_films(table, tmp_path, uncertain="ignore").labels[0, 0], value)


@pytest.mark.parametrize("text", ["yes", "2", "0.5", "1e0", "nan", "inf", "1,0", "- 1", "٣", "True"])
def test_what_is_not_a_label(tmp_path, text):
    table = manifest(tmp_path, [{"Path": "a.png", "L": "1"}, {"Path": "b.png", "L": text}])
    with pytest.raises(InputError, match=r"films\.csv, line 3, L: .* is not a label"):
        read_films(table, tmp_path)


def test_a_blank_means_negative_in_chexperts_tables_and_not_labelled_elsewhere(tmp_path):
    rows = [{"Path": "a.png", "L": ""}, {"Path": "b.png", "L": "1"}]
    assert np.isnan(read_films(manifest(tmp_path / "own", rows), tmp_path / "own").labels[0, 0])
    negative = manifest(tmp_path / "negative", rows, labels=["L"], blank="negative")
    assert read_films(negative, negative.parent).labels[0, 0] == 0
    write_film(tmp_path / "train/patient00001/study1/view1_frontal.jpg")
    table = pd.DataFrame([{"Path": f"train/{STUDY}/view1_frontal.jpg"} | dict.fromkeys(CHEXPERT.names, "")])
    table.to_csv(tmp_path / "train.csv", index=False)
    assert (read_films(tmp_path / "train.csv", tmp_path).labels == 0).all()


def test_columns_say_who_a_film_shows_before_its_path_does(tmp_path):
    path = f"train/{STUDY}/view1_frontal.png"
    rows = [
        {"Path": path, "Film": "x1", "Patient": "p9", "Study": "s3", "View": "PA", "Sex": "F", "Age": "41", "L": "1"}
    ]
    films = read_films(manifest(tmp_path, rows), tmp_path)
    assert (films.ids, films.patients, films.studies, films.views) == (("x1",), ("p9",), ("s3",), ("PA",))
    assert (films.sexes, films.ages, films.label_set.names) == (("F",), ("41",), ("L",))
    bare = read_films(manifest(tmp_path / "bare", [{"Path": path, "L": "1"}]), tmp_path / "bare")
    assert (bare.ids, bare.patients, bare.views) == (
        ("patient00001_study1_view1_frontal",),
        ("patient00001",),
        ("frontal",),
    )
    unknown = read_films(manifest(tmp_path / "flat", [{"Path": "7.png", "L": "1"}]), tmp_path / "flat")
    assert (unknown.patients, unknown.studies, unknown.views, unknown.sexes) == (("",), ("",), ("",), ("",))


def test_chexperts_columns_give_view_and_sex(tmp_path):
    paths = [f"train/{STUDY}/view{i}_{kind}.jpg" for i, kind in ((1, "frontal"), (2, "frontal"), (3, "lateral"))]
    for path in paths:
        write_film(tmp_path / path)
    write_labels(tmp_path / "train.csv", paths, alternating_labels(3))
    table = pd.read_csv(tmp_path / "train.csv", dtype=str, keep_default_na=False)
    table["AP/PA"], table["Sex"] = ["AP", "", ""], ["Male", "Female", "Unknown"]
    table.to_csv(tmp_path / "train.csv", index=False)
    films = read_films(tmp_path / "train.csv", tmp_path)
    assert films.views == ("AP", "frontal", "lateral")
    assert films.sexes == ("M", "F", "")


@pytest.mark.parametrize("missing", ["Edema", "Fracture"])
def test_chexperts_labels_are_all_there_or_the_data_set_names_its_own(tmp_path, missing):
    names = [name for name in CHEXPERT.names if name != missing]
    rows = [{"Path": "a.png"} | dict.fromkeys(names, "1")]
    with pytest.raises(InputError, match=f"no column named '{missing}', of CheXpert's 14 labels.*dataset.json"):
        read_films(manifest(tmp_path, rows), tmp_path)
    films = read_films(manifest(tmp_path, rows, labels=names), tmp_path)
    assert films.label_set == LabelSet.of(names)
    with pytest.raises(
        InputError, match=f"films.csv: no column named '{missing}'; the header has: 'Path', 'No Finding'"
    ):
        read_films(tmp_path / "films.csv", tmp_path, label_set=CHEXPERT)


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"labels": []}, "dataset.json, labels: labels: expected at least one name"),
        ({"labels": ["A", "A"]}, "labels: 'A' is there twice"),
        ({"labels": ["A/B"]}, "'A/B' is not a name"),
        ({"labels": "A"}, "dataset.json, labels: 'A'; expected a list of names"),
        ({"labels": {"names": ["A"]}}, "dataset.json, labels: a dict; expected a list of names"),
        ({"labels": ["A"], "groups": {"g": ["B"]}}, "groups or tasks name 'B'"),
        ({"labels": ["A"], "tasks": ["A"]}, "tasks: expected label -> task"),
        ({"blank": "zero"}, "dataset.json, blank: 'zero'; expected"),
        ({"split": {"val": 0.7, "test": 0.6}}, "dataset.json, split: expected"),
        ({"split": {"seed": "x"}}, "dataset.json, split: expected"),
    ],
)
def test_a_dataset_json_of_another_form(tmp_path, facts, message):
    with pytest.raises(InputError) as refused:
        read_films(manifest(tmp_path, [{"Path": "a.png", "A": "1"}], **facts), tmp_path)
    assert message in str(refused.value) and str(refused.value).isprintable()


def test_splits_of_a_manifest(tmp_path):
    rows = [{"Path": f"{i}.png", "Patient": f"p{i // 2}", "Split": split, "L": "1"} for i, split in enumerate(
        ["train", "train", "val", "valid", "Test", "test", "", ""])]  # fmt: skip
    table = manifest(tmp_path, rows)
    chosen = {split: read_films(table, tmp_path, split=split).paths for split in ("train", "val", "test")}
    assert chosen == {"train": ("0.png", "1.png"), "val": ("2.png", "3.png"), "test": ("4.png", "5.png")}
    rows[1]["Split"] = "test"
    with pytest.raises(InputError, match="line 3, Split: patient 'p0' is in test, and in train on line 2"):
        read_films(manifest(tmp_path, rows), tmp_path, split="train")
    rows[1]["Split"] = "holdout"
    with pytest.raises(InputError, match="line 3, Split: 'holdout'; expected train, val or test"):
        read_films(manifest(tmp_path, rows), tmp_path, split="train")


def test_splits_are_drawn_by_patient_and_do_not_change_with_the_table(tmp_path):
    rows = [{"Path": f"{i}.png", "Patient": f"p{i // 3}", "L": "1"} for i in range(90)]
    table = manifest(tmp_path, rows, labels=["L"], split={"seed": 4, "val": 0.2, "test": 0.3})
    drawn = {split: set(read_films(table, tmp_path, split=split).patients) for split in ("train", "val", "test")}
    assert set().union(*drawn.values()) == {f"p{i}" for i in range(30)} and sum(map(len, drawn.values())) == 30
    fewer = manifest(tmp_path / "fewer", rows[:60], labels=["L"], split={"seed": 4, "val": 0.2, "test": 0.3})
    kept = set(read_films(fewer, fewer.parent, split="test").patients)
    assert kept == {patient for patient in drawn["test"] if int(patient[1:]) < 20}
    shares = {"val": 0.2, "test": 0.3}
    many = [drawn_split(f"patient{i}", shares, 0) for i in range(20_000)]
    assert [many.count(split) / 20_000 for split in ("train", "val", "test")] == pytest.approx(
        [0.5, 0.2, 0.3], abs=0.02
    )
    assert many != [drawn_split(f"patient{i}", shares, 1) for i in range(20_000)]
    del rows[5]["Patient"]
    with pytest.raises(InputError, match="line 7, Patient: no patient is known, so no splits can be drawn"):
        read_films(manifest(tmp_path, rows), tmp_path, split="train")


def test_choosing_patients_needs_patients(tmp_path):
    table = manifest(tmp_path, [{"Path": f"ward{i % 2}/{i}.png", "L": "1"} for i in range(6)])
    with pytest.raises(InputError, match=r"films\.csv, line 2, Patient: no patient is known, so that no share"):
        read_films(table, tmp_path, fraction=0.5)


def test_an_imagefolder_of_hugging_face_is_a_manifest(tmp_path):
    table = manifest(tmp_path, [{"Path": "a.png", "ICU": "1"}, {"Path": "b.png", "ICU": "0"}])
    table.write_text(table.read_text().replace("Path", "file_name"))
    table.rename(tmp_path / "metadata.csv")
    assert split_table(tmp_path, "test") == tmp_path / "metadata.csv"
    assert read_films(tmp_path / "metadata.csv", tmp_path).ids == ("a", "b")


def test_a_missing_column_of_paths_is_named(tmp_path):
    (tmp_path / "films.csv").write_text("Image,L\na.png,1\n")
    with pytest.raises(
        InputError, match=r"films\.csv: no column named 'Path', 'file_name'; the header has: 'Image', 'L'; one of"
    ):
        read_films(tmp_path / "films.csv", tmp_path)


@pytest.mark.parametrize(
    ("column", "cell", "message"),
    [
        (
            "Height",
            "172",
            r"films\.csv, line 2, Height: '172' is not a label; .* or nothing; if it should not be one, name",
        ),
        (
            "Nodule/Mass",
            "1",
            r"films\.csv: the column 'Nodule/Mass' cannot be a label, .*; rename it, or name the labels",
        ),
    ],
)
def test_a_column_that_is_taken_for_a_label_and_is_none_says_the_way_out(tmp_path, column, cell, message):
    table = manifest(tmp_path, [{"Path": "a.png", "ICU": "1", column: cell}])
    with pytest.raises(InputError, match=message):
        read_films(table, tmp_path)
    with pytest.raises(InputError, match=r"is not a label; expected 1, 0, -1 \(uncertain\) or nothing$"):
        read_films(manifest(tmp_path, [{"Path": "a.png", "ICU": "2"}], labels=["ICU"]), tmp_path)


def test_a_table_without_labels_and_a_split_without_films(tmp_path):
    with pytest.raises(InputError, match=r"films\.csv: no column of a label .*; the header has: 'Path', 'Age'$"):
        read_films(manifest(tmp_path, [{"Path": "a.png", "Age": "60"}]), tmp_path)
    rows = [{"Path": "a.png", "Split": "train", "L": "1"}]
    with pytest.raises(InputError, match=r"films\.csv: no film of split 'val'; put films into it in the column Split"):
        read_films(manifest(tmp_path / "b", rows), tmp_path / "b", split="val")


def test_labels_are_permuted_restricted_and_refused_by_name(tmp_path):
    rng = np.random.default_rng(0)
    values = rng.integers(0, 2, (5, 14))
    rows = [
        {"Path": f"{i}.png"} | dict(zip(CHEXPERT.names, map(str, row), strict=True)) for i, row in enumerate(values)
    ]
    table = manifest(tmp_path, rows)
    order = rng.permutation(14)
    permuted = CHEXPERT.restrict([CHEXPERT.names[i] for i in order])
    np.testing.assert_array_equal(read_films(table, tmp_path, label_set=permuted).labels, values[:, order])
    few = CHEXPERT.restrict(["Edema", "No Finding"])
    np.testing.assert_array_equal(read_films(table, tmp_path, label_set=few).labels, values[:, [5, 0]])
    with pytest.raises(InputError, match=r"films\.csv: no column named 'Mass'; the header has: 'Path', 'No F"):
        read_films(table, tmp_path, label_set=LabelSet(("Edema", "Mass")))


def test_a_folder_that_cannot_be_listed_or_is_none(tmp_path):
    table = manifest(tmp_path, [{"Path": "a.png", "L": "1"}])
    with pytest.raises(InputError, match="no such data folder"):
        read_films(table, tmp_path / "absent")
    os.remove(tmp_path / "a.png")
    with pytest.raises(InputError, match="line 2, Path: no film at"):
        read_films(table, tmp_path)
