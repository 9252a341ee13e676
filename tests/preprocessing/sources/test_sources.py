"""Every source on a release of a few invented films: what the manifest says of each, trap by trap."""

import math

import numpy as np
import pytest
from PIL import Image

from cxr.labels import CHEXPERT
from cxr.masks import decode_mask, encode_mask
from preprocessing.sources.registry import NAMES, source_of
from reporting.outlines import outline_name
from tests.preprocessing.sources import releases
from tests.preprocessing.sources.manifests import content, labels, make, rows


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "release"
    folder.mkdir()
    return folder


def facts(row, *names):
    return tuple(row.get(name, "") for name in names)


IDENTITY = ("Path", "Patient", "Study", "View", "Sex", "Age", "Split")


def test_chexpert(root):
    releases.chexpert(root)
    manifest = make("chexpert", root)
    films = rows(manifest)
    first = films["patient00001_study1_view1_frontal"]
    path = "train/patient00001/study1/view1_frontal.jpg"
    assert facts(first, *IDENTITY) == (path, "patient00001", "patient00001/study1", "AP", "F", "68", "train")
    assert labels(first, CHEXPERT.names) == {"No Finding": "1", "Fracture": "0"}
    frontal_but_ll = films["patient00002_study2_view1_frontal"]
    assert facts(frontal_but_ll, "View", "Sex", "Age") == ("", "M", "")
    assert labels(frontal_but_ll, CHEXPERT.names) == {"Edema": "-1"}
    assert facts(films["patient00002_study1_view2_lateral"], "View", "Sex", "Age") == ("L", "", "90")
    assert facts(films["patient64541_study1_view1_frontal"], "View", "Split") == ("PA", "val")
    dataset = content(manifest)
    assert (dataset["labels"], dataset["blank"]) == (list(CHEXPERT.names), "negative")
    assert dataset["tasks"]["Lung Opacity"] == "Airspace Opacity"
    assert dataset["split"] == {"origin": "official"}


def test_chexpert_prefers_visual_labels(root):
    releases.chexpert(root)
    table = root / "train.csv"
    (root / "train_visualCheXbert.csv").write_text(table.read_text().replace("-1.0", "1.0"))
    manifest = make("chexpert", root)
    assert rows(manifest)["patient00002_study2_view1_frontal"]["Edema"] == "1"
    assert set(content(manifest)["tables"]) == {"train_visualCheXbert.csv", "valid.csv"}


def test_chexlocalize_paths_and_masks(root):
    mask = np.zeros((4, 6), bool)
    mask[1:3, 2:5] = True
    empty = encode_mask(np.zeros((4, 6), bool))
    film = "patient64541_study1_view1_frontal"
    masks = {film: dict.fromkeys(CHEXPERT.task_names, empty) | {"Airspace Opacity": encode_mask(mask)}}
    releases.chexlocalize(root, masks)
    manifest = make("chexlocalize", root)
    films = rows(manifest)
    assert facts(films[film], "Path", "Split") == ("CheXpert/val/patient64541/study1/view1_frontal.jpg", "val")
    test = films["patient64741_study1_view1_frontal"]
    assert facts(test, "Path", "Sex", "View", "Split") == (
        *("CheXpert/test/patient64741/study1/view1_frontal.jpg", "", ""),
        "test",
    )
    regions = content(manifest, "regions.json")
    assert list(regions) == [film]
    assert (decode_mask(regions[film]["Airspace Opacity"]) == mask).all()
    assert not decode_mask(regions[film]["Edema"]).any()


