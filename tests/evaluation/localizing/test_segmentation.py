import warnings

import cv2
import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from scipy import ndimage

from cxr.heat_maps import HeatMap
from evaluation.localizing.segmentation import above_otsu, above_threshold, normalise, otsu_threshold, resize_to_film


def opencv_mask(normalised):
    """CheXlocalize's way: Otsu by OpenCV, contours by OpenCV, filled polygons by Pillow."""
    levels = np.uint8(255 * normalised)
    _, binary = cv2.threshold(levels, 0, int(levels.max()), cv2.THRESH_OTSU)
    contours, _ = cv2.findContours(binary, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)
    canvas = Image.new("1", levels.shape[::-1])
    for contour in contours:
        if len(contour) > 1:
            ImageDraw.Draw(canvas).polygon([tuple(map(int, point[0])) for point in contour], outline=1, fill=1)
    return np.array(canvas, dtype=bool)


def random_map(rng, kind):
    height, width = rng.integers(1, 60, 2)
    values = rng.random((height, width))
    if kind == "smooth":
        values = ndimage.gaussian_filter(values, rng.random() * 4)
    if kind == "boxes":
        values *= 0.2
        for y, x, h, w in rng.integers(0, 30, (6, 4)):
            values[y : y + h + 1, x : x + w + 1] = rng.random()
    if kind == "lines":
        canvas = Image.new("L", (int(width), int(height)))
        for _ in range(6):
            ends = [tuple(map(int, rng.integers(0, 60, 2))) for _ in range(3)]
            ImageDraw.Draw(canvas).line(ends, fill=int(rng.integers(1, 256)), width=int(rng.integers(1, 4)))
        values = np.array(canvas, dtype=float)
    if kind == "sparse":
        values = (values > 0.8).astype(float)
    return values.astype(np.float32)


@pytest.mark.parametrize("kind", ["noise", "smooth", "boxes", "lines", "sparse"])
def test_otsu_masks_equal_opencvs(kind):
    rng = np.random.default_rng(len(kind))
    compared = 0
    for _ in range(200):
        normalised = normalise(random_map(rng, kind))
        if normalised is not None:
            assert np.array_equal(above_otsu(normalised), opencv_mask(normalised))
            compared += 1
    assert compared > 150


def test_otsu_threshold_equals_opencvs():
    rng = np.random.default_rng(0)
    for _ in range(300):
        levels = rng.choice(rng.integers(0, 256, rng.integers(1, 9)), rng.integers(1, 40, 2)).astype(np.uint8)
        assert otsu_threshold(levels) == cv2.threshold(levels, 0, 255, cv2.THRESH_OTSU)[0]


def test_holes_are_filled_and_single_pixels_dropped():
    ring = np.zeros((9, 9), dtype=np.float32)
    ring[1:6, 1:6] = 1
    ring[2:5, 2:5] = 0
    ring[3, 3] = ring[7, 7] = 1  # one pixel in the hole, one alone outside
    expected = np.zeros((9, 9), dtype=bool)
    expected[1:6, 1:6] = True
    assert np.array_equal(above_otsu(ring), expected)


@pytest.mark.parametrize("size", [(50, 70), (33, 20), (64, 64), (5, 3)])  # (width, height)
def test_stretched_and_normalised_as_torch_does(size):
    plane = np.random.default_rng(0).random((16, 16), dtype=np.float32) * 3 - 1
    resized = torch.nn.functional.interpolate(
        torch.from_numpy(plane)[None, None], size=size[::-1], mode="bilinear", align_corners=False
    ).squeeze()
    shifted = resized - resized.min()
    heat_map = HeatMap("a_b", "Edema", plane, 0.5, 1, size)
    assert np.array_equal(resize_to_film(heat_map), resized.numpy())
    assert np.array_equal(normalise(resize_to_film(heat_map)), shifted.div(shifted.max()).numpy())


def test_a_constant_map_has_no_mask():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert normalise(np.full((4, 5), 0.3, dtype=np.float32)) is None


def test_thresholds_are_compared_in_float32():
    values = np.array([[0.0, 0.4, 1.0]], dtype=np.float32)  # float32(0.4) is above float64(0.4)
    assert above_threshold(values, 0.4).tolist() == [[False, False, True]]
