"""AUROC of networks that were trained and tested on several splits of the same patients, with one interval over all.

The tests of different splits share patients, so that their intervals cannot be averaged. Here a resample draws patients
of the whole data set, and a film counts in the test of every split as often as its patient was drawn; the AUROC of a
resample is the mean over the splits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Scored:
    """The test films of one split: patients (N,) as places in a list of all, truth (N,) 0 or 1, scores (N, M)."""

    patients: np.ndarray
    truth: np.ndarray
    scores: np.ndarray


def pooled_aurocs(splits: Sequence[Scored], patients: int, *, resamples: int, seed: int) -> np.ndarray:
    """(1 + resamples, M) AUROC of M networks, mean over the splits; first of the films as they are.

    NaN where a resample has no positive or no negative film in any split; a split without either does not count.
    """
    drawn = np.random.default_rng(seed).integers(0, patients, (resamples, patients))
    counts = np.zeros((1 + resamples, patients))
    counts[0] = 1
    np.add.at(counts, (np.arange(1, 1 + resamples)[:, None], drawn), 1)
    of_splits = np.stack([_weighted_aurocs(split, counts[:, split.patients]) for split in splits])  # (S, 1 + B, M)
    defined = ~np.isnan(of_splits)
    total = np.where(defined, of_splits, 0).sum(axis=0)
    return np.divide(total, defined.sum(axis=0), out=np.full_like(total, np.nan), where=defined.any(axis=0))


def _weighted_aurocs(split: Scored, weights: np.ndarray) -> np.ndarray:
    """(B, M): the share of pairs of a positive and a negative film that a network puts in order, a tie half.

    weights: (B, N) how often each film counts.
    """
    positive, negative = split.truth == 1, split.truth == 0
    pairs = weights[:, positive].sum(axis=1) * weights[:, negative].sum(axis=1)  # (B,)
    columns = []
    for scores in split.scores.T:
        over = scores[positive][:, None] - scores[negative]  # (P, Q)
        in_order = (over > 0) + 0.5 * (over == 0)
        right = ((weights[:, positive] @ in_order) * weights[:, negative]).sum(axis=1)
        columns.append(np.divide(right, pairs, out=np.full(len(pairs), np.nan), where=pairs > 0))
    return np.stack(columns, axis=1)