@pytest.mark.parametrize("other_release", [False, True])
def test_nih(root, other_release):
    releases.nih(root, other_release=other_release)
    manifest = make("nih", root)
    films, dataset = rows(manifest), content(manifest)
    assert len(dataset["labels"]) == 15
    second = films["00000001_001"]
    assert facts(second, *IDENTITY[:-1]) == ("images/00000001_001.png", "1", "", "PA", "M", "58")
    positive = [name for name in dataset["labels"] if second[name] == "1"]
    assert positive == ["Cardiomegaly", "Emphysema"]
    assert second["No Finding"] == "0"
    assert films["00000003_000"]["Age"] == ""  # 414 years
    assert [films[film]["Split"] for film in ("00000003_000", "00000004_000")] == ["test", "test"]
    train = {films[film]["Split"] for film in ("00000001_000", "00000001_001", "00000002_000")}
    assert train <= {"train", "val"}
    regions = content(manifest, "regions.json")
    assert regions["00000003_000"] == {
        "Infiltration": {
            "size": [1024, 1024],
            "kind": "box",
            "boxes": [[100.5, 200.0, 50.0, 60.25], [500.0, 600.0, 70.0, 80.0]],
        }
    }
    assert dataset["tasks"] == {"Cardiomegaly": "Cardiomegaly", "Infiltration": "Infiltration"}
    assert dataset["counts"]["regions"] == {"films": 2, "boxes": 3, "masks": 0}


def test_google_nih(root):
    releases.google_nih(root)
    manifest = make("google_nih", root)
    films, names = rows(manifest), content(manifest)["labels"]
    assert labels(films["00000013_008"], names) == {
        "Fracture": "0",
        "Pneumothorax": "0",
        "Airspace opacity": "1",
        "Nodule or mass": "0",
    }
    assert [films[film]["Split"] for film in ("00000013_008", "00000014_000")] == ["test", "val"]


def test_mimic_labels_are_those_of_the_study(root):
    releases.mimic(root)
    films = rows(make("mimic", root))
    lateral = films["174413ec-4ec4c1f7"]
    path = "files/p10/p10000032/s50414267/174413ec-4ec4c1f7.jpg"
    assert facts(lateral, *IDENTITY) == (path, "10000032", "50414267", "L", "", "", "train")
    assert labels(lateral, CHEXPERT.names) == {"No Finding": "1"}
    assert facts(films["2a2277a9-b0ded155"], "Split", "Edema", "Pneumonia") == ("val", "-1", "0")
    assert labels(films["fffabebf-74fd3a1f"], CHEXPERT.names) == {}  # a study without labels
    assert films["68b5c4b1-227d0485"]["Fracture"] == "1"


def test_mimic_test_labels_are_the_radiologists_alone(root):
    releases.mimic(root, by_hand=True)
    films = rows(make("mimic", root))
    assert labels(films["e084de3b-be89b11e"], CHEXPERT.names) == {"Lung Opacity": "1", "Edema": "-1"}
    assert labels(films["68b5c4b1-227d0485"], CHEXPERT.names) == {}  # of the test split, not read by hand
    assert labels(films["02aa804e-bde0afdd"], CHEXPERT.names) == {"No Finding": "1"}


def test_padchest(root):
    releases.padchest(root)
    manifest = make("padchest", root)
    films, names = rows(manifest), content(manifest)["labels"]
    assert names == ["nodule", "normal", "pleural effusion", "pseudonodule"]
    assert labels(films["1_k6ga29"], names) == {
        "nodule": "0",
        "normal": "1",
        "pleural effusion": "0",
        "pseudonodule": "0",
    }
    assert facts(films["1_k6ga29"], "Path", "Study", "View", "Sex", "Age") == ("0/1_k6ga29.png", "s11", "PA", "F", "84")
    effusion = {"nodule": "0", "normal": "0", "pleural effusion": "1", "pseudonodule": "1"}
    assert labels(films["2_fzis7d"], names) == effusion
    assert labels(films["3_aa"], names) == {"nodule": "1"}  # unchanged: the rest is not said
    assert facts(films["3_aa"], "View", "Sex") == ("AP", "")
    assert labels(films["4_bb"], names) == labels(films["5_cc"], names) == {}
    assert facts(films["4_bb"], "View", "Age") == ("", "")
    assert content(manifest)["grey"]["rule"] == "percentile"


