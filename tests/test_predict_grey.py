"""predictImage.py on films of other bit depths: never a black film without a word, and the rule of the weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from models.checkpoint import load_model, save_model
from tests.films import film_pixels
from tests.predicting import predict, results, save_patch_network

RANGE = {"rule": "range", "low": 0, "high": 4095}


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    return save_patch_network(tmp_path_factory.mktemp("weights") / "stored")


@pytest.fixture(scope="module")
def weights_of_12_bit(weights, tmp_path_factory) -> Path:
    model = load_model(weights)
    model.details["grey"] = RANGE
    folder = tmp_path_factory.mktemp("weights") / "range"
    save_model(model, folder)
    return folder


@pytest.fixture
def films(tmp_path) -> Path:
    """One film in 8 bit, in 12 of 16 bit, and in floating point."""
    folder = tmp_path / "films"
    folder.mkdir()
    pixels = film_pixels()
    Image.fromarray(pixels).save(folder / "8.png")
    Image.fromarray(np.rint(pixels / 255 * 4095).astype(np.uint16)).save(folder / "12.png")
    Image.fromarray((pixels / 255 * 4095).astype(np.float32)).save(folder / "float.tif")
    return folder


def probabilities(output: Path) -> dict[str, np.ndarray]:
    table, _ = results(output)
    return {film: rows["probability"].to_numpy() for film, rows in table.groupby("film")}


def test_films_that_would_be_black_are_errors_with_the_way_out(weights, films, tmp_path, capsys):
    assert predict(weights, tmp_path / "out", films, "--overlays", "none") == 2
    errors = capsys.readouterr().err
    assert "error: 12: values 0 to 4095 of 65535" in errors or "of 65535, too small a part" in errors
    assert errors.count("give --grey range 0 4095, or --grey percentile") == 1
    assert "error: float: floating-point values" in errors
    assert set(probabilities(tmp_path / "out")) == {"8"}
    assert sorted(results(tmp_path / "out")[1]["unreadable"]) == ["12", "float"]


@pytest.mark.parametrize("how", ["config", "option"])
def test_the_rule_of_the_weights_or_the_option_reads_them(weights, weights_of_12_bit, films, tmp_path, capsys, how):
    assert predict(weights, tmp_path / "stored", films / "8.png", "--overlays", "none") == 0
    expected = probabilities(tmp_path / "stored")["8"]
    chosen, options = (weights_of_12_bit, []) if how == "config" else (weights, ["--grey", "range", "0", "4095"])
    assert predict(chosen, tmp_path / "out", films, "--overlays", "positive", *options) == 2
    found = probabilities(tmp_path / "out")
    assert set(found) == {"12", "float"}
    np.testing.assert_allclose(found["12"], expected, atol=1e-4)
    np.testing.assert_allclose(found["float"], expected, atol=1e-4)
    assert results(tmp_path / "out")[1]["grey"] == RANGE
    assert "error: 8: values of at most 255 are black in range 0 4095; give --grey stored" in capsys.readouterr().err


def test_a_mistake_in_the_rule_is_one_line(weights, films, tmp_path, capsys):
    assert predict(weights, tmp_path / "out", films, "--grey", "range", "5") == 2
    assert "--grey: 'range 5' is not a rule of grey values" in capsys.readouterr().err
