"""MIMIC-CXR-JPG: 377,110 films of 65,379 patients, CheXpert's 14 labels per study (Johnson et al. 2019, 1901.07042).

Source of the format: `mimic-cxr-2.0.0-{metadata,split,chexpert,negbio}.csv.gz`, `mimic-cxr-2.1.0-test-set-labeled.csv`.
Traps:

- Labels are per study, films per `dicom_id`: all films of a study carry its labels, also the lateral ones.
- A blank label is not mentioned and means not labelled; a study without any row has no label at all.
- The radiologists' test labels say only `study_id`, call Lung Opacity `Airspace Opacity` and have -1 too. Where that
  table is there, the test split holds its labels and no others: two labellers are not mixed in one test.
- No sex and no age: they stand in MIMIC-IV, under another agreement.
"""

from __future__ import annotations

import pandas as pd

from cxr.labels import CHEXPERT
from preprocessing.manifests.columns import film_table, joined, joined_splits, label_values, views
from preprocessing.manifests.source import Source, TableFile, Tables

STUDY = ("subject_id", "study_id")


def films(tables: Tables) -> pd.DataFrame:
    """One row per film of the metadata, with the labels of its study."""
    table = tables["metadata"]
    split = joined_splits(table, tables["split"], ["dicom_id"], "split")
    patient, study = table["subject_id"], table["study_id"]
    folder = "files/p" + patient.str[:2] + "/p" + patient + "/s" + study + "/"
    return film_table(
        table,
        _labels(table, split, tables),
        path=folder + table["dicom_id"] + ".jpg",
        film=table["dicom_id"],
        patient=patient,
        study=study,
        view=views(table["ViewPosition"]),
        split=split,
    )


def _labels(table: pd.DataFrame, split: pd.Series, tables: Tables) -> pd.DataFrame:
    reports, radiologists = tables["labels"], tables.get("test_labels")
    labels = joined(table, reports, STUDY, label_values(reports, CHEXPERT.names))
    if radiologists is None:
        return labels
    by_hand = joined(table, radiologists, ["study_id"], label_values(radiologists, CHEXPERT.names))
    read = table["study_id"].isin(set(radiologists["study_id"]))
    return labels.where(~read & (split != "test"), by_hand)


PREFIX = "mimic-cxr-2.0.0-"

SOURCE = Source(
    title="MIMIC-CXR-JPG",
    tables=(
        TableFile("metadata", (PREFIX + "metadata.csv",), ("dicom_id", *STUDY, "ViewPosition")),
        TableFile("split", (PREFIX + "split.csv",), ("dicom_id", "split")),
        TableFile("labels", (PREFIX + "chexpert.csv", PREFIX + "negbio.csv"), (*STUDY, *CHEXPERT.names)),
        TableFile(
            "test_labels",
            ("mimic-cxr-2.1.0-test-set-labeled.csv",),
            ("study_id", *CHEXPERT.names),
            required=False,
            renamed={"Airspace Opacity": "Lung Opacity"},
        ),
    ),
    films=films,
    licence="PhysioNet Credentialed Health Data License 1.5.0",
)
