"""Films that differ in one finding alone: the same patient, pose, noise, devices and exposure, with it and without.

Drawn films allow what no archive does: to see what one finding does to a network's logit and to its maps. The finding
is added to, or taken from, the findings of a test film; every finding has random numbers of its own, so all else stays.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pandas as pd

from cxr.labels import CHEXPERT
from preprocessing.phantom.cohort import FINDINGS, IMPLY_OPACITY, Film, stream

_SPOILT_BY = {"Lung Opacity": IMPLY_OPACITY, "Enlarged Cardiomediastinum": ("Cardiomegaly",)}
"""Finding -> others that would keep its label positive, or its mask larger than what it changes, without it."""


@dataclass(frozen=True)
class Pair:
    """present, absent: the film with the finding and without it, of the same name."""

    label: str
    present: Film
    absent: Film

    @property
    def films(self) -> dict[str, Film]:
        """Film id -> film; the one with the finding first."""
        stem = f"{self.present.image_id}_{self.label.lower().replace(' ', '-')}"
        return {f"{stem}_with": self.present, f"{stem}_without": self.absent}


def draw_pairs(films: Sequence[Film], count: int, seed: int) -> list[Pair]:
    """Up to `count` pairs of every finding, of frontal test films in an order that is drawn for each finding."""
    frontal = [film for film in films if film.split == "test" and not film.lateral]
    pairs = []
    for label in FINDINGS:
        suited = [film for film in frontal if not set(_SPOILT_BY.get(label, ())) & set(film.findings)]
        suited.sort(key=lambda film: stream(seed, film.patient, "pairs", label, film.index).random())
        pairs += [_pair(label, film) for film in suited[:count]]
    return pairs


def _pair(label: str, film: Film) -> Pair:
    others = {finding for finding in film.findings if finding != label}
    present = tuple(finding for finding in FINDINGS if finding == label or finding in others)
    absent = tuple(finding for finding in FINDINGS if finding in others)
    return Pair(label, replace(film, findings=present), replace(film, findings=absent))


def pair_path(film_id: str) -> str:
    """Below the folder of the pairs."""
    return f"films/{film_id}.jpg"


def film_table(pairs: Sequence[Pair]) -> pd.DataFrame:
    """`films.csv` of a manifest: every film of every pair, with the labels that hold for it."""
    return pd.DataFrame(
        [
            {
                "Path": pair_path(film_id),
                "Film": film_id,
                "Patient": f"patient{film.patient:05d}",
                "View": film.projection,
                "Sex": film.sex[0],
                "Age": str(film.age),
                "Split": "test",
            }
            | {label: str(int(value)) for label, value in film.truth().items()}
            for pair in pairs
            for film_id, film in pair.films.items()
        ]
    )


def pair_table(pairs: Sequence[Pair]) -> pd.DataFrame:
    """`pairs.csv`: ids of the film with and without, the label, and the mask's task in `regions.json`."""
    rows = [(*pair.films, pair.label, CHEXPERT.task_of(pair.label)) for pair in pairs]
    return pd.DataFrame(rows, columns=["with", "without", "label", "mask"])
