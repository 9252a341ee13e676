"""A film's prediction taken apart: what each patch adds to each logit."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cxr.images import Crop


@dataclass(frozen=True)
class Patch:
    """One patch's share of a logit. row and column from the top left; box: left, top, right, bottom in film pixels."""

    row: int
    column: int
    share: float
    box: tuple[int, int, int, int]


@dataclass(frozen=True)
class Votes:
    """logits: (C,); patch_logits: (P, C), row-major patches of the crop, whose mean the logits should be; float64."""

    logits: np.ndarray
    patch_logits: np.ndarray
    crop: Crop

    @property
    def probabilities(self) -> np.ndarray:
        """(C,)"""
        return 1 / (1 + np.exp(-self.logits))

    @property
    def shares(self) -> np.ndarray:
        """(P, C): each patch's logit divided by the number of patches; they add up to the logits."""
        return self.patch_logits / len(self.patch_logits)

    @property
    def sums(self) -> np.ndarray:
        """(C,): the sum of the shares."""
        return self.shares.sum(axis=0)

    @property
    def error(self) -> float:
        """Largest distance of a logit from the sum of its shares."""
        return float(np.abs(self.sums - self.logits).max())

    def strongest(self, label: int, *, sign: int, count: int) -> list[Patch]:
        """At most `count` patches that speak for (sign 1) or against (-1) a label, the strongest first."""
        shares = self.shares[:, label]
        order = np.argsort(-sign * shares, kind="stable")[:count]
        return [self._patch(int(place), float(shares[place])) for place in order if sign * shares[place] > 0]

    def _patch(self, place: int, share: float) -> Patch:
        n = round(len(self.patch_logits) ** 0.5)
        row, column = divmod(place, n)
        left, top = self.crop.to_film(column, row, n)
        right, bottom = self.crop.to_film(column + 1, row + 1, n)
        return Patch(row, column, share, (round(left), round(top), round(right), round(bottom)))