@pytest.mark.parametrize(
    ("votes", "cardiomegaly", "nodule", "boxes"), [(1, "1", "1", 5), (2, "1", "0", 3), (3, "0", "0", 0)]
)
def test_vinbigdata_counts_readers(root, votes, cardiomegaly, nodule, boxes):
    releases.vinbigdata(root)
    manifest = make("vindr", root, "--votes", str(votes))
    films, dataset = rows(manifest), content(manifest)
    assert facts(films["a"], "Path", "Cardiomegaly", "Nodule or Mass", "No finding", "Edema") == (
        *("train/a.dicom", cardiomegaly, nodule, "0"),
        "",  # not a class of this release
    )
    assert facts(films["b"], "No finding", "Cardiomegaly") == ("1", "0")
    assert (len(dataset["labels"]), dataset["options"]) == (15, {"votes": votes})
    assert dataset["counts"]["regions"]["boxes"] == boxes
    assert "Patient" not in films["a"]
    if votes == 2:
        entry = content(manifest, "regions.json")["a"]["Cardiomegaly"]
        assert (entry["size"], entry["boxes"][0]) == ([100, 120], [10.0, 20.0, 80.0, 40.0])


def test_vindr_of_physionet(root):
    releases.vindr(root)
    for film, (width, height) in {"a": (120, 100), "c": (30, 20)}.items():  # as PNG, in a folder of the user's own
        (root / "png").mkdir(exist_ok=True)
        Image.new("L", (width, height)).save(root / f"png/{film}.png")
    manifest = make("vindr", root, "--only-present")
    films = rows(manifest)
    assert set(films) == {"a", "c"}
    names = content(manifest)["labels"]
    assert names == ["Cardiomegaly", "Nodule or Mass", "Rib fracture", "Other disease", "No finding"]
    assert facts(films["a"], "Path", "Split", *names) == ("png/a.png", "train", "1", "0", "0", "1", "0")
    assert facts(films["c"], "Path", "Split", *names) == ("png/c.png", "test", "0", "1", "0", "1", "0")
    assert content(manifest, "regions.json") == {
        "a": {"Cardiomegaly": {"size": [100, 120], "kind": "box", "boxes": [[10.0, 20.0, 80.0, 40.0]]}},
        "c": {"Nodule or Mass": {"size": [20, 30], "kind": "box", "boxes": [[5.0, 6.0, 3.0, 4.0]]}},
    }


def test_vindr_without_films_has_labels_and_no_outlines(root, capsys):
    releases.vindr(root)
    manifest = make("vindr", root)
    assert set(rows(manifest)) == {"a", "b", "c", "d"}
    assert not (manifest / "regions.json").exists()
    assert "no regions.json: boxes need the films' sizes" in capsys.readouterr().out


def test_rsna(root):
    releases.rsna(root)
    manifest = make("rsna", root)
    films = rows(manifest)
    assert len(films) == 3
    assert "Patient" not in films["00436515"]
    assert facts(films["00436515"], "View", "Sex", "Age", "Lung Opacity", "Normal") == ("AP", "F", "43", "1", "0")
    assert facts(films["00313ee0"], "View", "Sex", "Age", "Lung Opacity", "Normal") == ("PA", "M", "", "0", "1")
    assert facts(films["0004cfab"], "View", "Lung Opacity", "Normal") == ("", "0", "0")
    boxes = content(manifest, "regions.json")["00436515"]["Lung Opacity"]["boxes"]
    assert boxes == [[264.0, 152.0, 213.0, 379.0], [562.0, 152.0, 256.0, 453.0]]
    assert content(manifest)["split"] == {"origin": "none: patients are not known"}


def test_siim_joins_outlines_and_counts_down_the_columns(root):
    releases.siim(root)
    manifest = make("siim", root)
    assert [rows(manifest)[film]["Pneumothorax"] for film in "abcd"] == ["0", "1", "1", "0"]
    regions = content(manifest, "regions.json")
    b = np.zeros((1024, 1024), bool)
    b[0:2, 0] = b[0:3, 1] = b[1:3, 0] = True  # 0 2, then 1022 on: the next column's first three; 1 2
    c = np.zeros((1024, 1024), bool)
    c[1:3, 1] = c[1, 2] = True
    assert (decode_mask(regions["b"]["Pneumothorax"]) == b).all()
    assert (decode_mask(regions["c"]["Pneumothorax"]) == c).all()
    assert set(regions) == {"b", "c"}


