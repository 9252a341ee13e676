"""Making of a manifest from a release: tables read, films and outlines made and checked, splits completed, written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cxr.files import InputError, place, sha256
from cxr.manifests.dataset_file import REGIONS
from cxr.manifests.splits import SPLITS
from cxr.runs.folder_lock import locked
from preprocessing.manifests.checks import check_films, check_regions
from preprocessing.manifests.film_files import files_below, find_films
from preprocessing.manifests.manifest_files import counts, outlined, write_manifest
from preprocessing.manifests.outlines import SizesOnDisk
from preprocessing.manifests.release import read_tables
from preprocessing.manifests.source import Regions, Source
from preprocessing.manifests.splitting import complete_split


def make_manifest(
    name: str, source: Source, root: Path, output: Path, options: dict[str, int], *, only_present: bool, seed: int
) -> list[str]:
    """Writes the manifest of a release; returns lines that say what it holds.

    name: of the source. options: of its functions. only_present: leaves films out that are not below `root`. seed: of
    the splits that are drawn. Raises InputError for tables that are missing, damaged, or contradict themselves.
    """
    tables, files = read_tables(source, root)
    films, present, regions = _read(source, tables, root, options, only_present)
    if only_present:
        films, present, regions = _only(films[present], regions, films, root)
    films, split = complete_split(films, seed)
    fingerprints = {file.relative_to(root).as_posix(): sha256(file) for file in files}
    facts: dict[str, Any] = {"split": split, "options": options, "tables": fingerprints}
    if regions:
        facts |= outlined(source, tables)
    with locked(output, depth=0):
        write_manifest(output, name, source, films, regions, facts)
    unsized = source.sizes and not regions
    lines = [f"no {REGIONS}: boxes need the films' sizes, and no film is below {root}"] if unsized else []
    return [*lines, _summary(films, regions, int(present.sum()), output)]


def _read(
    source: Source, tables: dict[str, Any], root: Path, options: dict[str, int], only_present: bool
) -> tuple[pd.DataFrame, np.ndarray, Regions]:
    """Makes and checks films, which of them (N,) are below the root, and outlines.

    Where boxes need the sizes of films and no film is there, there are no outlines.
    """
    films = source.films(tables, **options)
    check_films(films)
    films, present = find_films(films, files_below(root))
    if source.sizes:
        there = films[present]
        paths = zip(there["Film"], there["Path"], strict=True)
        tables["sizes"] = SizesOnDisk(
            {film: root / path for film, path in paths}, leave_out=only_present or not present.any()
        )
    regions = source.regions(tables, **options) if source.regions else {}
    check_regions(regions, films, str(root))
    return films, present, regions


def _only(
    kept: pd.DataFrame, regions: Regions, films: pd.DataFrame, root: Path
) -> tuple[pd.DataFrame, np.ndarray, Regions]:
    """The films kept of `films`, all of them present, and their outlines. Raises InputError for a split left empty."""
    for split in ("", *SPLITS):
        if (films["Split"] == split).any() and not (kept["Split"] == split).any():
            part = f"split {split}" if split else "the tables"
            raise InputError(f"{place(root)}: no film of {part} is below it, so that --only-present leaves it empty")
    ids = set(kept["Film"])
    entries = {film: tasks for film, tasks in regions.items() if film in ids}
    return kept, np.ones(len(kept), dtype=bool), entries


def _summary(films: pd.DataFrame, regions: Regions, present: int, output: Path) -> str:
    numbers = counts(films, regions)
    parts = [f"{numbers['films']} films of {numbers['patients'] or 'unknown'} patients"]
    parts += [f"{split} {count}" for split, count in numbers["splits"].items()]
    parts += [f"{numbers['regions']['films']} films with outlines"] if regions else []
    parts += [f"{len(films) - present} not below ROOT"] if present < len(films) else []
    return f"{output}: {', '.join(parts)}"
