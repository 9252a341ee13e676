"""makeManifest.py: the manifest is what cxr.manifests reads, splits are by patient, and every mistake is one line."""

import gzip
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

import cli
from cxr.files import InputError
from cxr.labels import CHEXPERT
from cxr.manifests.dataset_file import read_dataset
from cxr.manifests.films import read_films
from cxr.manifests.splits import drawn_split
from preprocessing import makeManifest
from preprocessing.manifests.checks import check_films
from preprocessing.manifests.columns import film_table
from tests.preprocessing.sources import releases
from tests.preprocessing.sources.manifests import content, make, rows

SCRIPT = Path(makeManifest.__file__)


PADCHEST = "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv.gz"


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "release"
    folder.mkdir()
    return folder


def refused(capsys, source, root, *more):
    """The one line that the command ends with; no file is left."""
    output = root.parent / "refused"
    assert cli.guarded(makeManifest.main, ["--source", source, str(root), "--output", str(output), *more]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("error: ")
    assert told.err.count("\n") == 1
    assert not output.exists()
    return told.err


def edit(path, *replacements):
    packed = path.suffix == ".gz"
    text = (gzip.decompress(path.read_bytes()) if packed else path.read_bytes()).decode()
    for old, new in replacements:
        assert old in text
        text = text.replace(old, new, 1)
    path.write_bytes(gzip.compress(text.encode()) if packed else text.encode())


# ---- the manifest


def test_the_reader_of_manifests_reads_it(root):
    releases.nih(root)
    manifest = make("nih", root)
    for film in rows(manifest).values():
        (root / film["Path"]).parent.mkdir(exist_ok=True)
        Image.new("L", (8, 8)).save(root / film["Path"])
    dataset = read_dataset(manifest / "films.csv")
    assert (dataset.name, dataset.blank_is_negative, dataset.grey) == ("nih", False, {"rule": "stored"})
    assert dict(dataset.labels.tasks) == {"Cardiomegaly": "Cardiomegaly", "Infiltration": "Infiltration"}
    films = read_films(manifest / "films.csv", root, split="test")
    assert films.ids == ("00000003_000", "00000004_000")
    assert (films.patients, films.sexes, films.views) == (("3", "4"), ("F", "F"), ("PA", "AP"))
    assert films.label_set.names[0] == "No Finding"
    assert films.labels[:, films.label_set.index("Effusion")].tolist() == [1, 0]


def test_a_manifest_of_chexpert_says_what_its_own_table_says(root):
    releases.chexpert(root)
    manifest = make("chexpert", root)
    for film in rows(manifest).values():
        (root / film["Path"]).parent.mkdir(parents=True)
        Image.new("L", (8, 8)).save(root / film["Path"])
    for uncertain in ("zeros", "ones", "ignore"):
        made = read_films(manifest / "films.csv", root, split="train", uncertain=uncertain)
        own = read_films(root / "train.csv", root, uncertain=uncertain)
        assert (made.ids, made.patients, made.studies) == (own.ids, own.patients, own.studies)
        assert np.array_equal(made.labels, own.labels, equal_nan=True)
        assert list(made.files) == list(own.files)


def test_blanks_of_mimic_are_not_negative_though_its_labels_are_chexperts(root):
    releases.mimic(root)
    manifest = make("mimic", root)
    for film in rows(manifest).values():
        (root / film["Path"]).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8)).save(root / film["Path"])
    films = read_films(manifest / "films.csv", root, uncertain="ignore")
    assert films.label_set.names == CHEXPERT.names
    said = [[CHEXPERT.names[column] for column in np.flatnonzero(~np.isnan(row))] for row in films.labels]
    assert said == [["No Finding"], ["No Finding"], ["Pneumonia"], ["Edema"], ["Fracture"], []]


def test_films_elsewhere_are_found_by_name(root):
    releases.nih(root)
    (root / "images_002/images").mkdir(parents=True)
    Image.new("L", (8, 8)).save(root / "images_002/images/00000003_000.png")
    Image.new("L", (8, 8)).save(root / "00000004_000.jpg")
    films = rows(make("nih", root))
    assert films["00000003_000"]["Path"] == "images_002/images/00000003_000.png"
    assert films["00000004_000"]["Path"] == "00000004_000.jpg"
    assert films["00000001_000"]["Path"] == "images/00000001_000.png"  # not there: where the release has it


