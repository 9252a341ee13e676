"""CheXpert -> square grey JPEGs: centred crop, Lanczos, quality 100 without chroma subsampling, the same tree.

    python preprocessing/preProcCheXpert.py --chexpert CheXpert-v1.0 --chexlocalize chexlocalize --output CheXpert-1024

Training and validation films come from CheXpert, test films from CheXlocalize. Killed at any moment it can be started
again and goes on with the films that are missing. Films that cannot be read are listed in `preprocessing_errors.csv`.

With `--packed` the squares go into one uint8 array per split instead, which is read many times faster and takes
size x size bytes per film (CheXpert at 1024: 235 GB, at 640: 92 GB, at 512: 59 GB). A folder of copies may be packed
as well: its films then keep the copies' very pixels.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import pandas as pd
from PIL import Image
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import cli
from cxr.files import InputError, read_json, replacing, sha256, write_json
from cxr.images import Crop, open_film
from cxr.manifest import film_identity, read_table
from cxr.packed import Packing, damaged_films, split_of, write_row
from cxr.paths import FilmFinder, copy_path, inside_release
from cxr.pixels.grey import PREPROCESSING, USAGE, Grey, recorded_grey
from cxr.runs.folder_lock import locked
from cxr.runs.pool import in_processes
from cxr.tables import write_csv

EXAMPLES = """
python preprocessing/preProcCheXpert.py --chexpert CheXpert-v1.0 --chexlocalize chexlocalize --output CheXpert-1024
python preprocessing/preProcCheXpert.py --chexpert demo/CheXpert-v1.0 --chexlocalize demo/CheXlocalize \\
    --output demo/CheXpert-256 --size 256 --workers 2
python preprocessing/preProcCheXpert.py --chexpert CheXpert-1024 --output CheXpert-packed --packed
python preprocessing/preProcCheXpert.py --output CheXpert-packed --verify
"""

SIZES = """side of the square copies in pixels: 1024 as published; at 640 a network of 512 px sees the smallest training
    crops (0.61 of the side) enlarged 1.3 times, at 512 1.6 times, and finer detail is lost"""

GREYS = f"""which stored values are black and white: {USAGE}; stored is the default, range for films whose bit depth is
    smaller than their container's (12 bit in 16: range 0 4095), percentile for films of unknown range"""

RULE = {"crop": "centred square", "resampling": "Lanczos"}
ERRORS = "preprocessing_errors.csv"

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Job:
    """One film: where it comes from, its path inside the release, where its JPEG copy goes."""

    csv: Path
    row: int
    source: Path
    film: str
    target: Path
    grey: Grey


def main(argv: Sequence[str] | None = None) -> int:
    parser = cli.parser(__doc__.splitlines()[0], EXAMPLES)
    parser.add_argument("--chexpert", type=Path, help="folder with train.csv, valid.csv, train/, valid/")
    parser.add_argument("--chexlocalize", type=Path, help="folder with CheXpert/test_labels.csv (the test films)")
    parser.add_argument("--output", type=Path, required=True, help="where the copies go")
    parser.add_argument("--size", type=int, default=1024, help=SIZES)
    parser.add_argument("--grey", nargs="+", metavar="RULE", help=GREYS)
    parser.add_argument("--workers", type=int, default=cli.usable_cores(), help="processes")
    parser.add_argument("--packed", action="store_true", help="one uint8 array per split instead of JPEGs")
    parser.add_argument(
        "--verify", action="store_true", help="read all packed films and name the damaged; with --packed, mend them"
    )
    args = parser.parse_args(argv)
    if args.verify and not args.packed:
        return _verify(args.output)

    tables = _label_files(args.chexpert, args.chexlocalize)
    with locked(args.output):
        return _preprocess(tables, args)


def _preprocess(tables: Sequence[tuple[Path, Path]], args: argparse.Namespace) -> int:
    """Writes label files and films; returns the exit code."""
    rule, rules = _grey_rules([root for _, root in tables], Grey.parse(args.grey) if args.grey else None)
    _claim_output(args.output, args.size, args.packed, rule)
    jobs = [job for csv, root in tables for job in _jobs(csv, root, args.output, rules[root])]
    for csv, _ in tables:  # before the packed films, whose manifest names them
        with replacing(args.output / csv.name) as copy:
            copy.write_bytes(csv.read_bytes())
    make = _pack_all if args.packed else _copy_all
    return _report(list(make(jobs, args)), args.output)


def _label_files(chexpert: Path | None, chexlocalize: Path | None) -> list[tuple[Path, Path]]:
    """The label files that are there, each with the folder that its paths start from."""
    tables = []
    if chexpert is not None:
        names = ("train.csv", "train_visualCheXbert.csv", "valid.csv", "test_labels.csv")  # the last in copies only
        found = [(chexpert / name, chexpert) for name in names if (chexpert / name).is_file()]
        if not found:
            raise InputError(f"--chexpert {chexpert}: none of {', '.join(names)} is in this folder")
        tables += found
    if chexlocalize is not None:
        root = chexlocalize / "CheXpert"
        if not (root / "test_labels.csv").is_file():
            raise InputError(f"--chexlocalize {chexlocalize}: no CheXpert/test_labels.csv in this folder")
        tables.append((root / "test_labels.csv", root))
    if not tables:
        raise InputError("nothing to do: give --chexpert, --chexlocalize or both")
    return tables


