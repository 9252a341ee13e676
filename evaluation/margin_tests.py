"""One-sided tests of a difference against a margin stated beforehand: non-inferiority, equivalence, and their opposite.

A difference that is not significant does not show that two models are alike; these tests do. They ask three questions
(`QUESTIONS`) of the difference d = a - b, the margin m and the sampling distribution D of d:

    noninferior    is a not worse than b by m or more?         p = P(D <= -m)
    equivalent     is neither worse by m or more?              p = max(P(D <= -m), P(D >= m))
    beyond         do they differ by more than m?              p = P(D <= m) + P(D <= -m) where d >= 0, else mirrored

Equivalence is the two one-sided tests (TOST) of Schuirmann 1987, doi:10.1007/BF01068419: at 5% it holds where the 90%
interval lies within (-m, m). With m = 0, the third is the ordinary two-sided test.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr
from scipy.stats import norm

from evaluation.delong import holm

ALPHA = 0.05
CONFIDENCE = 0.90
"""Of the intervals: 1 - 2 ALPHA, as two one-sided tests at ALPHA ask for."""

QUESTIONS = ("noninferior", "equivalent", "beyond")
_MARGIN_STEPS = 10**6


@dataclass(frozen=True)
class Normal:
    """A difference with a normal error, in units of AUROC; an error of 0 is certainty."""

    difference: float
    standard_error: float

    def below(self, value: float) -> float:
        """P(D <= value)."""
        return self._tail(value - self.difference)

    def above(self, value: float) -> float:
        """P(D >= value)."""
        return self._tail(self.difference - value)

    def _tail(self, reach: float) -> float:
        return float(ndtr(reach / self.standard_error)) if self.standard_error else float(reach >= 0)

    def interval(self) -> tuple[float, float]:
        reach = float(norm.isf((1 - CONFIDENCE) / 2)) * self.standard_error
        return self.difference - reach, self.difference + reach


@dataclass(frozen=True)
class Resampled:
    """A difference and its values in the resamples, sorted; (count + 1) / (B + 1) keeps a p value above 0."""

    difference: float
    samples: np.ndarray

    def below(self, value: float) -> float:
        """P(D <= value)."""
        return float((np.searchsorted(self.samples, value, side="right") + 1) / (len(self.samples) + 1))

    def above(self, value: float) -> float:
        """P(D >= value)."""
        count = len(self.samples) - np.searchsorted(self.samples, value, side="left")
        return float((count + 1) / (len(self.samples) + 1))

    def interval(self) -> tuple[float, float]:
        low, high = np.quantile(self.samples, ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2))
        return float(low), float(high)


Estimate = Normal | Resampled


def p_values(estimate: Estimate | None, margin: float) -> dict[str, float]:
    """p value of each of `QUESTIONS`; NaN without an estimate."""
    if estimate is None:
        return dict.fromkeys(QUESTIONS, np.nan)
    worse, better = estimate.below(-margin), estimate.above(margin)
    if estimate.difference >= 0:
        beyond = estimate.below(margin) + worse
    else:
        beyond = estimate.above(-margin) + better
    return {"noninferior": worse, "equivalent": max(worse, better), "beyond": min(1.0, beyond)}


def holm_tests(estimates: Sequence[Estimate | None], margin: float) -> list[dict[str, float]]:
    """p values of a family of tests and Holm's corrections of them (`_holm`), question by question."""
    tests = [p_values(estimate, margin) for estimate in estimates]
    for question in QUESTIONS:
        corrected = holm(np.array([test[question] for test in tests]))
        for test, p in zip(tests, corrected, strict=True):
            test[f"{question}_holm"] = float(p)
    return tests


def smallest_margin(estimates: Sequence[Estimate | None], index: int, question: str) -> float:
    """The smallest margin in [0, 1], rounded up to 1e-6, with which the corrected p value of one test is below 5%.

    By bisection: p values and Holm's corrections fall as the margin grows. NaN where no margin is large enough.
    """

    def holds(margin: float) -> bool:
        return holm_tests(estimates, margin)[index][f"{question}_holm"] < ALPHA

    if estimates[index] is None or not holds(1):
        return np.nan
    low, high = 0, _MARGIN_STEPS  # in steps of 1e-6, so that what is returned is what was tried
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle / _MARGIN_STEPS) else (middle + 1, high)
    return high / _MARGIN_STEPS


def verdict(test: Mapping[str, float]) -> str:
    """The first statement whose corrected p value is below 5%."""
    if np.isnan(test["equivalent_holm"]):
        return "undefined"
    statements = {"beyond": "different beyond margin", "equivalent": "equivalent", "noninferior": "non-inferior"}
    held = (words for question, words in statements.items() if test[f"{question}_holm"] < ALPHA)
    return next(held, "inconclusive")