def test_a_name_of_two_files_or_of_two_films_is_not_guessed(root):
    releases.chexpert(root)
    (root / "other").mkdir()
    Image.new("L", (8, 8)).save(root / "other/view1_frontal.jpg")  # the name of two films of the table
    for folder in ("a", "b"):
        (root / folder).mkdir()
        Image.new("L", (8, 8)).save(root / folder / "view2_lateral.jpg")  # one film, two files
    paths = {row["Path"] for row in rows(make("chexpert", root)).values()}
    assert paths == {
        "train/patient00001/study1/view1_frontal.jpg",
        "train/patient00002/study2/view1_frontal.jpg",
        "train/patient00002/study1/view2_lateral.jpg",
        "valid/patient64541/study1/view1_frontal.jpg",
    }


def test_only_present_films_and_their_outlines(root):
    releases.rsna(root)
    (root / "stage_2_train_images").mkdir()
    (root / "stage_2_train_images/00313ee0.dcm").write_bytes(b"")
    manifest = make("rsna", root, "--only-present")
    assert list(rows(manifest)) == ["00313ee0"]
    assert not (manifest / "regions.json").exists()


def test_sizes_of_dicom_films_are_read_from_their_headers(root):
    releases.vindr(root)
    (root / "train").mkdir()
    header = Dataset()
    header.Rows, header.Columns = 100, 120
    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    for film in ("a", "b"):
        header.save_as(root / f"train/{film}.dicom", enforce_file_format=False)
    (root / "test").mkdir()
    Image.new("L", (30, 20)).save(root / "test/c.png")
    Image.new("L", (30, 20)).save(root / "test/d.png")
    regions = content(make("vindr", root), "regions.json")
    assert regions["a"]["Cardiomegaly"]["size"] == [100, 120]
    assert regions["c"]["Nodule or Mass"]["size"] == [20, 30]


def test_splits_are_drawn_by_patient_and_repeatable(root):
    films = [f"f{number}" for number in range(300)]
    header = "patient_id,image_id,sex,age,projection,icu_admission_offset"
    releases.write(root / "data.csv", header, *(f"p{i // 3},{film},f,,ap," for i, film in enumerate(films)))
    table = rows(make("hannover", root, "--seed", "7"))
    for film in films:
        patient = table[film]["Patient"]
        assert table[film]["Split"] == drawn_split(patient, {"val": 0.1, "test": 0.2}, 7)
    assert {row["Split"] for row in table.values()} == {"train", "val", "test"}
    assert content(root.parent / "release-manifest")["split"] == {
        "origin": "drawn by patient",
        "seed": 7,
        "val": 0.1,
        "test": 0.2,
    }


def test_validation_is_drawn_from_the_official_training_part(root):
    names = [f"{number:08d}_000.png" for number in range(200)]
    lines = [f"{name},No Finding,0,{i},050,M,PA,1,1,0.1,0.1" for i, name in enumerate(names)]
    releases.write(root / "Data_Entry_2017_v2020.csv", releases.NIH_HEADER, *lines)
    (root / "train_val_list.txt").write_text("\n".join(names[:150]))
    (root / "test_list.txt").write_text("\n".join(names[150:]))
    manifest = make("nih", root)
    splits = [row["Split"] for row in rows(manifest).values()]
    assert set(splits[:150]) == {"train", "val"}
    assert set(splits[150:]) == {"test"}
    assert 5 <= splits.count("val") <= 25
    assert content(manifest)["split"]["origin"] == "official; val drawn from the patients of train"


def test_a_second_run_writes_the_same_bytes_and_drops_old_regions(root):
    releases.nih(root)
    manifest = make("nih", root)
    before = {path.name: path.read_bytes() for path in manifest.iterdir()}
    make("nih", root)
    assert {path.name: path.read_bytes() for path in manifest.iterdir()} == before
    assert set(before) == {"films.csv", "dataset.json", "regions.json"}
    (root / "BBox_List_2017.csv").unlink()
    make("nih", root)
    assert not (manifest / "regions.json").exists()


