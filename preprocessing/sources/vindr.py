"""VinDr-CXR: 18,000 films of two hospitals in Hanoi, radiologists' findings with boxes (Nguyen et al. 2022).

Scientific Data, doi 10.1038/s41597-022-01498-w. Source of the formats: Kaggle's `train.csv` (VinBigData), and
PhysioNet's `annotations/image_labels_{train,test}.csv` and `annotations_{train,test}.csv`. Traps:

- Training films were read by three radiologists each, who disagree: of 15,365 film-findings of Kaggle's table 6,540
  were seen by one of them only. `votes` of them (default 2) make a label positive; fewer make it negative.
- PhysioNet's test labels are a consensus without `rad_id`; they spell `Other disease`, train `Other diseases`.
- Boxes are in pixels of the DICOM films, whose size stands in no table of either release; `train_meta.csv`
  (`image_id,dim0,dim1`), which circulates on Kaggle, or the films themselves have it.
- No patient ids: one patient may have several films, so that the set cannot be split by patient.
- Kaggle's table lists findings only: a class that no reader of a film names is negative.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from preprocessing.manifests.columns import film_table, label_values, listed
from preprocessing.manifests.outlines import Size, add_boxes, numbers
from preprocessing.manifests.source import Regions, Source, TableFile, Tables

VOTES = 2
"""Of three readers."""

CORNERS = ("x_min", "y_min", "x_max", "y_max")
READ = ("image_id", "rad_id", "No finding")
DRAWN = ("image_id", "class_name", *CORNERS)
SPELLINGS = {"Other diseases": "Other disease", "Nodule/Mass": "Nodule or Mass"}
"""A label names files, which no `/` may be in."""

KAGGLE_CLASSES = (
    *("No finding", "Aortic enlargement", "Atelectasis", "Calcification", "Cardiomegaly", "Consolidation", "ILD"),
    *("Infiltration", "Lung Opacity", "Nodule or Mass", "Other lesion", "Pleural effusion", "Pleural thickening"),
    *("Pneumothorax", "Pulmonary fibrosis"),
)


def films(tables: Tables, votes: int = VOTES) -> pd.DataFrame:
    """One row per film. votes: readers who must name a finding of a training film."""
    train, official = tables["train"], "test" in tables
    seen = _kaggle_votes(train) if "class_name" in train else _physionet_votes(train)
    first = train.drop_duplicates("image_id")
    labels = (seen.loc[first["image_id"]] >= votes).set_axis(first.index)
    parts = [_film_rows(first, labels, "train", "train" if official else "")]
    if official:
        names = _label_columns(tables["test"])
        parts.append(_film_rows(tables["test"], label_values(tables["test"], names), "test", "test"))
    return pd.concat(parts)


def _film_rows(table: pd.DataFrame, labels: pd.DataFrame, folder: str, split: str) -> pd.DataFrame:
    name = table["image_id"]
    return film_table(table, labels, path=f"{folder}/" + name + ".dicom", film=name, split=split)


def _label_columns(table: pd.DataFrame) -> list[str]:
    return [name for name in table.columns if name not in ("image_id", "rad_id")]


def _kaggle_votes(table: pd.DataFrame) -> pd.DataFrame:
    """Readers who name a class, by film and class; a reader who draws several boxes counts once."""
    named = table.drop_duplicates(["image_id", "rad_id", "class_name"])
    classes = listed(named, "class_name", lambda name: [SPELLINGS.get(name, name)], KAGGLE_CLASSES)
    return classes.groupby(named["image_id"].to_numpy()).sum()


def _physionet_votes(table: pd.DataFrame) -> pd.DataFrame:
    values = label_values(table, _label_columns(table)).to_numpy()
    counted = pd.DataFrame(np.nan_to_num(values), columns=_label_columns(table))
    return counted.groupby(table["image_id"].to_numpy()).sum()


def regions(tables: Tables, votes: int = VOTES) -> Regions:
    """The boxes of all readers, of the findings that are positive by `votes`."""
    labels = films(tables, votes).set_index("Film")
    found: Regions = {}
    for key in ("train" if "class_name" in tables["train"] else "train_boxes", "test_boxes"):
        if key in tables:
            table = tables[key].replace({"class_name": SPELLINGS})
            table.attrs["file"] = tables[key].attrs["file"]
            _add(found, table[table["x_min"] != ""], labels, _sizes(tables))
    return found


def _add(found: Regions, drawn: pd.DataFrame, labels: pd.DataFrame, sizes: Mapping[str, Size | None]) -> None:
    known = drawn["image_id"].isin(labels.index) & drawn["class_name"].isin(labels.columns)
    positive = pd.Series(True, index=drawn.index)  # a film or class without label is left to the checks
    rows = labels.index.get_indexer(drawn["image_id"][known])
    columns = labels.columns.get_indexer(drawn["class_name"][known])
    positive[known] = labels.to_numpy()[rows, columns] == 1
    drawn = drawn[positive]
    boxes = numbers(drawn, CORNERS)
    boxes[:, 2:] -= boxes[:, :2]  # corners -> width, height
    add_boxes(found, drawn, boxes, films=drawn["image_id"], tasks=drawn["class_name"], sizes=sizes)


def _sizes(tables: Tables) -> Mapping[str, Size | None]:
    if "sizes_table" not in tables:
        return tables["sizes"]
    table = tables["sizes_table"]
    sides = numbers(table, ("dim0", "dim1")).astype(int).tolist()
    return {film: (height, width) for film, (height, width) in zip(table["image_id"], sides, strict=True)}


def _in_folder(name: str) -> tuple[str, str]:
    return f"annotations/{name}", name


SOURCE = Source(
    title="VinDr-CXR",
    tables=(
        TableFile("train", _in_folder("image_labels_train.csv"), READ, renamed=SPELLINGS),
        TableFile("train", ("train.csv",), ("image_id", "class_name", "rad_id", *CORNERS)),
        TableFile(
            "test", _in_folder("image_labels_test.csv"), ("image_id", "No finding"), required=False, renamed=SPELLINGS
        ),
        TableFile("train_boxes", _in_folder("annotations_train.csv"), DRAWN, required=False),
        TableFile("test_boxes", _in_folder("annotations_test.csv"), DRAWN, required=False),
        TableFile("sizes_table", ("train_meta.csv",), ("image_id", "dim0", "dim1"), required=False),
    ),
    films=films,
    regions=regions,
    outlines="radiologists",
    outlined_by="17 radiologists: three for each training film, five in consensus for test films (Nguyen et al. 2022)",
    sizes=True,
    options={"votes": VOTES},
    licence="PhysioNet Credentialed Health Data License 1.5.0; Kaggle: VinBigData competition rules",
)
