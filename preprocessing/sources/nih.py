"""NIH ChestX-ray14: 112,120 films of 30,805 patients, 14 findings mined from reports (Wang et al. 2017, CVPR).

Source of the format: `Data_Entry_2017_v2020.csv`, `BBox_List_2017.csv`, `train_val_list.txt`, `test_list.txt`. Traps:

- Findings are one cell, `Cardiomegaly|Emphysema`; headers hold unquoted commas, `OriginalImage[Width,Height]`.
- The first release calls the sex `Patient Gender`, others `Patient Sex`; ages come as `58` and as `058Y`, up to `414Y`.
- Films lie in `images_001/images/` to `images_012/images/`, or flat; they are found by name.
- The boxes' `Infiltrate` is the label `Infiltration`. Boxes are in the 1024 x 1024 films of the release; a finding
  without a box is not outlined, which says nothing of the other findings.
- The official lists are by patient and have no validation part; it is drawn from the patients of `train_val_list.txt`.
- Finding labels list what the report mentions, so that a finding not listed is negative here.
"""

from __future__ import annotations

import pandas as pd

from cxr.files import InputError, place, quoted
from cxr.tables import line_of
from preprocessing.manifests.columns import film_table, listed, sexes, stems, views, years
from preprocessing.manifests.outlines import add_boxes, numbers
from preprocessing.manifests.source import Regions, Source, TableFile, Tables

SIDE = 1024
"""Pixels of the release's square films."""

LABELS = (
    *("No Finding", "Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Effusion", "Emphysema", "Fibrosis"),
    *("Hernia", "Infiltration", "Mass", "Nodule", "Pleural_Thickening", "Pneumonia", "Pneumothorax"),
)

BOX = ("Bbox [x", "y", "w", "h]")
BOX_LABELS = {"Infiltrate": "Infiltration"}


def films(tables: Tables) -> pd.DataFrame:
    """One row per film, with the official split where its two lists are there."""
    table = tables["entries"]
    return film_table(
        table,
        listed(table, "Finding Labels", findings, LABELS),
        path="images/" + table["Image Index"],
        film=stems(table["Image Index"]),
        patient=table["Patient ID"],
        view=views(table["View Position"]),
        sex=sexes(table["Patient Gender"]),
        age=years(table["Patient Age"]),
        split=_split(table, tables),
    )


def findings(cell: str) -> list[str]:
    """`Cardiomegaly|Emphysema` -> its labels. Raises ValueError for a blank one."""
    names = [name.strip() for name in cell.split("|")]
    if not all(names):
        raise ValueError("expected findings joined by |, or No Finding")
    return names


def _split(table: pd.DataFrame, tables: Tables) -> pd.Series | str:
    if "train_list" not in tables or "test_list" not in tables:
        return ""
    name = table["Image Index"]
    train, test = name.isin(set(tables["train_list"]["name"])), name.isin(set(tables["test_list"]["name"]))
    wrong = train == test
    if wrong.any():
        row = int(wrong.to_numpy().argmax())
        lists = "both" if train.iloc[row] else "neither"
        where = place(table.attrs["file"], line_of(table, int(table.index[row])), "Image Index")
        raise InputError(f"{where}: {quoted(name.iloc[row])} is in {lists} of train_val_list.txt and test_list.txt")
    for key, listed_in in (("train_list", train), ("test_list", test)):
        if not listed_in.any():
            raise InputError(f"{place(tables[key].attrs['file'])}: no film of {table.attrs['file']} is in this split")
    return pd.Series("train", index=table.index, dtype="str").where(train, "test")


def regions(tables: Tables) -> Regions:
    """The boxes that radiologists drew around single findings."""
    found: Regions = {}
    if "boxes" in tables:
        table = tables["boxes"]
        tasks = table["Finding Label"].replace(BOX_LABELS)
        add_boxes(found, table, numbers(table, BOX), films=stems(table["Image Index"]), tasks=tasks, sizes=(SIDE, SIDE))
    return found


SOURCE = Source(
    title="NIH ChestX-ray14",
    tables=(
        TableFile(
            "entries",
            ("Data_Entry_2017_v2020.csv", "Data_Entry_2017.csv", "sample_labels.csv"),
            ("Image Index", "Finding Labels", "Patient ID", "Patient Age", "Patient Gender", "View Position"),
            renamed={"Patient Sex": "Patient Gender"},
        ),
        TableFile("boxes", ("BBox_List_2017.csv",), ("Image Index", "Finding Label", *BOX), required=False),
        TableFile("train_list", ("train_val_list.txt",), required=False),
        TableFile("test_list", ("test_list.txt",), required=False),
    ),
    films=films,
    regions=regions,
    outlines="radiologists",
    outlined_by="a board-certified radiologist (Wang et al. 2017)",
    licence="NIH Clinical Center: free use with citation of Wang et al. 2017",
)
