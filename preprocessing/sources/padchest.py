"""PadChest: 160,861 films of 67,625 patients, 174 findings and 19 diagnoses as words (Bustos et al. 2020, 1901.07441).

Source of the format: `PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv`. Traps:

- `Labels` is a Python list with stray spaces: 350 spellings of 193 names. Names are compared whole: `pseudonodule` is
  not a nodule, `pericardial effusion` not a pleural one.
- Blank lists and `['']` (the report names nothing) are not labelled. `exclude`, `suboptimal study` and `unchanged` (as
  in an earlier film) are not findings, and beside them a finding that is not listed is not labelled: 3,705 reports
  say `unchanged` and nothing else, and would pass for healthy films.
- 39,053 films are labelled by physicians, the others by a network that read the reports.
- The age is the year of the study less the year of birth. Sexes `O` and `nan` are unknown.
- Films are 16-bit PNGs of 10 or 12 stored bits, hence the grey rule; they lie in `<ImageDir>/<ImageID>`.
- No official split.
"""

from __future__ import annotations

import re

import numpy as np
import pandas as pd

from preprocessing.manifests.columns import film_table, listed, sexes, stems, views, years
from preprocessing.manifests.source import PERCENTILE, Source, TableFile, Tables

INCOMPLETE = ("exclude", "suboptimal study", "unchanged")
"""Words that make the list of findings an incomplete one."""

_LIST = re.compile(r"""\[(?:(?:'[^'\\]*'|"[^"\\]*")(?:,\s*)?)*\]""")
_ITEM = re.compile(r"""'([^'\\]*)'|"([^"\\]*)\"""")


def films(tables: Tables) -> pd.DataFrame:
    """One row per film of the table; labels are the names that occur in it."""
    table = tables["labels"]
    return film_table(
        table,
        _labels(table),
        path=table["ImageDir"] + "/" + table["ImageID"],
        film=stems(table["ImageID"]),
        patient=table["PatientID"],
        study=table["StudyID"],
        view=views(table["Projection"]),
        sex=sexes(table["PatientSex_DICOM"]),
        age=_ages(table),
    )


def _labels(table: pd.DataFrame) -> pd.DataFrame:
    found = listed(table, "Labels", names_in)
    incomplete = found[[name for name in INCOMPLETE if name in found]].any(axis=1).to_numpy()
    labels = found.drop(columns=[name for name in INCOMPLETE if name in found])
    values = labels.to_numpy()  # (N, C)
    unsaid = incomplete | ~found.any(axis=1).to_numpy()
    values = np.where((values == 0) & unsaid[:, None], np.float32(np.nan), values)
    return pd.DataFrame(values, index=table.index, columns=labels.columns)


def names_in(cell: str) -> set[str]:
    """`['normal', ' nodule']` -> its names, without stray spaces. Raises ValueError for what is not such a list."""
    if cell in ("", "nan"):
        return set()
    if not _LIST.fullmatch(cell):
        raise ValueError("expected a list like ['nodule', 'pleural effusion']")
    return {(single or double).strip() for single, double in _ITEM.findall(cell)} - {""}


def _ages(table: pd.DataFrame) -> pd.Series:
    year = pd.to_numeric(table["StudyDate_DICOM"].str[:4], errors="coerce")
    age = year - pd.to_numeric(table["PatientBirth"], errors="coerce")
    return years(age.map(lambda value: f"{value:.0f}"))


SOURCE = Source(
    title="PadChest",
    tables=(
        TableFile(
            "labels",
            ("PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv", "PADCHEST_chest_x_ray_images_labels_160K.csv"),
            (
                *("ImageID", "ImageDir", "StudyDate_DICOM", "StudyID", "PatientID", "PatientBirth"),
                *("PatientSex_DICOM", "Projection", "Labels"),
            ),
        ),
    ),
    films=films,
    grey=PERCENTILE,
    licence="PadChest Dataset Research Use Agreement",
)
