"""The files of a manifest, written: films.csv, dataset.json, regions.json (DESIGN, section 3)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cxr.files import InputError, quoted, write_json
from cxr.labels import LabelSet
from cxr.manifests.dataset_file import DATASET, REGIONS
from cxr.manifests.splits import FILMS
from cxr.tables import write_csv
from preprocessing.manifests.columns import IDENTITY, label_names
from preprocessing.manifests.source import OUTLINES_RECORD, Regions, Source, Tables


def write_manifest(
    folder: Path, name: str, source: Source, films: pd.DataFrame, regions: Regions, facts: Mapping[str, Any]
) -> None:
    """Writes the manifest of a source. facts: what dataset.json is to say of this run, beside the source's own."""
    description = _description(name, source, films, regions)
    (folder / DATASET).unlink(missing_ok=True)  # of an earlier run: it must not describe the new table
    if regions:
        write_json(folder / REGIONS, regions)
    else:
        (folder / REGIONS).unlink(missing_ok=True)  # of an earlier run
    write_csv(folder / FILMS, _as_text(films))
    write_json(folder / DATASET, description | dict(facts) | {"counts": counts(films, regions)})


def _as_text(films: pd.DataFrame) -> pd.DataFrame:
    """Labels as `1`, `0`, `-1` and blanks; identity columns that say nothing are left out.

    Columns of few words are categories, which are written faster.
    """
    told = [name for name in IDENTITY if name in ("Path", "Film") or (films[name] != "").any()]
    few = films[told].astype({name: "category" for name in ("View", "Sex", "Age", "Split") if name in told})
    labels = {name: pd.Categorical.from_codes(_codes(films[name]), _WORDS) for name in label_names(films)}
    return pd.concat([few, pd.DataFrame(labels, index=films.index)], axis=1)


_WORDS = ["-1", "0", "1", ""]


def _codes(values: pd.Series) -> np.ndarray:
    """(N,) places in `_WORDS` of label values."""
    return np.nan_to_num(values.to_numpy() + 1, nan=3).astype(np.int8)


def label_set(source: Source, films: pd.DataFrame, regions: Regions) -> LabelSet:
    """The source's own, else the labels of the films; where there are outlines, those outlined are the tasks.

    Raises InputError for a label that cannot be one.
    """
    if source.label_set is not None:
        return source.label_set
    outlined = {task for entries in regions.values() for task in entries}
    names = label_names(films)
    unknown = sorted(outlined.difference(names))
    try:
        if unknown:
            raise ValueError(f"outlines of {quoted(unknown[0])}, which is not one of the labels")
        tasks = {name: name for name in names if name in outlined}
        return LabelSet(tuple(names), {}, tasks) if regions else LabelSet.of(names)
    except ValueError as error:
        raise InputError(f"{source.title}: {error}") from None


def _description(name: str, source: Source, films: pd.DataFrame, regions: Regions) -> dict[str, Any]:
    labels = label_set(source, films, regions).to_json()
    return {
        "name": name,
        "title": source.title,
        "labels": labels["names"],
        "groups": labels["groups"],
        "tasks": labels["tasks"],
        "blank": source.blank,
        "grey": source.grey.to_json(),
        "licence": source.licence,
    }


def outlined(source: Source, tables: Tables) -> dict[str, str]:
    """Who made the outlines: as a record beside them says, else as the source publishes it."""
    recorded = {key: tables.get(OUTLINES_RECORD, {}).get(key) for key in ("outlines", "outlined_by")}
    if isinstance(recorded["outlines"], str):
        return {key: value for key, value in recorded.items() if isinstance(value, str)}
    return {"outlines": source.outlines, "outlined_by": source.outlined_by}


def counts(films: pd.DataFrame, regions: Regions) -> dict[str, Any]:
    """Films, patients, studies and films per split; per label its values; outlines."""
    known = {name: films[name][films[name] != ""] for name in ("Patient", "Study", "Split")}
    entries = [entry for film in regions.values() for entry in film.values()]
    return {
        "films": len(films),
        "patients": int(known["Patient"].nunique()),
        "studies": int(known["Study"].nunique()),
        "splits": {split: int(count) for split, count in known["Split"].value_counts().sort_index().items()},
        "labels": {label: _label_counts(films[label].to_numpy()) for label in label_names(films)},
        "regions": {
            "films": len(regions),
            "boxes": sum(len(entry.get("boxes", ())) for entry in entries),
            "masks": sum("counts" in entry for entry in entries),
        },
    }


def _label_counts(values: np.ndarray) -> dict[str, int]:
    numbers = {"positive": values == 1, "negative": values == 0, "uncertain": values == -1, "blank": np.isnan(values)}
    return {name: int(chosen.sum()) for name, chosen in numbers.items()}
