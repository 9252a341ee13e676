"""The outlined films of a split: their masks, and view and patient of each, which controls and intervals need."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cxr.files import sha256
from cxr.manifests.dataset_file import REGIONS
from cxr.manifests.films import read_films
from cxr.manifests.identity import film_identity
from cxr.manifests.splits import split_table
from cxr.manifests.table import read_table
from cxr.masks import GroundTruth, read_ground_truth
from cxr.paths import patient_of, projection_of, view_of
from evaluation.bootstrap import units_of
from evaluation.film_statistics import Resampling


@dataclass(frozen=True)
class OutlinedFilms:
    """sha256: of the masks' file. views: film id -> frontal or lateral; patients: film id -> patient. Films of a table
    that are not outlined are in both; what neither table nor film id says is empty or missing."""

    truth: GroundTruth
    sha256: str
    views: Mapping[str, str]
    patients: Mapping[str, str]

    def view(self, film: str) -> str:
        return self.views.get(film) or view_of(film)

    def patient(self, film: str) -> str:
        return self.patients.get(film) or patient_of(film)

    @property
    def fingerprint(self) -> dict[str, str]:
        """Of the masks, and of the views and patients of their films."""
        facts = [[film, self.view(film), self.patient(film)] for film in self.truth.image_ids]
        return {"ground_truth": self.sha256, "films": hashlib.sha256(json.dumps(facts).encode()).hexdigest()}

    def resampling(self, films: Sequence[str], *, resamples: int, seed: int, unit: str) -> Resampling:
        """Raises InputError when patients are to be drawn and a film's patient is unknown."""
        return Resampling(units_of(films, [self.patient(film) for film in films], unit), resamples, seed, unit)


def read_outlined_films(root: Path, split: str) -> OutlinedFilms:
    """CheXlocalize's masks of a split; else the films of the split in a manifest's regions.json.

    Views and patients are those of CheXlocalize's `<split>_labels.csv`, or of the manifest; without a table the film
    ids say them. Raises InputError when a file is missing or damaged.
    """
    path, regions = root / "CheXlocalize" / f"gt_segmentations_{split}.json", root / REGIONS
    if path.is_file() or not regions.is_file():
        truth, table = read_ground_truth(path), root / "CheXpert" / f"{split}_labels.csv"
        if not table.is_file():
            return OutlinedFilms(truth, sha256(path), {}, {})
        rows = film_identity(read_table(table), table)
        ids, views, patients = (tuple(rows[name]) for name in ("Film", "View", "Patient"))
        return OutlinedFilms(truth, sha256(path), _projections(ids, views), dict(zip(ids, patients, strict=True)))
    films = read_films(split_table(root, split), root, split=split)
    truth = read_ground_truth(regions).of_films(set(films.ids))
    patients_of = dict(zip(films.ids, films.patients, strict=True))
    return OutlinedFilms(truth, sha256(regions), _projections(films.ids, films.views), patients_of)


def _projections(ids: Sequence[str], views: Sequence[str]) -> dict[str, str]:
    return {film: projection_of(view) for film, view in zip(ids, views, strict=True)}