@pytest.mark.parametrize("script", ["makeDemoDataset", "makeManifest", "preProcCheXpert", "preProcFilms"])
def test_help_imports_nothing_heavy(script):
    path = SCRIPT.with_name(f"{script}.py")
    code = f"import runpy, sys; sys.argv = ['{script}.py', '--help']\n"
    code += f"try: runpy.run_path({str(path)!r}, run_name='__main__')\n"
    code += "except SystemExit: print(sorted({'torch', 'pandas', 'scipy', 'PIL'} & sys.modules.keys()))"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert told.splitlines()[-1] == "[]"
    assert f"python preprocessing/{script}.py --" in told


# ---- mistakes


def test_unknown_source(root, capsys):
    told = refused(capsys, "nhi\x1b[31m", root)
    assert "no such data set; known are chexpert, chexlocalize, nih" in told
    assert "\x1b" not in told


def test_missing_folder_and_missing_table(root, capsys):
    assert "no such folder" in refused(capsys, "nih", root / "absent")
    assert "no table Data_Entry_2017_v2020.csv" in refused(capsys, "nih", root)
    assert "image_labels_train.csv or train.csv" in refused(capsys, "vindr", root)


@pytest.mark.parametrize(
    ("make_release", "source", "table", "old", "new", "missing"),
    [
        (releases.nih, "nih", "Data_Entry_2017_v2020.csv", "Finding Labels", "Labels", "Finding Labels"),
        (releases.chexpert, "chexpert", "train.csv", "Pleural Other,Fracture", "Other,Bone", "Pleural Other, Fracture"),
        (releases.chexpert, "chexpert", "valid.csv", "Path", "File", "Path"),
        (releases.mimic, "mimic", "mimic-cxr-2.0.0-split.csv.gz", "dicom_id", "image", "dicom_id"),
        (releases.vinbigdata, "vindr", "train.csv", "rad_id", "reader", "rad_id"),
        (releases.siim, "siim", "train-rle.csv", "EncodedPixels", "Mask", "EncodedPixels"),
        (releases.taix, "taix", "split.csv", "Fold", "Part", "Fold"),
    ],
)
def test_a_table_of_another_release(root, capsys, make_release, source, table, old, new, missing):
    make_release(root)
    edit(root / table, (old, new))
    told = refused(capsys, source, root)
    assert f"{table}: no column {missing}; is it the table of another release?" in told


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda raw: raw[: len(raw) // 2], "damaged"),
        (lambda raw: b"not gzip", "not a readable CSV file"),
        (lambda raw: raw[:40] + bytes(60) + raw[100:], ""),
        (lambda raw: gzip.compress(b"\xff\xfe\x00\x01" * 30), "not a readable CSV file"),
        (lambda raw: gzip.compress(b""), "empty"),
    ],
)
def test_a_damaged_table(root, capsys, damage, reason):
    releases.mimic(root)
    table = root / "mimic-cxr-2.0.0-metadata.csv.gz"
    table.write_bytes(damage(table.read_bytes()))
    told = refused(capsys, "mimic", root)
    assert "mimic-cxr-2.0.0-metadata.csv.gz" in told
    assert reason in told


def test_an_archive_that_is_none_holds_two_files_or_is_locked(root, capsys):
    table = root / "stage_2_train_labels.csv.zip"
    table.write_bytes(b"PK no archive")
    assert "stage_2_train_labels.csv.zip: damaged" in refused(capsys, "rsna", root)
    with zipfile.ZipFile(table, "w") as archive:
        archive.writestr("a.csv", "patientId,x\n1,2\n")
    locked = bytearray(table.read_bytes())
    locked[6] |= 1  # the flag of encryption, in the file's header and in the directory
    locked[locked.index(b"PK\x01\x02") + 8] |= 1
    with zipfile.ZipFile(table, "a") as archive:
        archive.writestr("b.csv", "patientId,x\n1,2\n")
    assert "stage_2_train_labels.csv.zip: not a readable CSV file" in refused(capsys, "rsna", root)
    table.write_bytes(locked)
    assert "stage_2_train_labels.csv.zip: not a readable CSV file" in refused(capsys, "rsna", root)


def test_a_blank_beside_an_id_makes_no_second_patient(root, capsys):
    releases.google_nih(root)
    table = root / "google2019_nih-chest-xray-labels.csv"
    edit(table, ("00000014_000.png,Mass,0,14", "00000013_009.png,Mass,0, 13 "))
    assert "patient '13' is in split val" in refused(capsys, "google_nih", root)


