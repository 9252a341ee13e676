"""How good it is: classification metrics, intervals, comparisons, thresholds, localization."""
