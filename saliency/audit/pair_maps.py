"""The change that a finding makes: logits and maps of films that were drawn with it and without it, all else equal.

The folder is a manifest with `pairs.csv` (`with, without, label, mask`: two film ids, a label, its task in
`regions.json`), as `makeDemoDataset.py --pairs` writes it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from cxr.dataset import network_input
from cxr.files import InputError, place, quoted
from cxr.images import Crop, open_film
from cxr.labels import LabelSet
from cxr.manifests.films import Films
from cxr.manifests.full_size import full_size_grey, read_full_size
from cxr.names import METHODS, PATCHES, SIGNED_CAM
from cxr.tables import line_of, read_csv
from saliency.audit.occlusion import signed_cam
from saliency.cam import CAMS
from saliency.evidence.folded_network import PatchNetwork, evaluating
from saliency.evidence.shift_grid import ShiftGrid
from saliency.film_maps import crop_maps, gather_evidence, methods_that_hold
from saliency.patch_maps import maps_from_grid

TABLE = "pairs.csv"


@dataclass(frozen=True)
class FilmPair:
    """present, absent: rows of `films`; task: of the mask."""

    label: str
    present: int
    absent: int
    task: str


def read_pairs(folder: Path, label_set: LabelSet) -> tuple[Films, list[FilmPair]]:
    """The films, and the pairs of labels that the network has.

    Raises InputError for a missing file or column, and for a film that the manifest does not list.
    """
    table = read_csv(folder / TABLE, ["with", "without", "label", "mask"])
    films = read_full_size(folder, "test", label_set)
    row = {film_id: number for number, film_id in enumerate(films.ids)}
    for name in ("with", "without"):
        unknown = np.flatnonzero(~table[name].isin(list(row)))
        if len(unknown):
            where, film = place(folder / TABLE, line_of(table, int(unknown[0])), name), table[name].iloc[unknown[0]]
            raise InputError(f"{where}: {quoted(film)} is not a film of {films.table.name}")
    pairs = [
        FilmPair(label, row[present], row[absent], task)
        for present, absent, label, task in table[["with", "without", "label", "mask"]].itertuples(index=False)
        if label in label_set.names
    ]
    if not pairs:
        raise InputError(f"{place(folder / TABLE)}: no pair of a label that the network has")
    return films, pairs


@dataclass(frozen=True)
class Change:
    """Film with the finding - film without it: of the label's logit, and of every method's map, (S, S)."""

    pair: FilmPair
    film_id: str
    logit: float
    maps: dict[str, np.ndarray]


class PairMaps:
    """Runs a network on both films of a pair.

    methods: of `AUDITED`, those that a film alone decides. Relative maps change as raw ones do: the reference of a view
    is the same for both films.
    """

    def __init__(
        self, model: PatchNetwork, methods: Sequence[str], *, steps_per_patch: int, data: Path | None, batch_size: int
    ) -> None:
        self.model, self.steps, self.data, self.batch_size = model, steps_per_patch, data, batch_size
        self.heat_maps = [method for method in METHODS if method in methods_that_hold(model, methods)]
        self.has_patches = model.patch_size < model.image_size
        self.methods = [*([PATCHES] if self.has_patches else []), *self.heat_maps]
        self.methods += [] if self.has_patches else [SIGNED_CAM]

    def changes(self, folder: Path, films: Films, pairs: Sequence[FilmPair]) -> Iterator[Change]:
        """In the order of the pairs. Raises InputError when a film cannot be read."""
        grey = full_size_grey(folder, self.data, films)
        for pair in pairs:
            output = self.model.labels.index(pair.label)
            rows = (pair.present, pair.absent)
            inputs = [network_input(open_film(films.files[row], grey), self.model.image_size) for row in rows]
            (logit, maps), (other_logit, other_maps) = (self._film(*of_film, output) for of_film in inputs)
            if inputs[0][1] != inputs[1][1]:
                raise InputError(f"{films.where(pair.absent)}: the two films of a pair have different sizes")
            changes = {method: maps[method] - other_maps[method] for method in maps}
            yield Change(pair, films.ids[pair.present], logit - other_logit, changes)

    def _film(self, image: torch.Tensor, crop: Crop, output: int) -> tuple[float, dict[str, np.ndarray]]:
        """Logit of an output, and its maps (S, S) of the crop."""
        model, size = self.model, self.model.image_size
        with evaluating(model), torch.inference_mode():
            logit = float(model(image[None].to(next(model.parameters()).device))[0, output])
        settings = {"steps_per_patch": self.steps, "batch_size": self.batch_size, "outputs": [output]}
        evidence = gather_evidence(model, image, crop, methods=self.heat_maps, **settings)  # type: ignore[arg-type]
        cams = [method for method in self.heat_maps if method in CAMS]
        found = {method: maps[0].numpy() for method, maps in crop_maps(evidence, cams, "corrected").items()}
        if evidence.grid is not None:  # in logits: stored maps have lost digits that a small change needs
            own = {"patch_size": model.patch_size, "steps_per_patch": self.steps, "image_size": size}
            maps = maps_from_grid(evidence.grid, **own, protocol="corrected", methods=self.heat_maps)
            found |= {method: of_method[0].numpy() for method, of_method in maps.items()}
            values = ShiftGrid(model.patch_size, self.steps, size).unshifted(evidence.grid[0])
            enlarged = F.interpolate(values[None, None] / values.numel(), (size, size), mode="nearest")[0]
            found[PATCHES] = enlarged[0].numpy()
        if SIGNED_CAM in self.methods:
            cam = torch.from_numpy(signed_cam(model, image)[output])[None, None]
            enlarged = F.interpolate(cam, (size, size), mode="bilinear", align_corners=False)[0]
            found[SIGNED_CAM] = enlarged[0].numpy()
        return logit, found
