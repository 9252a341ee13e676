"""The real tables, read from the installed torchxrayvision: every count against one made with csv, sets and loops.

The tables belong to their data sets and are used where they lie; without the package these tests are skipped.
"""

import collections
import csv
import gzip
import importlib.util
import io
import math
import random
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest

from cxr.labels import CHEXPERT
from cxr.mappings import read_mapping
from cxr.masks import decode_mask
from tests.cxr.test_mappings import one_by_one
from tests.preprocessing.sources.manifests import content, make, rows

PACKAGE = importlib.util.find_spec("torchxrayvision")
DATA = Path(PACKAGE.origin).parent / "data" if PACKAGE and PACKAGE.origin else None

pytestmark = pytest.mark.skipif(DATA is None, reason="torchxrayvision is not installed")

FILES = {
    "chexpert": {"train.csv.gz": "chexpert_train.csv.gz"},
    "nih": {name: name for name in ("Data_Entry_2017_v2020.csv.gz", "BBox_List_2017.csv.gz")},
    "google_nih": {"google2019_nih-chest-xray-labels.csv.gz": "google2019_nih-chest-xray-labels.csv.gz"},
    "padchest": {name: name for name in ("PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv.gz",)},
    "vindr": {"train.csv.gz": "vinbigdata-train.csv.gz"},
    "rsna": {
        "stage_2_train_labels.csv.zip": "kaggle_stage_2_train_labels.csv.zip",
        "kaggle_stage_2_train_images_dicom_headers.csv.gz": "kaggle_stage_2_train_images_dicom_headers.csv.gz",
    },
    "siim": {"siim-pneumothorax-train-rle.csv.gz": "siim-pneumothorax-train-rle.csv.gz"},
}


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    """The manifest of a real table, made once."""
    made = {}

    def of(source):
        if source not in made:
            root = tmp_path_factory.mktemp(source) / source
            root.mkdir()
            for name, real in FILES[source].items():
                (root / name).symlink_to(DATA / real)
            if source == "vindr":
                sizes = {row["image_id"] for row in table("vinbigdata-train.csv.gz")}
                (root / "train_meta.csv").write_text(
                    "image_id,dim0,dim1\n" + "".join(f"{film},4000,4000\n" for film in sorted(sizes))
                )
            made[source] = make(source, root)
        return made[source]

    return of


def table(name):
    if name.endswith(".zip"):
        archive = zipfile.ZipFile(DATA / name)
        return list(csv.DictReader(io.TextIOWrapper(archive.open(archive.namelist()[0]), "utf-8")))
    with gzip.open(DATA / name, "rt", encoding="utf-8") as handle:
        return list(csv.DictReader(handle))


def positives(films, names, value="1"):
    return {name: sum(row[name] == value for row in films.values()) for name in names}


@pytest.mark.parametrize("source", [name for name in FILES if name not in ("vindr", "rsna", "siim")])
def test_every_patient_is_in_one_split(manifest, source):
    of_patient = collections.defaultdict(set)
    for row in rows(manifest(source)).values():
        of_patient[row["Patient"]].add(row["Split"])
    assert all(len(splits) == 1 for splits in of_patient.values())
    expected = {"chexpert": {"train"}, "google_nih": {"val", "test"}}.get(source, {"train", "val", "test"})
    assert set.union(*of_patient.values()) == expected


def test_chexpert(manifest):
    films, real = rows(manifest("chexpert")), table("chexpert_train.csv.gz")
    assert len(films) == len(real) == 223_414
    of_value = {"1": "1.0", "0": "0.0", "-1": "-1.0", "": ""}
    for made, value in of_value.items():
        expected = {name: sum(row[name] == value for row in real) for name in CHEXPERT.names}
        assert positives(films, CHEXPERT.names, made) == expected
    assert positives(films, ("Atelectasis", "Edema", "No Finding")) == {
        "Atelectasis": 33_376,
        "Edema": 52_246,
        "No Finding": 22_381,
    }
    views = collections.Counter(row["View"] for row in films.values())
    assert views == {"AP": 161_590, "PA": 29_420, "L": 32_387, "": 17}
    assert len({row["Patient"] for row in films.values()}) == len({row["Path"].split("/")[2] for row in real})
    assert sum(row["Age"] == "" for row in films.values()) == 3
    for row, made in zip(real, films.values(), strict=True):
        assert row["Path"].endswith(made["Path"])
        assert made["Film"] == "_".join(re.findall(r"patient\d+|study\d+|view\d+_\w+", row["Path"]))


