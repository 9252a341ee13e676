"""A weight per place for one label, fitted to patch logits: logistic regression that is pulled towards the plain mean.

    logit = sum over p of w_p l_p + offset;  minimise  cross entropy + (1 / 2) sum over p of ((P w_p - 1) / spread)^2

The penalty is the one of normal weights around 1 / P with the relative standard deviation `spread`: 0 gives the mean
with an offset, infinity plain logistic regression. The spread is chosen by the cross entropy of the validation films.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from torch import Tensor, nn

from cxr.dataset import FilmDataset
from cxr.files import InputError
from cxr.manifests.films import Films
from training.engine import predict_films

SPREADS = (0.0, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
"""Relative standard deviations of the weights that are tried, the most even ones first."""

_STEPS = 100
_TOLERANCE = 1e-10
"""Of the Newton decrement, in nats over all films."""


@dataclass(frozen=True)
class PositionFit:
    """weights: (P,); spread: the chosen one; loss, even_loss: mean cross entropy of the validation films with the
    weights and with the plain mean, NaN where nothing was fitted; reason: why 1 / P was kept, empty where it was not.
    """

    weights: np.ndarray
    offset: float
    spread: float
    loss: float
    even_loss: float
    reason: str = ""

    def __str__(self) -> str:
        if self.reason:
            return f"keeps 1 / P ({self.reason})"
        places = len(self.weights)
        extent = f"{places * self.weights.min():.2f} to {places * self.weights.max():.2f} of 1 / P"
        return (
            f"weights {extent}, offset {self.offset:+.2f}, spread {self.spread:g}; "
            f"validation cross entropy {self.even_loss:.4f} -> {self.loss:.4f}"
        )


def fit_table(fits: Mapping[str, PositionFit]) -> pd.DataFrame:
    """One row per label: spread, offset, cross entropies, the reason why nothing was fitted, and the weights by row."""
    rows = [
        {
            "label": label,
            "spread": fit.spread,
            "offset": fit.offset,
            "val_cross_entropy_mean": fit.even_loss,
            "val_cross_entropy": fit.loss,
            "note": fit.reason,
            **{f"w{place}": weight for place, weight in enumerate(fit.weights)},
        }
        for label, fit in fits.items()
    ]
    return pd.DataFrame(rows)


class _PatchLogits(nn.Module):
    """A network (see `models.patch_net`) whose outputs are all patch logits of a film, (B, P * C)."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        return self.network.patch_logits(images).flatten(1)  # type: ignore[operator]


def patch_logits_of(
    network: nn.Module, films: Films, device: str, title: str, *, batch_size: int, workers: int
) -> np.ndarray:
    """(N, P, C) float32 of all films, of the unshifted patches, from one pass; 4 P C bytes per film stay in memory.

    network: with `patch_logits`, `image_size` and `labels`, as `models.patch_net.MedicalPatchNet` has them.
    Raises InputError for a film whose logits are not finite.
    """
    dataset = FilmDataset(films, network.image_size)  # type: ignore[arg-type]
    reading = {"batch_size": batch_size, "workers": workers, "title": f"patch logits, {title}"}
    logits = predict_films(_PatchLogits(network), dataset, device, **reading)  # type: ignore[arg-type]
    bad = (~logits.isfinite()).any(dim=1).nonzero()
    if len(bad):
        raise InputError(
            f"{films.where(int(bad[0]))}: the network's patch logits are not finite; are its weights sound?"
        )
    return logits.unflatten(1, (-1, len(network.labels))).numpy()  # type: ignore[arg-type]


def fit_label(
    train: tuple[np.ndarray, np.ndarray],
    validation: tuple[np.ndarray, np.ndarray],
    spreads: Sequence[float] = SPREADS,
) -> PositionFit:
    """train, validation: patch logits (N, P) and labels (N,), 1 or 0; films that are not labelled (NaN) are left out.

    Keeps 1 / P where the films of either have no positive or no negative one, or validation prefers the plain mean.
    """
    places = train[0].shape[1]
    (x, y), (of_validation, truth) = (_labelled(*part) for part in (train, validation))
    reason = _one_sided(y, "training") or _one_sided(truth, "validation")
    if reason:
        return PositionFit(np.full(places, 1 / places), 0.0, 0.0, np.nan, np.nan, reason)
    fitted = [fit_weights(x, y, spread) for spread in spreads]
    losses = [cross_entropy(of_validation @ weights + offset, truth) for weights, offset in fitted]
    best = int(np.argmin(losses))  # the first, most even one of equals
    even = cross_entropy(of_validation.mean(axis=1), truth)
    if even <= losses[best]:
        return PositionFit(np.full(places, 1 / places), 0.0, 0.0, even, even, "no weights are better on validation")
    return PositionFit(*fitted[best], float(spreads[best]), losses[best], even)


def _labelled(patch_logits: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    known = ~np.isnan(labels)
    return patch_logits[known].astype(np.float64), labels[known].astype(np.float64)


def _one_sided(labels: np.ndarray, films: str) -> str:
    for value, name in ((1, "positive"), (0, "negative")):
        if not (labels == value).any():
            return f"no {name} film of {films}"
    return ""


def cross_entropy(logits: np.ndarray, labels: np.ndarray) -> float:
    """Mean over films, in nats."""
    return float(np.mean(np.logaddexp(0, logits) - labels * logits))


def fit_weights(patch_logits: np.ndarray, labels: np.ndarray, spread: float) -> tuple[np.ndarray, float]:
    """Patch logits (N, P) and labels (N,) -> weights (P,) and offset, by Newton's method; the problem is convex.

    Labels must be of both kinds, or the offset has no finite best value.
    """
    count, places = patch_logits.shape
    design = np.column_stack([patch_logits / places, np.ones(count)])  # columns of the deviations, and of the offset
    even = patch_logits.mean(axis=1)
    free = slice(None) if spread > 0 else slice(places, None)
    penalty = np.append(np.full(places, 1 / spread**2 if spread > 0 else 0.0), 0.0)
    theta = np.zeros(places + 1)  # deviations d_p = P w_p - 1, and the offset

    def objective(at: np.ndarray) -> float:
        return count * cross_entropy(even + design @ at, labels) + 0.5 * float(penalty @ at**2)

    value = objective(theta)
    for _ in range(_STEPS):
        probability = 1 / (1 + np.exp(-np.clip(even + design @ theta, -500, 500)))
        gradient = (design.T @ (probability - labels) + penalty * theta)[free]
        curvature = probability * (1 - probability)
        hessian = (design.T * curvature @ design + np.diag(penalty))[free, free]
        step = np.zeros_like(theta)
        step[free] = np.linalg.lstsq(hessian, -gradient, rcond=None)[0]
        decrement = float(-gradient @ step[free])
        if decrement < _TOLERANCE:  # so near that the step is exact, and the objective's rounding larger than its gain
            theta = theta + step
            break
        size = 1.0
        while (new := objective(theta + size * step)) > value - 1e-4 * size * decrement and size > 1e-10:
            size /= 2
        theta, value = theta + size * step, new
    return (1 + theta[:places]) / places, float(theta[places])
