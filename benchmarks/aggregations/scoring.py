"""Scores of a network with another aggregation, made of the frozen network's patch logits and evidence grids."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from benchmarks.aggregations.networks import Split
from cxr.dataset import FilmDataset, network_input
from cxr.files import InputError, place
from cxr.heat_maps import HeatMap
from cxr.images import Crop, open_film
from cxr.manifests.films import read_films
from cxr.masks import GroundTruth, read_ground_truth
from cxr.paths import projection_of
from cxr.predictions import Predictions
from cxr.thresholds import Thresholds
from evaluation.comparison import compare
from evaluation.film_statistics import of_films, paired_differences
from evaluation.localizing.localization import score_maps
from models.patch_net import MedicalPatchNet
from saliency.additivity import some_films
from saliency.certificates import Certificates, measure_certificates
from saliency.evidence.evidence_values import evidence_values
from saliency.film_maps import Evidence, film_maps, methods_that_hold
from saliency.patch_maps import evidence_grid

METHODS = ("raw", "relative")


@dataclass(frozen=True)
class Scored:
    """predictions: of the test films. hits: method -> film x task. certificates: measured on some test films."""

    predictions: Predictions
    hits: Mapping[str, pd.DataFrame]
    certificates: Certificates

    def row(self, mean: Scored, baseline: Predictions | None, resamples: int) -> dict[str, Any]:
        row = auroc_facts(self.predictions, mean.predictions, "mean", resamples)
        if baseline is not None:
            row |= auroc_facts(self.predictions, baseline, "whole_film", resamples)
        for method in METHODS:
            if method in self.hits:
                row |= hit_facts(self.hits[method], mean.hits[method], method, resamples)
        return row | self.certificates.to_json()


def auroc_facts(predictions: Predictions, other: Predictions, name: str, resamples: int) -> dict[str, Any]:
    """Mean AUROC over all labels, and its difference from another network's, with a paired interval over patients."""
    none = Thresholds(dict.fromkeys(predictions.names))
    table = compare(predictions, other, none, none, resamples=resamples, unit="patient")
    label = next(iter(predictions.label_set.means))
    row = table[(table["label"] == label) & (table["metric"] == "auroc")].iloc[0]
    difference = {"": row["difference"], "_low": row["ci_low"], "_high": row["ci_high"]}
    return {"auroc": row["value_a"]} | {f"auroc_minus_{name}{part}": value for part, value in difference.items()}


def hit_facts(hits: pd.DataFrame, of_mean: pd.DataFrame, method: str, resamples: int) -> dict[str, Any]:
    """Mean hit rate over the tasks, and its difference from that of the mean, with a paired interval over films."""
    drawn = of_films(len(hits), resamples=resamples, seed=0)
    row = paired_differences(hits, of_mean, drawn).set_index("name").loc["Mean"]
    values = {"": row["a"], "_minus_mean": row["difference"], "_minus_mean_low": row["lower"]}
    return {f"hit_{method}{part}": value for part, value in (values | {"_minus_mean_high": row["upper"]}).items()}


def scored(made: MedicalPatchNet, test: Split, grids: Grids) -> Scored:
    logits = own_logits(made, test.logits, grids.model)
    with torch.inference_mode():
        probabilities = torch.sigmoid(made.aggregation(logits).double()).numpy()
    films, dataset = test.films, FilmDataset(test.films, made.image_size)
    labels = films.labels.astype(np.float64)
    images = torch.stack([dataset.image(index)[0] for index in some_films(len(films))])
    return Scored(
        Predictions(films.paths, probabilities, labels, films.label_set, films.ids, films.patients),
        {method: grids.hits(made, method) for method in methods_that_hold(made, METHODS)},
        measure_certificates(made, images),
    )


def own_logits(made: MedicalPatchNet, logits: Tensor, frozen: MedicalPatchNet) -> Tensor:
    """Patch logits (..., C) of the frozen network -> those of one whose head differs by factor and offset per label."""
    factor = (made.head.weight[:, 0] / frozen.head.weight[:, 0]).detach()
    return logits * factor + (made.head.bias - frozen.head.bias * factor).detach()


class Grids:
    """Evidence grids (C, n, n) of the frozen network for all films with masks, and the maps of others made of them."""

    def __init__(self, model: MedicalPatchNet, chexlocalize: Path, steps: int) -> None:
        self.model, self.steps = model, steps
        self.truth: GroundTruth = read_ground_truth(chexlocalize / "CheXlocalize/gt_segmentations_test.json")
        self.films = {
            split: dict(self._computed(chexlocalize / f"CheXpert/{split}_labels.csv")) for split in ("val", "test")
        }

    def _computed(self, table: Path) -> Iterator[tuple[str, tuple[Crop, str, Tensor]]]:
        films = read_films(table, table.parent, label_set=self.model.label_set)
        for index, file in enumerate(films.files):
            image, crop = network_input(open_film(file, films.grey), self.model.image_size)
            grid = evidence_grid(self.model, image, steps_per_patch=self.steps, batch_size=16)
            yield films.ids[index], (crop, projection_of(films.views[index]), grid)

    def values(self, made: MedicalPatchNet, split: str) -> dict[str, tuple[Crop, str, Tensor]]:
        """Film -> crop, view, values (C, n, n) of a network with another aggregation."""
        return {
            film: (crop, view, evidence_values(made, self._logits(made, grid), self.steps))
            for film, (crop, view, grid) in self.films[split].items()
        }

    def _logits(self, made: MedicalPatchNet, grid: Tensor) -> Tensor:
        return own_logits(made, grid.movedim(0, -1), self.model).movedim(-1, 0).contiguous()

    def hits(self, made: MedicalPatchNet, method: str) -> pd.DataFrame:
        """Film x task: whether the map's maximum lies in the mask; NaN without a mask."""
        values = self.values(made, "test")
        if method == "relative":
            known = self.values(made, "val")
            values = {film: (crop, view, own - reference(known, view)) for film, (crop, view, own) in values.items()}
        return score_maps(Maps(made, values, self.truth, self.steps), self.truth, masks=False).hits()


def reference(validation: Mapping[str, tuple[Crop, str, Tensor]], view: str) -> Tensor:
    """The mean values of the validation films of a view, of all where there is none."""
    same = [values for _, of_film, values in validation.values() if of_film == view]
    return torch.stack(same or [values for _, _, values in validation.values()]).double().mean(dim=0).float()


@dataclass(frozen=True)
class Maps:
    """Maps of values (C, n, n), made when they are scored; only those of films with a mask, which can be hit."""

    made: MedicalPatchNet
    films: Mapping[str, tuple[Crop, str, Tensor]]
    truth: GroundTruth
    steps: int

    @property
    def entries(self) -> list[tuple[str, str]]:
        pairs = [(film, task) for film in self.films for task in self.truth.tasks]
        return sorted(pair for pair in pairs if pair[0] in self.truth and self.truth.area(*pair))

    def load(self, image_id: str, task: str) -> HeatMap:
        crop, _, values = self.films[image_id]
        label = self.made.labels.index(self.made.label_set.label_of(task))
        sizes = (self.made.patch_size, self.steps, self.made.image_size)
        evidence = Evidence(crop, *sizes, values[label : label + 1], {})
        pixels = film_maps(evidence, ["raw"], "corrected")["raw"][0].numpy()
        return HeatMap(image_id, task, pixels, 0.0, -1, (crop.film_width, crop.film_height))

    def film_pixels(self, image_id: str) -> np.ndarray:
        raise InputError(f"{place(image_id)}: only maps are made here, which localization needs")