def test_rows_longer_than_the_header(root, capsys):
    releases.rsna(root)
    edit(root / "stage_2_train_labels.csv", ("0004cfab,,,,,0\n", "0004cfab,,,,,0,1\n"))
    assert "stage_2_train_labels.csv" in refused(capsys, "rsna", root)
    text = (root / "stage_2_train_labels.csv").read_text().replace("0,1\n", "0\n")
    (root / "stage_2_train_labels.csv").write_text("\n".join(line + ",9" for line in text.splitlines()[1:]))
    assert "stage_2_train_labels.csv" in refused(capsys, "rsna", root)


@pytest.mark.parametrize(
    ("make_release", "source", "table", "cells"),
    [
        (releases.chexpert, "chexpert", "train.csv", 8),
        (releases.nih, "nih", "Data_Entry_2017_v2020.csv", 6),
        (releases.mimic, "mimic", "mimic-cxr-2.0.0-chexpert.csv.gz", 1),
    ],
)
def test_a_row_that_is_cut_off_is_not_one_of_blanks(root, capsys, make_release, source, table, cells):
    """CheXpert's blanks are negative."""
    make_release(root)
    path = root / table
    packed = path.suffix == ".gz"
    lines = (gzip.decompress(path.read_bytes()) if packed else path.read_bytes()).decode().splitlines()
    lines[-1] = ",".join(lines[-1].split(",")[:-cells])
    text = "\n".join(lines).encode()
    path.write_bytes(gzip.compress(text) if packed else text)
    assert f"{table}, line {len(lines)}: " in (told := refused(capsys, source, root))
    assert "is the row cut off" in told


@pytest.mark.parametrize(("mark", "name"), [(";", "semicolons"), ("\t", "tabs")])
def test_another_separator_is_named(root, capsys, mark, name):
    releases.nih(root)
    table = root / "Data_Entry_2017_v2020.csv"
    table.write_text(table.read_text().replace(",", mark))
    assert f"line 1: separated by {name}; save it with commas" in refused(capsys, "nih", root)


def test_a_column_twice_is_refused_where_it_is_needed(root, capsys):
    releases.nih(root)
    edit(root / "Data_Entry_2017_v2020.csv", ("OriginalImagePixelSpacing[x", "Follow-up #"))
    assert len(rows(make("nih", root))) == 5
    capsys.readouterr()
    edit(root / "Data_Entry_2017_v2020.csv", ("Follow-up #", " Finding Labels"))
    assert "line 1: the column 'Finding Labels' is there twice" in refused(capsys, "nih", root)


@pytest.mark.parametrize(
    "change",
    [
        lambda raw: b"\xef\xbb\xbf" + raw,
        lambda raw: raw.replace(b"\n", b"\r\n"),
        lambda raw: raw.replace(b"\n", b"\r"),
        lambda raw: raw.replace(b"\n", b"\n\n"),
        lambda raw: raw.replace(b",Patient ID", b",  Patient ID "),
        lambda raw: b"\n".join(line + b"," for line in raw.splitlines()),
        lambda raw: b"\n".join(b'"' + line.replace(b",", b'","') + b'"' for line in raw.splitlines()),
    ],
    ids=["byte order mark", "CRLF", "CR", "blank lines", "blanks in header", "comma at the end", "all in quotes"],
)
def test_forms_of_one_table_give_one_manifest(root, change):
    releases.nih(root)
    expected = (make("nih", root) / "films.csv").read_bytes()
    table = root / "Data_Entry_2017_v2020.csv"
    table.write_bytes(change(table.read_bytes()))
    assert (make("nih", root) / "films.csv").read_bytes() == expected


def test_films_behind_links_are_found_and_links_to_nothing_are_not(root):
    releases.nih(root)
    elsewhere = root.parent / "other disk"
    (elsewhere / "deep").mkdir(parents=True)
    Image.new("L", (8, 8)).save(elsewhere / "deep/00000003_000.PNG")
    (elsewhere / "deep/back").symlink_to(root)  # a circle
    (elsewhere / "00000004_000.png").symlink_to("gone.png")
    (root / "linked").symlink_to(elsewhere)
    films = rows(make("nih", root))
    assert films["00000003_000"]["Path"] == "linked/deep/00000003_000.PNG"
    assert films["00000004_000"]["Path"] == "images/00000004_000.png"


