"""BRAX: 40,967 films of a hospital in Sao Paulo, CheXpert's 14 labels by a labeller of Portuguese reports.

Reis et al. 2022, Scientific Data, doi 10.1038/s41597-022-01608-8. Source of the format: the columns of
`master_spreadsheet_update.csv` as public loaders read them. Traps:

- A blank label is not mentioned and means not labelled.
- Ages are binned by five years and end with `85 or more`.
- Accession numbers are studies of one patient and are joined with the patient's id.
- 12 films are strips (sides in the ratio of 10 and more); preprocessing shows them as what they are.
- No official split.
"""

from __future__ import annotations

import pandas as pd

from cxr.labels import CHEXPERT
from preprocessing.manifests.columns import film_table, label_values, sexes, stems, views, years
from preprocessing.manifests.source import Source, TableFile, Tables


def films(tables: Tables) -> pd.DataFrame:
    """One row per film, its PNG copy."""
    table = tables["sheet"]
    path = table["PngPath"].str.strip()
    return film_table(
        table,
        label_values(table, CHEXPERT.names),
        path=path,
        film=stems(path.str.split("/").str[-1]),
        patient=table["PatientID"],
        study=table["PatientID"] + "_" + table["AccessionNumber"],
        view=views(table["ViewPosition"]),
        sex=sexes(table["PatientSex"]),
        age=years(table["PatientAge"]),
    )


SOURCE = Source(
    title="BRAX",
    tables=(
        TableFile(
            "sheet",
            ("master_spreadsheet_update.csv", "master_spreadsheet.csv"),
            ("PngPath", "PatientID", "PatientSex", "PatientAge", "AccessionNumber", "ViewPosition", *CHEXPERT.names),
        ),
    ),
    films=films,
    licence="PhysioNet Credentialed Health Data License 1.5.0",
)
