"""Every aggregation on the frozen patch logits of trained networks: AUROC, hit rates, certificates of contributions.

    python -m benchmarks.bench_aggregations demo             # or several folders of demos, of other data seeds

The convolutions stay as they were trained with the mean. `position` is what fitAggregation.py fits; for the other
aggregations their own parameters, and a factor and an offset of every label's patch logits (a part of the head), are
trained on the patch logits of the training films and stopped where the validation films want it. Differences are paired
with the mean's values on the same test films; AUROC's intervals draw patients, those of the hit rates films.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

import cli
from benchmarks.measure import load, machine, report
from cxr.dataset import FilmDataset, network_input
from cxr.heat_maps import HeatMap
from cxr.images import Crop, open_film
from cxr.manifest import Films, read_films
from cxr.masks import GroundTruth, read_ground_truth
from cxr.names import predictions_file
from cxr.paths import projection_of
from cxr.predictions import Predictions, read_predictions
from cxr.splits import split_table
from cxr.thresholds import Thresholds
from evaluation.comparison import compare
from evaluation.film_statistics import of_films, paired_differences
from evaluation.localizing.localization import score_maps
from models.aggregation import AGGREGATIONS
from models.checkpoint import build_model, load_model
from models.patch_net import MedicalPatchNet
from saliency.additivity import some_films
from saliency.certificates import Certificates, measure_certificates
from saliency.evidence.evidence_values import evidence_values
from saliency.film_maps import Evidence, film_maps, methods_that_hold
from saliency.patch_maps import evidence_grid
from training.position_fit import fit_label, patch_logits_of
from training.split_films import read_splits

EXAMPLE = "python -m benchmarks.bench_aggregations demo"
STEPS = 400
LEARNING_RATE = 0.02
STEPS_PER_PATCH = 4
METHODS = ("raw", "relative")


def main(argv: Sequence[str] | None = None) -> int:
    parser = cli.parser(__doc__.splitlines()[0], EXAMPLE)
    add = parser.add_argument
    add(
        "demos", type=cli.existing_folder, nargs="+", help="folders with data/, savedModels/ and results/ of runDemo.sh"
    )
    add("--resamples", type=cli.whole_number(1, 10**6), default=2000, help="of patients, or of films for the hit rates")
    add("--out", type=cli.path, default=Path("benchmarks/results/bench_aggregations.csv"), help="result file")
    args = parser.parse_args(argv)
    facts = {"machine": machine(), "load_before": load()}
    rows = [row for demo in args.demos for row in demo_rows(demo, args.resamples)]
    table = pd.DataFrame(rows)
    means = table.groupby("aggregation", sort=False)["auroc"].mean().round(4).to_dict()
    report("bench_aggregations", table, args.out, {"mean AUROC over the demos": means}, facts)
    return 0


@dataclass(frozen=True)
class Split:
    """Films, their labels (N, C) and the frozen network's patch logits (N, P, C) of them."""

    films: Films
    logits: Tensor

    @property
    def labels(self) -> Tensor:
        return torch.from_numpy(self.films.labels)


def demo_rows(demo: Path, resamples: int) -> Iterator[dict[str, Any]]:
    """One row per aggregation, the mean first, and one of the whole-film baseline's predictions."""
    model = load_model(demo / "savedModels/MedicalPatchNet")
    data = next(path for path in sorted((demo / "data").glob("CheXpert-*")) if (path / "valid.csv").is_file())
    train, validation = read_splits(data)
    test = read_films(split_table(data, "test"), data, split="test", label_set=train.label_set)
    splits = [Split(films, frozen_logits(model, films)) for films in (train, validation, test)]
    grids = Grids(model, demo / "data/CheXlocalize")
    baseline = read_predictions(predictions_file(demo / "results/EfficientNetB0", "test"), model.label_set)
    mean = scored(model, splits, grids)
    for name in AGGREGATIONS:
        made = mean if name == "mean" else scored(aggregated(model, name, *splits[:2]), splits, grids)
        yield {"demo": demo.name, "aggregation": name} | made.row(mean, baseline, resamples)
    row = {"demo": demo.name, "aggregation": "whole film (baseline)"}
    yield row | auroc_facts(baseline, mean.predictions, "mean", resamples)


def frozen_logits(model: MedicalPatchNet, films: Films) -> Tensor:
    reading = {"batch_size": 16, "workers": 0}
    return torch.from_numpy(patch_logits_of(model, films, "cpu", films.table.name, **reading))


# ------------------------------------------------------------------------------------------------------------- fitting


def aggregated(model: MedicalPatchNet, name: str, train: Split, validation: Split) -> MedicalPatchNet:
    """The network with another aggregation, fitted or trained on its own patch logits."""
    sizes: dict[str, Any] = {"patch_size": model.patch_size, "image_size": model.image_size}
    made = build_model(model.backbone, **sizes, labels=model.label_set, aggregation=name).eval()
    made.load_state_dict(made.state_dict() | model.state_dict())
    if name == "position":
        fit_positions(made.aggregation, train, validation)
    else:
        train_on_logits(made, train, validation)
    return made


