"""How finely evidence is computed: the options --stride and --steps-per-patch, and what follows without either."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cxr.files import InputError
from cxr.names import PROTOCOLS, Protocol
from saliency.evidence.pixel_grid import PixelGrid
from saliency.evidence.shift_grid import ShiftGrid
from saliency.patch_maps import check_stride

PUBLISHED_STEPS = 64
"""Of the published code, whose maps need every start of their grid."""


@dataclass(frozen=True)
class Fineness:
    """steps_per_patch and stride as in `evidence_grid`."""

    steps_per_patch: int
    stride: int = 1

    @property
    def words(self) -> str:
        return f"every {self.stride} px" if self.stride > 1 else f"{self.steps_per_patch} steps per patch"

    def patches(self, patch_size: int, image_size: int) -> int:
        """Patches of a film whose logits are computed for its evidence grid."""
        return PixelGrid(ShiftGrid(patch_size, self.steps_per_patch, image_size), self.stride).m ** 2

    def options(self) -> dict[str, int]:
        """As a stage of `run.json` keeps it; without a stride as before there was one."""
        return {"steps_per_patch": self.steps_per_patch} | ({"stride": self.stride} if self.stride > 1 else {})

    @classmethod
    def recorded(cls, options: Mapping[str, Any]) -> Fineness | None:
        """The fineness that such options say; None for others."""
        steps, stride = options.get("steps_per_patch"), options.get("stride", 1)
        found = cls(steps, stride) if type(steps) is int and type(stride) is int else None
        return found if found is not None and found.options() == dict(options) else None


def fineness(
    steps: int | None, stride: int | None, *, default_stride: int, patch_size: int, image_size: int
) -> Fineness:
    """Steps or a stride as given, else the default stride. Raises InputError for one that the network cannot have."""
    if stride is None and steps is None:
        stride = min(default_stride, patch_size)
    chosen = Fineness(patch_size, stride) if stride is not None else Fineness(steps or 0)
    try:
        PixelGrid(ShiftGrid(patch_size, chosen.steps_per_patch, image_size), chosen.stride)
    except ValueError as error:
        raise InputError(f"{'--steps-per-patch' if stride is None else '--stride'}: {error}") from None
    return chosen


def with_protocols(
    steps: int | None, stride: int | None, protocols: Sequence[Protocol] | None, **sizes: int
) -> tuple[Fineness, tuple[Protocol, ...]]:
    """The fineness, and the protocols that it allows where none are given.

    Published maps need every start, so asking for them, or for steps, makes both protocols of one grid of steps;
    without either, corrected maps are made of the default stride. Raises InputError for published maps with a stride.
    """
    if stride is None and steps is None and protocols is not None and "published" in protocols:
        steps = PUBLISHED_STEPS
    chosen = fineness(steps, stride, **sizes)
    if protocols is None:
        protocols = PROTOCOLS if chosen.stride == 1 else ("corrected",)
    for protocol in protocols:
        check_stride(protocol, chosen.stride)
    return chosen, tuple(protocols)
