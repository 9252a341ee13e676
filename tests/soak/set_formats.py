"""Tables of public data sets and records of folders of films: writers of good ones, and their readers."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from cxr.files import write_json
from cxr.images import open_film
from cxr.manifests.films import read_films
from cxr.packed import Packing, write_row
from cxr.pixels.grey import recorded_grey
from preprocessing import makeManifest
from preprocessing.phantom.release import claim
from tests.films import film_pixels
from tests.preprocessing.sources import releases

Writer = Callable[[Path, Path], Path]
Reader = Callable[[Path], object]

TABLES = (
    ("chexpert", "train.csv"),
    ("nih", "Data_Entry_2017_v2020.csv"),
    ("nih", "BBox_List_2017.csv"),
    ("nih", "train_val_list.txt"),
    ("google_nih", "google2019_nih-chest-xray-labels.csv"),
    ("mimic", "mimic-cxr-2.0.0-metadata.csv.gz"),
    ("padchest", "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv.gz"),
    ("vindr", "annotations/annotations_train.csv"),
    ("vindr", "annotations/image_labels_train.csv"),
    ("rsna", "stage_2_train_labels.csv"),
    ("siim", "train-rle.csv"),
    ("brax", "master_spreadsheet_update.csv"),
    ("taix", "annotation.csv"),
    ("hannover", "data.csv"),
)
"""Source, and a table of its release."""


def release(source: str, table: str) -> Writer:
    def write(folder: Path, _: Path) -> Path:
        getattr(releases, source)(folder / "release")
        return folder / "release" / table

    return write


def read_release(source: str, path: Path) -> None:
    root = next(parent for parent in path.parents if parent.name == "release")
    assert makeManifest.main(["--source", source, str(root), "--output", str(root.parent / "manifest")]) == 0


def parquet(folder: Path, _: Path) -> Path:
    films = {
        "Path": ["a.png", "b.png"],
        "Film": ["a", "b"],
        "Patient": ["1", "2"],
        "Split": ["test"] * 2,
        "Mass": [0.0, 1.0],
    }
    pd.DataFrame(films).to_parquet(folder / "films.parquet")
    facts = {"name": "x", "labels": ["Mass"], "groups": {"one": ["Mass"]}, "tasks": {}}
    write_json(folder / "dataset.json", facts | {"blank": "not labelled", "grey": {"rule": "stored"}})
    for name in films["Path"]:
        Image.fromarray(film_pixels(8, 8)).save(folder / name)
    return folder / "films.parquet"


def copies(folder: Path, _: Path) -> Path:
    write_json(folder / "preprocessing.json", {"size": 64, "grey": {"rule": "range", "low": 0, "high": 200}})
    return folder / "preprocessing.json"


def cohort(folder: Path, _: Path) -> Path:
    claim(folder, 20, 0)
    return folder / "demo.json"


def rows(folder: Path, _: Path) -> Path:
    """The journal of an array whose films were packed when the job was killed."""
    packing = Packing(folder, "train", ["a", "b", "c"], 8, {})
    for row in range(2):
        packing.done(row, write_row(packing.part, row, np.full((8, 8), 50 * row, np.uint8)))
    return folder / ".train.journal"


def read_rows(path: Path) -> None:
    packing = Packing(path.parent, "train", ["a", "b", "c"], 8, {})
    for row in packing.missing:
        packing.done(row, write_row(packing.part, row, np.full((8, 8), 50 * row, np.uint8)))
    packing.finish()
    array = np.load(path.parent / "train.npy")
    assert [int(row.max()) for row in array] == [0, 50, 100]


def film(suffix: str) -> Writer:
    def write(folder: Path, _: Path) -> Path:
        Image.fromarray(film_pixels(48, 64)).save(folder / f"film{suffix}")
        return folder / f"film{suffix}"

    return write


FORMATS: dict[str, tuple[Writer, Reader]] = {
    **{f"{of} {table}": (release(of, table), partial(read_release, of)) for of, table in TABLES},
    **(
        {"parquet": (parquet, lambda path: read_films(path, path.parent, split="test"))} if find_spec("pyarrow") else {}
    ),
    "record of copies": (copies, lambda path: recorded_grey(path.parent)),
    "record of a cohort": (cohort, lambda path: claim(path.parent, 20, 0)),
    "packed rows": (rows, read_rows),
    **{f"film {suffix}": (film(suffix), open_film) for suffix in (".bmp", ".gif", ".webp")},
}
