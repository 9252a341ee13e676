"""Label files of all releases, read by name; and every mistake told with its row."""

import os

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from cxr.dataset import FilmDataset
from cxr.files import InputError
from cxr.labels import CHEXPERT
from cxr.manifests.films import read_films
from cxr.manifests.splits import split_table
from cxr.paths import film_id, patient_of
from cxr.pixels.grey import Grey
from tests.films import alternating_labels, write_film, write_labels

PATHS = [
    "CheXpert-v1.0/train/patient00001/study1/view1_frontal.jpg",
    "CheXpert-v1.0/train/patient00001/study1/view2_lateral.jpg",
    "CheXpert-v1.0/train/patient00002/study1/view1_frontal.jpg",
    "CheXpert-v1.0/train/patient00003/study1/view1_frontal.jpg",
]


@pytest.fixture
def root(tmp_path):
    for path in PATHS:
        write_film(tmp_path / path.partition("/")[2])
    write_labels(tmp_path / "train.csv", PATHS, alternating_labels(4))
    return tmp_path


def edit(root, change):
    table = pd.read_csv(root / "train.csv", dtype=str, keep_default_na=False)
    change(table).to_csv(root / "train.csv", index=False)
    return root / "train.csv"


def set_value(row, column, value):
    def change(table):
        table.loc[row, column] = value
        return table

    return change


def test_labels_are_in_the_projects_order_whatever_the_columns(root):
    expected = read_films(root / "train.csv", root).labels
    np.testing.assert_array_equal(expected, alternating_labels(4))
    order = np.random.default_rng(0).permutation(19)
    csv = edit(root, lambda table: table.iloc[:, order])
    np.testing.assert_array_equal(read_films(csv, root).labels, expected)


def test_visualchexbert_with_no_finding_last_and_test_csv_without_demographics(root):
    def no_finding_last(table):
        return table[[name for name in table if name != "No Finding"] + ["No Finding"]]

    edit(root, no_finding_last).rename(root / "train_visualCheXbert.csv")
    assert split_table(root, "train").name == "train_visualCheXbert.csv"
    np.testing.assert_array_equal(read_films(split_table(root, "train"), root).labels, alternating_labels(4))
    write_film(root / "test/patient64741/study1/view1_frontal.jpg")
    path = "test/patient64741/study1/view1_frontal.jpg"
    write_labels(root / "test_labels.csv", [path], alternating_labels(1), demographics=False)
    films = read_films(root / "test_labels.csv", root)
    assert list(films.files) == [root / path]
    np.testing.assert_array_equal(films.labels, alternating_labels(1))


@pytest.mark.parametrize(("policy", "expected"), [("zeros", 0.0), ("ones", 1.0), ("ignore", np.nan)])
def test_uncertain_policies_and_blank(root, policy, expected):
    csv = edit(root, set_value(1, "Edema", "-1.0"))
    csv = edit(root, set_value(2, "Edema", ""))
    labels = read_films(csv, root, uncertain=policy).labels[:, CHEXPERT.names.index("Edema")]
    np.testing.assert_array_equal(labels[1], expected)
    assert labels[2] == 0


def test_small_release_valid_in_val_and_the_folder_above(tmp_path):
    paths = [f"CheXpert-v1.0-small/valid/patient6454{i}/study1/view1_frontal.jpg" for i in (1, 2)]
    write_film(tmp_path / "a/val/patient64541/study1/view1_frontal.jpg")
    write_film(tmp_path / "a/val/patient64542/study1/view1_frontal.jpg")
    for path in paths:
        write_film(tmp_path / "b" / path)
    for folder in ("a", "b"):
        write_labels(tmp_path / folder / "valid.csv", paths, alternating_labels(2))
    in_val = read_films(tmp_path / "a/valid.csv", tmp_path / "a")
    assert in_val.files[0] == tmp_path / "a/val/patient64541/study1/view1_frontal.jpg"
    above = read_films(tmp_path / "b/valid.csv", tmp_path / "b")
    assert above.files[0] == tmp_path / "b" / paths[0]