def _grey_rules(roots: Sequence[Path], wanted: Grey | None) -> tuple[Grey, dict[Path, Grey]]:
    """The rule of the whole data set, and the one to read each folder with: copies are read as they are stored.

    Raises InputError when copies were made by another rule than the one wanted or that of other copies.
    """
    copies = {root: rule for root in roots if (rule := recorded_grey(root)) is not None}
    rule = wanted or next(iter(copies.values()), Grey.STORED)
    for root, other in copies.items():
        if other != rule:
            raise InputError(f"{root}: these copies were made with --grey {other}, which cannot become {rule} any more")
    return rule, {root: Grey.STORED if root in copies else rule for root in roots}


def _claim_output(output: Path, size: int, packed: bool, grey: Grey) -> None:
    """Keeps copies of different sizes, forms and grey values apart."""
    if size < 32:
        raise InputError(f"--size {size}: films of less than 32 pixels show nothing")
    wanted = {"size": size, **RULE, **({"packed": True} if packed else {"jpeg_quality": 100})}
    if grey != Grey.STORED:  # whose records stay as they always were
        wanted["grey"] = grey.to_json()
    if (output / PREPROCESSING).is_file() and read_json(output / PREPROCESSING) != wanted:
        raise InputError(f"{output / PREPROCESSING}: this folder holds copies made otherwise; choose another --output")
    write_json(output / PREPROCESSING, wanted)


def _jobs(csv: Path, root: Path, output: Path, grey: Grey) -> Iterator[Job]:
    identity, finder = film_identity(read_table(csv), csv), FilmFinder(root)
    for path, line in zip(identity["Path"], identity["line"], strict=True):
        yield Job(csv, line, finder.file(path), inside_release(path), output / copy_path(path), grey)


def _unique(jobs: Sequence[Job]) -> list[Job]:
    """Each film once: train.csv and train_visualCheXbert.csv list the same."""
    return list({job.film: job for job in jobs}.values())


def _copy_all(jobs: Sequence[Job], args: argparse.Namespace) -> Iterator[tuple[Job, str]]:
    """Writes the copies that are missing; yields the films that could not be read, with the reason."""
    jobs = _unique(jobs)
    left = [job for job in jobs if not job.target.is_file()]
    print(f"{len(jobs)} films, {len(jobs) - len(left)} of them done already")
    for job, reason in _in_parallel(partial(_copy, size=args.size), left, args.workers, "preprocessing"):
        if reason is not None:
            yield job, reason


def _pack_all(jobs: Sequence[Job], args: argparse.Namespace) -> Iterator[tuple[Job, str]]:
    """Writes the arrays, split by split; yields the films that could not be read, with the reason."""
    for split in sorted({split_of(job.film) for job in jobs}):
        listed = [job for job in jobs if split_of(job.film) == split]
        labels = {name: sha256(args.output / name) for name in sorted({job.csv.name for job in listed})}
        of_split = _unique(listed)
        films = [job.film for job in of_split]
        packing = Packing(args.output, split, films, args.size, {**RULE, "labels": labels}, check=args.verify)
        left = packing.missing
        print(f"{split}: {len(films)} films, {len(films) - len(left)} of them done already")
        pack = partial(_pack, part=packing.part, size=args.size)
        work = [(row, of_split[row]) for row in left]
        for (row, job), result in _in_parallel(pack, work, args.workers, f"packing {split}"):
            if isinstance(result, int):
                packing.done(row, result)
            else:
                yield job, result
        packing.finish()


def _in_parallel(function: Callable[[T], R], work: Sequence[T], workers: int, title: str) -> Iterator[tuple[T, R]]:
    results = in_processes(function, work, workers, chunk=8)
    yield from zip(work, tqdm(results, total=len(work), unit="film", desc=title, disable=not work), strict=True)


def _square(job: Job, size: int) -> Image.Image:
    film = open_film(job.source, job.grey)
    return film.crop(Crop.centred(*film.size).box).resize((size, size), Image.Resampling.LANCZOS).convert("L")


def _pack(row_and_job: tuple[int, Job], part: Path, size: int) -> int | str:
    """Writes one film into its row and returns its crc32, or returns why that was not possible."""
    row, job = row_and_job
    try:
        return write_row(part, row, np.asarray(_square(job, size)))
    except InputError as error:
        return str(error)


def _copy(job: Job, size: int) -> str | None:
    """Writes one copy; returns why that was not possible. A full disk is no fault of the film and is raised."""
    try:
        square = _square(job, size)
    except InputError as error:
        return str(error)
    with replacing(job.target) as temporary:
        square.save(temporary, format="JPEG", quality=100, subsampling=0)
    return None


def _verify(output: Path) -> int:
    """Names every damaged film as it is found; returns the exit code."""
    damaged = 0
    for file, film, reason in damaged_films(output):
        print(f"{file}{': ' if film else ''}{film}: {reason}")
        damaged += 1
    if not damaged:
        print(f"all packed films of {output} are whole")
        return 0
    print(f"error: {output}: {damaged} damaged; --packed --verify mends them", file=sys.stderr)
    return 1


def _report(errors: Sequence[tuple[Job, str]], output: Path) -> int:
    (output / ERRORS).unlink(missing_ok=True)
    if not errors:
        print(f"all films are in {output}")
        return 0
    table = pd.DataFrame([(str(job.csv), job.row, str(job.source), reason) for job, reason in errors])
    write_csv(output / ERRORS, table.set_axis(["csv", "row", "film", "reason"], axis=1))
    print(f"error: {len(errors)} films could not be read; see {output / ERRORS}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    cli.run(main)
