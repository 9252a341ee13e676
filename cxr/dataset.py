"""Films as the network takes them: the centred square of each, as a tensor."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from cxr.files import InputError
from cxr.images import Crop, open_film
from cxr.manifests.films import Films
from cxr.paths import inside_release
from cxr.pixels.tensors import resize, to_unit


def network_input(film: Image.Image | np.ndarray, image_size: int) -> tuple[Tensor, Crop]:
    """The network's input from a grey film, the one way for training, evaluation, maps and single films.

    film: a Pillow image, or (H, W), grey in [0, 255]. Returns (1, S, S) float32 in [0, 1], S = image_size: the centred
    square, resized with antialiasing, and its place in the film.
    """
    image = film if isinstance(film, Image.Image) else Image.fromarray(film)
    crop = Crop.centred(*image.size)
    return resize(to_unit(image.crop(crop.box)), image_size).clamp_(0, 1), crop


class FilmDataset(Dataset[tuple[Tensor, Tensor]]):
    """Films and labels as the network takes them: (1, S, S) float32 in [0, 1] and (C,) float32, S = `image_size`.

    Labels are those of `films.label_set`; NaN where a film is not labelled. Raises InputError naming the table's line
    when a film cannot be read.
    """

    def __init__(self, films: Films, image_size: int) -> None:
        self.films = films
        self.image_size = image_size

    def __len__(self) -> int:
        return len(self.films)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.image(index)[0], torch.from_numpy(self.films.labels[index])

    def image(self, index: int) -> tuple[Tensor, Crop]:
        """The network's input, (1, S, S), and its place in the film."""
        with self._naming(index):
            return network_input(self._film(index), self.image_size)

    def pixels(self, index: int) -> np.ndarray:
        """The film's square at its own resolution in 8 bit, (side, side) uint8; deeper films are rounded."""
        with self._naming(index):
            film = self._film(index)
        if isinstance(film, np.ndarray):
            return film
        square = np.asarray(film.crop(Crop.centred(*film.size).box))
        return square if square.dtype == np.uint8 else np.rint(square).astype(np.uint8)

    def _film(self, index: int) -> Image.Image | np.ndarray:
        """The whole film, or its square (side, side) uint8 where films are packed."""
        if self.films.packed is not None:
            return self.films.packed.pixels(inside_release(self.films.paths[index]))
        return open_film(self.films.files[index], self.films.grey)

    @contextmanager
    def _naming(self, index: int) -> Iterator[None]:
        """Adds the film's line to an error."""
        try:
            yield
        except InputError as error:
            raise InputError(f"{self.films.where(index)}: {error}") from None
