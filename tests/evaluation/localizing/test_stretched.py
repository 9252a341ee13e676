"""What is said of a stretched map without stretching it, against torch's stretched map and a plain comparison."""

import numpy as np
import pytest

from cxr.heat_maps import HeatMap
from evaluation.localizing.segmentation import above_threshold, normalise, resize_to_film
from evaluation.localizing.stretched import StretchedMap, least_above, sure_hit, surely_uneven


def maps():
    """Smooth, rough, level and nearly level maps on films of their size up to six times it."""
    rng = np.random.default_rng(0)
    for number in range(120):
        height, width = rng.integers(2, 24, 2)
        plane = rng.random((height, width), dtype=np.float32)
        plane = [plane, np.round(plane * 2) / 2, 0.5 + plane * np.float32(2e-7), np.full_like(plane, 0.3)][number % 4]
        size = [int(side * factor) for side, factor in zip((width, height), rng.uniform(1, 6, 2), strict=True)]
        yield HeatMap("a", "Mass", np.ascontiguousarray(plane, np.float32), 1.0, 1, (size[0], size[1])), rng


def test_hits_masks_and_evenness_are_those_of_the_stretched_map():
    sure = uneven = 0
    for heat_map, rng in maps():
        pixels = resize_to_film(heat_map)
        mask = rng.random(pixels.shape) < 0.5
        mask[: len(mask) // 2] = rng.random() < 0.5
        expected = float(mask.flat[pixels.argmax()])
        assert StretchedMap(heat_map).hits(mask) == expected
        assert sure_hit(heat_map, mask) in (None, expected)
        sure += sure_hit(heat_map, mask) is not None
        assert not surely_uneven(heat_map) or np.ptp(pixels) > 0
        uneven += surely_uneven(heat_map)
        normalised = normalise(pixels)
        assert StretchedMap(heat_map).is_constant == (normalised is None)
        for threshold in (0.0, 0.25, 0.4, float(rng.random()), 1.0, -0.1):
            found = StretchedMap(heat_map)
            by_division = np.zeros_like(mask) if normalised is None else above_threshold(normalised, threshold)
            assert found.is_any_above(threshold) == by_division.any()
            assert np.array_equal(found.above(threshold), by_division)
    assert sure > 20 and uneven > 10  # the short ways are taken


@pytest.mark.parametrize("low, high", [(-2.0, 3.0), (0.4875, 0.5125), (-1e-30, 1e-30), (0.0, 1e-40)])
def test_the_least_value_above_a_threshold_is_where_the_comparison_turns(low, high):
    low, high = np.float32(low), np.float32(high)
    for threshold in (0.0, 0.1, 0.5, 0.999):
        value = least_above(low, high, threshold)
        before = np.nextafter(value, np.float32(-np.inf))
        assert (value - low) / (high - low) > np.float32(threshold) >= (before - low) / (high - low)
    assert least_above(low, high, 1.0) == np.inf
