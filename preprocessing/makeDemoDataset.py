"""A synthetic CheXpert-v1.0 and CheXlocalize in the real formats, every finding with its mask, for demos and tests.

    python preprocessing/makeDemoDataset.py --output demo/data --patients 600 --seed 0

About two films per patient. Killed at any moment it can be started again and goes on with what is missing.
With --pairs also films that are drawn twice, with one finding and without it, in the folder pairs/: a manifest.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import cli
from cxr.files import InputError, place, quoted, read_json, replacing, write_json
from cxr.labels import CHEXPERT
from cxr.manifests.dataset_file import DATASET, REGIONS
from cxr.manifests.splits import FILMS
from cxr.masks import encode_mask
from cxr.runs.folder_lock import NAME as LOCK
from cxr.runs.folder_lock import locked
from cxr.runs.pool import in_processes
from cxr.tables import read_csv, write_csv
from preprocessing.phantom import cohort
from preprocessing.phantom.cohort import Film
from preprocessing.phantom.film import render
from preprocessing.phantom.pairs import Pair, draw_pairs, film_table, pair_path, pair_table

EXAMPLES = """
python preprocessing/makeDemoDataset.py --output demo/other --patients 20 --seed 1
python preprocessing/makeDemoDataset.py --output demo/other --patients 20 --seed 1 --pairs 1
"""

MANIFEST = "demo.json"
QUALITY = 92
"""Of the JPEG files."""
PAIRS = 8
"""Pairs per finding, where no number is given."""

Codes = dict[str, dict[str, Any]]
"""Task -> run-length code of its mask."""


def main(argv: Sequence[str] | None = None) -> int:
    parser = cli.parser("Writes a synthetic CheXpert and CheXlocalize with known lesion masks.", EXAMPLES)
    parser.add_argument("--output", type=cli.path, required=True, help="folder for CheXpert-v1.0/ and CheXlocalize/")
    parser.add_argument("--patients", type=int, default=600, help=f"at least {cohort.SMALLEST_COHORT}")
    parser.add_argument("--pairs", type=cli.whole_number(1, 10_000), nargs="?", const=PAIRS, metavar="COUNT",
        help=f"draw pairs/: films with and without one finding, COUNT ({PAIRS}) of each")  # fmt: skip
    parser.add_argument("--workers", type=int, default=cli.usable_cores(), help="processes that draw films")
    cli.add_seed(parser)
    arguments = parser.parse_args(argv)
    _check(arguments.patients, arguments.workers)
    with locked(arguments.output):
        _claim(arguments.output, arguments.patients, arguments.seed)
        films = cohort.draw_cohort(arguments.patients, arguments.seed)
        _write_films(arguments.output, films, arguments.seed, arguments.workers)
        _write_tables(arguments.output, films, arguments.seed)
        if arguments.pairs is not None:
            pairs = draw_pairs(films, arguments.pairs, arguments.seed)
            write_pairs(arguments.output / "pairs", pairs, arguments.seed, arguments.workers)
    print(_summary(arguments.output, films))
    return 0


def _check(patients: int, workers: int) -> None:
    if patients < cohort.SMALLEST_COHORT:
        raise InputError(f"--patients {patients}: too few to fill three splits; use at least {cohort.SMALLEST_COHORT}")
    if patients >= cohort.FIRST_PATIENT["valid"]:
        raise InputError(f"--patients {patients}: more than CheXpert's numbering holds; use at most 64540")
    if workers < 1:
        raise InputError(f"--workers {workers}: use 1 or more")


def _claim(output: Path, patients: int, seed: int) -> None:
    """Makes the folder this cohort's, by its manifest; refuses one that holds another cohort or other data."""
    manifest, wanted = output / MANIFEST, {"patients": patients, "seed": seed}
    if manifest.exists():
        there = read_json(manifest)
        for name, value in wanted.items():
            if there.get(name) != value:
                found = quoted(there.get(name))
                raise InputError(f"{place(manifest)}: made with {name} {found}, not {value}; choose another --output")
    elif any(path.name != LOCK for path in output.iterdir()):
        raise InputError(f"{place(output)}: not empty and without {MANIFEST}; choose another --output")
    else:
        write_json(manifest, wanted)


def film_files(output: Path, film: Film) -> list[Path]:
    """As in the real releases, test films lie in CheXlocalize alone and validation films in both."""
    chexpert, chexlocalize = output / "CheXpert-v1.0", output / "CheXlocalize/CheXpert"
    if film.split == "test":
        return [chexlocalize / film.path]
    copies = [chexlocalize / "val" / Path(film.path).relative_to("valid")] if film.split == "valid" else []
    return [chexpert / film.path, *copies]


def masks_file(output: Path, split: str) -> Path:
    return output / "CheXlocalize/CheXlocalize" / f"gt_segmentations_{'val' if split == 'valid' else split}.json"