def test_nih(manifest):
    films, real = rows(manifest("nih")), table("Data_Entry_2017_v2020.csv.gz")
    assert len(films) == len(real) == 112_120
    names = sorted({name for row in real for name in row["Finding Labels"].split("|")})
    assert positives(films, names) == {
        name: sum(name in row["Finding Labels"].split("|") for row in real) for name in names
    }
    assert sorted(content(manifest("nih"))["labels"]) == names
    assert len({row["Patient"] for row in films.values()}) == 30_805
    assert sum(row["View"] == "PA" for row in films.values()) == 67_310
    ages = [int(row["Age"]) for row in films.values()]
    assert ages == [int(row["Patient Age"]) for row in real]


def test_nih_boxes(manifest):
    regions = content(manifest("nih"), "regions.json")
    with gzip.open(DATA / "BBox_List_2017.csv.gz", "rt") as handle:
        real = list(csv.reader(handle))[1:]
    drawn = collections.defaultdict(list)
    for film, finding, *box in (row[:6] for row in real):
        drawn[film.removesuffix(".png"), finding.replace("Infiltrate", "Infiltration")].append([float(x) for x in box])
    assert (len(real), len(regions)) == (984, 880)
    made = {(film, task): entry["boxes"] for film, tasks in regions.items() for task, entry in tasks.items()}
    assert made.keys() == drawn.keys()
    for key, boxes in drawn.items():
        np.testing.assert_allclose(made[key], boxes, atol=1e-9)
    films = rows(manifest("nih"))
    assert all(films[film][task] == "1" for film, task in made)


def test_google_nih(manifest):
    films, real = rows(manifest("google_nih")), table("google2019_nih-chest-xray-labels.csv.gz")
    names = ("Fracture", "Pneumothorax", "Airspace opacity", "Nodule or mass")
    assert positives(films, names) == {name: sum(row[name] == "YES" for row in real) for name in names}
    splits = collections.Counter(row["Split"] for row in films.values())
    assert splits == {"val": 2_414, "test": 1_962}


def test_padchest(manifest):
    films, real = rows(manifest("padchest")), table("PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv.gz")
    assert len(films) == len(real) == 160_861
    assert len({row["Patient"] for row in films.values()}) == 67_625
    dataset = content(manifest("padchest"))
    listed = [eval_list(row["Labels"]) for row in real]
    counted = collections.Counter(name for names in listed for name in names)
    found = {name for name in counted if name not in ("exclude", "suboptimal study", "unchanged")}
    assert set(dataset["labels"]) == found
    assert len(found | {"exclude", "suboptimal study", "unchanged"}) == 193
    made = {name: facts["positive"] for name, facts in dataset["counts"]["labels"].items()}
    assert made == {name: counted[name] for name in found}
    incomplete = [bool(names & {"exclude", "suboptimal study", "unchanged"}) or not names for names in listed]
    negative = sum(not names & {"nodule"} and not part for names, part in zip(listed, incomplete, strict=True))
    assert dataset["counts"]["labels"]["nodule"]["negative"] == negative
    only_unchanged = [
        row["ImageID"].removesuffix(".png") for row, names in zip(real, listed, strict=True) if names == {"unchanged"}
    ]
    assert len(only_unchanged) == 3_705
    assert all(films[film][name] == "" for film in only_unchanged[:50] for name in found)
    views = collections.Counter(row["View"] for row in films.values())
    assert (views["PA"], views["L"], views["AP"], views[""]) == (91_728, 49_579, 14_346 + 4_559, 19)


