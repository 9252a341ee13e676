"""Checks of film tables and regions, the same for every data set. Each error is one line and names both rows."""

from __future__ import annotations

import numpy as np
import pandas as pd

from cxr.files import InputError, place, quoted
from cxr.paths import relative_path
from preprocessing.manifests.source import Regions


def check_films(films: pd.DataFrame) -> None:
    """Raises InputError for an unsafe path or id, two films of one id or one copy, and a patient in two splits."""
    _check_paths(films)
    _check_ids(films)
    _check_unique(films, films["Film"], "film id {value} is in {first} too; ids must be unique")
    copies = films["Path"].str.replace(r"\.[^./]*$", "", regex=True)
    _check_unique(films, copies, "{value} is also the film of {first}; their copies would have one name")
    _check_patients(films)


def _origin(films: pd.DataFrame, row: int, column: str | None = None) -> str:
    file, line = films.index[row]
    return place(file, int(line), column)


_PLAIN = r"[\w+=@,-][\w .+=@,()-]{0,199}(?:/[\w+=@,-][\w .+=@,()-]{0,199}){0,15}"
"""Paths that need no closer look: looking closely at 200,000 takes seconds."""


def _check_paths(films: pd.DataFrame) -> None:
    for row in np.flatnonzero(~films["Path"].str.fullmatch(_PLAIN)).tolist():
        path = films["Path"].iloc[row]
        if relative_path(path, _origin(films, row)) != path:
            raise InputError(f"{_origin(films, row)}: {quoted(path)} is not the plain path of a film")


def _check_ids(films: pd.DataFrame) -> None:
    ids = films["Film"]
    unsafe = (ids == "") | ids.str.contains(r"[/\\\x00]") | ids.str.startswith(".")
    _refuse(films, unsafe, "Film", "{value} cannot be a film id, which names files")


def _refuse(films: pd.DataFrame, bad: pd.Series, column: str, reason: str) -> None:
    if bad.any():
        row = int(np.argmax(bad))
        raise InputError(f"{_origin(films, row)}: {reason.format(value=quoted(films[column].iloc[row]))}")


def _check_unique(films: pd.DataFrame, values: pd.Series, reason: str) -> None:
    twice = values.duplicated().to_numpy()
    if twice.any():
        row = int(np.argmax(twice))
        first = int(np.argmax(values == values.iloc[row]))
        text = reason.format(value=quoted(values.iloc[row]), first=_origin(films, first))
        raise InputError(f"{_origin(films, row)}: {text}")


def _check_patients(films: pd.DataFrame) -> None:
    placed = films[(films["Patient"] != "") & (films["Split"] != "")]
    pairs = placed.drop_duplicates(["Patient", "Split"])
    twice = pairs["Patient"].duplicated().to_numpy()
    if twice.any():
        row = int(np.argmax(twice))
        second = pairs.iloc[row]
        first = int(np.argmax(pairs["Patient"] == second["Patient"]))
        raise InputError(
            f"{_origin(pairs, row)}: patient {quoted(second['Patient'])} is in split {second['Split']}, but in "
            f"{pairs['Split'].iloc[first]} in {_origin(pairs, first)}; films of one patient belong into one split"
        )


def check_regions(regions: Regions, films: pd.DataFrame, where: str) -> None:
    """Raises InputError for an outline of a film that no table lists, or of two sizes."""
    known = set(films["Film"])
    for film, entries in regions.items():
        if film not in known:
            raise InputError(f"{where}: outlines of film {quoted(film)}, which the label table does not list")
        sizes = {tuple(entry["size"]) for entry in entries.values()}
        if len(sizes) > 1:
            raise InputError(f"{where}: outlines of film {quoted(film)} have different sizes: {sorted(sizes)}")