def _write_films(output: Path, films: Sequence[Film], seed: int, workers: int) -> None:
    """Draws what is missing. A split whose masks are not written yet is drawn again as a whole, to have them."""
    unmasked = {split for split in ("valid", "test") if not masks_file(output, split).exists()}
    todo = [film for film in films if film.split in unmasked or not _complete(output, film)]
    masks: dict[str, dict[str, Codes]] = {split: {} for split in unmasked}
    draw = partial(write_film, output, seed)
    drawn = in_processes(draw, todo, workers, chunk=4)
    for film, encoded in zip(todo, tqdm(drawn, "films", len(todo), disable=not todo or None), strict=True):
        if film.split in unmasked and encoded:
            masks[film.split][film.image_id] = encoded
    for split, segmentations in masks.items():
        write_json(masks_file(output, split), segmentations)


def _complete(output: Path, film: Film) -> bool:
    return all(file.exists() for file in film_files(output, film))


def write_film(output: Path, seed: int, film: Film) -> Codes:
    """Draws and stores one film; returns its ten masks by CheXlocalize's task, nothing when none is positive."""
    drawn = render(film, seed)
    target, *copies = film_files(output, film)
    _save(drawn.image, target)
    for copy in copies:
        _same_film(target, copy)
    if film.split == "train" or not any(CHEXPERT.label_of(task) in drawn.masks for task in CHEXPERT.task_names):
        return {}
    nothing = np.zeros(drawn.image.shape, bool)
    return {task: encode_mask(drawn.masks.get(CHEXPERT.label_of(task), nothing)) for task in CHEXPERT.task_names}


def _save(image: np.ndarray, target: Path) -> None:
    with replacing(target) as temporary:
        Image.fromarray(image).save(temporary, "JPEG", quality=QUALITY)


def write_pairs(folder: Path, pairs: Sequence[Pair], seed: int, workers: int) -> None:
    """Films, `films.csv`, `pairs.csv` and the masks in `regions.json`, which are written last; complete, they stay."""
    table = pair_table(pairs)
    regions, listed = folder / REGIONS, folder / "pairs.csv"
    films = [folder / pair_path(film_id) for pair in pairs for film_id in pair.films]
    if regions.exists() and listed.exists() and all(file.exists() for file in films):
        if read_csv(listed)[list(table.columns)].equals(table):
            return
    regions.unlink(missing_ok=True)
    drawn = in_processes(partial(write_pair, folder, seed), pairs, workers, chunk=2)
    shown = tqdm(drawn, "pairs", len(pairs), disable=None)
    masks = dict(zip([next(iter(pair.films)) for pair in pairs], shown, strict=True))
    write_csv(folder / FILMS, film_table(pairs))
    write_csv(listed, table)
    write_json(regions, masks)


def write_pair(folder: Path, seed: int, pair: Pair) -> Codes:
    """Draws and stores both films; returns the finding's mask by its task."""
    drawn = {film_id: render(film, seed) for film_id, film in pair.films.items()}
    for film_id, of_film in drawn.items():
        _save(of_film.image, folder / pair_path(film_id))
    return {CHEXPERT.task_of(pair.label): encode_mask(next(iter(drawn.values())).masks[pair.label])}


def _same_film(source: Path, target: Path) -> None:
    """A hard link, or a copy where the disk has none."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        with replacing(target) as temporary:
            shutil.copyfile(source, temporary)


def _write_tables(output: Path, films: Sequence[Film], seed: int) -> None:
    train, valid, test = ([film for film in films if film.split == split] for split in ("train", "valid", "test"))
    chexpert, chexlocalize, release = output / "CheXpert-v1.0", output / "CheXlocalize/CheXpert", "CheXpert-v1.0/"
    tables: dict[Path, pd.DataFrame] = {
        chexpert / "train.csv": cohort.report_table(train, release, seed),
        chexpert / "train_visualCheXbert.csv": cohort.visual_table(train, release),
        chexpert / "valid.csv": cohort.label_table(valid, release),
        chexlocalize / "val_labels.csv": cohort.label_table(valid, release),
        chexlocalize / "test_labels.csv": cohort.table_without_people(test),
    }
    for path, table in tables.items():
        if not path.exists():
            write_csv(path, table)
    record = masks_file(output, "test").with_name(DATASET)
    if not record.exists():
        write_json(record, {"outlines": "drawn"})


def _summary(output: Path, films: Sequence[Film]) -> str:
    counts = []
    for split, patients in cohort.split_sizes(len({film.patient for film in films})).items():
        counts.append(f"{split} {sum(film.split == split for film in films)} films of {patients} patients")
    return f"{output}: {', '.join(counts)}"


if __name__ == "__main__":
    cli.run(main)
