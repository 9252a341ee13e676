"""Google's labels of 4,376 NIH films: four findings, adjudicated by radiologists (Majkowska et al. 2020).

Radiology, doi 10.1148/radiol.2019191293. Source of the format: `google2019_nih-chest-xray-labels.csv`, the columns of
NIH's table and `Fracture,Pneumothorax,Airspace opacity,Nodule or mass,Set Id`. Traps:

- `YES` and `NO` are the adjudicated labels; NIH's own `Finding Labels` stand beside them and are not used.
- `Set Id` is `val` or `test`, by patient; there is no training part.
"""

from __future__ import annotations

import pandas as pd

from preprocessing.manifests.columns import film_table, sexes, splits, stems, translated, views, years
from preprocessing.manifests.source import Source, TableFile, Tables

FINDINGS = ("Fracture", "Pneumothorax", "Airspace opacity", "Nodule or mass")
ANSWERS = {"YES": 1.0, "NO": 0.0, "": float("nan")}


def films(tables: Tables) -> pd.DataFrame:
    """One row per film; films lie where NIH's do."""
    table = tables["labels"]
    return film_table(
        table,
        pd.DataFrame({finding: translated(table, finding, _answer) for finding in FINDINGS}),
        path="images/" + table["Image Index"],
        film=stems(table["Image Index"]),
        patient=table["Patient ID"],
        view=views(table["View Position"]),
        sex=sexes(table["Patient Gender"]),
        age=years(table["Patient Age"]),
        split=splits(table, "Set Id"),
    )


def _answer(cell: str) -> float:
    if cell.strip() not in ANSWERS:
        raise ValueError("expected YES or NO")
    return ANSWERS[cell.strip()]


SOURCE = Source(
    title="Google's labels of NIH films",
    tables=(
        TableFile(
            "labels",
            ("google2019_nih-chest-xray-labels.csv",),
            ("Image Index", "Patient ID", "Patient Age", "Patient Gender", "View Position", *FINDINGS, "Set Id"),
        ),
    ),
    films=films,
    licence="labels: CC BY 4.0; films: NIH Clinical Center, free use with citation of Wang et al. 2017",
)
