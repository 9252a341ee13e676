"""CheXpert -> square grey JPEGs: centred crop, Lanczos, quality 100 without chroma subsampling, the same tree.

    python preprocessing/preProcCheXpert.py --chexpert CheXpert-v1.0 --chexlocalize chexlocalize --output CheXpert-1024

Training and validation films come from CheXpert, test films from CheXlocalize. Killed at any moment it can be started
again and goes on with the films that are missing. Films that cannot be read are listed in `preprocessing_errors.csv`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from PIL import Image
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import cli
from chexpert.dataset import check_paths, film_file, inside_release
from chexpert.files import InputError, csv_row, read_csv, read_json, replacing, write_csv, write_json
from chexpert.images import Crop, open_film

EXAMPLES = """
python preprocessing/preProcCheXpert.py --chexpert CheXpert-v1.0 --chexlocalize chexlocalize --output CheXpert-1024
python preprocessing/preProcCheXpert.py --chexpert demo/CheXpert-v1.0 --chexlocalize demo/CheXlocalize \\
    --output demo/CheXpert-256 --size 256 --workers 2
"""

MANIFEST = "preprocessing.json"
ERRORS = "preprocessing_errors.csv"


@dataclass(frozen=True)
class Job:
    """One film: where it comes from, where its copy goes."""

    csv: Path
    row: int
    source: Path
    target: Path


def main(argv: Sequence[str] | None = None) -> int:
    parser = cli.parser(__doc__.splitlines()[0], EXAMPLES)
    parser.add_argument("--chexpert", type=Path, help="folder with train.csv, valid.csv, train/, valid/")
    parser.add_argument("--chexlocalize", type=Path, help="folder with CheXpert/test_labels.csv (the test films)")
    parser.add_argument("--output", type=Path, required=True, help="where the copies go")
    parser.add_argument("--size", type=int, default=1024, help="side of the square copies in pixels")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes")
    args = parser.parse_args(argv)

    tables = _label_files(args.chexpert, args.chexlocalize)
    _claim_output(args.output, args.size)
    jobs = [job for csv, root in tables for job in _jobs(csv, root, args.output)]
    left = [job for job in jobs if not job.target.is_file()]
    print(f"{len(jobs)} films, {len(jobs) - len(left)} of them done already")
    errors = list(_convert_all(left, args.size, args.workers))
    for csv, _ in tables:
        with replacing(args.output / csv.name) as copy:
            copy.write_bytes(csv.read_bytes())
    return _report(errors, args.output)


def _label_files(chexpert: Path | None, chexlocalize: Path | None) -> list[tuple[Path, Path]]:
    """The label files that are there, each with the folder that its paths start from."""
    tables = []
    if chexpert is not None:
        names = ("train.csv", "train_visualCheXbert.csv", "valid.csv")
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


def _claim_output(output: Path, size: int) -> None:
    """Keeps copies of different sizes apart."""
    if size < 32:
        raise InputError(f"--size {size}: films of less than 32 pixels show nothing")
    wanted = {"size": size, "crop": "centred square", "resampling": "Lanczos", "jpeg_quality": 100}
    if (output / MANIFEST).is_file() and read_json(output / MANIFEST) != wanted:
        raise InputError(f"{output / MANIFEST}: this folder holds copies made otherwise; choose another --output")
    write_json(output / MANIFEST, wanted)


def _jobs(csv: Path, root: Path, output: Path) -> Iterator[Job]:
    paths = read_csv(csv, columns=("Path",))["Path"]
    check_paths(paths, csv)
    for row, path in enumerate(paths):
        target = (output / inside_release(path)).with_suffix(".jpg")
        yield Job(csv, csv_row(row), film_file(path, root), target)


def _convert_all(jobs: Sequence[Job], size: int, workers: int) -> Iterator[tuple[Job, str]]:
    """Converts in parallel; yields the films that could not be read, with the reason."""
    unique = list({job.target: job for job in jobs}.values())  # train.csv and train_visualCheXbert.csv list the same
    if not unique:
        return
    with ProcessPoolExecutor(max(1, min(workers, len(unique)))) as pool:
        reasons = pool.map(_convert, unique, [size] * len(unique), chunksize=8)
        for job, reason in zip(
            unique, tqdm(reasons, total=len(unique), unit="film", desc="preprocessing"), strict=True
        ):
            if reason is not None:
                yield job, reason


def _convert(job: Job, size: int) -> str | None:
    """Writes one copy; returns why that was not possible. A full disk is no fault of the film and is raised."""
    try:
        film = open_film(job.source)
    except InputError as error:
        return str(error)
    square = film.crop(Crop.centred(*film.size).box).resize((size, size), Image.Resampling.LANCZOS)
    for leftover in job.target.parent.glob(f".{job.target.name}.*.tmp"):  # of a run that was killed
        leftover.unlink(missing_ok=True)
    with replacing(job.target) as temporary:
        square.convert("L").save(temporary, format="JPEG", quality=100, subsampling=0)
    return None


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