@torch.no_grad()
def fit_positions(aggregation: Any, train: Split, validation: Split) -> None:
    """As fitAggregation.py does."""
    for c in range(train.logits.shape[2]):
        parts = [(part.logits[..., c].numpy(), part.films.labels[:, c]) for part in (train, validation)]
        fit = fit_label(parts[0], parts[1])
        deviation = torch.from_numpy(len(fit.weights) * fit.weights - 1)
        aggregation.deviation[c] = deviation.reshape(aggregation.deviation[c].shape)
        aggregation.offset[c] = fit.offset


def train_on_logits(made: MedicalPatchNet, train: Split, validation: Split) -> None:
    """Full-batch AdamW over the aggregation's parameters and an affine function per label of the patch logits."""
    factor, offset = (nn.Parameter(value) for value in (torch.ones(len(made.labels)), torch.zeros(len(made.labels))))
    parameters = [factor, offset, *made.aggregation.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=LEARNING_RATE)
    best, kept = np.inf, [parameter.detach().clone() for parameter in parameters]
    for _ in range(STEPS):
        with torch.no_grad():
            loss = cross_entropy(made.aggregation(validation.logits * factor + offset), validation.labels).item()
        if loss < best:
            best, kept = loss, [parameter.detach().clone() for parameter in parameters]
        optimizer.zero_grad()
        cross_entropy(made.aggregation(train.logits * factor + offset), train.labels).backward()
        optimizer.step()
    with torch.no_grad():
        for parameter, value in zip(parameters, kept, strict=True):
            parameter.copy_(value)
        made.head.weight *= factor[:, None]
        made.head.bias.copy_(made.head.bias * factor + offset)


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    known = ~labels.isnan()
    return nn.functional.binary_cross_entropy_with_logits(logits[known], labels[known])


# ------------------------------------------------------------------------------------------------------------- scoring


@dataclass(frozen=True)
class Scored:
    """predictions: of the test films. hits: method -> film x task. certificates: measured on some test films."""

    predictions: Predictions
    hits: Mapping[str, pd.DataFrame]
    certificates: Certificates

    def row(self, mean: Scored, baseline: Predictions, resamples: int) -> dict[str, Any]:
        row = auroc_facts(self.predictions, mean.predictions, "mean", resamples)
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


def scored(made: MedicalPatchNet, splits: Sequence[Split], grids: Grids) -> Scored:
    test = splits[2]
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

    def __init__(self, model: MedicalPatchNet, chexlocalize: Path) -> None:
        self.model = model
        self.truth: GroundTruth = read_ground_truth(chexlocalize / "CheXlocalize/gt_segmentations_test.json")
        self.films = {
            split: dict(self._computed(chexlocalize / f"CheXpert/{split}_labels.csv")) for split in ("val", "test")
        }

    def _computed(self, table: Path) -> Iterator[tuple[str, tuple[Crop, str, Tensor]]]:
        films = read_films(table, table.parent, label_set=self.model.label_set)
        for index, file in enumerate(films.files):
            image, crop = network_input(open_film(file, films.grey), self.model.image_size)
            grid = evidence_grid(self.model, image, steps_per_patch=STEPS_PER_PATCH, batch_size=16)
            yield films.ids[index], (crop, projection_of(films.views[index]), grid)

    def values(self, made: MedicalPatchNet, split: str) -> dict[str, tuple[Crop, str, Tensor]]:
        """Film -> crop, view, values (C, n, n) of a network with another aggregation."""
        return {
            film: (crop, view, evidence_values(made, self._logits(made, grid), STEPS_PER_PATCH))
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
        return score_maps(Maps(made, values, self.truth), self.truth, masks=False).hits()


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

    @property
    def entries(self) -> list[tuple[str, str]]:
        pairs = [(film, task) for film in self.films for task in self.truth.tasks]
        return sorted(pair for pair in pairs if pair[0] in self.truth and self.truth.area(*pair))

    def load(self, image_id: str, task: str) -> HeatMap:
        crop, _, values = self.films[image_id]
        label = self.made.labels.index(self.made.label_set.label_of(task))
        sizes = (self.made.patch_size, STEPS_PER_PATCH, self.made.image_size)
        evidence = Evidence(crop, *sizes, values[label : label + 1], {})
        pixels = film_maps(evidence, ["raw"], "corrected")["raw"][0].numpy()
        return HeatMap(image_id, task, pixels, 0.0, -1, (crop.film_width, crop.film_height))

    def film_pixels(self, image_id: str) -> np.ndarray:
        raise NotImplementedError("localization needs maps only")


if __name__ == "__main__":
    cli.run(main)
