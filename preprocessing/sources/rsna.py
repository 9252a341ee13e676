"""RSNA Pneumonia Detection Challenge: 26,684 NIH films with boxes of lung opacity (Shih et al. 2019).

Radiology: Artificial Intelligence, doi 10.1148/ryai.2019180041. Source of the format: Kaggle's
`stage_2_train_labels.csv` and `stage_2_detailed_class_info.csv`. Traps:

- `patientId` is a FILM id. The films are NIH's and patients have several, so that no patient is known, the set cannot
  be split by patient, and it is not an external test of a network trained on NIH.
- One row per box, up to four of a film; all rows of a film are one film.
- Boxes are in the 1024 x 1024 films. They surround opacities suspicious of pneumonia: a film of the class
  `No Lung Opacity / Not Normal` may show other findings.
- Sex, age and view stand in the DICOM headers only; the table of them that torchxrayvision carries is read where it is
  there. Some ages are 148 to 155 years: unknown.
"""

from __future__ import annotations

import pandas as pd

from preprocessing.manifests.columns import film_table, joined, label_values, sexes, views, years
from preprocessing.manifests.outlines import add_boxes, numbers
from preprocessing.manifests.source import Regions, Source, TableFile, Tables

SIDE = 1024
BOX = ("x", "y", "width", "height")
LABEL = "Lung Opacity"


def films(tables: Tables) -> pd.DataFrame:
    """One row per film: Lung Opacity, and Normal where the classes are there."""
    table = tables["labels"]
    first = table.drop_duplicates("patientId")
    film = first["patientId"]
    target = label_values(table, ["Target"])["Target"].groupby(table["patientId"].to_numpy()).max()
    labels = pd.DataFrame({LABEL: target.loc[film].to_numpy()}, index=first.index)
    if "classes" in tables:
        classes = tables["classes"].drop_duplicates()  # it repeats a film for each of its boxes
        named = joined(first, classes, ["patientId"], classes["class"])
        labels["Normal"] = (named == "Normal").astype(float).where(named.notna())
    columns = {}
    if "headers" in tables:
        headers = joined(first, tables["headers"], ["patientId"], tables["headers"]).fillna("")
        columns["view"], columns["sex"] = views(headers["ViewPosition"]), sexes(headers["PatientSex"])
        columns["age"] = years(headers["PatientAge"])
    return film_table(first, labels, path="stage_2_train_images/" + film + ".dcm", film=film, **columns)


def regions(tables: Tables) -> Regions:
    """The boxes of the positive films."""
    table = tables["labels"]
    drawn = table[table["x"] != ""]
    found: Regions = {}
    tasks = pd.Series(LABEL, index=drawn.index)
    add_boxes(found, drawn, numbers(drawn, BOX), films=drawn["patientId"], tasks=tasks, sizes=(SIDE, SIDE))
    return found


SOURCE = Source(
    title="RSNA Pneumonia Detection Challenge",
    tables=(
        TableFile("labels", ("stage_2_train_labels.csv",), ("patientId", *BOX, "Target")),
        TableFile("classes", ("stage_2_detailed_class_info.csv",), ("patientId", "class"), required=False),
        TableFile(
            "headers",
            ("kaggle_stage_2_train_images_dicom_headers.csv",),
            ("patientId", "PatientSex", "PatientAge", "ViewPosition"),
            required=False,
            renamed={"PatientID": "patientId"},
        ),
    ),
    films=films,
    regions=regions,
    outlines="radiologists",
    outlined_by="radiologists of RSNA and the Society of Thoracic Radiology (Shih et al. 2019)",
    licence="RSNA Pneumonia Detection Challenge terms (non-commercial)",
)
