"""How the patch logits of a film become its logits: one small class per aggregation.

A subclass defines `contributions`; the logit is their sum, passed through `link`. Defining the class registers it under
its name: nothing else has to change for `MedicalPatchNet(..., aggregation=NAME)`, config.json and the weights.

An aggregation is *local* when a patch's contribution does not change with the other patches, and *complete* when the
contributions sum to the logit itself, without a link. Local and complete contributions are the Shapley values of the
patches (Lundberg and Lee, arXiv 1705.07874). Both properties are measured on films, not declared here.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cxr.files import InputError, quoted


class Aggregation(nn.Module, ABC):
    """(B, P, C) patch logits -> (B, C) logits; P = side * side patches in row-major order, C labels.

    linear: whether the logit is a fixed affine function of the patch logits, which closed forms need.
    """

    name: ClassVar[str]
    linear: ClassVar[bool]

    def __init_subclass__(cls, *, name: str, linear: bool = False) -> None:
        cls.name, cls.linear = name, linear
        AGGREGATIONS[name] = cls

    def __init__(self, labels: int, side: int) -> None:
        """Reads the sizes; a subclass creates its parameters such that training starts from the mean where it can."""
        super().__init__()

    @abstractmethod
    def contributions(self, patch_logits: Tensor) -> Tensor:
        """(B, P, C) -> (B, P, C): what each patch adds to the (linked) logit."""

    def link(self, total: Tensor) -> Tensor:
        """Sum of the contributions (B, C) -> logits (B, C); the identity unless a subclass says otherwise."""
        return total

    def shifted(self, patch_logits: Tensor, shifts: Tensor) -> Tensor:
        """Contributions (B, P, C) of patch grids that lie shifted over the film, by (B, 2) patches down and right.

        Fine maps are made of them. The rule is that of unshifted patches unless a subclass depends on the place.
        """
        return self.contributions(patch_logits)

    def forward(self, patch_logits: Tensor) -> Tensor:
        """(B, P, C) -> (B, C)."""
        return self.link(self.contributions(patch_logits).sum(dim=1))


AGGREGATIONS: dict[str, type[Aggregation]] = {}


def build_aggregation(name: str, labels: int, side: int) -> Aggregation:
    """Raises InputError for an unknown name, and where a single patch leaves nothing to aggregate."""
    check_name(name)
    if side == 1 and name != Mean.name:
        raise InputError(f"aggregation {quoted(name)} of one patch, the whole film; a baseline takes {Mean.name!r}")
    return AGGREGATIONS[name](labels, side)


def check_name(name: str) -> str:
    """The name. Raises InputError, which lists those that are known, for another one."""
    if name not in AGGREGATIONS:
        raise InputError(f"unknown aggregation {quoted(name)}; known are {', '.join(AGGREGATIONS)}")
    return name


class Mean(Aggregation, name="mean", linear=True):
    """The paper's: every patch contributes its logit divided by the number of patches."""

    def contributions(self, patch_logits: Tensor) -> Tensor:
        return patch_logits / patch_logits.shape[1]

    def forward(self, patch_logits: Tensor) -> Tensor:
        return patch_logits.mean(dim=1)  # not the rounded sum of rounded quotients


class Position(Aggregation, name="position", linear=True):
    """A weight per label and place, w = (1 + deviation) / P, and an offset per label, spread evenly over the patches.

    Weight decay pulls the deviations, and so the network, towards the mean.
    """

    def __init__(self, labels: int, side: int) -> None:
        super().__init__(labels, side)
        self.deviation = nn.Parameter(torch.zeros(labels, side, side))
        self.offset = nn.Parameter(torch.zeros(labels))

    @property
    def weights(self) -> Tensor:
        """(C, k, k): the factor of the patch logit at each place."""
        return (1 + self.deviation) / self.deviation[0].numel()

    def contributions(self, patch_logits: Tensor) -> Tensor:
        weights = self.weights.flatten(1).T  # (P, C)
        return patch_logits * weights + self.offset / len(weights)

    def shifted(self, patch_logits: Tensor, shifts: Tensor) -> Tensor:
        down, right = (_between(shift, self.deviation) for shift in shifts.T)  # (B, k, k)
        deviation = torch.einsum("bri,lij,bcj->brcl", down, self.deviation, right).flatten(1, 2)  # (B, P, C)
        return (patch_logits * (1 + deviation) + self.offset) / patch_logits.shape[1]


class Gate(Aggregation, name="gate"):
    """Every patch decides from its own logits how much it counts: 2 sigmoid(A l + b) l / P; 1 at the start."""

    def __init__(self, labels: int, side: int) -> None:
        super().__init__(labels, side)
        self.gate = _zeros(labels)

    def contributions(self, patch_logits: Tensor) -> Tensor:
        return 2 * self.gate(patch_logits).sigmoid() * patch_logits / patch_logits.shape[1]


class NoisyOr(Aggregation, name="noisy_or"):
    """Positive when any patch is: 1 - p = product of (1 - p_i), p_i = sigmoid(l_i - log P).

    The contributions are -log(1 - p_i), all positive; the odds 1 / P at l = 0 keep p from being 1 at the start.
    """

    def contributions(self, patch_logits: Tensor) -> Tensor:
        return F.softplus(_single(patch_logits) - math.log(patch_logits.shape[1]))

    def link(self, total: Tensor) -> Tensor:
        total = total.clamp(min=1e-30)  # of which log is finite
        return total + torch.log(-torch.expm1(-total))  # log(p / (1 - p)) where total = -log(1 - p)


class Attention(Aggregation, name="attention"):
    """Weights per label that sum to 1 over the patches: softmax(A l) l; the mean at the start.

    A patch's weight depends on all other patches (Ilse et al., arXiv 1802.04712, on logits instead of features).
    """

    def __init__(self, labels: int, side: int) -> None:
        super().__init__(labels, side)
        self.score = _zeros(labels)

    def contributions(self, patch_logits: Tensor) -> Tensor:
        return _single(self.score(patch_logits)).softmax(dim=1) * patch_logits


class LogSumExp(Aggregation, name="logsumexp"):
    """log(mean(exp(l))), a soft maximum (Pinheiro and Collobert, arXiv 1411.6228); contributions are exp(l) / P."""

    def contributions(self, patch_logits: Tensor) -> Tensor:
        return _single(patch_logits).exp() / patch_logits.shape[1]

    def link(self, total: Tensor) -> Tensor:
        return total.log()

    def forward(self, patch_logits: Tensor) -> Tensor:
        return _single(patch_logits).logsumexp(dim=1) - math.log(patch_logits.shape[1])  # where exp alone overflows


def _between(shift: Tensor, like: Tensor) -> Tensor:
    """(B,) patches -> (B, k, k): by which shares the values at k centres make those at the shifted places.

    Linear interpolation; beyond the outer centres their own value.
    """
    centres = torch.arange(like.shape[-1], device=like.device, dtype=like.dtype)
    places = (centres + shift[:, None].to(centres)).clamp(0, len(centres) - 1)  # (B, k)
    return (1 - (places[..., None] - centres).abs()).clamp(min=0)


def _single(logits: Tensor) -> Tensor:
    """At least single precision: exponentials in half precision lose the small patches."""
    return logits if logits.dtype == torch.float64 else logits.float()


def _zeros(labels: int) -> nn.Linear:
    """(..., C) -> (..., C), all zero: no random numbers are drawn for it."""
    layer = nn.utils.skip_init(nn.Linear, labels, labels)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