def test_ids_keep_their_zeros_and_words_that_look_like_blanks(root):
    header = "patient_id,image_id,sex,age,projection,icu_admission_offset"
    ids = ["007", "7", "1e5", "NA", "nan", "0x1F", "-3", "=1+1"]
    releases.write(root / "data.csv", header, *(f"{name},f{i},f,50,ap," for i, name in enumerate(ids)))
    manifest = make("hannover", root)
    (root / "png").mkdir()
    for i in range(len(ids)):
        Image.new("L", (8, 8)).save(root / f"png/f{i}.png")
    assert list(read_films(manifest / "films.csv", root).patients) == ids


def test_a_patient_in_two_splits(root, capsys):
    releases.google_nih(root)
    table = root / "google2019_nih-chest-xray-labels.csv"
    edit(table, ("00000014_000.png,Mass,0,14", "00000013_009.png,Mass,0,13"))
    told = refused(capsys, "google_nih", root)
    assert f"{table}, line 3: patient '13' is in split val, but in test in {table}, line 2" in told


def test_a_patient_of_train_in_valid(root, capsys):
    releases.chexpert(root)
    edit(root / "valid.csv", ("valid/patient64541", "valid/patient00002"))
    told = refused(capsys, "chexpert", root)
    assert "valid.csv, line 2: patient 'patient00002' is in split val, but in train in" in told
    assert "train.csv, line 3" in told


def test_a_film_twice(root, capsys):
    releases.nih(root)
    edit(root / "Data_Entry_2017_v2020.csv", ("00000001_001.png", "00000001_000.png"))
    told = refused(capsys, "nih", root)
    assert "Data_Entry_2017_v2020.csv, line 3: film id '00000001_000' is in" in told
    assert "Data_Entry_2017_v2020.csv, line 2 too" in told


def test_two_films_whose_copies_would_have_one_name():
    table = pd.DataFrame({"name": ["a/x.png", "a/y.png", "a/x.jpg"]}, dtype="str")
    table.attrs["file"] = "t.csv"
    labels = pd.DataFrame({"Nodule": [1.0, 0.0, 1.0]})
    films = film_table(table, labels, path=table["name"], film=pd.Series(["1", "2", "3"]))
    with pytest.raises(InputError, match=r"^t.csv, line 4: 'a/x' is also the film of t.csv, line 2; their copies"):
        check_films(films)


@pytest.mark.parametrize("path", ["../x.png", "/etc/x.png", "a/../../x.png", "C:/x.png", "a\\x.png", "", "a//x.png"])
def test_a_path_out_of_the_folder(root, capsys, path):
    releases.brax(root)
    edit(root / "master_spreadsheet_update.csv", ("images/id_a/Study_1/Series_1/image-a.png", path))
    assert "master_spreadsheet_update.csv, line 2" in refused(capsys, "brax", root)


@pytest.mark.parametrize(
    "box",
    [
        "-5,200,50,60",
        "1000,10,50,10",
        "10,1000,10,50",
        "10,10,0,5",
        "10,10,5,-5",
        "nan,1,1,1",
        "1,1,inf,1",
        "inf,1,1,1",
        "x,1,1,1",
    ],
)
def test_a_box_outside_its_film(root, capsys, box):
    releases.nih(root)
    edit(root / "BBox_List_2017.csv", ("500,600,70,80", box))
    told = refused(capsys, "nih", root)
    assert "BBox_List_2017.csv, line 3" in told
    assert "is not inside the film's 1024 x 1024 pixels" in told or "is not a number" in told


def test_a_box_that_overhangs_by_rounding_is_cut(root):
    releases.nih(root)
    edit(root / "BBox_List_2017.csv", ("500,600,70,80", "-0.5,1000,70,24.75"))
    regions = content(make("nih", root), "regions.json")
    assert regions["00000003_000"]["Infiltration"]["boxes"][1] == [0.0, 1000.0, 69.5, 24.0]


def test_a_box_of_no_film_or_no_label(root, capsys):
    releases.nih(root)
    edit(root / "BBox_List_2017.csv", ("00000001_000.png", "00009999_000.png"))
    assert "outlines of film '00009999_000', which the label table does not list" in refused(capsys, "nih", root)
    releases.nih(root)
    edit(root / "BBox_List_2017.csv", ("Infiltrate", "Infiltrations"))
    assert "outlines of 'Infiltrations', which is not one of the labels" in refused(capsys, "nih", root)


