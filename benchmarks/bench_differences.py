"""Effect of each difference from the published code, one at a time, on the results of the demo.

    python -m benchmarks.bench_differences demo/results demo/savedModels demo/data/CheXlocalize

Of each difference, both ways are scored with everything else as in the corrected protocol: mean hit rate over the ten
tasks, and mIoU of true positives at thresholds that are tuned on validation for each way. Eigen-CAM's sign is numpy's,
which is arbitrary: it stands against its opposite. The bootstrap's AUROC of a resample without positives, 0 against
undefined, is shown for the rarest label as it is and when only as many positives are left as CheXpert's test set has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

import cli
from benchmarks.measure import load, machine, report
from cxr.heat_maps import HeatMap
from cxr.images import Crop, open_film
from cxr.labels import CHEXPERT
from cxr.manifests.films import read_films
from cxr.masks import GroundTruth, read_ground_truth
from cxr.names import Protocol
from cxr.pixels.tensors import to_unit
from cxr.predictions import read_predictions
from evaluation.bootstrap import resample_weights
from evaluation.localizing.heatmap_thresholds import tune
from evaluation.localizing.localization import score_maps
from evaluation.localizing.miou_curves import miou_curves
from models.checkpoint import load_model
from models.patch_net import MedicalPatchNet
from saliency.cam import upsample
from saliency.evidence.evidence_folders import EvidenceFolder
from saliency.evidence.folded_network import evaluating
from saliency.film_maps import film_in_frame, to_film_frame
from saliency.patch_maps import ShiftGrid, logits_to_unit, scaled_logits

EXAMPLE = "python -m benchmarks.bench_differences demo/results demo/savedModels demo/data/CheXlocalize"
PATCH_MODEL, BASELINE = "MedicalPatchNet", "EfficientNetB0"

POSITIVES_OF_CHEXPERT = 4
"""Of Pleural Other among CheXpert's 668 test films."""


def main(argv: Sequence[str] | None = None) -> int:
    parser = cli.parser(__doc__.splitlines()[0], EXAMPLE)
    add = parser.add_argument
    add("results", type=Path, help="folder with the evidence files of both models")
    add("models", type=Path, help="folder with the baseline's weights")
    add("chexlocalize", type=Path, help="CheXlocalize's folder")
    add("--resamples", type=int, default=20_000, help="of the films, for the AUROC")
    add("--workers", type=int, default=2, help="processes")
    add("--out", type=Path, default=Path("benchmarks/results/bench_differences.csv"), help="result file")
    args = parser.parse_args(argv)

    patch, baseline = args.results / PATCH_MODEL, args.results / BASELINE
    masks = {s: args.chexlocalize / f"CheXlocalize/gt_segmentations_{s}.json" for s in ("val", "test")}
    truth = {split: read_ground_truth(path) for split, path in masks.items()}
    table = pd.DataFrame(
        [
            *map_rows(patch, truth, args.workers),
            *eigen_cam_rows(baseline, load_model(args.models / BASELINE), args.chexlocalize, truth, args.workers),
            *auroc_rows(patch / "predictions_test.csv", args.resamples),
        ]
    )
    facts = {"machine": machine(), "load_before": load()}
    report("bench_differences", table, args.out, {"rows": table.to_dict(orient="records")}, facts)
    return 0


def row(difference: str, measure: str, published: float, ours: float) -> dict[str, Any]:
    return {"difference": difference, "measure": measure, "published": published, "ours": ours}


# ---------------------------------------------------------------------------------------------------------------- maps


@dataclass(frozen=True)
class RemadeMaps:
    """The heat maps of an evidence folder with other pixels: `make(folder, image_id, task)` gives them, (h, w)."""

    folder: EvidenceFolder
    make: Callable[[EvidenceFolder, str, str], Tensor]

    @property
    def entries(self) -> Sequence[tuple[str, str]]:
        return self.folder.entries

    def load(self, image_id: str, task: str) -> HeatMap:
        made = self.make(self.folder, image_id, task)
        return replace(self.folder.load(image_id, task), map=made.numpy())

    def film_pixels(self, image_id: str) -> np.ndarray:
        return self.folder.film_pixels(image_id)


Make = Callable[[EvidenceFolder, str, str], Tensor]


def scores(results: Path, method: str, make: Make, truth: dict[str, GroundTruth], workers: int) -> dict[str, float]:
    """Mean hit rate and mIoU of true positives on test, at thresholds from validation."""
    folders = {
        s: EvidenceFolder(results / f"evidence/{s}", method=method, protocol="corrected", tasks=CHEXPERT.task_names)
        for s in truth
    }
    maps = {split: RemadeMaps(folder, make) for split, folder in folders.items()}
    tuned = tune(miou_curves(maps["val"], truth["val"], true_pos_only=True, workers=workers))
    thresholds = dict(zip(tuned["task"], tuned["threshold"], strict=True))
    scored = score_maps(maps["test"], truth["test"], thresholds=thresholds, workers=workers)
    tables = {"mean hit rate": scored.hits(), "mIoU (TP)": scored.iou(true_pos_only=True)}
    return {measure: float(per_film.mean().mean()) for measure, per_film in tables.items()}


