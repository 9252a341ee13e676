"""predictImage.py: what it says of films, and what it draws."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import cli
import medicalpatchnet
import predictImage
from cxr.labels import CHEXPERT
from models.checkpoint import build_model, load_model, save_model
from tests.dicom_films import write_dicom
from tests.films import film_pixels
from tests.predicting import THRESHOLDS, predict, results, save_patch_network

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    return save_patch_network(tmp_path_factory.mktemp("weights") / "patches")


@pytest.fixture(scope="module")
def baseline(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("weights") / "baseline"
    save_model(build_model("timm/test_efficientnet", patch_size=64, image_size=64, labels=CHEXPERT.names), folder)
    return folder


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
        assert list(rows["label"]) == list(CHEXPERT.names)
        np.testing.assert_allclose(rows["probability"], expected, atol=2e-3 if film == "jpg" else 2e-5)
    for film in told["films"]:
        assert (film["width"], film["height"], film["warnings"]) == (384, 288, [])


def test_decisions_follow_the_thresholds_that_travel_with_the_weights(weights, tmp_path, capsys):
    Image.fromarray(film_pixels()).save(tmp_path / "a.png")
    assert predict(weights, tmp_path / "out", tmp_path / "a.png", "--overlays", "none") == 0
    table, told = results(tmp_path / "out")
    expected = [0.5 if THRESHOLDS[label] is None else THRESHOLDS[label] for label in CHEXPERT.names]
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
        contributions = load_model(weights).contributions(image)[0].double().numpy()  # (P, C)
    for label, entry in enumerate(told["films"][0]["labels"]):
        best = sorted(range(16), key=lambda place: -contributions[place, label])[:3]
        assert [(p["row"], p["column"]) for p in entry["strongest_for"]] == [
            divmod(place, 4) for place in best if contributions[place, label] > 0
        ]
        for sign, key in ((1, "strongest_for"), (-1, "strongest_against")):
            for patch in entry[key]:
                assert sign * patch["contribution"] > 0
                assert patch["contribution"] == pytest.approx(
                    contributions[4 * patch["row"] + patch["column"], label], abs=1e-5
                )
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
    assert {path.name for path in (out / "overlays").iterdir()} == {f"a_{label}.png" for label in CHEXPERT.names}

    square = torch.from_numpy(pixels[:, 48 : 48 + 288] / np.float32(255))[None, None]
    image = torch.nn.functional.interpolate(square, (64, 64), mode="bilinear", antialias=True, align_corners=False)
    with torch.inference_mode():
        patch_logits = load_model(weights).patch_logits(image)[0].T.unflatten(1, (4, 4)).numpy()  # (C, 4, 4)
    for label, entry in enumerate(entries):
        with Image.open(out / entry["overlay"]["file"]) as picture:
            assert (picture.width, picture.mode, picture.info) == (384, "RGB", {})
            shown, words = np.split(np.asarray(picture).astype(int), [288])
        assert len(words) > 20 and words.min() < 60 and np.median(words) == 255  # black letters on white
        for outside in (np.s_[:, :48], np.s_[:, 336:]):
            np.testing.assert_array_equal(shown[outside], np.repeat(pixels[outside][..., None], 3, axis=2))
        full = np.abs(patch_logits[label]).max()
        assert entry["overlay"]["full_colour_at_logit"] == pytest.approx(full, rel=1e-3)
        centres = shown[36::72, 48 + 36 : 336 : 72]  # (4, 4, 3): the patches' middles
        redness = centres[..., 0] - centres[..., 2]
        clear = np.abs(patch_logits[label]) > 0.2 * full
        assert (np.sign(redness[clear]) == np.sign(patch_logits[label][clear])).all()


def test_positive_labels_are_drawn_or_the_most_probable_one(weights, tmp_path):
    Image.fromarray(film_pixels()).save(tmp_path / "a.png")
    assert predict(weights, tmp_path / "out", tmp_path / "a.png") == 0
    table, _ = results(tmp_path / "out")
    positive = set(table["label"][table["positive"]])
    assert 0 < len(positive) < len(CHEXPERT.names)
    assert {path.name for path in (tmp_path / "out/overlays").iterdir()} == {f"a_{label}.png" for label in positive}

    model = load_model(weights)
    model.details["thresholds"] = dict.fromkeys(CHEXPERT.names, 1.0)
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


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_both_passes_have_a_progress_bar_on_a_terminal_and_none_in_a_log(weights, tmp_path, monkeypatch, capsys):
    Image.fromarray(film_pixels()).save(tmp_path / "a.png")
    predict(weights, tmp_path / "out", tmp_path / "a.png")
    assert capsys.readouterr().err == ""
    monkeypatch.setattr("sys.stderr", Terminal())
    predict(weights, tmp_path / "out", tmp_path / "a.png")
    bars = sys.stderr.getvalue()
    assert "predict: 100%" in bars and "1/1" in bars
    assert "overlays: 100%" in bars and "64/64" in bars  # (64 / 16 * 2)^2 patches


def test_a_map_without_a_range_has_no_estimated_error(weights, tmp_path, capsys):
    """Its error in percent of the range would be NaN, which json cannot hold."""
    model = load_model(weights)
    model.head.weight.data[3] = 0
    save_model(model, tmp_path / "weights")
    Image.fromarray(film_pixels()).save(tmp_path / "a.png")
    command = ["--weights", tmp_path / "weights", "--output", tmp_path / "out", tmp_path / "a.png", "--overlays", "all"]
    command += ["--stride", "3", "--device", "cpu", "--workers", "0"]
    assert cli.guarded(predictImage.main, list(map(str, command))) == 0
    assert "nan" not in capsys.readouterr().out
    errors = medicalpatchnet.explain(medicalpatchnet.load(tmp_path / "weights"), tmp_path / "a.png").errors
    assert set(errors) == set(CHEXPERT.names) - {CHEXPERT.names[3]}


def test_more_than_three_films_are_a_line_each_and_errors_come_last_once_more(weights, tmp_path, capsys):
    for number in range(4):
        Image.fromarray(film_pixels(seed=number)).save(tmp_path / f"{number}.png")
    (tmp_path / "1bad\x1b[31m.png").write_bytes(b"no image")
    assert predict(weights, tmp_path / "out", tmp_path, "--overlays", "none") == 2
    printed, errors = capsys.readouterr()
    table, told = results(tmp_path / "out")
    lines = printed.splitlines()
    for line, film in zip(lines, "0123", strict=False):
        rows = table[table["film"] == film].sort_values("probability", ascending=False)
        positive = [f"{row.label} {row.probability:.2f}" for row in rows[rows["positive"]].itertuples()]
        assert line == f"{film}: positive: {', '.join(positive)}" and positive
    assert len(lines) == 5 and lines[-1].endswith("predictions.json; 4 of 5 films predicted")
    repeated = [line for line in errors.splitlines() if line.startswith("error: ")]
    assert repeated == ["error: 1bad%1B[31m: not a readable image (of no format that is known)"] * 2
    assert errors.splitlines()[-1] == repeated[-1]


def test_the_wide_table_has_a_row_per_film(weights, tmp_path):
    for name in ("a", "=b"):
        Image.fromarray(film_pixels(seed=len(name))).save(tmp_path / f"{name}.png")
    (tmp_path / "bad.png").write_bytes(b"no image")
    predict(weights, tmp_path / "out", tmp_path, "--overlays", "none")
    wide = pd.read_csv(tmp_path / "out/predictions_wide.csv")
    table, _ = results(tmp_path / "out")
    names = [
        "film",
        "error",
        "warnings",
        *(f"{kind} {label}" for kind in ("prob", "positive") for label in CHEXPERT.names),
    ]
    assert list(wide.columns) == names
    assert list(wide["film"].str.lstrip("'")) == ["=b", "a", "bad"]
    assert not wide["film"].str.startswith("=").any()  # which a spreadsheet would run
    assert wide["error"].tolist()[2] == "not a readable image (of no format that is known)"
    assert wide["error"].isna().tolist() == [True, True, False]
    assert wide[[f"prob {label}" for label in CHEXPERT.names]].isna().all(axis=1).tolist() == [False, False, True]
    for label in CHEXPERT.names:
        of_label = table[table["label"] == label]
        np.testing.assert_allclose(wide[f"prob {label}"][:2], of_label["probability"])
        assert wide[f"positive {label}"][:2].astype(str).tolist() == of_label["positive"].astype(str).tolist()


def test_a_film_too_elongated_for_a_map_is_predicted_and_said_to_have_no_overlay(weights, tmp_path, capsys):
    Image.fromarray(film_pixels(16, 10_000)).save(tmp_path / "long.png")
    Image.fromarray(film_pixels()).save(tmp_path / "ordinary.png")
    assert predict(weights, tmp_path / "out", tmp_path, "--overlays", "all") == 2
    table, _ = results(tmp_path / "out")
    assert list(table["film"].unique()) == ["long", "ordinary"]
    assert "error: long: no heat map of a film of 10000 x 16 px" in capsys.readouterr().err
    assert {path.name.partition("_")[0] for path in (tmp_path / "out/overlays").iterdir()} == {"ordinary"}


def test_help_answers_without_what_is_heavy():
    program = "import sys, predictImage\ntry: predictImage.main(['--help'])\nexcept SystemExit: pass\n"
    program += "print(sorted({'torch', 'torchvision', 'timm', 'matplotlib', 'tqdm'} & set(sys.modules)))"
    printed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert printed.stdout.splitlines()[-1] == "[]" and "--steps-per-patch" in printed.stdout


def test_sums_of_an_aggregation_with_a_link_are_its_logits(tmp_path):
    torch.manual_seed(0)
    network = build_model(
        "timm/test_efficientnet", patch_size=16, image_size=64, labels=CHEXPERT.names[:3], aggregation="noisy_or"
    )
    save_model(network, tmp_path / "weights")
    Image.fromarray(film_pixels()).save(tmp_path / "a.png")
    assert predict(tmp_path / "weights", tmp_path / "out", tmp_path / "a.png") == 0
    table, told = results(tmp_path / "out")
    np.testing.assert_allclose(table["sum_of_patches"], table["logit"], atol=1e-5)
    assert all(not label["strongest_against"] for label in told["films"][0]["labels"])  # all contributions are positive
