"""Who and what every film is, from columns where a table has them, else from CheXpert's paths."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from cxr.files import place
from cxr.paths import copy_path, path_facts
from cxr.tables import check_unique, each_text, lines_of


def film_identity(content: pd.DataFrame, table: Path) -> pd.DataFrame:
    """One row per film: Path (normalised), Film, Patient, Study, View, Sex, Age, Split, and its line in the table.

    All but the line are text, empty where unknown.

    Raises InputError for a path that leaves the data folder, and for two rows with one path, film id or name of copy.
    """
    lines = lines_of(content)
    facts = path_facts(content["Path"], lambda row: place(table, int(lines[row]), "Path"))
    identity = pd.DataFrame({"Path": facts.paths, "line": lines})
    for name, derived in (("Patient", facts.patients), ("Study", facts.studies), ("View", facts.views)):
        identity[name] = _given(content, name, derived)
    identity["Film"] = _given_films(content, facts.films)
    for name in ("Sex", "Age", "Split"):
        identity[name] = _given(content, name, "")
    identity["View"] = _chexpert_views(content, identity["View"])
    identity["Sex"] = each_text(identity["Sex"], lambda sex: _SEXES.get(sex, sex))
    derived_once = len(set(facts.films)) == len(facts.films)
    if not derived_once:
        check_unique(facts.paths, lines, table, "Path", "the film")
    check_unique(identity["Film"], lines, table, "Film" if "Film" in content else "Path", "the film id")
    if not derived_once:
        check_unique(map(copy_path, facts.paths), lines, table, "Path", "the name of its copy,")
    return identity


_SEXES = {"Male": "M", "Female": "F", "Unknown": ""}


def _given(content: pd.DataFrame, name: str, otherwise: list[str] | str) -> pd.Series | list[str] | str:
    """The cells of a column that is there."""
    return each_text(content[name], str.strip) if name in content.columns else otherwise


def _given_films(content: pd.DataFrame, derived: list[str]) -> pd.Series | list[str]:
    if "Film" not in content.columns:
        return derived
    given = content["Film"].str.strip()
    return given.where(given != "", derived)


def _chexpert_views(content: pd.DataFrame, views: pd.Series) -> pd.Series:
    """PA, AP, ... or lateral, from CheXpert's two columns; what they leave open stays as it was."""
    if "View" in content.columns:
        return views
    if "Frontal/Lateral" in content.columns:
        kinds = each_text(content["Frontal/Lateral"], lambda kind: kind.strip().lower())
        views = kinds.where(kinds != "", views)
    if "AP/PA" in content.columns:
        projection = each_text(content["AP/PA"], str.strip)
        views = views.where((views == "lateral") | ~projection.isin(["AP", "PA"]), projection)
    return views