def test_brax(root):
    releases.brax(root)
    films = rows(make("brax", root))
    first = films["image-a"]
    assert facts(first, *IDENTITY[:-1]) == (
        *("images/id_a/Study_1/Series_1/image-a.png", "p1", "p1_77", "AP", "F"),
        "85",
    )
    assert labels(first, CHEXPERT.names) == {"No Finding": "1"}
    assert labels(films["image-b"], CHEXPERT.names) == {"Cardiomegaly": "-1"}


def test_taix_grades_days_and_folds(root):
    releases.taix(root)
    films = rows(make("taix", root))
    names = content(root.parent / "release-manifest")["labels"]
    assert facts(films["u1"], "Path", "Patient", "View", "Sex", "Age", "Split") == (
        *("data/u1.png", "p1", "AP", "M", "60"),
        "train",
    )
    grades = {"3": "1", "0": "0", "1": "-1", "2": "1", "4": "1", "": ""}
    assert [films["u1"][name] for name in names] == [grades[grade] for grade in ("3", "0", "1", "2", "0", "4", "0", "")]
    assert facts(films["u2"], "Age", "Split", "HeartSize") == ("99", "val", "-1")
    assert facts(films["u3"], "Age", "Sex", "Split", "Atelectasis_Left") == ("", "", "test", "1")


def test_hannover(root):
    releases.hannover(root)
    manifest = make("hannover", root)
    films, names = rows(manifest), content(manifest)["labels"]
    assert names == ["AP", "ICU", "Male"]
    assert facts(films["i1"], *names) == ("0", "0", "0")
    assert facts(films["i2"], *names) == ("1", "1", "1")
    assert facts(films["i2"], "Path", "Patient", "View", "Sex", "Age") == ("png/i2.png", "p2", "AP", "M", "55")
    assert films["i2"]["Split"] == films["i3"]["Split"] in ("train", "val", "test")


def test_every_label_value_is_one_of_four(root):
    releases.mimic(root)
    for row in rows(make("mimic", root)).values():
        assert {row[name] for name in CHEXPERT.names} <= {"1", "0", "-1", ""}
        assert not any(math.isinf(float(row[name] or 0)) for name in CHEXPERT.names)


# ---- who made the outlines

OUTLINED = {
    "chexlocalize": ("radiologists", "Saporta"),
    "nih": ("radiologists", "Wang"),
    "rsna": ("radiologists", "Shih"),
    "vindr": ("radiologists", "Nguyen"),
    "siim": ("reviewed", "Filice"),
}


def write_outlined(source, root):
    if source == "chexlocalize":
        film = "patient64741_study1_view1_frontal"
        return releases.chexlocalize(root, {film: {"Edema": encode_mask(np.ones((4, 6), bool))}})
    if source == "vindr":  # whose boxes need the films' sizes
        (root / "train_meta.csv").write_text("image_id,dim0,dim1\na,100,100\nb,100,100\nc,100,100\nd,100,100\n")
    return getattr(releases, source)(root)


@pytest.mark.parametrize("source", [name for name in NAMES if source_of(name).regions])
def test_dataset_json_says_who_made_the_outlines(source, root):
    write_outlined(source, root)
    manifest = make(source, root)
    assert content(manifest, "regions.json")
    dataset = content(manifest)
    kind, publication = OUTLINED[source]
    assert dataset["outlines"] == kind
    assert publication in dataset["outlined_by"]
    assert outline_name(manifest / "regions.json") == {"radiologists": "radiologist’s outline"}.get(
        kind, "reviewed outline"
    )


@pytest.mark.parametrize("source", [name for name in NAMES if not source_of(name).regions])
def test_without_outlines_nothing_is_said_of_them(source, root):
    getattr(releases, source)(root)
    assert not content(make(source, root)).keys() & {"outlines", "outlined_by"}


def test_outlines_that_are_drawn_stay_drawn_in_a_manifest_of_the_synthetic_films(root):
    write_outlined("chexlocalize", root)
    (root / "CheXlocalize/dataset.json").write_text('{"outlines": "drawn"}')
    dataset = content(make("chexlocalize", root))
    assert dataset["outlines"] == "drawn"
    assert "outlined_by" not in dataset
