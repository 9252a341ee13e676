"""Heat maps of films that are stored otherwise than those the network was trained on: their own rule reads them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import cli
import evalClassification
from models.checkpoint import build_model, save_model
from preprocessing import preProcFilms
from tests.films import film_pixels
from tests.networks import calibrate

RULES = {"8 bit": {"rule": "stored"}, "12 bit": {"rule": "range", "low": 0, "high": 4080}}
PERCENTILE = {"rule": "percentile", "low": 1, "high": 99}


def run(script, *arguments: object) -> int:
    return cli.guarded(script.main, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def sets(tmp_path_factory) -> Path:
    """The same two films in 8 bit and, times 16, in 16-bit files: manifests, and square copies made by their rules."""
    root = tmp_path_factory.mktemp("sets")
    for name, rule in RULES.items():
        (root / name).mkdir()
        for film in range(2):
            pixels = film_pixels(96, 128, seed=film)
            stored = pixels if name == "8 bit" else pixels.astype(np.uint16) * 16
            Image.fromarray(stored).save(root / name / f"f{film}.png")
        rows = "".join(f"f{film}.png,P{film},test,{film}\n" for film in range(2))
        (root / name / "films.csv").write_text(f"Path,Patient,Split,Nodule\n{rows}")
        facts = {"name": name, "labels": ["Nodule"], "blank": "not labelled", "grey": rule}
        (root / name / "dataset.json").write_text(json.dumps(facts))
        copies = root / f"{name} copies"
        assert run(preProcFilms, "--manifest", root / name, "--output", copies, "--size", 96, "--workers", 1) == 0
    return root


def weights(folder: Path, grey: dict[str, object] | None) -> Path:
    """The same network whatever rule its training films had."""
    torch.manual_seed(0)
    model = build_model("timm/test_efficientnet", patch_size=32, image_size=64, labels=("Nodule",))
    calibrate(model, torch.rand((4, 1, 64, 64), generator=torch.Generator().manual_seed(2)))
    if grey is not None:
        model.details["grey"] = grey
    save_model(model, folder)
    return folder


def grids(sets: Path, network: Path, data: str, films: str, output: Path) -> list[np.ndarray]:
    """The evidence of the test films."""
    command = ["--weights", network, "--data", sets / data, "--chexlocalize", sets / films, "--output", output]
    more = ["--no-pickles", "--heatmaps", "raw", "--protocols", "corrected", "--steps-per-patch", 2, "--resamples", 0]
    assert run(evalClassification, *command, *more, "--workers", 0, "--device", "cpu") == 0
    return [np.load(path)["grid Nodule"] for path in sorted((output / "evidence/test").glob("*.npz"))]


@pytest.fixture(scope="module")
def expected(sets, tmp_path_factory) -> list[np.ndarray]:
    """The evidence of the 8-bit films, by a network that was trained on such films."""
    folder = tmp_path_factory.mktemp("expected")
    return grids(sets, weights(folder / "weights", None), "8 bit copies", "8 bit", folder / "results")


@pytest.mark.parametrize("trained_on", [None, PERCENTILE], ids=["8 bit", "percentile"])
def test_maps_are_those_of_the_film_whatever_rule_the_network_was_trained_with(sets, expected, tmp_path, trained_on):
    network = weights(tmp_path / "weights", trained_on)
    found = grids(sets, network, "12 bit copies", "12 bit", tmp_path / "found")
    assert len(found) == 2
    np.testing.assert_array_equal(found, expected)
    assert np.ptp(expected[0]) > 0.01 and not np.array_equal(expected[0], expected[1])
    record = json.loads((tmp_path / "found/run.json").read_text())
    assert record["stages"]["heat_maps_test"]["inputs"]["grey"] == RULES["12 bit"]


def test_copies_are_not_read_by_the_rule_that_made_them(sets, tmp_path):
    """They are plain 8 bit: maps of the copies of both sets are the same."""
    network = weights(tmp_path / "weights", RULES["12 bit"])
    of_8_bit = grids(sets, network, "8 bit copies", "8 bit copies", tmp_path / "a")
    of_12_bit = grids(sets, network, "12 bit copies", "12 bit copies", tmp_path / "b")
    np.testing.assert_array_equal(of_12_bit, of_8_bit)
