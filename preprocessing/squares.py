"""Square grey copies of films, as JPEGs or packed: centred crop, Lanczos, 8 bit; the tables that list them beside.

JPEGs have quality 100 without chroma subsampling and lie in the films' own tree. Packed films are one uint8 array per
split. Killed at any moment, the same call goes on with the films that are missing.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from PIL import Image
from tqdm import tqdm

from cxr.files import InputError, place, read_json, replacing, sha256, write_json
from cxr.images import Crop, open_film
from cxr.manifests.dataset_file import read_dataset
from cxr.manifests.film_files import FilmFinder
from cxr.manifests.identity import film_identity
from cxr.manifests.splits import SPLITS, given_splits, holds_splits, in_split
from cxr.manifests.table import read_table
from cxr.packed import Packing, damaged_films, split_of, write_row
from cxr.paths import copy_path, inside_release
from cxr.pixels.grey import PREPROCESSING, Grey, recorded_grey
from cxr.runs.folder_lock import locked
from cxr.runs.pool import in_processes
from cxr.tables import write_csv

ERRORS = "preprocessing_errors.csv"
NO_SPLIT = "films"
"""The array of packed films that belong to no split."""

_RULE = {"crop": "centred square", "resampling": "Lanczos"}
_SMALLEST = 32

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Squares:
    """The copies wanted, one record of which lies in their folder.

    size: side in pixels. grey: the rule wanted; None takes that which copies record, else `own_grey`, the data set's.
    data_set: its name, where one is known; copies of different data sets are kept apart.
    """

    output: Path
    size: int
    packed: bool
    grey: Grey | None = None
    own_grey: Grey = Grey.STORED
    data_set: str = ""


@dataclass(frozen=True)
class _Job:
    """One film: where it comes from, its path inside the release, its array when packed, where its JPEG copy goes."""

    table: Path
    line: int
    source: Path
    film: str
    array: str
    target: Path
    grey: Grey


def make_squares(
    tables: Sequence[tuple[Path, Path]],
    squares: Squares,
    *,
    beside: Sequence[Path] = (),
    workers: int = 1,
    mend: bool = False,
) -> int:
    """Writes tables, the files `beside` them, and the films; returns the exit code, 1 where films could not be read.

    tables: label files, each with the folder that its paths start from. mend: reads what is packed already and makes
    damaged films again. Films that cannot be read are listed in `preprocessing_errors.csv`.

    Raises InputError for tables that are not valid, and for a folder that holds other copies.
    """
    output = squares.output
    for _, root in tables:
        if output.resolve() == root.resolve():
            raise InputError(f"--output {place(output)}: holds the films themselves; choose another folder")
    with locked(output):
        rule, rules = _grey_rules([root for _, root in tables], squares)
        _claim_output(squares, rule)
        jobs = [job for table, root in tables for job in _jobs(table, root, output, rules[root])]
        for file in (*(table for table, _ in tables), *beside):  # before the packed films, whose manifest names them
            with replacing(output / file.name) as copy:
                copy.write_bytes(file.read_bytes())
        if squares.packed:
            return _report(list(_pack_all(jobs, output, squares.size, workers, mend)), output)
        return _report(list(_copy_all(jobs, squares.size, workers)), output)


def verify_squares(output: Path) -> int:
    """Names every damaged film of a packed folder as it is found; returns the exit code, 1 where there are any."""
    damaged = 0
    for file, film, reason in damaged_films(output):
        print(f"{file}{': ' if film else ''}{film}: {reason}")
        damaged += 1
    if not damaged:
        print(f"all packed films of {output} are whole")
        return 0
    print(f"error: {output}: {damaged} damaged; --packed --verify mends them", file=sys.stderr)
    return 1


def _grey_rules(roots: Sequence[Path], squares: Squares) -> tuple[Grey, dict[Path, Grey]]:
    """The rule of the whole data set, and the one to read each folder with: copies are read as they are stored.

    Raises InputError when copies were made by another rule than the one wanted or that of other copies.
    """
    copies = {root: rule for root in roots if (rule := recorded_grey(root)) is not None}
    rule = squares.grey or next(iter(copies.values()), squares.own_grey)
    for root, other in copies.items():
        if other != rule:
            raise InputError(f"{root}: these copies were made with --grey {other}, which cannot become {rule} any more")
    return rule, {root: Grey.STORED if root in copies else rule for root in roots}


def _claim_output(squares: Squares, grey: Grey) -> None:
    """Keeps copies of different sizes, forms, grey values and data sets apart."""
    if squares.size < _SMALLEST:
        raise InputError(f"--size {squares.size}: films of less than {_SMALLEST} pixels show nothing")
    wanted: dict[str, Any] = {"size": squares.size, **_RULE}
    wanted |= {"packed": True} if squares.packed else {"jpeg_quality": 100}
    if grey != Grey.STORED:  # whose records stay as they always were
        wanted["grey"] = grey.to_json()
    if squares.data_set:
        wanted["data_set"] = squares.data_set
    record = squares.output / PREPROCESSING
    if record.is_file() and read_json(record) != wanted:
        raise InputError(f"{record}: this folder holds copies made otherwise; choose another --output")
    write_json(record, wanted)


def _jobs(table: Path, root: Path, output: Path, grey: Grey) -> Iterator[_Job]:
    identity, finder = film_identity(read_table(table), table), FilmFinder(root)
    for path, line, array in zip(identity["Path"], identity["line"], _arrays(identity, table), strict=True):
        yield _Job(table, line, finder.file(path), inside_release(path), array, output / copy_path(path), grey)


def _arrays(identity: pd.DataFrame, table: Path) -> list[str]:
    """(N,) names of the arrays that packed films go into: their split, of a manifest; CheXpert has it in its paths."""
    if not holds_splits(table):
        return [split_of(inside_release(path)) for path in identity["Path"]]
    if (given_splits(identity, table) == "").all() and (identity["Patient"] == "").any():
        return [NO_SPLIT] * len(identity)
    dataset = read_dataset(table)
    arrays = np.full(len(identity), NO_SPLIT, dtype=object)
    for split in SPLITS:
        arrays[in_split(identity, table, split, dataset.shares, dataset.seed)] = split
    return list(arrays)


def _unique(jobs: Sequence[_Job]) -> list[_Job]:
    """Each film once: train.csv and train_visualCheXbert.csv list the same."""
    return list({job.film: job for job in jobs}.values())


def _copy_all(jobs: Sequence[_Job], size: int, workers: int) -> Iterator[tuple[_Job, str]]:
    """Writes the copies that are missing; yields the films that could not be read, with the reason."""
    jobs = _unique(jobs)
    left = [job for job in jobs if not job.target.is_file()]
    print(f"{len(jobs)} films, {len(jobs) - len(left)} of them done already")
    for job, reason in _in_parallel(partial(_copy, size=size), left, workers, "preprocessing"):
        if reason is not None:
            yield job, reason


def _pack_all(jobs: Sequence[_Job], output: Path, size: int, workers: int, mend: bool) -> Iterator[tuple[_Job, str]]:
    """Writes the arrays one by one; yields the films that could not be read, with the reason."""
    for array in sorted({job.array for job in jobs}):
        listed = [job for job in jobs if job.array == array]
        labels = {name: sha256(output / name) for name in sorted({job.table.name for job in listed})}
        of_array = _unique(listed)
        films = [job.film for job in of_array]
        packing = Packing(output, array, films, size, {**_RULE, "labels": labels}, check=mend)
        left = packing.missing
        print(f"{array}: {len(films)} films, {len(films) - len(left)} of them done already")
        pack = partial(_pack, part=packing.part, size=size)
        work = [(row, of_array[row]) for row in left]
        for (row, job), result in _in_parallel(pack, work, workers, f"packing {array}"):
            if isinstance(result, int):
                packing.done(row, result)
            else:
                yield job, result
        packing.finish()


def _in_parallel(function: Callable[[T], R], work: Sequence[T], workers: int, title: str) -> Iterator[tuple[T, R]]:
    results = in_processes(function, work, workers, chunk=8)
    yield from zip(work, tqdm(results, total=len(work), unit="film", desc=title, disable=not work or None), strict=True)


def _square(job: _Job, size: int) -> Image.Image:
    """The film's square in 8 bit; deeper films are rounded."""
    film = open_film(job.source, job.grey)
    square = film.crop(Crop.centred(*film.size).box).resize((size, size), Image.Resampling.LANCZOS)
    if square.mode == "L":
        return square
    return Image.fromarray(np.rint(np.clip(np.asarray(square), 0, 255)).astype(np.uint8))


def _pack(row_and_job: tuple[int, _Job], part: Path, size: int) -> int | str:
    """Writes one film into its row and returns its crc32, or returns why that was not possible."""
    row, job = row_and_job
    try:
        return write_row(part, row, np.asarray(_square(job, size)))
    except InputError as error:
        return str(error)


def _copy(job: _Job, size: int) -> str | None:
    """Writes one copy; returns why that was not possible. A full disk is not a fault of the film and is raised."""
    try:
        square = _square(job, size)
    except InputError as error:
        return str(error)
    with replacing(job.target) as temporary:
        square.save(temporary, format="JPEG", quality=100, subsampling=0)
    return None


def _report(errors: Sequence[tuple[_Job, str]], output: Path) -> int:
    (output / ERRORS).unlink(missing_ok=True)
    if not errors:
        print(f"all films are in {output}")
        return 0
    table = pd.DataFrame([(str(job.table), job.line, str(job.source), reason) for job, reason in errors])
    write_csv(output / ERRORS, table.set_axis(["csv", "row", "film", "reason"], axis=1))
    print(f"error: {len(errors)} films could not be read; see {output / ERRORS}", file=sys.stderr)
    return 1
