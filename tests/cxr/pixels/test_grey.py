"""Rules of grey values: how they are written, what they do to pixels, and films that none of them may darken unseen."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from cxr.dataset import FilmDataset
from cxr.files import InputError
from cxr.images import open_film
from cxr.manifests.films import read_films
from cxr.pixels.grey import Grey, quantiles, recorded_grey
from tests.films import alternating_labels, film_pixels, write_labels

FILM = film_pixels(96, 128).astype(float) / 255  # (rows, columns) in [0, 1]


def refused(path, grey=Grey.STORED) -> str:
    with pytest.raises(InputError) as caught:
        open_film(path, grey)
    assert "\n" not in str(caught.value)
    return str(caught.value).removeprefix(f"{path}: ")


# ------------------------------------------------------------------------------------------------------------ the rule


@pytest.mark.parametrize(
    ("words", "content"),
    [
        ("stored", {"rule": "stored"}),
        ("range 0 4095", {"rule": "range", "low": 0, "high": 4095}),
        ("range -1024 3071.5", {"rule": "range", "low": -1024, "high": 3071.5}),
        ("range 0 1", {"rule": "range", "low": 0, "high": 1}),
        ("percentile", {"rule": "percentile", "low": 0.5, "high": 99.5}),
        ("percentile 1 99", {"rule": "percentile", "low": 1, "high": 99}),
    ],
)
def test_a_rule_is_the_same_in_words_and_in_json(words, content):
    rule = Grey.parse(words.split())
    assert rule.to_json() == content
    assert Grey.from_json(json.loads(json.dumps(content)), "config.json") == rule
    assert Grey.parse(str(rule).split()) == rule


def test_nothing_recorded_is_stored():
    assert Grey.from_json(None, "config.json") == Grey.STORED == Grey.parse(["stored"])


@pytest.mark.parametrize(
    "words",
    ["", "range", "range 5", "range 5 5", "range 9 5", "range 0 1 2", "range 0 nan", "range -inf 5", "range 0 1e999",
     "range a b", "stored 0 255", "percentile 5", "percentile -1 99", "percentile 1 101", "percentiles", "auto"],
)  # fmt: skip
def test_mistakes_in_a_rule_are_refused(words):
    with pytest.raises(InputError, match="^--grey: "):
        Grey.parse(words.split())


@pytest.mark.parametrize(
    "content",
    ["stored", 5, [], {}, {"rule": 5}, {"rule": "range"}, {"rule": "range", "low": 0}, {"rule": "auto"},
     {"rule": "range", "low": "0", "high": 9}, {"rule": "range", "low": True, "high": 9},
     {"rule": "range", "low": 0, "high": 10**400}, {"rule": "range", "low": float("nan"), "high": 9},
     {"rule": "x" * 5000}, {"rule": "range", "low": [[[]]], "high": {}}],
)  # fmt: skip
def test_mistakes_in_a_record_are_refused_in_one_short_line(content):
    with pytest.raises(InputError, match=r"^config\.json, grey: ") as caught:
        Grey.from_json(content, "config.json")
    assert len(str(caught.value)) < 200 and "\n" not in str(caught.value)


def test_the_rule_of_a_folder_of_copies(tmp_path):
    assert recorded_grey(tmp_path) is None
    (tmp_path / "preprocessing.json").write_text('{"size": 1024}')
    assert recorded_grey(tmp_path) == Grey.STORED
    (tmp_path / "preprocessing.json").write_text('{"grey": {"rule": "range", "low": 0, "high": 4095}}')
    assert recorded_grey(tmp_path) == Grey("range", 0, 4095)
    (tmp_path / "preprocessing.json").write_text('{"grey": {"rule": "range"}}')
    with pytest.raises(InputError, match=r"preprocessing\.json, grey"):
        recorded_grey(tmp_path)


# -------------------------------------------------------------------------------------------------------------- pixels


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.int32, np.float32])
@given(share=st.floats(0, 1), seed=st.integers(0, 50))
def test_quantiles_are_those_of_numpy(kind, share, seed):
    pixels = np.random.default_rng(seed).integers(0, 200, (7, 9)).astype(kind)
    assert quantiles(pixels, [share, 0.5]) == list(np.quantile(pixels, [share, 0.5], method="inverted_cdf"))


@pytest.mark.parametrize("bits", [9, 10, 12, 14, 15, 16])
@pytest.mark.parametrize("ending", ["png", "tif"])
def test_a_range_is_scaled_to_black_and_white_and_clipped(tmp_path, bits, ending):
    pixels = np.rint(FILM * (2**bits - 1)).astype(np.uint16)
    Image.fromarray(pixels).save(tmp_path / f"f.{ending}")
    film = np.asarray(open_film(tmp_path / f"f.{ending}", Grey("range", 100, 400)))
    np.testing.assert_allclose(film, np.clip((pixels - 100.0) / 300, 0, 1) * 255, atol=1e-4)
    whole = np.asarray(open_film(tmp_path / f"f.{ending}", Grey("range", 0, 2**bits - 1)))
    np.testing.assert_allclose(whole, pixels / (2**bits - 1) * 255, atol=1e-4)


@pytest.mark.parametrize("kind", ["uint8", "uint16", "float32", "colour"])
def test_percentiles_are_each_films_own(tmp_path, kind):
    pixels = {
        "uint8": lambda: np.rint(50 + 60 * FILM).astype(np.uint8),
        "uint16": lambda: np.rint(300 + 2000 * FILM).astype(np.uint16),
        "float32": lambda: (FILM * 0.3 - 7).astype(np.float32),
        "colour": lambda: np.repeat(np.rint(50 + 60 * FILM).astype(np.uint8)[..., None], 3, axis=2),
    }[kind]()
    Image.fromarray(pixels).save(tmp_path / "f.tif")
    grey = (pixels if pixels.ndim == 2 else pixels[..., 0]).astype(float)
    low, high = np.percentile(grey, [2, 95], method="inverted_cdf")
    expected = np.clip((grey - low) / (high - low), 0, 1) * 255
    film = np.asarray(open_film(tmp_path / "f.tif", Grey("percentile", 2, 95)))
    np.testing.assert_allclose(film, expected, atol=1e-3)


def test_percentiles_of_a_film_without_contrast_are_black(tmp_path):
    Image.new("L", (8, 8), 200).save(tmp_path / "f.png")
    assert (np.asarray(open_film(tmp_path / "f.png", Grey.parse(["percentile"]))) == 0).all()


def test_full_films_are_read_as_ever_bit_for_bit(tmp_path):
    eight = np.rint(FILM * 255).astype(np.uint8)
    sixteen = np.rint(FILM * 65535).astype(np.uint16)
    Image.fromarray(eight).save(tmp_path / "8.png")
    Image.fromarray(sixteen).save(tmp_path / "16.png")
    np.testing.assert_array_equal(np.asarray(open_film(tmp_path / "8.png")), eight)
    assert open_film(tmp_path / "8.png").mode == "L"
    expected = sixteen.astype(np.float32) * np.float32(255 / 65535)
    np.testing.assert_array_equal(np.asarray(open_film(tmp_path / "16.png")), expected)


# ------------------------------------------------------------------------------------------------------- small parts


@pytest.mark.parametrize("bits", [8, 9, 10, 12, 13, 14])
@pytest.mark.parametrize("ending", ["png", "tif"])
@pytest.mark.parametrize("marked", [False, True], ids=["plain", "burnt-in mark"])
def test_fewer_bits_in_a_container_of_16_are_refused_and_their_range_is_named(tmp_path, bits, ending, marked):
    top = 2**bits - 1
    pixels = np.rint(FILM / FILM.max() * top).astype(np.uint16)
    if marked:
        pixels[:6, :12] = 65535  # 0.6% of the film
    Image.fromarray(pixels).save(tmp_path / f"f.{ending}")
    told = refused(tmp_path / f"f.{ending}")
    assert told.startswith(f"values {pixels.min()} to {pixels.max()} of 65535")
    assert f"give --grey range 0 {top}, or --grey percentile" in told
    film = open_film(tmp_path / f"f.{ending}", Grey("range", 0, top))
    np.testing.assert_allclose(np.asarray(film), np.clip(pixels / top, 0, 1) * 255, atol=1e-4)


def test_signed_values_stored_around_the_middle_are_refused(tmp_path):
    Image.fromarray(np.rint(32768 - 2048 + FILM * 4095).astype(np.uint16)).save(tmp_path / "f.png")
    assert "give --grey range 307" in refused(tmp_path / "f.png")


@pytest.mark.parametrize("share", [0.5, 0.75, 1.0])
def test_films_that_use_half_their_container_are_read(tmp_path, share):
    Image.fromarray(np.rint(FILM * share * 65535).astype(np.uint16)).save(tmp_path / "f.png")
    np.testing.assert_allclose(np.asarray(open_film(tmp_path / "f.png")), FILM * share * 255, atol=0.01)


@pytest.mark.parametrize(
    ("low", "high", "hint"), [(0, 1, "0 1"), (0, 255, "0 255"), (0, 65535, "0 65535"), (-7, 9, "-7 9")]
)
def test_floating_point_is_not_guessed(tmp_path, low, high, hint):
    pixels = (low + (FILM - FILM.min()) / np.ptp(FILM) * (high - low)).astype(np.float32)
    Image.fromarray(pixels).save(tmp_path / "f.tif")
    assert f"give --grey range {hint}, or --grey percentile" in refused(tmp_path / "f.tif")
    film = open_film(tmp_path / "f.tif", Grey("range", low, high))
    np.testing.assert_allclose(np.asarray(film), (pixels - low) / (high - low) * 255, atol=1e-3)


@pytest.mark.parametrize("rule", [Grey.STORED, Grey("range", 0, 1), Grey.parse(["percentile"])])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_numbers_are_refused_under_every_rule(tmp_path, rule, value):
    pixels = FILM.astype(np.float32)
    pixels[3, 4] = value
    Image.fromarray(pixels).save(tmp_path / "f.tif")
    assert refused(tmp_path / "f.tif", rule).startswith("pixel values that are not finite numbers")


def test_a_film_that_a_range_of_more_bits_would_darken_is_refused(tmp_path):
    Image.fromarray(np.rint(FILM * 255).astype(np.uint8)).save(tmp_path / "f.png")
    assert refused(tmp_path / "f.png", Grey("range", 0, 4095)) == (
        "values of at most 255 are black in range 0 4095; give --grey stored"
    )


def test_training_directly_on_such_films_names_the_row(tmp_path):
    """12 bit in PNGs of 16 bit, listed in a table as CheXpert's: what trainClassification.py --data reads."""
    path = "CheXpert-v1.0/train/patient00001/study1/view1_frontal.png"
    (tmp_path / path).parent.mkdir(parents=True)
    Image.fromarray(np.rint(FILM / FILM.max() * 4095).astype(np.uint16)).save(tmp_path / path)
    write_labels(tmp_path / "train.csv", [path], alternating_labels(1))
    dataset = FilmDataset(read_films(tmp_path / "train.csv", tmp_path), 64)
    with pytest.raises(InputError, match=r"train\.csv, line 2.*give --grey range 0 4095, or --grey percentile"):
        dataset[0]
