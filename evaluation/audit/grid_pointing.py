"""The grid pointing game (Boehle et al., CVPR 2021, arXiv 2104.00032) without a forward pass.

A grid is a film made of whole films, one with a finding and three without. The patches of a patch network do not change
in it, so the evidence that was stored for the films is that of the grid.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np

FILMS = 4
"""Films of a grid of 2 x 2."""


def draw_grids(ground_truth: Mapping[str, int], label: str, seed: int) -> list[tuple[str, ...]]:
    """A grid for every film with the finding, which stands first; the others are drawn by hash of (seed, film, label).

    ground_truth: film id -> 1, 0, or -1 where not labelled. Empty where fewer than three films are without it.
    """
    negatives = sorted(film for film, value in ground_truth.items() if value == 0)
    if len(negatives) < FILMS - 1:
        return []
    grids = []
    for film in sorted(film for film, value in ground_truth.items() if value == 1):
        digest = hashlib.sha256(f"{seed}/{film}/{label}".encode(errors="surrogateescape")).digest()
        rng = np.random.default_rng(int.from_bytes(digest[:8], "big"))
        grids.append((film, *(negatives[i] for i in rng.choice(len(negatives), FILMS - 1, replace=False))))
    return grids


def pointing_shares(positive_evidence: Mapping[str, float], grids: Sequence[Sequence[str]]) -> dict[str, float]:
    """First film of each grid -> share of the grid's positive evidence that lies in it; NaN where there is none.

    positive_evidence: film id -> sum of the positive contributions of its patches.
    """
    shares = {}
    for grid in grids:
        evidence = [positive_evidence[film] for film in grid]
        shares[grid[0]] = evidence[0] / sum(evidence) if sum(evidence) > 0 else np.nan
    return shares
