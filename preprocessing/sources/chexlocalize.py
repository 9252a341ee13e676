"""CheXlocalize: CheXpert's validation and test films in full size, with radiologists' outlines of 10 findings.

Saporta et al. 2022, Nature Machine Intelligence, doi 10.1038/s42256-022-00536-x. Source of the format: the release's
`CheXpert/{val,test}_labels.csv` and `CheXlocalize/gt_segmentations_{val,test}.json`. Traps:

- Validation films are listed as `CheXpert-v1.0/valid/...` and lie in `CheXpert/val/`.
- Lung Opacity is called Airspace Opacity in the outlines; films without a positive finding have no outlines.
- `CheXlocalize/dataset.json` is not a part of the release: the synthetic one of makeDemoDataset.py says in it that its
  outlines are drawn.
- Every outlined film has a mask of each of the 10 tasks; an empty mask means that nothing was outlined.
"""

from __future__ import annotations

import pandas as pd

from cxr.labels import CHEXPERT
from cxr.masks import GroundTruth
from preprocessing.manifests.source import OUTLINES_RECORD, Regions, Source, TableFile, Tables
from preprocessing.sources import chexpert

SPLITS = ("val", "test")


def films(tables: Tables) -> pd.DataFrame:
    """The films of the two label tables, with paths below the release's root."""
    parts = []
    for split in SPLITS:
        if split in tables:
            part = chexpert.label_table(tables[split], split)
            inside = part["Path"].str.replace(r"^valid/", "val/", regex=True)
            parts.append(part.assign(Path="CheXpert/" + inside))
    return pd.concat(parts)


def regions(tables: Tables) -> Regions:
    """The masks of both splits, as the release has them. Raises InputError for a damaged one."""
    found: Regions = {}
    for split in SPLITS:
        masks = tables.get(f"{split}_masks")
        if masks is not None:
            GroundTruth(masks, f"gt_segmentations_{split}.json")
            found |= masks
    return found


SOURCE = Source(
    title="CheXlocalize",
    tables=(
        TableFile("val", ("CheXpert/val_labels.csv",), chexpert.COLUMNS),
        TableFile("test", ("CheXpert/test_labels.csv",), chexpert.COLUMNS, required=False),
        TableFile("val_masks", ("CheXlocalize/gt_segmentations_val.json",), required=False),
        TableFile("test_masks", ("CheXlocalize/gt_segmentations_test.json",), required=False),
        TableFile(OUTLINES_RECORD, ("CheXlocalize/dataset.json",), required=False),
    ),
    films=films,
    regions=regions,
    outlines="radiologists",
    outlined_by="two board-certified radiologists (Saporta et al. 2022)",
    label_set=CHEXPERT,
    blank="negative",
    licence="Stanford University Dataset Research Use Agreement",
)
