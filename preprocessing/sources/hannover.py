"""COVID-19 Image Repository of Hannover Medical School: 243 films of 71 patients (doi 10.6084/m9.figshare.12275009).

Source of the format: the repository's `data.csv`. Labels are what the table supports; none is a radiological finding:

- AP: the projection, `ap` or `pa`. Male: the sex. ICU: a stay in intensive care is recorded, before, during or after
  the film (186 films); a blank admission means that there was none.
- Ages are mostly blank. Offsets count days from the film, so that one stay has other numbers at each film.
- No official split; films of one patient belong into one.
"""

from __future__ import annotations

import pandas as pd

from preprocessing.manifests.columns import film_table, sexes, views, years
from preprocessing.manifests.source import Source, TableFile, Tables


def films(tables: Tables) -> pd.DataFrame:
    """One row per film, with the labels AP, ICU and Male."""
    table = tables["data"]
    view, sex = views(table["projection"]), sexes(table["sex"])
    labels = {
        "AP": (view == "AP").astype(float).where(view.isin(["AP", "PA"])),
        "ICU": (table["icu_admission_offset"] != "").astype(float),
        "Male": (sex == "M").astype(float).where(sex != ""),
    }
    return film_table(
        table,
        pd.DataFrame(labels),
        path="png/" + table["image_id"] + ".png",
        film=table["image_id"],
        patient=table["patient_id"],
        view=view,
        sex=sex,
        age=years(table["age"]),
    )


SOURCE = Source(
    title="COVID-19 Image Repository, Hannover Medical School",
    tables=(
        TableFile(
            "data",
            ("data.csv",),
            ("patient_id", "image_id", "sex", "age", "projection", "icu_admission_offset"),
        ),
    ),
    films=films,
    licence="CC BY 3.0",
)
