"""Grey values: how the values that a film stores become [0, 255]; one rule per data set (DESIGN 3, "Grey").

The rule is chosen at preprocessing, recorded in `preprocessing.json`, and carried into the weights' `config.json`:
`{"grey": {"rule": "range", "low": 0, "high": 4095}}`; absent means `stored`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from cxr.files import InputError, place, quoted, read_json

SMALL_PART = 0.25
"""Share of its container's range below which a film's values are taken to be misread. In 243 real films the 99th
percentile is at least 0.48 of the range, and the values between the 0.1st and the 99.9th span at least 0.35."""

PERCENTILES = (0.5, 99.5)
"""Percent of a film's pixels that the rule `percentile` lets become black and white."""

PREPROCESSING = "preprocessing.json"
"""The file in a folder of copies that says how they were made; `grey` is absent for `stored`."""

USAGE = "stored, range LOW HIGH, or percentile [LOW HIGH]"


@dataclass(frozen=True)
class Grey:
    """A rule of grey values; everything outside its limits is clipped.

    stored: 0 is black; white is the largest value of the container (255, 65535), or of the depth that a file declares.
    range: the stored values `low` and `high` are black and white, in every film.
    percentile: each film's own percentiles `low` and `high` are black and white.
    """

    rule: str = "stored"
    low: float | None = None
    high: float | None = None

    STORED: ClassVar[Grey]

    @classmethod
    def parse(cls, words: Sequence[str], where: str = "--grey") -> Grey:
        """Reads `stored`, `range LOW HIGH` or `percentile [LOW HIGH]`, split at blanks. Raises InputError."""
        rule, *limits = words or [""]
        try:
            numbers = [float(word) for word in limits]
        except ValueError:
            numbers = [math.nan]
        if rule == "percentile" and not limits:
            numbers = [*PERCENTILES]
        if len(numbers) not in (0, 2):
            raise InputError(f"{where}: {quoted(' '.join(words))} is not a rule of grey values; expected {USAGE}")
        return cls._checked(rule, numbers, where)

    @classmethod
    def from_json(cls, content: Any, where: str) -> Grey:
        """Reads what `to_json` returns; None, where nothing was recorded, is `stored`. Raises InputError."""
        if content is None:
            return cls.STORED
        if not isinstance(content, Mapping) or not isinstance(content.get("rule"), str):
            raise InputError(f"{where}, grey: {quoted(content)} is not a rule of grey values")
        limits = [content[name] for name in ("low", "high") if name in content]
        numbers = [float(limit) if type(limit) in (int, float) and abs(limit) < 1e300 else math.nan for limit in limits]
        return cls._checked(content["rule"], numbers, f"{where}, grey")

    @classmethod
    def _checked(cls, rule: str, limits: Sequence[float], where: str) -> Grey:
        if rule not in ("stored", "range", "percentile") or len(limits) != (0 if rule == "stored" else 2):
            raise InputError(f"{where}: {quoted(rule)} with {len(limits)} limits; expected {USAGE}")
        if rule == "stored":
            return cls.STORED
        low, high = limits
        if not -math.inf < low < high < math.inf:  # put so that NaN is refused
            raise InputError(f"{where}: LOW and HIGH are {_number(low)} and {_number(high)}; expected LOW < HIGH")
        if rule == "percentile" and not 0 <= low < high <= 100:
            raise InputError(f"{where}: percentiles are numbers from 0 to 100")
        return cls(rule, low, high)

    def to_json(self) -> dict[str, Any]:
        """The rule as plain json; whole numbers are written without a point."""
        if self.low is None or self.high is None:
            return {"rule": self.rule}
        low, high = (int(limit) if limit == int(limit) else limit for limit in (self.low, self.high))
        return {"rule": self.rule, "low": low, "high": high}

    def __str__(self) -> str:
        return " ".join(str(value) for value in self.to_json().values())

    def limits(self, pixels: np.ndarray, top: int | None, path: Path) -> tuple[float, float]:
        """The stored values of `pixels` (any shape) that become black and white.

        top: the value that is white by the file's own declaration, or None where a file declares none (floating point,
        signed and 32-bit values). Raises InputError for `stored` without a top, and for a small part of its range.
        """
        if self.rule == "percentile" and self.low is not None and self.high is not None:
            low, high = quantiles(pixels, (self.low / 100, self.high / 100))
            return low, high
        if self.low is not None and self.high is not None:  # range
            if top is not None and top - self.low < SMALL_PART * (self.high - self.low):
                raise InputError(f"{place(path)}: values of at most {top} are black in {self}; give --grey stored")
            return self.low, self.high
        if top is None:
            raise InputError(f"{place(path)}: {_undeclared(pixels)}")
        check_range(pixels, top, path)
        return 0, top

    def applied(self, pixels: np.ndarray, top: int | None, path: Path, *, white_is_zero: bool) -> np.ndarray:
        """Stored values (H, W) -> grey in [0, 255], float32. Raises InputError as `limits`, and for NaN or infinity."""
        if not np.isfinite(pixels).all():
            raise InputError(f"{place(path)}: pixel values that are not finite numbers; save it in 8 or 16 bit grey")
        low, high = self.limits(pixels, top, path)
        if high == low:  # percentiles of a film without any contrast
            return np.zeros(pixels.shape, np.float32)
        grey = scaled(pixels, low, high, white_is_zero=white_is_zero)
        return grey if self.rule == "stored" else np.clip(grey, 0, 255)


