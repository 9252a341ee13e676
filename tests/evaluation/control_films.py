"""A few outlined films with maps of noise, for the tests of the controls of localization."""

import numpy as np

from cxr.heat_maps import HeatMap
from cxr.masks import GroundTruth, encode_mask
from evaluation.localizing.outlined_films import OutlinedFilms

TASKS = ("Edema", "Mass")


class NoiseMaps:
    """A map of noise, a little higher inside the mask, for every film and task; counts how often each is read."""

    def __init__(self, films: OutlinedFilms, seed: int = 0) -> None:
        self.entries = [(film, task) for film in films.truth.image_ids for task in films.truth.tasks]
        rng, self.reads = np.random.default_rng(seed), dict.fromkeys(self.entries, 0)
        self.maps = {}
        for film, task in self.entries:
            height, width = films.truth.size(film)
            noise = (
                rng.random((12, 10)) + films.truth.mask(film, task)[: 12 * (height // 12) : height // 12, ::3][:12, :10]
            )
            self.maps[film, task] = HeatMap(film, task, noise.astype(np.float32), 0.5, 1, (width, height))

    def load(self, film, task):
        self.reads[film, task] += 1
        return self.maps[film, task]


def outlined_films(names: str, seed: int, alone: str = "") -> OutlinedFilms:
    """Films of a letter each; patient: two letters each; the films of `alone` have a view of their own."""
    rng, content = np.random.default_rng(seed), {}
    for film in names:
        content[film] = {}
        for place, task in enumerate(TASKS):
            mask = np.zeros((24 + 2 * (ord(film) % 3), 30), dtype=bool)
            if rng.random() < 0.8 or film in alone:
                y, x = rng.integers(0, 12), rng.integers(0, 12) + 8 * place
                mask[y : y + 9, x : x + 8] = True
            content[film][task] = encode_mask(mask)
    views = {film: "lateral" if film in alone else "frontal" for film in names}
    patients = {film: f"p{ord(film) // 2}" for film in names}
    return OutlinedFilms(GroundTruth(content), "sha", views, patients)
