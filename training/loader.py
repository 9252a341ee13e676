"""Data loading: films under the keys (epoch, index), in batches and an order that follow from (seed, epoch)."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from cxr.dataset import FilmDataset
from cxr.files import InputError
from training.augment import crop_and_resize, sample_augmentation

BadFilmPolicy = Literal["stop", "skip"]


@dataclass(frozen=True)
class Sample:
    """One film as a worker returns it: image (1, S, S) uint8, labels (C,) float32, parameters of `rotate_and_brighten`.

    film: index in the training set. seconds: reading time. error: why a film without an image could not be read.
    """

    film: int
    labels: np.ndarray
    seconds: float
    image: Tensor | None = None
    degrees: float = 0.0
    brightness: float = 1.0
    error: str = ""


class Batch(NamedTuple):
    """B films: images (B, 1, S, S) uint8, labels (B, C) float32, degrees, brightness and film indices (B,).

    unreadable: index and reason of every film that was dropped. seconds: reading time of the batch.
    """

    images: Tensor
    labels: Tensor
    degrees: Tensor
    brightness: Tensor
    films: Tensor
    unreadable: dict[int, str]
    seconds: float


class TrainingSet(Dataset[Sample]):
    """Cropped and resized films under the keys (epoch, index); rotation and brightness are applied on the device.

    on_bad_film: `stop` raises InputError, naming the line, for a film that cannot be read; `skip` returns a sample
    without an image.
    """

    def __init__(self, dataset: FilmDataset, seed: int, on_bad_film: BadFilmPolicy = "stop") -> None:
        self.dataset = dataset
        self.seed = seed
        self.on_bad_film = on_bad_film

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        epoch, index = key
        started = time.perf_counter()
        labels = self.dataset.films.labels[index]
        try:
            pixels = self.dataset.pixels(index)
        except InputError as error:
            if self.on_bad_film == "stop":
                raise
            return Sample(index, labels, time.perf_counter() - started, error=str(error))
        params = sample_augmentation(self.seed, epoch, index, *pixels.shape)
        image = crop_and_resize(pixels, params, self.dataset.image_size)
        return Sample(index, labels, time.perf_counter() - started, image, params.degrees, params.brightness)


def collate(samples: Sequence[Sample]) -> Batch:
    """Collates samples; unreadable films are dropped, not replaced. Raises InputError when none is left."""
    readable = [sample for sample in samples if sample.image is not None]
    if not readable:
        raise InputError(f"no film of a batch could be read; the first: {samples[0].error}")
    return Batch(
        images=torch.stack([sample.image for sample in readable if sample.image is not None]),
        labels=torch.from_numpy(np.stack([sample.labels for sample in readable])),
        degrees=torch.tensor([sample.degrees for sample in readable], dtype=torch.float32),
        brightness=torch.tensor([sample.brightness for sample in readable], dtype=torch.float32),
        films=torch.tensor([sample.film for sample in readable]),
        unreadable={sample.film: sample.error for sample in samples if sample.image is None},
        seconds=sum(sample.seconds for sample in samples),
    )


class PartSampler(Sampler[list[tuple[int, int]]]):
    """Batches of keys (epoch, index) of this process; every film at most once per epoch.

    The films of a step are split into `parts` (micro-batches), of which this process takes every `world_size`-th from
    `rank` on; so `parts` processes with one part each see the same batches as one process with all parts. The last
    films of an epoch, fewer than a step's, are dropped. Set `epoch` and `first_step` before iterating.

    Raises ValueError when films, parts and processes do not divide evenly.
    """

    def __init__(
        self, films: int, films_per_step: int, seed: int, parts: int = 1, rank: int = 0, world_size: int = 1
    ) -> None:
        if films_per_step % parts or parts % world_size:
            numbers = f"{films_per_step} films per step in {parts} parts for {world_size} processes"
            raise ValueError(f"{numbers} do not divide evenly")
        self.films, self.films_per_step, self.seed = films, films_per_step, seed
        self.own_parts = range(rank, parts, world_size)
        self.part_size = films_per_step // parts
        self.epoch = 1
        self.first_step = 0

    @property
    def steps(self) -> int:
        """Steps per epoch."""
        return self.films // self.films_per_step

    def __len__(self) -> int:
        return (self.steps - self.first_step) * len(self.own_parts)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        order = np.random.default_rng((self.seed, self.epoch)).permutation(self.films)
        for step in range(self.first_step, self.steps):
            for part in self.own_parts:
                start = step * self.films_per_step + part * self.part_size
                yield [(self.epoch, int(index)) for index in order[start : start + self.part_size]]