def eval_list(cell):
    """PadChest's list of labels by splitting it at the quotes."""
    return {name.strip() for name in re.split(r"""[\[\],]?\s*['"]\s*,?\s*|[\[\]]|nan""", cell)} - {"", ","}


def test_vinbigdata(manifest):
    films, real = rows(manifest("vindr")), table("vinbigdata-train.csv.gz")
    assert (len(films), len(real)) == (15_000, 67_914)
    readers = collections.defaultdict(set)
    for row in real:
        readers[row["image_id"], row["class_name"]].add(row["rad_id"])
    votes = collections.Counter(len(seen) for (_, name), seen in readers.items() if name != "No finding")
    assert votes == {1: 6_540, 2: 3_559, 3: 5_266}
    expected = {pair for pair, seen in readers.items() if len(seen) >= 2}
    names = content(manifest("vindr"))["labels"]
    slash = {"Nodule or Mass": "Nodule/Mass"}
    made = {(film, slash.get(name, name)) for film, row in films.items() for name in names if row[name] == "1"}
    assert made == expected
    assert all(row[name] in ("0", "1") for row in films.values() for name in names)
    regions = content(manifest("vindr"), "regions.json")
    entries = ((film, task, entry) for film, tasks in regions.items() for task, entry in tasks.items())
    boxes = {(film, slash.get(task, task)): len(entry["boxes"]) for film, task, entry in entries}
    drawn = collections.Counter((row["image_id"], row["class_name"]) for row in real if row["x_min"])
    assert boxes == {pair: count for pair, count in drawn.items() if pair in expected}


def test_rsna(manifest):
    films, real = rows(manifest("rsna")), table("kaggle_stage_2_train_labels.csv.zip")
    assert (len(films), len(real)) == (26_684, 30_227)
    positive = {row["patientId"] for row in real if row["Target"] == "1"}
    assert {film for film, row in films.items() if row["Lung Opacity"] == "1"} == positive
    assert len(positive) == 6_012
    regions = content(manifest("rsna"), "regions.json")
    boxes = [box for entry in regions.values() for box in entry["Lung Opacity"]["boxes"]]
    assert len(boxes) == 9_555
    drawn = sorted([float(row[side]) for side in ("x", "y", "width", "height")] for row in real if row["x"])
    assert sorted(boxes) == drawn
    assert collections.Counter(row["View"] for row in films.values()) == {"PA": 14_511, "AP": 12_173}


def test_siim(manifest):
    films = rows(manifest("siim"))
    with gzip.open(DATA / "siim-pneumothorax-train-rle.csv.gz", "rt") as handle:
        real = list(csv.reader(handle))[1:]
    outlines = collections.defaultdict(list)
    for film, code in real:
        if code.strip() != "-1":
            outlines[film].append(code)
    assert (len(films), len(real), len(outlines)) == (12_047, 12_954, 2_669)
    assert {film for film, row in films.items() if row["Pneumothorax"] == "1"} == set(outlines)
    assert sum(len(codes) > 1 for codes in outlines.values()) == 624
    regions = content(manifest("siim"), "regions.json")
    assert set(regions) == set(outlines)
    several = [film for film, codes in outlines.items() if len(codes) > 1][:15]
    for film in [*list(outlines)[:15], *several]:
        expected = np.zeros(1024 * 1024, bool)
        for code in outlines[film]:
            position = 0
            numbers = [int(word) for word in code.split()]
            for skip, length in zip(numbers[::2], numbers[1::2], strict=True):
                position += skip
                expected[position : position + length] = True
                position += length
        expected = expected.reshape(1024, 1024).T
        assert (decode_mask(regions[film]["Pneumothorax"]) == expected).all()


