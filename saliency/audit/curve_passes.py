"""Deletion and insertion curves by explicit forward passes, for networks whose patches' effects do not add up.

Patches of a film are filled in the order of a map, or come back in it into a film that was filled throughout (RISE,
arXiv 1806.07421). One forward pass serves every order, label and curve in which the same patches are filled.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from cxr.files import InputError
from cxr.names import CHANCE
from saliency.audit.audit_maps import AuditSource
from saliency.audit.curve_files import CurveFacts, FilmCurves, curve_file, write_curves
from saliency.audit.effects import FilmPasses, audit_inputs
from saliency.audit.occlusion import grey_of
from saliency.evidence.folded_network import PatchNetwork, evaluating

STEPS = 16
"""Steps of a curve, at most: of more patches, several are filled at once."""

Key = TypeVar("Key", bound=Hashable)


def fill_counts(patches: int, steps: int = STEPS) -> np.ndarray:
    """(T + 1,) numbers of patches that are filled at the points of a curve, from 0 to all; T = min(patches, steps)."""
    return np.linspace(0, patches, min(patches, steps) + 1).round().astype(int)


def filled_sets(orders: Mapping[Key, np.ndarray], side: int) -> dict[Key, list[bytes]]:
    """Key of an order -> the filled squares at every point of its deletion curve, then of its insertion curve.

    Sets that are equal need one forward pass.
    """
    counts = fill_counts(side**2)
    return {
        key: [*(_filled(order[:count], side) for count in counts), *(_filled(order[count:], side) for count in counts)]
        for key, order in orders.items()
    }


@torch.inference_mode()
def explicit_curves(
    model: PatchNetwork, image: Tensor, orders: Mapping[Key, np.ndarray], *, side: int, grey: float, batch_size: int
) -> dict[Key, np.ndarray]:
    """Key of an order -> (3, T + 1, C) float64: `fill_counts`, and the change of the logits by deletion and insertion.

    image: (1, S, S) in [0, 1] of side x side squares; orders: (P,) squares in row-major order, the first is filled, or
    comes back, first. Changes are against the film's own logits. Raises InputError for a grey outside [0, 1].
    """
    if not 0 <= grey <= 1:
        raise InputError(f"fill {grey:g} is not a grey value from 0 to 1")
    counts, sets = fill_counts(side**2), filled_sets(orders, side)
    none = _filled([], side)
    distinct = list(dict.fromkeys([none, *(filled for of_order in sets.values() for filled in of_order)]))
    logits = dict(zip(distinct, _logits(model, image, distinct, side, grey, batch_size), strict=True))  # (C,) each
    found = {}
    for key, of_order in sets.items():
        changes = np.stack([logits[filled] - logits[none] for filled in of_order])  # (2 * (T + 1), C)
        deletion, insertion = changes.reshape(2, len(counts), -1)
        found[key] = np.stack([np.broadcast_to(counts[:, None], deletion.shape), deletion, insertion])
    return found


def _filled(places: Sequence[int] | np.ndarray, side: int) -> bytes:
    """The squares that are filled, as the bytes of a (side * side,) bool array."""
    filled = np.zeros(side**2, bool)
    filled[np.asarray(places, int)] = True
    return filled.tobytes()


def _logits(
    model: PatchNetwork, image: Tensor, sets: Sequence[bytes], side: int, grey: float, batch_size: int
) -> np.ndarray:
    """(N, C) float64: logits of the image with each set of squares filled."""
    size, device = model.image_size, next(model.parameters()).device
    image = image.reshape(1, 1, size, size).to(device, torch.float32)
    parts = []
    with evaluating(model):
        for start in range(0, len(sets), batch_size):
            masks = np.stack([np.frombuffer(filled, bool) for filled in sets[start : start + batch_size]])
            squares = torch.from_numpy(masks).to(device).reshape(-1, 1, side, side)
            pixels = squares.repeat_interleave(size // side, 2).repeat_interleave(size // side, 3)  # (b, 1, S, S)
            parts.append(model(torch.where(pixels, grey, image)).double().cpu())  # (b, C)
    return torch.cat(parts).numpy()


def random_order(film_id: str, patches: int, seed: int) -> np.ndarray:
    """(P,) an order that knows nothing of the film, drawn by hash of (seed, film)."""
    return np.random.default_rng(_hashed(film_id, seed)).permutation(patches)


def drawn_films(films: Sequence[str], number: int, seed: int) -> list[str]:
    """At most `number` of the films, drawn by hash of (seed, film), in the order that they came in."""
    drawn = set(sorted(films, key=lambda film_id: _hashed(film_id, seed))[:number])
    return [film_id for film_id in films if film_id in drawn]


def _hashed(film_id: str, seed: int) -> int:
    digest = hashlib.sha256(f"{seed}/{film_id}".encode(errors="surrogateescape")).digest()
    return int.from_bytes(digest[:8], "big")


_RANDOM, _REVERSED = (CHANCE, "random"), (CHANCE, "reversed")
"""A random order and the same from its end, whose mean is chance: where effects add up, exactly that of all orders. The
second takes hardly a forward pass more, because its deletion fills what the insertion of the first leaves filled."""


@dataclass(frozen=True)
class CurvePasses:
    """The stage that makes the curves of some films, with a file per film so that it can be resumed.

    source: with occlusion effects by forward passes; pairs: film id -> the tasks whose curves are asked for, and
    chosen_by: fingerprint of what these follow from besides the source; by_map: the order (P,) in which a map's patches
    (k, k) are filled. Curves of more films are added to those that are there.
    """

    passes: FilmPasses
    source: AuditSource
    pairs: Mapping[str, Sequence[str]]
    chosen_by: str | None
    by_map: Callable[[np.ndarray], np.ndarray]

    def make(self, fills: Sequence[str], seed: int) -> None:
        """Makes what is missing of `curve_file`. Raises InputError when a film cannot be read."""
        record, films = self.passes.record, self.passes.films("test")
        files = {film_id: curve_file(record.folder, film_id) for film_id in self.pairs}
        own = audit_inputs(record, self.source)
        own |= {"effects": record.outputs_fingerprint("faithfulness films test"), "chosen_by": self.chosen_by}
        read = self.passes.inputs(films, self.source.film_ids)
        options = {"fills": list(fills), "side": self.source.side, "steps": STEPS, "seed": seed}
        options |= {"tasks": self.source.tasks, "methods": self.source.methods}
        made_from: dict[str, Any] = {"inputs": own | read, "options": options, "outputs": list(files.values())}
        if record.is_complete("faithfulness curves", **made_from):
            return
        with record.stage("faithfulness curves", **made_from) as stage:
            left = [film_id for film_id in self.pairs if not stage.holds(files[film_id])]
            for film_id in tqdm(left, desc="deletion and insertion", unit="film", disable=None):
                image = self.passes.image(films, films.ids.index(film_id))
                write_curves(files[film_id], self._curves(film_id, image, fills, seed))
                stage.wrote(files[film_id])

    def _curves(self, film_id: str, image: Tensor, fills: Sequence[str], seed: int) -> FilmCurves:
        model, side = self.passes.model, self.source.side
        film, tasks = self.source.film(film_id), self.pairs[film_id]
        outputs = self.passes.outputs
        drawn = random_order(film_id, side**2, seed)
        orders = {_RANDOM: drawn, _REVERSED: drawn[::-1]}
        for task in tasks:
            patches = self.source.evidence(film, task).patches
            orders |= {(method, task): self.by_map(patches[method]) for method in self.source.methods}
        curves: dict[tuple[str, str, str], np.ndarray] = {}
        for fill in fills:
            grey = grey_of(fill, float(image.mean()))
            settings: dict[str, Any] = {"side": side, "grey": grey, "batch_size": self.passes.batch_size}
            found = explicit_curves(model, image, orders, **settings)
            chance = (found.pop(_RANDOM) + found.pop(_REVERSED)) / 2
            curves |= {(CHANCE, fill, task): chance[:, :, outputs[task]] for task in tasks}
            curves |= {(m, fill, task): of_order[:, :, outputs[task]] for (m, task), of_order in found.items()}
        weights = self.passes.record.content["weights"]["sha256"]
        return FilmCurves(CurveFacts(weights, list(fills), [CHANCE, *self.source.methods], list(tasks)), curves)
