"""SIIM-ACR Pneumothorax Segmentation: 12,047 films with masks of pneumothoraces (Filice et al. 2020).

Journal of Digital Imaging, doi 10.1007/s10278-019-00299-9. Source of the format: Kaggle's `train-rle.csv`. Traps:

- The second column's name starts with a blank, and so may `-1`, which means no pneumothorax.
- One row per outline: 624 films have several, up to ten, which are joined by or.
- The run-length code has RELATIVE starts (pixels since the end of the last run) and runs down the columns of the
  1024 x 1024 film, unlike the code of other Kaggle sets.
- Films lie in folders named by study and series, which no table lists; they are found by name. No patient ids.
- Radiologists outlined a part of the films themselves, and reviewed outlines that models proposed for others.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from cxr.files import InputError, place
from cxr.masks import encode_mask
from cxr.tables import line_of
from preprocessing.manifests.columns import film_table
from preprocessing.manifests.outlines import relative_runs
from preprocessing.manifests.source import Regions, Source, TableFile, Tables

SIZE = (1024, 1024)
LABEL = "Pneumothorax"


def films(tables: Tables) -> pd.DataFrame:
    """One row per film; positive where any of its rows has an outline."""
    table = tables["outlines"]
    first = table.drop_duplicates("ImageId")
    outlined = set(table["ImageId"][_is_outline(table)])
    labels = pd.DataFrame({LABEL: first["ImageId"].isin(outlined).astype(float)})
    return film_table(first, labels, path="dicom-images-train/" + first["ImageId"] + ".dcm", film=first["ImageId"])


def _is_outline(table: pd.DataFrame) -> pd.Series:
    return table["EncodedPixels"].str.strip() != "-1"


def regions(tables: Tables) -> Regions:
    """One mask per positive film. Raises InputError, with the line, for a damaged code."""
    table = tables["outlines"]
    found: Regions = {}
    for film, rows in table[_is_outline(table)].groupby("ImageId", sort=False):
        mask = _runs(table, rows.index[0])
        for row in rows.index[1:]:
            mask = mask | _runs(table, row)
        found[str(film)] = {LABEL: encode_mask(mask)}
    return found


def _runs(table: pd.DataFrame, row: int) -> np.ndarray:
    try:
        return relative_runs(table["EncodedPixels"][row], SIZE)
    except ValueError as error:
        raise InputError(f"{place(table.attrs['file'], line_of(table, row), 'EncodedPixels')}: {error}") from None


SOURCE = Source(
    title="SIIM-ACR Pneumothorax Segmentation",
    tables=(TableFile("outlines", ("train-rle.csv", "siim-pneumothorax-train-rle.csv"), ("ImageId", "EncodedPixels")),),
    films=films,
    regions=regions,
    outlines="reviewed",
    outlined_by="radiologists of SIIM and STR, who also reviewed outlines that models proposed (Filice et al. 2020)",
    licence="SIIM-ACR Pneumothorax Segmentation competition rules (non-commercial)",
)
