"""CheXpert: 224,316 films of Stanford, 14 labels by a labeller of reports (Irvin et al. 2019, arXiv 1901.07031).

Source of the format: the release's own `train.csv` and `valid.csv`. Traps:

- A blank label is negative in this set, as published; -1 is uncertain.
- Paths start with the release's folder (`CheXpert-v1.0-small/`), which is the root here and is cut off.
- Frontal/Lateral and AP/PA disagree: 17 frontal films have the projection LL or RL; their view is written as unknown.
- Age 0 (3 films of `train.csv`) stands for unknown, as Sex `Unknown` does; 90 means 90 or more.
- `train_visualCheXbert.csv` (labels as if read off the films, as the paper trains on) is preferred where it is there.
"""

from __future__ import annotations

import pandas as pd

from cxr.labels import CHEXPERT
from preprocessing.manifests.columns import film_table, label_values, sexes, views, years
from preprocessing.manifests.source import Source, TableFile, Tables

SPLIT_OF_TABLE = {"train": "train", "valid": "val", "test": "test"}


def films(tables: Tables) -> pd.DataFrame:
    """The films of `train`, `valid` and `test`, whichever are there."""
    present = [key for key in SPLIT_OF_TABLE if key in tables]
    return pd.concat([label_table(tables[key], SPLIT_OF_TABLE[key]) for key in present])


def label_table(table: pd.DataFrame, split: str) -> pd.DataFrame:
    """One of CheXpert's tables as films; demographics may be absent. Also of CheXlocalize's tables."""
    path = table["Path"].str.replace(r"^CheXpert-v1\.0[^/]*/", "", regex=True)
    ids = pd.DataFrame(map(_ids, path), index=table.index, columns=["film", "patient", "study"], dtype="str")
    return film_table(
        table,
        label_values(table, CHEXPERT.names),
        path=path,
        film=ids["film"],
        patient=ids["patient"],
        study=ids["study"],
        view=_view(table),
        sex=sexes(table["Sex"]) if "Sex" in table else "",
        age=years(table["Age"]).replace("0", "") if "Age" in table else "",
        split=split,
    )


def _ids(path: str) -> tuple[str, str, str]:
    """`train/patient00001/study1/view1_frontal.jpg` -> film, patient and study; the last two blank in another tree."""
    *_, patient, study, name = ("", "", *path.split("/"))
    film = "_".join(part for part in (patient, study, name.rpartition(".")[0] or name) if part)
    if not (patient.startswith("patient") and study.startswith("study")):
        return film, "", ""
    return film, patient, f"{patient}/{study}"


def _view(table: pd.DataFrame) -> pd.Series | str:
    if "Frontal/Lateral" not in table or "AP/PA" not in table:
        return ""
    projection = views(table["AP/PA"]).replace("L", "")
    return projection.where(table["Frontal/Lateral"] != "Lateral", "L")


COLUMNS = ("Path", *CHEXPERT.names)

SOURCE = Source(
    title="CheXpert",
    tables=(
        TableFile("train", ("train_visualCheXbert.csv", "train.csv"), COLUMNS),
        TableFile("valid", ("valid.csv",), COLUMNS, required=False),
        TableFile("test", ("test_labels.csv", "test.csv"), COLUMNS, required=False),
    ),
    films=films,
    label_set=CHEXPERT,
    blank="negative",
    licence="Stanford University Dataset Research Use Agreement",
)
