"""Who and what every film is, from columns where a table has them, else from CheXpert's paths."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd

from cxr.files import composed, place
from cxr.paths import check_film_ids, copy_path, path_facts
from cxr.tables import check_unique, each_text, file_name_key, lines_of


def film_identity(content: pd.DataFrame, table: Path) -> pd.DataFrame:
    """One row per film: Path (normalised), Film, Patient, Study, View, Sex, Age, Split, and its line in the table.

    All but the line are text, empty where unknown.

    Raises InputError for a path that leaves the data folder, and for two rows with one path, film id or name of copy.
    """
    lines = lines_of(content)
    facts = path_facts(content["Path"], lambda row: place(table, int(lines[row]), "Path"))
    films = list(map(composed, facts.films))
    identity = pd.DataFrame({"Path": facts.paths, "line": lines})
    for name, derived in (("Patient", facts.patients), ("Study", facts.studies), ("View", facts.views)):
        identity[name] = _given(content, name, derived)
    identity["Film"] = _given_films(content, films)
    for name in ("Sex", "Age", "Split"):
        identity[name] = _given(content, name, "")
    identity["View"] = _chexpert_views(content, identity["View"])
    identity["Sex"] = each_text(identity["Sex"], lambda sex: _SEXES.get(sex.lower(), sex))
    derived_once = len(set(map(file_name_key, films))) == len(films)
    if not derived_once:
        check_unique(facts.paths, lines, table, "Path", "the film")
    column, ids = ("Film", list(identity["Film"])) if "Film" in content else ("Path", films)
    check_film_ids(ids, lines, table, column)
    if column == "Film" or not derived_once:
        check_unique(ids, lines, table, column, "the film id", names_files=True)
    if not derived_once:
        check_unique(map(copy_path, facts.paths), lines, table, "Path", "the name of its copy,", names_files=True)
    return identity


_SEXES = {"male": "M", "m": "M", "female": "F", "f": "F", "unknown": "", "u": ""}
_NO_FACT = {"nan", "none", "null", "<na>", "nat"}
_WHOLE = re.compile(r"(\d+)\.0+")


def _given(content: pd.DataFrame, name: str, otherwise: list[str] | str) -> pd.Series | list[str] | str:
    """The cells of a column that is there."""
    return each_text(content[name], lambda text: _fact(name, text)) if name in content.columns else otherwise


def _fact(name: str, text: str) -> str:
    """A cell's text. A program's `17.0` is 17 and, but for ids, its `nan` is blank."""
    text = composed(text.strip())
    if name in ("View", "Sex", "Age") and text.lower() in _NO_FACT:
        return ""
    whole = _WHOLE.fullmatch(text)
    return whole[1] if whole else text


def _given_films(content: pd.DataFrame, derived: list[str]) -> pd.Series | list[str]:
    if "Film" not in content.columns:
        return derived
    given = content["Film"].str.strip().map(composed)
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
