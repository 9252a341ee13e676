"""Who and what every film is, from columns where a table has them, else from CheXpert's paths."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from cxr.files import place
from cxr.paths import copy_path, film_id, is_ordinary, patient_of, relative_path, study_of, view_of
from cxr.tables import check_unique, line_of


def film_identity(content: pd.DataFrame, table: Path) -> pd.DataFrame:
    """One row per film: Path (normalised), Film, Patient, Study, View, Sex, Age, Split, and its line in the table.

    All but the line are text, empty where unknown.

    Raises InputError for a path that leaves the data folder, and for two rows with one path, film id or name of copy.
    """
    lines = [line_of(content, row) for row in range(len(content))]
    paths = [
        path if is_ordinary(path) else relative_path(path, place(table, line, "Path"))
        for path, line in zip(content["Path"], lines, strict=True)
    ]
    found = {"Path": paths, "line": lines}
    for name, derive in (("Film", film_id), ("Patient", patient_of), ("Study", study_of), ("View", view_of)):
        found[name] = _given(content, name) or list(map(derive, paths))
    for name in ("Sex", "Age", "Split"):
        found[name] = _given(content, name) or [""] * len(paths)
    identity = pd.DataFrame(found)
    identity["View"] = _chexpert_views(content, identity["View"])
    identity["Sex"] = identity["Sex"].replace({"Male": "M", "Female": "F", "Unknown": ""})
    if "Film" in content.columns:
        identity["Film"] = identity["Film"].where(identity["Film"] != "", [film_id(path) for path in paths])
    check_unique(paths, lines, table, "Path", "the film")
    check_unique(identity["Film"], lines, table, "Film" if "Film" in content else "Path", "the film id")
    check_unique(map(copy_path, paths), lines, table, "Path", "the name of its copy,")
    return identity


def _given(content: pd.DataFrame, name: str) -> list[str] | None:
    return list(content[name].str.strip()) if name in content.columns else None


def _chexpert_views(content: pd.DataFrame, views: pd.Series) -> pd.Series:
    """PA, AP, ... or lateral, from CheXpert's two columns; what they leave open stays as it was."""
    if "View" in content.columns:
        return views
    if "Frontal/Lateral" in content.columns:
        views = content["Frontal/Lateral"].str.strip().str.lower().where(lambda kind: kind != "", views)
    if "AP/PA" in content.columns:
        projection = content["AP/PA"].str.strip()
        views = views.where((views == "lateral") | ~projection.isin(["AP", "PA"]), projection)
    return views
