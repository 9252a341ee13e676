"""The strip under a picture: its words, and the scale of its colours, which are those that lie over the film."""

import numpy as np
import pytest
from PIL import Image

from reporting.pictures.captions import ColourBar, captioned
from reporting.pictures.overlays import tint, tint_scale


@pytest.mark.parametrize("shape", [(524, 640), (755, 640), (40, 30)])  # landscape, portrait, tiny
def test_the_picture_stays_and_the_strip_lies_below_it(shape):
    film = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    plain, barred = (
        captioned(Image.fromarray(film), ["Edema: probability 0.9", "red for"], bar)
        for bar in (None, ColourBar(tint_scale(signed=True), ("−5", "+5")))
    )
    for whole in (plain, barred):
        assert whole.width == shape[1]
        np.testing.assert_array_equal(np.asarray(whole)[: shape[0], :, 0], film)
        strip = np.asarray(whole)[shape[0] :]
        assert strip.min() < 60 and (strip == 255).mean() > 0.5  # black words on white
    assert plain.height < barred.height < plain.height + 25


def test_the_scale_goes_from_blue_over_the_bare_film_to_red():
    picture = captioned(Image.new("L", (640, 100)), [], ColourBar(tint_scale(signed=True), ("−5", "+5")))
    row = np.asarray(picture)[110].astype(int)
    coloured = np.flatnonzero(np.ptp(row, axis=1) > 40)
    left, right = row[coloured[0]], row[coloured[-1]]
    assert left[2] > left[0] + 40 and right[0] > right[2] + 40
    middle = row[(coloured[0] + coloured[-1]) // 2]
    assert np.ptp(middle) < 6 and abs(middle[0] - 128) < 6


def test_colours_of_the_scale_are_those_of_the_overlay():
    signed, unsigned = (tint_scale(signed=kind) for kind in (True, False))
    grey = np.full((1, 3), 0.5)
    np.testing.assert_array_equal(signed[[0, 127, 254]], tint(grey, np.array([[0.0, 0.5, 1.0]]), signed=True)[0])
    np.testing.assert_array_equal(unsigned[[0, 127, 254]], tint(grey, np.array([[0.0, 0.5, 1.0]]), signed=False)[0])
    assert np.ptp(unsigned[0]) == 0 and unsigned[254][0] > unsigned[254][2] + 40