def test_an_empty_split(root, capsys):
    releases.nih(root)
    test = (root / "test_list.txt").read_text()
    (root / "test_list.txt").write_text("00000099_000.png")
    with open(root / "train_val_list.txt", "a") as handle:
        handle.write(test)
    assert "test_list.txt: no film of" in refused(capsys, "nih", root)


def test_an_empty_split_of_mimic(root, capsys):
    releases.mimic(root)
    edit(root / "mimic-cxr-2.0.0-split.csv.gz", ("2a2277a9-b0ded155", "another-film"))
    assert "split.csv.gz, split: no film of" in refused(capsys, "mimic", root)


def test_only_present_must_not_empty_a_split(root, capsys):
    releases.vindr(root)
    (root / "train").mkdir()
    Image.new("L", (120, 100)).save(root / "train/a.png")
    assert "no film of split test is below it" in refused(capsys, "vindr", root, "--only-present")


def test_films_of_neither_list(root, capsys):
    releases.nih(root)
    (root / "test_list.txt").write_text("00000004_000.png\n")
    told = refused(capsys, "nih", root)
    assert "line 5, Image Index: '00000003_000.png' is in neither of" in told


@pytest.mark.parametrize(
    ("make_release", "source", "table", "old", "new", "where"),
    [
        (releases.chexpert, "chexpert", "train.csv", "-1.0", "maybe", "line 3, Edema: 'maybe'"),
        (releases.chexpert, "chexpert", "train.csv", "-1.0", "nan", "line 3, Edema: 'nan'"),
        (releases.nih, "nih", "Data_Entry_2017_v2020.csv", "Hernia", "Hernias", "line 6, Finding Labels"),
        (releases.nih, "nih", "Data_Entry_2017_v2020.csv", "Cardiomegaly|", "Cardiomegaly||", "line 3, Finding Labels"),
        (releases.google_nih, "google_nih", "google2019_nih-chest-xray-labels.csv", "YES", "Y", "line 2, Airspace"),
        (releases.mimic, "mimic", "mimic-cxr-2.0.0-split.csv.gz", "validate", "dev", "line 5, split: 'dev'"),
        (releases.mimic, "mimic", "mimic-cxr-2.0.0-chexpert.csv.gz", "-1.0", "2", "line 3, Edema: '2'"),
        (
            releases.padchest,
            "padchest",
            "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv.gz",
            "['exclude']",
            "['a'",
            "line 6, Labels",
        ),
        (releases.vinbigdata, "vindr", "train.csv", "Cardiomegaly", "Heart", "line 3, class_name: 'Heart'"),
        (releases.siim, "siim", "train-rle.csv", "1 2", "1 x", "line 4, EncodedPixels"),
        (releases.siim, "siim", "train-rle.csv", "1 2", "1 2 3", "line 4, EncodedPixels"),
        (releases.siim, "siim", "train-rle.csv", "1 2", "1048575 2", "line 4, EncodedPixels"),
        (releases.taix, "taix", "annotation.csv", "2015,21915,M,3", "2015,21915,M,5", "line 2, HeartSize: '5'"),
    ],
)
def test_a_value_that_is_none(root, capsys, make_release, source, table, old, new, where):
    make_release(root)
    edit(root / table, (old, new))
    assert f"{table}, {where}" in refused(capsys, source, root)


def test_a_study_listed_twice(root, capsys):
    releases.mimic(root)
    edit(root / "mimic-cxr-2.0.0-chexpert.csv.gz", ("12000034,53911763", "12000034,53911762"))
    assert "line 5, subject_id study_id: '53911762' is in line 4 too" in refused(capsys, "mimic", root)


def test_a_damaged_mask(root, capsys):
    film = "patient64541_study1_view1_frontal"
    codes = {task: {"size": [4, 6], "counts": "~~~"} for task in CHEXPERT.task_names}
    releases.chexlocalize(root, {film: codes})
    assert f"gt_segmentations_val.json, {film}, " in refused(capsys, "chexlocalize", root)


def test_votes_of_another_source(root, capsys):
    releases.nih(root)
    assert "--votes 2: NIH ChestX-ray14 has no use for it" in refused(capsys, "nih", root, "--votes", "2")
