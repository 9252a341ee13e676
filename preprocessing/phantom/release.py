"""The drawn cohort on disk, in the trees and formats of CheXpert-v1.0 and CheXlocalize; and films drawn in pairs.

Whatever is there already is left as it is, so that a run that was killed goes on with what is missing.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image
from tqdm import tqdm

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

MANIFEST = "demo.json"
QUALITY = 92
"""Of the JPEG files."""

Codes = dict[str, dict[str, Any]]
"""Task -> run-length code of its mask."""


def write_release(output: Path, patients: int, seed: int, workers: int, pairs: int | None) -> str:
    """Writes what is missing; returns a line that says what is there. pairs: per finding, None for none.

    Raises InputError for more patients than CheXpert's numbering holds, and for a folder that holds something else.
    """
    if patients >= cohort.FIRST_PATIENT["valid"]:
        most = cohort.FIRST_PATIENT["valid"] - 1
        raise InputError(f"--patients {patients}: more than CheXpert's numbering holds; use at most {most}")
    with locked(output):
        claim(output, patients, seed)
        films = cohort.draw_cohort(patients, seed)
        write_films(output, films, seed, workers)
        write_tables(output, films, seed)
        if pairs is not None:
            write_pairs(output / "pairs", draw_pairs(films, pairs, seed), seed, workers)
    return summary(output, films)


def claim(output: Path, patients: int, seed: int) -> None:
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
    """CheXlocalize's file of the masks of a split."""
    return output / "CheXlocalize/CheXlocalize" / f"gt_segmentations_{'val' if split == 'valid' else split}.json"


def write_films(output: Path, films: Sequence[Film], seed: int, workers: int) -> None:
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


def write_tables(output: Path, films: Sequence[Film], seed: int) -> None:
    """The label tables that are missing, as the releases have them, and who made the outlines."""
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


def summary(output: Path, films: Sequence[Film]) -> str:
    """Films and patients per split, for the terminal."""
    counts = []
    for split, patients in cohort.split_sizes(len({film.patient for film in films})).items():
        counts.append(f"{split} {sum(film.split == split for film in films)} films of {patients} patients")
    return f"{output}: {', '.join(counts)}"
