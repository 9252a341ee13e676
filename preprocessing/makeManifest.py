"""A data set's own tables -> a manifest: films.csv, dataset.json, and regions.json where there are outlines.

    python preprocessing/makeManifest.py --source nih ChestX-ray14 --output manifests/nih

ROOT is the release's folder with its tables and, below it, its films; the tables alone are enough. Films that lie
elsewhere below ROOT than the release has them are found by name. An official split is kept; where it has no
validation part, that is drawn from the training patients. Without an official split films are split by patient, without
patient ids not at all.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import cli
from cxr.files import InputError, place, quoted, sha256
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
from preprocessing.sources.registry import SOURCES

EXAMPLES = """
python preprocessing/makeManifest.py --source nih ChestX-ray14 --output manifests/nih
python preprocessing/makeManifest.py --source vindr vindr-cxr/1.0.0 --votes 2 --output manifests/vindr
python preprocessing/makeManifest.py --source chexlocalize demo/data/CheXlocalize --output demo/manifest
"""


def main(argv: Sequence[str] | None = None) -> int:
    parser = cli.parser(__doc__.splitlines()[0], EXAMPLES)
    parser.add_argument("root", metavar="ROOT", type=cli.path, help="the release's folder: its tables and its films")
    parser.add_argument("--source", required=True, metavar="NAME", help=f"data set: {', '.join(SOURCES)}")
    parser.add_argument("--output", type=cli.path, required=True, help="folder of the manifest")
    parser.add_argument("--votes", type=int, choices=(1, 2, 3), help="vindr: readers who make a label positive (2)")
    parser.add_argument("--only-present", action="store_true", help="leave films out that are not below ROOT")
    cli.add_seed(parser)
    args = parser.parse_args(argv)
    source = _source(args.source)
    options = _options(args, source)

    tables, files = read_tables(source, args.root)
    films, present, regions = _read(source, tables, args.root, options, args.only_present)
    if args.only_present:
        films, present, regions = _only(films[present], regions, films, args.root)
    films, split = complete_split(films, args.seed)
    fingerprints = {file.relative_to(args.root).as_posix(): sha256(file) for file in files}
    facts: dict[str, Any] = {"split": split, "options": options, "tables": fingerprints}
    if regions:
        facts |= outlined(source, tables)
    with locked(args.output, depth=0):
        write_manifest(args.output, args.source, source, films, regions, facts)
    if source.sizes and not regions:
        print(f"no {REGIONS}: boxes need the films' sizes, and no film is below {args.root}")
    print(_summary(films, regions, int(present.sum()), args.output))
    return 0


def _source(name: str) -> Source:
    if name not in SOURCES:
        raise InputError(f"--source {quoted(name)}: no such data set; known are {', '.join(SOURCES)}")
    return SOURCES[name]


def _options(args: argparse.Namespace, source: Source) -> dict[str, int]:
    """Options of the source, its own where none are given. Raises InputError for one that the source has no use for."""
    given = {} if args.votes is None else {"votes": args.votes}
    for name in given.keys() - source.options.keys():
        raise InputError(f"--{name} {given[name]}: {source.title} has no use for it")
    return {**source.options, **given}


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


if __name__ == "__main__":
    cli.run(main)
