"""predictImage.py: what it says of a film, what it draws, what it warns of, and what it keeps to itself."""

from __future__ import annotations

import json
import logging
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_image

import cli
import predictImage
from chexpert.labels import LABELS
from chexpert.loose_films import film_names
from models.checkpoint import build_model, load_model, save_model
from tests.dicom_films import CANARY, set_canaries, write_dicom
from tests.networks import calibrate

THRESHOLDS = {label: 0.1 + 0.05 * place for place, label in enumerate(LABELS)} | {"Edema": None}
TINY = {"image_size": 64, "labels": LABELS}


def film_pixels(height: int = 288, width: int = 384, seed: int = 0) -> np.ndarray:
    """Blurred noise of large contrast, (height, width) uint8."""
    noise = np.random.default_rng(seed).integers(0, 256, (height // 16, width // 16), dtype=np.uint8)
    return np.asarray(Image.fromarray(noise).resize((width, height), Image.Resampling.BILINEAR))


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    model = build_model("timm/test_efficientnet", patch_size=16, **TINY)
    calibrate(model, torch.rand(4, 1, 64, 64))
    model.details["thresholds"] = THRESHOLDS
    folder = tmp_path_factory.mktemp("weights") / "patches"
    save_model(model, folder)
    return folder


@pytest.fixture(scope="module")
def baseline(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("weights") / "baseline"
    save_model(build_model("timm/test_efficientnet", patch_size=64, **TINY), folder)
    return folder


def predict(weights: Path, output: Path, *arguments: object) -> int:
    options = ["--steps-per-patch", "2", "--device", "cpu", "--workers", "0"]
    return cli.guarded(
        predictImage.main, [*map(str, arguments), "--weights", str(weights), "--output", str(output), *options]
    )


def results(output: Path) -> tuple[pd.DataFrame, dict]:
    return pd.read_csv(output / "predictions.csv"), json.loads((output / "predictions.json").read_text())


# --------------------------------------------------------------------------------------------------------- predictions


def test_every_format_gives_the_networks_own_prediction(weights, tmp_path):
    pixels = film_pixels()
    for ending in ("png", "tif"):
        Image.fromarray(pixels).save(tmp_path / f"{ending}.{ending}")
    Image.fromarray(pixels).save(tmp_path / "jpg.jpg", quality=100, subsampling=0)
    write_dicom(tmp_path / "dcm.dcm", pixels, WindowCenter=128, WindowWidth=256)
    write_dicom(tmp_path / "1.2.840.7", pixels.astype(np.uint16) * 257, WindowCenter=32768, WindowWidth=65536)
    assert predict(weights, tmp_path / "out", tmp_path, "--overlays", "none") == 0
    table, told = results(tmp_path / "out")
    assert list(table["film"].unique()) == ["1.2.840.7", "dcm", "jpg", "png", "tif"]

    square = torch.from_numpy(pixels[:, 48 : 48 + 288] / np.float32(255))[None, None]
    image = torch.nn.functional.interpolate(square, (64, 64), mode="bilinear", antialias=True, align_corners=False)
    with torch.inference_mode():
        expected = load_model(weights)(image)[0].sigmoid().double().numpy()
    assert expected.std() > 0.01  # the network tells labels apart
    for film, rows in table.groupby("film"):
        assert list(rows["label"]) == list(LABELS)
        np.testing.assert_allclose(rows["probability"], expected, atol=2e-3 if film == "jpg" else 2e-5)
    for film in told["films"]:
        assert (film["width"], film["height"], film["warnings"]) == (384, 288, [])


def test_decisions_follow_the_thresholds_that_travel_with_the_weights(weights, tmp_path, capsys):
    Image.fromarray(film_pixels()).save(tmp_path / "a.png")
    assert predict(weights, tmp_path / "out", tmp_path / "a.png", "--overlays", "none") == 0
    table, told = results(tmp_path / "out")
    expected = [0.5 if THRESHOLDS[label] is None else THRESHOLDS[label] for label in LABELS]
    np.testing.assert_allclose(table["threshold"], expected)
    assert (table["positive"] == (table["probability"] >= table["threshold"])).all()
    assert told["thresholds"] == "0.5 for 1 of 14 labels, for which the weights carry none"
    assert told["thresholds"] in capsys.readouterr().out


def test_without_thresholds_one_half_decides_and_that_is_said(baseline, tmp_path, capsys):
    Image.fromarray(film_pixels()).save(tmp_path / "a.png")
    assert predict(baseline, tmp_path / "out", tmp_path / "a.png", "--overlays", "none") == 0
    assert (results(tmp_path / "out")[0]["threshold"] == 0.5).all()
    assert "0.5 for 14 of 14 labels, for which the weights carry none" in capsys.readouterr().out


def test_the_patches_are_summed_against_the_logit_and_the_strongest_named(weights, tmp_path, capsys):
    pixels = film_pixels(height=384, width=288)  # upright: the crop starts 48 px from the top
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert predict(weights, tmp_path / "out", tmp_path / "a.png", "--overlays", "none") == 0
    table, told = results(tmp_path / "out")
    np.testing.assert_allclose(table["sum_of_patches"], table["logit"], atol=1e-5)
    printed = capsys.readouterr().out
    row = table.set_index("label").loc["Edema"]
    assert f"{row['logit']:.4f}" in printed and f"{row['sum_of_patches']:.4f}" in printed
    assert "the sums of the 16 patches are within" in printed

    square = torch.from_numpy(pixels[48 : 48 + 288] / np.float32(255))[None, None]
    image = torch.nn.functional.interpolate(square, (64, 64), mode="bilinear", antialias=True, align_corners=False)
    with torch.inference_mode():
        shares = load_model(weights).patch_logits(image)[0].double().numpy() / 16  # (P, C)
    for label, entry in enumerate(told["films"][0]["labels"]):
        best = sorted(range(16), key=lambda place: -shares[place, label])[:3]
        assert [(p["row"], p["column"]) for p in entry["strongest_for"]] == [
            divmod(place, 4) for place in best if shares[place, label] > 0
        ]
        for sign, key in ((1, "strongest_for"), (-1, "strongest_against")):
            for patch in entry[key]:
                assert sign * patch["share"] > 0
                assert patch["share"] == pytest.approx(shares[4 * patch["row"] + patch["column"], label], abs=1e-5)
                left, top = 72 * patch["column"], 48 + 72 * patch["row"]
                assert patch["box"] == [left, top, left + 72, top + 72]


def test_many_films_go_through_in_batches_and_with_a_reading_process(weights, tmp_path):
    for number in range(5):
        Image.fromarray(film_pixels(seed=number)).save(tmp_path / f"{number}.png")
    common = (tmp_path, "--overlays", "none")
    assert predict(weights, tmp_path / "one", *common, "--batch-size", "1") == 0
    assert predict(weights, tmp_path / "two", *common, "--batch-size", "2", "--workers", "1") == 0
    one, two = (results(tmp_path / name)[0] for name in ("one", "two"))
    assert list(one["film"].unique()) == list("01234")
    pd.testing.assert_frame_equal(one, two, atol=1e-6)
    assert one.groupby("label")["probability"].std().max() > 1e-3  # the films are told apart


# ------------------------------------------------------------------------------------------------------------ overlays


def test_overlays_lie_in_the_films_frame_and_show_for_and_against(weights, tmp_path):
    """On a grey film red exceeds blue just where the evidence is positive."""
    pixels = np.full((288, 384), 90, dtype=np.uint8)
    pixels[:, 48:] = film_pixels()[:, 48:] // 4 + 60
    Image.fromarray(pixels).save(tmp_path / "a.png")
    options = ("--overlays", "all", "--steps-per-patch", "1")
    out = tmp_path / "out"
    arguments = [tmp_path / "a.png", "--weights", weights, "--output", out, *options, "--device", "cpu"]
    assert predictImage.main([str(argument) for argument in arguments]) == 0
    entries = results(out)[1]["films"][0]["labels"]
    assert {path.name for path in (out / "overlays").iterdir()} == {f"a_{label}.png" for label in LABELS}

    square = torch.from_numpy(pixels[:, 48 : 48 + 288] / np.float32(255))[None, None]
    image = torch.nn.functional.interpolate(square, (64, 64), mode="bilinear", antialias=True, align_corners=False)
    with torch.inference_mode():
        votes = load_model(weights).patch_logits(image)[0].T.unflatten(1, (4, 4)).numpy()  # (C, 4, 4)
    for label, entry in enumerate(entries):
        with Image.open(out / entry["overlay"]["file"]) as picture:
            assert (picture.size, picture.mode, picture.info) == ((384, 288), "RGB", {})
            shown = np.asarray(picture).astype(int)
        for outside in (np.s_[:, :48], np.s_[:, 336:]):
            np.testing.assert_array_equal(shown[outside], np.repeat(pixels[outside][..., None], 3, axis=2))
        full = np.abs(votes[label]).max()
        assert entry["overlay"]["full_colour_at_logit"] == pytest.approx(full, rel=1e-3)
        centres = shown[36::72, 48 + 36 : 336 : 72]  # (4, 4, 3): the patches' middles
        redness = centres[..., 0] - centres[..., 2]
        clear = np.abs(votes[label]) > 0.2 * full
        assert (np.sign(redness[clear]) == np.sign(votes[label][clear])).all()


def test_positive_labels_are_drawn_or_the_most_probable_one(weights, tmp_path):
    Image.fromarray(film_pixels()).save(tmp_path / "a.png")
    assert predict(weights, tmp_path / "out", tmp_path / "a.png") == 0
    table, _ = results(tmp_path / "out")
    positive = set(table["label"][table["positive"]])
    assert 0 < len(positive) < len(LABELS)
    assert {path.name for path in (tmp_path / "out/overlays").iterdir()} == {f"a_{label}.png" for label in positive}

    model = load_model(weights)
    model.details["thresholds"] = dict.fromkeys(LABELS, 1.0)
    save_model(model, tmp_path / "strict")
    assert predict(tmp_path / "strict", tmp_path / "none", tmp_path / "a.png") == 0
    best = table["label"][table["probability"].argmax()]
    assert [path.name for path in (tmp_path / "none/overlays").iterdir()] == [f"a_{best}.png"]


def test_a_baseline_is_drawn_by_grad_cam(baseline, tmp_path):
    Image.fromarray(film_pixels()).save(tmp_path / "a.png")
    assert predict(baseline, tmp_path / "out", tmp_path / "a.png", "--steps-per-patch", "1") == 0
    drawn = [entry["overlay"] for entry in results(tmp_path / "out")[1]["films"][0]["labels"] if entry["overlay"]]
    assert drawn
    for overlay in drawn:
        assert overlay["method"] == "gradcam"
        assert (tmp_path / "out" / overlay["file"]).is_file()


def test_both_passes_have_a_progress_bar(weights, tmp_path, capsys):
    Image.fromarray(film_pixels()).save(tmp_path / "a.png")
    predict(weights, tmp_path / "out", tmp_path / "a.png")
    bars = capsys.readouterr().err
    assert "predict: 100%" in bars and "1/1" in bars
    assert "overlays: 100%" in bars and "64/64" in bars  # (64 / 16 * 2)^2 patches


# ------------------------------------------------------------------------------------------------ warnings and mistakes


@pytest.mark.parametrize(
    ("pixels", "warning"),
    [
        (load_sample_image("china.jpg"), "in colour: a photograph? A radiograph is grey"),
        (np.full((300, 300), 77, dtype=np.uint8), "nearly constant: hardly anything is to be seen"),
        (film_pixels(255 // 16 * 16, 300), "only 288 x 240 px; a radiograph has 256 or more along its shorter side"),
        (np.repeat(film_pixels()[..., None], 3, axis=2), None),  # grey, stored in three channels
    ],
    ids=["colour photograph", "constant", "small", "grey as RGB"],
)
def test_what_is_far_from_a_radiograph_is_warned_of(weights, tmp_path, capsys, pixels, warning):
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert predict(weights, tmp_path / "out", tmp_path / "a.png", "--overlays", "none") == 0
    expected = [] if warning is None else [warning]
    assert results(tmp_path / "out")[1]["films"][0]["warnings"] == expected
    assert [line[11:] for line in capsys.readouterr().out.splitlines() if "warning:" in line] == expected


def test_the_real_films_are_not_warned_of(weights, sample, tmp_path):
    assert predict(weights, tmp_path / "out", sample / "valid", "--overlays", "none") == 0
    films = results(tmp_path / "out")[1]["films"]
    assert [(film["film"], film["warnings"]) for film in films] == [("view1_frontal", []), ("view1_frontal-2", [])]


def test_an_unreadable_film_is_told_and_the_others_are_predicted(weights, tmp_path, capsys):
    Image.fromarray(film_pixels()).save(tmp_path / "good.png")
    (tmp_path / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n but nothing more")
    (tmp_path / "notes.txt").write_text("not a film, and not looked at")
    assert predict(weights, tmp_path / "out", tmp_path, "--overlays", "none") == 2
    table, told = results(tmp_path / "out")
    assert set(table["film"]) == {"good"}
    assert told["unreadable"] == ["bad"]
    error = next(line for line in capsys.readouterr().err.splitlines() if "error:" in line)
    assert "error: bad: not a readable image" in error and str(tmp_path) not in error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing.png"], "error: nothing.png: no such file or folder"),
        (["empty"], "error: empty: no film in this folder; expected .png"),
        (["a.png", "a.png"], "error: a film is given twice"),
        (
            ["a.png", "--steps-per-patch", "3"],
            "error: --steps-per-patch: 3 steps per patch of 16 pixels; possible are 1",
        ),
        (["a.png", "--weights", "gone"], "error: gone: no such file or folder of weights"),
        (["nothing.png", "--anonymous"], "error: argument 1: no such file or folder"),
    ],
)
def test_mistakes_are_one_line(weights, tmp_path, capsys, monkeypatch, arguments, message):
    Image.fromarray(film_pixels()).save(tmp_path / "a.png")
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    given = ["--weights", str(weights), "--output", "out", "--device", "cpu", *arguments]
    assert cli.guarded(predictImage.main, given) == 2
    error = capsys.readouterr().err
    assert error.startswith(message) and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("bad", ["high", 1.5, math.pi, True])
def test_thresholds_that_are_no_probabilities_are_refused(weights, tmp_path, capsys, bad):
    model = load_model(weights)
    model.details["thresholds"] = THRESHOLDS | {"Fracture": bad}
    save_model(model, tmp_path / "weights")
    Image.fromarray(film_pixels()).save(tmp_path / "a.png")
    assert predict(tmp_path / "weights", tmp_path / "out", tmp_path / "a.png") == 2
    assert "thresholds, Fracture: " in capsys.readouterr().err


def test_names_are_unique_and_without_folders(tmp_path):
    files = [tmp_path / name for name in ("a/film.png", "b/film.dcm", "b/film-2.png", "c/film.png", "c/1.2.3")]
    assert film_names(files, anonymous=False) == ["film", "film-2", "film-2-2", "film-3", "1.2.3"]
    assert film_names(files * 2, anonymous=True)[:2] == ["film-01", "film-02"]


# ----------------------------------------------------------------------------------------------------------------- PHI


def films_with_canaries(folder: Path) -> Path:
    """Two films that can be read and two that cannot, every word in them CANARY; FOLDERBIRD / FILEBIRD are names."""
    place = folder / "FOLDERBIRD"
    place.mkdir()
    write_dicom(place / "FILEBIRD1.dcm", film_pixels(), canaries=True)
    write_dicom(place / "FILEBIRD2", film_pixels(seed=1), canaries=True, PhotometricInterpretation="MONOCHROME1")
    set_odd_canaries(place / "FILEBIRD2")
    write_dicom(place / "FILEBIRD3.dcm", film_pixels(), canaries=True, PhotometricInterpretation=CANARY)
    Image.fromarray(film_pixels()).save(place / "FILEBIRD4.png")
    (place / "FILEBIRD4.png").write_bytes((place / "FILEBIRD4.png").read_bytes()[:500])
    return place


def set_odd_canaries(path: Path) -> None:
    import pydicom

    film = pydicom.dcmread(path)
    set_canaries(film, odd=True)
    film.save_as(path)


@pytest.mark.parametrize("anonymous", [False, True])
def test_nothing_that_a_film_says_comes_out(weights, tmp_path, capfd, caplog, recwarn, anonymous):
    films = films_with_canaries(tmp_path)
    caplog.clear()
    recwarn.clear()
    out = tmp_path / "out"
    with caplog.at_level(logging.DEBUG):
        assert predict(weights, out, films, *(["--anonymous"] if anonymous else []), "--overlays", "all") == 2
    told = results(out)[1]
    assert len(told["films"]) == 2 and len(told["unreadable"]) == 2
    printed = "".join(capfd.readouterr())
    files = [path for path in out.rglob("*") if path.is_file()]
    assert len(files) == 2 + 2 * len(LABELS)
    said = [
        printed,
        caplog.text,
        *(str(warning.message) for warning in recwarn.list),
        *(str(p.relative_to(out)) for p in files),
    ]
    said += [path.read_bytes().decode("latin-1") for path in files]
    for text in said:
        assert CANARY not in text
        assert "FOLDERBIRD" not in text
        assert not anonymous or "FILEBIRD" not in text
    if not anonymous:  # then the search is able to find something
        assert "FILEBIRD1" in printed and "FILEBIRD3" in printed and "FILEBIRD4" in printed