def map_rows(results: Path, truth: dict[str, GroundTruth], workers: int) -> list[dict[str, Any]]:
    """The slip, the border and the frame."""
    rows = []
    for name, method, part in (
        ("slip in the scaled map", "scaled", "slip"),
        ("borders fade", "raw", "border"),
        ("square stretched over the film", "raw", "frame"),
    ):
        published, ours = (
            scores(results, method, partial(remade, **(_CORRECTED | {part: way})), truth, workers)
            for way in ("published", "corrected")
        )
        rows += [row(name, measure, published[measure], ours[measure]) for measure in ours]
    return rows


_CORRECTED: dict[str, Protocol] = dict.fromkeys(("slip", "border", "frame"), "corrected")


def remade(
    folder: EvidenceFolder, image_id: str, task: str, *, slip: Protocol, border: Protocol, frame: Protocol
) -> Tensor:
    """An evidence map in which each of the three differences is chosen for itself."""
    evidence = folder.evidence(image_id, task)
    if evidence.grid is None:
        raise ValueError("the evidence holds no grid")
    shifts = ShiftGrid(evidence.patch_size, evidence.steps_per_patch, evidence.image_size)
    logits = evidence.grid[0].double()
    if folder.method == "scaled":
        logits = scaled_logits(logits, shifts, slip)
    return to_film_frame(logits_to_unit(shifts.pixel_means(logits, border))[None], evidence.crop, frame)[0]


# ----------------------------------------------------------------------------------------------------- Eigen-CAM's sign


def eigen_cam_rows(
    results: Path, model: MedicalPatchNet, chexlocalize: Path, truth: dict[str, GroundTruth], workers: int
) -> list[dict[str, Any]]:
    """numpy's sign against its opposite."""
    grids = {image_id: grid for split in truth for image_id, grid in eigen_grids(model, chexlocalize, split)}
    ours, opposite = (
        scores(
            results, "eigencam", partial(eigen_map, grids={k: sign * grid for k, grid in grids.items()}), truth, workers
        )
        for sign in (1, -1)
    )
    return [row("Eigen-CAM's sign (ours: its opposite)", measure, ours[measure], opposite[measure]) for measure in ours]


def eigen_grids(model: MedicalPatchNet, chexlocalize: Path, split: str) -> Iterator[tuple[str, Tensor]]:
    """(image id, the first principal component (1, h, w) with numpy's sign) of every film."""
    csv = chexlocalize / f"CheXpert/{split}_labels.csv"
    films = read_films(csv, csv.parent)
    for index, file in enumerate(films.files):
        film = to_unit(open_film(file))
        crop = Crop.centred(film.shape[2], film.shape[1])
        with evaluating(model), torch.no_grad():
            maps = model.feature_map(film_in_frame(film, crop, model.image_size, "published")[None])[0]  # (K, h, w)
        pixels = maps.flatten(1).T.numpy()
        pixels = pixels - pixels.mean(axis=0)
        projection = pixels @ np.linalg.svd(pixels, full_matrices=False)[2][0]
        yield films.ids[index], torch.from_numpy(projection).reshape(1, *maps.shape[1:])


def eigen_map(folder: EvidenceFolder, image_id: str, task: str, *, grids: dict[str, Tensor]) -> Tensor:
    evidence = folder.evidence(image_id, task)
    return to_film_frame(upsample(grids[image_id].relu(), evidence.image_size), evidence.crop, "corrected")[0]


# ----------------------------------------------------------------------------------------------------------- statistics


def auroc_rows(predictions_csv: Path, resamples: int) -> list[dict[str, Any]]:
    """Bounds and means of the AUROC's bootstrap, where a resample without positives counts 0 and where it does not."""
    predictions = read_predictions(predictions_csv)
    counts = predictions.labels.sum(axis=0)
    rarest = int(np.argmin(np.where(counts > 0, counts, counts.max())))
    labels, scores = predictions.labels[:, rarest], predictions.probabilities[:, rarest]
    rows = []
    for positives in dict.fromkeys((int(counts[rarest]), min(POSITIVES_OF_CHEXPERT, int(counts[rarest])))):
        kept = np.flatnonzero((labels == 0) | (np.cumsum(labels) <= positives))
        values = resampled_aurocs(labels[kept], scores[kept], resamples)
        undefined = float(np.isnan(values).mean())
        name = f"AUROC 0.0 without positives ({positives} of {len(kept)} films; {undefined:.2%} of the resamples)"
        zeros = np.nan_to_num(values)
        rows.append(row(name, "lower bound", np.quantile(zeros, 0.025), np.nanquantile(values, 0.025)))
        rows.append(row(name, "bootstrap mean", zeros.mean(), np.nanmean(values)))
    return rows


def resampled_aurocs(labels: np.ndarray, scores: np.ndarray, resamples: int) -> np.ndarray:
    """(resamples,), NaN where a resample has no positive or no negative: every pair of the two, weighted."""
    wins = (scores[labels == 1][:, None] > scores[labels == 0]) + 0.5 * (
        scores[labels == 1][:, None] == scores[labels == 0]
    )
    values = []
    for weights in resample_weights(np.arange(len(labels)), resamples, seed=0):  # (N, b)
        positive, negative = weights[labels == 1], weights[labels == 0]
        pairs = positive.sum(axis=0) * negative.sum(axis=0)
        won = np.einsum("pb,pn,nb->b", positive, wins, negative, optimize=True)
        values.append(np.divide(won, pairs, out=np.full(len(pairs), np.nan), where=pairs > 0))
    return np.concatenate(values)


if __name__ == "__main__":
    cli.run(main)
