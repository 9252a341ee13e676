"""The prediction of one film taken apart: the contribution of each patch to each logit."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cxr.images import Crop
from saliency.evidence.folded_network import PatchNetwork
from saliency.patch_maps import evidence_grid


@dataclass(frozen=True)
class Patch:
    """One patch and its contribution to a logit.

    row, column: from the top left; box: (left, top, right, bottom) in film pixels.
    """

    row: int
    column: int
    contribution: float
    box: tuple[int, int, int, int]


@dataclass(frozen=True)
class Contributions:
    """logits: (C,) of the whole forward pass; values: (P, C), patches in row-major order; sums: (C,), the logits that
    the values give, which is their sum over P (passed through the link of an aggregation that has one). All float64.

    `logits` and `values` come from separate passes, so that their agreement says something.
    """

    logits: np.ndarray
    values: np.ndarray
    sums: np.ndarray
    crop: Crop

    @classmethod
    def of(cls, model: PatchNetwork, image: Tensor, logits: Tensor, crop: Crop) -> Contributions:
        """Computes the patches of the crop (1, S, S) in [0, 1] one by one; logits: (C,), the model's of the same."""
        grid = evidence_grid(model, image, steps_per_patch=1, batch_size=1)  # (C, k, k)
        values, sums = _aggregated(model, grid.flatten(1).T)
        return cls(logits.double().cpu().numpy(), values, sums, crop)

    @property
    def sum_to_logits(self) -> bool:
        """Whether the values sum to `sums` themselves: no link lies between, as some aggregations have."""
        return bool(np.allclose(self.values.sum(axis=0), self.sums, rtol=1e-9, atol=1e-6))

    @property
    def probabilities(self) -> np.ndarray:
        """(C,), the sigmoid of the logits, without overflow."""
        return torch.sigmoid(torch.from_numpy(self.logits)).numpy()

    @property
    def error(self) -> float:
        """Largest difference between a logit and the sum of its contributions."""
        return float(np.abs(self.sums - self.logits).max())

    def strongest(self, label: int, *, sign: int, count: int) -> list[Patch]:
        """At most `count` patches that speak for (sign 1) or against (-1) a label, the strongest first."""
        values = self.values[:, label]
        order = np.argsort(-sign * values, kind="stable")[:count]
        return [self._patch(int(place), float(values[place])) for place in order if sign * values[place] > 0]

    def _patch(self, place: int, contribution: float) -> Patch:
        n = round(len(self.values) ** 0.5)
        row, column = divmod(place, n)
        left, top = self.crop.to_film(column, row, n)
        right, bottom = self.crop.to_film(column + 1, row + 1, n)
        return Patch(row, column, contribution, (round(left), round(top), round(right), round(bottom)))


@torch.inference_mode()
def _aggregated(model: PatchNetwork, patch_logits: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Patch logits (P, C) on the CPU -> contributions (P, C) and the logits (C,) that they give."""
    aggregation = getattr(model, "aggregation", None)
    if aggregation is None or aggregation.name == "mean":
        values = patch_logits.double() / len(patch_logits)
        return values.numpy(), values.sum(dim=0).numpy()
    device = next(model.parameters()).device
    values = aggregation.contributions(patch_logits[None].to(device))  # (1, P, C)
    return values[0].double().cpu().numpy(), aggregation.link(values.sum(dim=1))[0].double().cpu().numpy()
