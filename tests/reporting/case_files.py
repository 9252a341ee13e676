"""What the case viewer shows, small and from a seed: evidence files, thresholds and masks beside `write_results`."""

from __future__ import annotations

import numpy as np
import torch

from cxr.files import write_json
from cxr.images import Crop
from cxr.labels import CHEXPERT
from cxr.masks import encode_mask
from cxr.names import methods_of
from cxr.paths import film_id
from cxr.predictions import read_predictions
from saliency.evidence.evidence_files import FilmLabels, write_evidence
from saliency.film_maps import Evidence


def write_case_files(folder, *, image_size=64, patch_size=16, steps_per_patch=4, seed=0):
    """Evidence of both models and thresholds for the films of their predictions; returns the masks' json.

    Films are wide, tall and square in turn. Every task that is present has a mask and evidence for it around it.
    """
    rng = np.random.default_rng(seed)
    predictions = read_predictions(folder / "MedicalPatchNet" / "predictions_test.csv")
    masks = {}
    for row, path in enumerate(predictions.paths):
        name = film_id(path)
        truth = [
            int(predictions.labels[row, CHEXPERT.names.index(CHEXPERT.label_of(task))]) for task in CHEXPERT.task_names
        ]
        height, width = ((1.0, 1.25), (1.2, 1.0), (1.0, 1.0))[row % 3]
        crop = Crop.centred(round(2 * width * image_size), round(2 * height * image_size))
        film = torch.from_numpy(film_of(rng, round(height * image_size), round(width * image_size)))
        grid, mask = grid_and_mask(rng, truth, image_size * steps_per_patch // patch_size, crop)
        masks[name] = {
            task: encode_mask(mask & bool(present)) for task, present in zip(CHEXPERT.task_names, truth, strict=True)
        }
        cams = {
            method: torch.from_numpy(rng.random((len(CHEXPERT.task_names), 8, 8), dtype=np.float32))
            for method in methods_of("baseline")
        }
        cams["eigencam"] = cams["eigencam"][:1].expand(len(CHEXPERT.task_names), -1, -1)
        labels = FilmLabels(name, CHEXPERT.task_names, [0.5] * len(CHEXPERT.task_names), truth)
        for model, of_model in (("MedicalPatchNet", (grid, {})), ("EfficientNetB0", (None, cams))):
            evidence = Evidence(crop, patch_size, steps_per_patch, image_size, *of_model)
            write_evidence(folder / model / "evidence" / "test" / f"{name}.npz", evidence, labels, film)
    for model in ("MedicalPatchNet", "EfficientNetB0"):
        thresholds = {label: {"threshold": 0.4, "reason": None} for label in CHEXPERT.names}
        write_json(folder / model / "thresholds.json", thresholds)
    write_json(folder / "gt_segmentations_test.json", masks)
    return folder / "gt_segmentations_test.json"


def film_of(rng, height, width):
    """(h, w) float32 in [0, 1]: soft blobs."""
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    film = 0.15 + sum(0.4 * np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / 0.05) for cx, cy in rng.uniform(0.2, 0.8, (3, 2)))
    return np.clip(film, 0, 1).astype(np.float32)


def grid_and_mask(rng, truth, n, crop):
    """Evidence grids (10, n, n), for where a disc of the crop lies and against elsewhere, and the disc in the film."""
    centre, radius = rng.uniform(0.3, 0.7, 2), rng.uniform(0.12, 0.25)
    y, x = np.mgrid[0:n, 0:n] / n  # the centres of the patches
    inside = (x - centre[0]) ** 2 + (y - centre[1]) ** 2 < radius**2
    strength = np.where(np.array(truth)[:, None, None], 6.0, 1.0)
    grid = strength * inside - 1 + 0.3 * rng.normal(size=(len(truth), n, n))
    y, x = np.mgrid[0 : crop.film_height, 0 : crop.film_width]
    x, y = (x - crop.left) / crop.side, (y - crop.top) / crop.side
    mask = (x - centre[0]) ** 2 + (y - centre[1]) ** 2 < radius**2
    return torch.from_numpy(grid.astype(np.float32)), mask
