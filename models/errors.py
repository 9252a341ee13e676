"""The one error of this package."""


class WeightsError(ValueError):
    """Weights or a network that cannot be used, told in one line that says what to do. Scripts exit with 2."""
