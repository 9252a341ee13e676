"""What --stride, --steps-per-patch and --protocols mean together."""

import pytest

from cxr.files import InputError
from cxr.names import PROTOCOLS
from saliency.evidence.fineness import Fineness, with_protocols

SIZES = {"patch_size": 64, "image_size": 512, "default_stride": 3}


@pytest.mark.parametrize(
    ("steps", "stride", "protocols", "expected"),
    [
        (None, None, None, (Fineness(64, 3), ("corrected",))),
        (None, None, ("corrected",), (Fineness(64, 3), ("corrected",))),
        (None, None, ("published",), (Fineness(64), ("published",))),
        (None, None, ("corrected", "published"), (Fineness(64), ("corrected", "published"))),
        (8, None, None, (Fineness(8), PROTOCOLS)),
        (8, None, ("published",), (Fineness(8), ("published",))),
        (None, 5, None, (Fineness(64, 5), ("corrected",))),
        (None, 1, None, (Fineness(64), PROTOCOLS)),
        (None, 1, ("published",), (Fineness(64), ("published",))),
    ],
)
def test_what_is_computed(steps, stride, protocols, expected):
    assert with_protocols(steps, stride, protocols, **SIZES) == expected


def test_a_small_patch_bounds_the_default_stride():
    sizes = {"patch_size": 2, "image_size": 8, "default_stride": 3}
    assert with_protocols(None, None, None, **sizes)[0] == Fineness(2, 2)


@pytest.mark.parametrize(
    ("steps", "stride", "protocols", "message"),
    [
        (5, None, None, "^--steps-per-patch: 5 steps per patch of 64 pixels; possible are 1, 2, 4"),
        (None, 65, None, "^--stride: a stride of 65 px; possible are 1 to 64"),
        (None, 3, ("published",), "^published maps need every start, not every 3 px: give --steps-per-patch instead"),
        (None, 3, PROTOCOLS, "^published maps need every start"),
    ],
)
def test_what_cannot_be(steps, stride, protocols, message):
    with pytest.raises(InputError, match=message):
        with_protocols(steps, stride, protocols, **SIZES)


@pytest.mark.parametrize(
    ("fineness", "patches"), [(Fineness(64, 3), 172**2), (Fineness(8), 64**2), (Fineness(64, 9), 58**2)]
)
def test_patches_of_a_film(fineness, patches):
    assert fineness.patches(64, 512) == patches
