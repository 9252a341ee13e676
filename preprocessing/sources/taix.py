"""TAIX-Ray: about 200,000 bedside films of intensive care patients in Aachen, graded findings by radiologists.

Source of the format: the columns of `annotation.csv` and `split.csv` as the data set's public code reads them. Traps:

- Grades, not labels: 0 none, 1 questionable `(+)`, 2 to 4 `+` to `+++`; the heart 0 normal, 1 borderline, 2 and 3
  enlarged. From 2 on a label is positive, 1 is uncertain (-1), as the set's own code draws the line.
- Effusion, opacities and atelectasis are graded per side, and stay two labels each.
- Ages are in days. `split.csv` lists every film once per fold; fold 0 is read.
- Films are 16-bit PNGs without a window, flat in one folder, hence the grey rule.
"""

from __future__ import annotations

import pandas as pd

from preprocessing.manifests.columns import film_table, joined_splits, sexes, translated, years
from preprocessing.manifests.source import PERCENTILE, Source, TableFile, Tables

FINDINGS = (
    "HeartSize",
    "PulmonaryCongestion",
    "PleuralEffusion_Right",
    "PleuralEffusion_Left",
    "PulmonaryOpacities_Right",
    "PulmonaryOpacities_Left",
    "Atelectasis_Right",
    "Atelectasis_Left",
)
GRADES = {"": float("nan"), "0": 0.0, "1": -1.0, "2": 1.0, "3": 1.0, "4": 1.0}


def films(tables: Tables) -> pd.DataFrame:
    """One row per film."""
    table, folds = tables["annotations"], tables["split"]
    first = folds[folds["Fold"].str.strip() == "0"]
    return film_table(
        table,
        pd.DataFrame({finding: translated(table, finding, _label) for finding in FINDINGS}),
        path="data/" + table["UID"] + ".png",
        film=table["UID"],
        patient=table["PatientID"],
        view="AP",  # bedside films
        sex=sexes(table["Sex"]),
        age=years(table["Age"], unit="D"),
        split=joined_splits(table, first, ["UID"], "Split"),
    )


def _label(grade: str) -> float:
    try:
        return GRADES[grade.strip().removesuffix(".0")]
    except KeyError:
        raise ValueError("expected a grade from 0 to 4") from None


def _in_folders(*names: str) -> tuple[str, ...]:
    return tuple(folder + name for folder in ("", "metadata/") for name in names)


SOURCE = Source(
    title="TAIX-Ray",
    tables=(
        TableFile(
            "annotations",
            _in_folders("annotation.csv", "annotations.csv"),
            ("UID", "PatientID", "Age", "Sex", *FINDINGS),
        ),
        TableFile("split", _in_folders("split.csv"), ("UID", "Fold", "Split")),
    ),
    films=films,
    grey=PERCENTILE,
    licence="as stated by the data set's authors",
)