def scaled(pixels: np.ndarray, low: float, high: float, *, white_is_zero: bool = False) -> np.ndarray:
    """Stored values (H, W) -> float32 (H, W), `low` at 0 and `high` at 255, or the other way round; not clipped."""
    values: np.ndarray = pixels.astype("float32" if pixels.dtype.itemsize <= 2 else "float64")
    values = high - values if white_is_zero else values - low
    values *= 255 / (high - low)
    return values.astype(np.float32, copy=False)


Grey.STORED = Grey()


def recorded_grey(folder: Path) -> Grey | None:
    """The rule that the copies in `folder` were made with, None for a folder that is not preprocessed. InputError."""
    record = folder / PREPROCESSING
    if not record.is_file():
        return None
    content = read_json(record)
    return Grey.from_json(content.get("grey") if isinstance(content, dict) else None, place(record))


def quantiles(pixels: np.ndarray, shares: Sequence[float]) -> list[float]:
    """For each share the least stored value that at least that share of the pixels do not exceed (`inverted_cdf`)."""
    if pixels.dtype not in (np.uint8, np.uint16):
        return [float(value) for value in np.quantile(pixels, shares, method="inverted_cdf")]
    counts = np.bincount(pixels.ravel()).cumsum()  # many times faster than sorting
    return [float(np.searchsorted(counts, max(share * pixels.size, 1))) for share in shares]


def check_range(pixels: np.ndarray, top: int, path: Path) -> None:
    """Raises InputError when nearly all values are in the lowest quarter of 0..top, or within any quarter of it.

    Nearly all: a thousandth at either end may lie elsewhere, and at the upper end a hundredth, as burnt-in marks do.
    """
    low, bright, high = quantiles(pixels, (0.001, 0.99, 0.999))
    limit = SMALL_PART * (top + 1)
    if bright >= limit and high - low >= limit:
        return
    least, largest = int(pixels.min()), int(pixels.max())
    found = f"values {least} to {largest} of {top}"
    if bright < limit:
        white = 2 ** max(int(largest if largest < limit else bright).bit_length(), 1) - 1
        found += "" if largest < limit else f", 99% of them below {bright + 1:.0f}"
        hint = f"range 0 {white}"
    else:
        hint = f"range {least} {largest}"
    raise InputError(f"{place(path)}: {found}, too small a part; give --grey {hint}, or --grey percentile")


def _undeclared(pixels: np.ndarray) -> str:
    least, largest = pixels.min().item(), pixels.max().item()
    kind = "floating-point" if pixels.dtype.kind == "f" else "signed or 32-bit"
    whites = [1, 255, 65535] if pixels.dtype.kind == "f" else [2**bits - 1 for bits in (8, 10, 12, 14, 15, 16)]
    white = next((white for white in whites if least >= 0 and largest <= white), None)
    hint = f"{_number(least)} {_number(largest)}" if white is None else f"0 {white}"
    return (
        f"{kind} values {_number(least)} to {_number(largest)}, of which the file does not say what is white; "
        f"give --grey range {hint}, or --grey percentile"
    )


def _number(value: float) -> str:
    return f"{value:.9g}"