def test_filters(root):
    csv = root / "train.csv"
    assert len(read_films(csv, root, frontal_only=True)) == 3
    two_of_three = read_films(csv, root, fraction=0.67)
    assert {patient_of(path) for path in two_of_three.paths} == {"patient00002", "patient00003"}
    with pytest.raises(InputError, match=r"train\.csv: no film is left of those chosen \(frontal only"):
        read_films(csv, root, fraction=0.3)
    with pytest.raises(InputError, match="fraction"):
        read_films(csv, root, fraction=0)


def test_names():
    assert film_id("CheXpert-v1.0/valid/patient64541/study1/view1_frontal.jpg") == "patient64541_study1_view1_frontal"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda table: table.drop(columns="Edema"), "no column named 'Edema'"),
        (set_value(2, "Edema", "maybe"), "line 4, Edema: 'maybe' is not a label"),
        (set_value(1, "Fracture", "2.0"), "line 3, Fracture: '2.0' is not a label"),
        (set_value(2, "Path", PATHS[0]), "line 4, Path: the film .* is also that of line 2"),
        (set_value(1, "Path", "/etc/patient/study/view.jpg"), "line 3, Path: .* is an absolute path"),
        (
            set_value(1, "Path", "CheXpert-v1.0/../../secret/study1/v.jpg"),
            "line 3, Path: .* a path out of the data folder",
        ),
        (set_value(3, "Path", PATHS[3].replace("00003", "00009")), "line 5, Path: no film at"),
        (lambda table: table.iloc[:0], "no rows"),
    ],
)
def test_mistakes_name_file_and_row(root, change, message):
    csv = edit(root, change)
    with pytest.raises(InputError, match=message) as caught:
        read_films(csv, root)
    assert str(csv) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_symbolic_link_to_another_disk_is_followed(root, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("disk")
    os.rename(root / "train", elsewhere / "train")
    os.symlink(elsewhere / "train", root / "train")
    assert len(read_films(root / "train.csv", root)) == 4


def test_dataset_gives_the_square_in_unit_range_and_its_place(root):
    dataset = FilmDataset(read_films(root / "train.csv", root), 16)
    image, labels = dataset[1]
    assert image.shape == (1, 16, 16)
    assert image.dtype == torch.float32
    assert 0 <= image.min() < image.max() <= 1
    np.testing.assert_array_equal(labels, alternating_labels(4)[1])
    assert dataset.image(1)[1].box == (4, 0, 36, 32)  # of a film of 40 x 32


def test_an_unreadable_film_names_its_row(root):
    (root / PATHS[2].partition("/")[2]).write_bytes(b"")
    dataset = FilmDataset(read_films(root / "train.csv", root), 16)
    with pytest.raises(InputError, match=r"train\.csv, line 4: .*patient00002"):
        dataset[2]


def test_films_are_read_by_the_data_set_s_grey_rule_and_copies_as_they_are(tmp_path):
    """12 bits in a 16-bit PNG: near black as stored, right by the rule of dataset.json."""
    deep = (np.arange(64 * 64).reshape(64, 64) % 4096).astype(np.uint16)
    Image.fromarray(deep).save(tmp_path / "a.png")
    (tmp_path / "films.csv").write_text("Path,L\na.png,1\n")
    (tmp_path / "dataset.json").write_text('{"labels": ["L"], "grey": {"rule": "range", "low": 0, "high": 4095}}')
    films = read_films(tmp_path / "films.csv", tmp_path)
    image, _ = FilmDataset(films, 64)[0]
    np.testing.assert_allclose(image[0].numpy(), deep / 4095, atol=1e-6)
    (tmp_path / "preprocessing.json").write_text('{"size": 64}')  # copies were made by the rule already
    assert read_films(tmp_path / "films.csv", tmp_path).grey == Grey.STORED