@pytest.mark.parametrize("source", [name for name in FILES if name != "chexpert"])
def test_mapped_labels_of_1000_films(manifest, source):
    films = rows(manifest(source))
    names = content(manifest(source))["labels"]
    chosen = random.Random(0).sample(sorted(films), 1000)
    mapping = read_mapping(source).present(names)
    cells = [[float(films[film][name] or "nan") for name in names] for film in chosen]
    fast = mapping.apply(np.array(cells, np.float32), names)
    slow = [list(one_by_one(mapping, dict(zip(names, row, strict=True))).values()) for row in cells]
    np.testing.assert_array_equal(fast, np.array(slow, np.float32))
    assert (fast == 1).any()


def said_by_nih():
    """Film -> the CheXpert labels that the table's own words name; the same below, without any module of ours."""
    words = {"Effusion": "Pleural Effusion", **{name: name for name in ("Atelectasis", "Edema", "No Finding")}}
    words |= {"Mass": "Lung Lesion", "Nodule": "Lung Lesion"}
    real = {row["Image Index"][:-4]: row["Finding Labels"].split("|") for row in table("Data_Entry_2017_v2020.csv.gz")}
    return {film: {words[word] for word in named if word in words} for film, named in real.items()}, set(words.values())


def said_by_padchest():
    words = dict.fromkeys(("nodule", "multiple nodules", "pulmonary mass", "lung metastasis"), "Lung Lesion")
    words |= {"pleural effusion": "Pleural Effusion", "loculated pleural effusion": "Pleural Effusion"}
    words |= {"loculated fissural effusion": "Pleural Effusion", "hydropneumothorax": "Pleural Effusion"}
    real = {row["ImageID"][:-4]: eval_list(row["Labels"]) for row in table(*FILES["padchest"].values())}
    return {film: {words[word] for word in named if word in words} for film, named in real.items()}, set(words.values())


def said_by_google():
    words = {"Fracture": "Fracture", "Airspace opacity": "Lung Opacity", "Nodule or mass": "Lung Lesion"}
    real = table("google2019_nih-chest-xray-labels.csv.gz")
    return {r["Image Index"][:-4]: {words[w] for w in words if r[w] == "YES"} for r in real}, set(words.values())


def said_by_radiologists_of_vindr():
    words = {"Pleural effusion": "Pleural Effusion", "Cardiomegaly": "Cardiomegaly", "No finding": "No Finding"}
    readers = collections.defaultdict(lambda: collections.defaultdict(set))
    for row in table("vinbigdata-train.csv.gz"):
        readers[row["image_id"]][row["class_name"]].add(row["rad_id"])
    said = {film: {words[w] for w in words if len(seen[w]) >= 2} for film, seen in readers.items()}
    return said, set(words.values())


def said_by_rsna():
    said = collections.defaultdict(set)
    for row in table("kaggle_stage_2_train_labels.csv.zip"):
        said[row["patientId"]] |= {"Lung Opacity"} if row["Target"] == "1" else set()
    return said, {"Lung Opacity"}


def said_by_siim():
    said = collections.defaultdict(set)
    with gzip.open(DATA / "siim-pneumothorax-train-rle.csv.gz", "rt") as handle:
        for film, code in list(csv.reader(handle))[1:]:
            said[film] |= set() if code.strip() == "-1" else {"Pneumothorax"}
    return said, {"Pneumothorax"}


SAID = {
    "nih": said_by_nih,
    "padchest": said_by_padchest,
    "google_nih": said_by_google,
    "vindr": said_by_radiologists_of_vindr,
    "rsna": said_by_rsna,
    "siim": said_by_siim,
}


@pytest.mark.parametrize("source", SAID)
def test_mapped_labels_of_1000_films_against_the_words_of_the_table(manifest, source):
    """From the release's own cells to CheXpert's labels, film by film, without the manifest in between."""
    said, labels = SAID[source]()
    films, names = rows(manifest(source)), content(manifest(source))["labels"]
    assert films.keys() == said.keys()
    mapping = read_mapping(source).present(names)
    for film in random.Random(1).sample(sorted(films), 1000):
        cells = np.array([[float(films[film][name] or math.nan) for name in names]], np.float32)
        made = dict(zip(mapping.labels, mapping.apply(cells, names)[0].tolist(), strict=True))
        assert {label for label in labels if made[label] == 1} == said[film], film
