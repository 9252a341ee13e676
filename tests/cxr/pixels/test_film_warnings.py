"""Warnings of films that do not look like radiographs, with their rates on real and drawn films."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cxr.pixels.film_warnings import chest_likeness, film_warnings
from preprocessing.phantom.cohort import draw_cohort
from preprocessing.phantom.film import render
from tests.films import film_pixels

REAL_FILMS = Path(__file__).resolve().parents[4] / "shared/real_films/png"


def warnings_of(pixels: np.ndarray) -> list[str]:
    image = Image.fromarray(pixels)
    return film_warnings(image, image if image.mode == "F" else image.convert("L"))


def test_the_real_films_are_not_warned_of_and_their_negatives_are():
    files = sorted(REAL_FILMS.glob("*.png"))
    if not files:
        pytest.skip(f"{REAL_FILMS} is not here")
    found = negatives = 0
    for file in files:
        with Image.open(file) as image:
            pixels = np.asarray(image.convert("L").resize((300, 300), Image.Resampling.BOX))
        found += bool(warnings_of(pixels))
        negatives += "looks inverted: air bright and bones dark" in warnings_of(255 - pixels)
    assert (len(files), found) == (243, 0)
    assert negatives >= 236


def test_drawn_films_are_not_warned_of_and_their_negatives_are():
    for film in draw_cohort(20, seed=5)[:12]:  # frontal and lateral ones
        pixels = render(film, seed=5).image
        assert warnings_of(pixels) == []
        assert warnings_of(255 - pixels) == ["looks inverted: air bright and bones dark"]


def test_the_negative_of_a_film_has_the_negative_likeness():
    for seed in range(5):
        film = Image.fromarray(film_pixels(seed=seed))
        negative = Image.fromarray(255 - film_pixels(seed=seed))
        assert chest_likeness(negative) == pytest.approx(-chest_likeness(film), abs=0.02)


def test_a_bright_column_between_dark_fields_is_a_chest():
    """The rule by hand: on a grey ground, one region of each difference is bright."""
    ground = np.full((320, 320), 100, dtype=np.uint8)
    chest, negative = ground.copy(), ground.copy()
    chest[80:280, 140:180] = 200
    negative[60:190, 60:100] = negative[60:190, 210:250] = 200
    negative[:30, :30] = negative[:30, 280:] = 200
    assert chest_likeness(Image.fromarray(chest)) > 0.5
    assert chest_likeness(Image.fromarray(negative)) < -0.5
    assert warnings_of(chest) == []
    assert warnings_of(negative) == ["looks inverted: air bright and bones dark"]


@pytest.mark.parametrize("kind", [np.uint8, np.float32])
def test_a_nearly_black_film_is_warned_of(kind):
    pixels = (film_pixels() // 4).astype(kind)
    assert warnings_of(pixels) == ["nearly black: are its values those of another bit depth?"]
    assert warnings_of(film_pixels().astype(kind)) == []
