"""Where the films of a manifest lie below the root of their release."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd
from tqdm import tqdm

ENDINGS = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".dcm", ".dicom")


def files_below(root: Path) -> list[str]:
    """Paths, relative to `root` and with `/`, of all files below it that have an image's ending, in order.

    Links are followed, to a folder once: releases are often spread over disks. Links to nothing are left out.
    """
    found, seen = [], set()
    folders = tqdm(os.walk(root, followlinks=True), "looking for films", unit=" folders", delay=2, disable=None)
    for folder, inner, names in folders:
        real = os.path.realpath(folder)
        if real in seen:  # a link back, or a second way
            inner.clear()
            continue
        seen.add(real)
        images = [name for name in names if name.lower().endswith(ENDINGS)]
        if images:
            inside = Path(folder).relative_to(root)
            found += [(inside / name).as_posix() for name in images if os.path.isfile(os.path.join(folder, name))]
    return sorted(found)


def find_films(films: pd.DataFrame, files: list[str]) -> tuple[pd.DataFrame, np.ndarray]:
    """The films with their paths set to where they are, and which of them (N,) are there.

    A film that is not at its path is looked for by its file's name without the ending, which must be the name of one
    film and of one file.
    """
    at_path = films["Path"].isin(set(files)).to_numpy()
    if at_path.all() or not files:
        return films, at_path
    listed = pd.Series(files, dtype="str")
    by_name = listed.set_axis(listed.map(_name))
    by_name = by_name[~by_name.index.duplicated(keep=False)]
    names = films["Path"].map(_name)
    elsewhere = names.map(by_name).where(~names.duplicated(keep=False) & ~at_path)
    paths = elsewhere.fillna(films["Path"])
    return films.assign(Path=paths), at_path | elsewhere.notna().to_numpy()


def _name(path: str) -> str:
    name = PurePosixPath(path).name
    stem, dot, ending = name.rpartition(".")
    return stem if dot and f".{ending.lower()}" in ENDINGS else name
