"""Exact interval of a proportion, for the few and the extreme counts where a bootstrap has nothing to vary."""

from __future__ import annotations

from scipy.stats import beta


def exact_interval(successes: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """Clopper-Pearson interval of successes / trials (Clopper and Pearson 1934, doi:10.1093/biomet/26.4.404).

    The limits are the proportions under which a count as large, or as small, as the observed one has probability
    (1 - confidence) / 2: quantiles of beta distributions. 0 of 16 gives (0, 0.206), while every bootstrap resample of
    it is 0. It covers the true proportion at least as often as `confidence` says. NaN for no trials. Raises ValueError
    unless 0 <= successes <= trials and 0 < confidence < 1.
    """
    if not 0 <= successes <= trials or not 0 < confidence < 1:
        raise ValueError(f"{successes} of {trials} at confidence {confidence} is not a proportion")
    if not trials:
        return float("nan"), float("nan")
    tail = (1 - confidence) / 2
    low = float(beta.ppf(tail, successes, trials - successes + 1)) if successes else 0.0
    high = float(beta.isf(tail, successes + 1, trials - successes)) if successes < trials else 1.0
    return low, high
