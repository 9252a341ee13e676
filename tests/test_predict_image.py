"""predictImage.py: what it says of a film, what it draws, and what it warns of."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_image

import cli
import film_explanation
import medicalpatchnet
import predictImage
from cxr.film_folder import FilmFolder
from cxr.labels import CHEXPERT
from models.checkpoint import build_model, load_model, save_model
from saliency.contributions import Contributions
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


# ------------------------------------------------------------------------------------------------------------ overlays


def test_a_reading_process_that_dies_is_one_line(weights, tmp_path, capsys, monkeypatch):
    for number in range(2):
        Image.fromarray(film_pixels(seed=number)).save(tmp_path / f"{number}.png")
    monkeypatch.setattr(FilmFolder, "__getitem__", lambda films, index: os._exit(1))
    assert predict(weights, tmp_path / "out", tmp_path, "--batch-size", "1", "--workers", "1") == 1
    assert "error: a worker process died while reading films" in capsys.readouterr().err.splitlines()[-1]


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


# ------------------------------------------------------------------------------------------------ warnings and mistakes


@pytest.mark.parametrize(
    ("pixels", "warning"),
    [
        (load_sample_image("china.jpg"), "in colour: a photograph? A radiograph is grey"),
        (np.full((300, 300), 77, dtype=np.uint8), "nearly constant: hardly anything is to be seen"),
        (film_pixels(240, 300), "only 300 x 240 px; a radiograph has 256 or more along its shorter side"),
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
    assert [(film["film"], film["warnings"]) for film in films] == [
        (f"patient{number}_study1_view1_frontal", []) for number in (64541, 64542)
    ]


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
        (["empty"], "error: empty: no film in this folder; expected .bmp, "),
        (["a.png", "a.png"], "error: a.png: given twice"),
        (["a.png", "a.png", "--anonymous"], "error: a film: given twice"),
        (["a" * 300], f"error: {'a' * 300}: File name too long"),
        (["a" * 300, "--anonymous"], "error: argument 1: File name too long"),
        (
            ["a.png", "--steps-per-patch", "3"],
            "error: --steps-per-patch: 3 steps per patch of 16 pixels; possible are 1",
        ),
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


@pytest.mark.parametrize(("name", "shown"), [("gone\x1b[31m", "gone\\x1b[31m"), ("gone", "gone"), (" ", " "), ("", "")])
def test_weights_that_are_not_there_are_refused_with_the_options(name, shown, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as caught:
        predictImage.main(["a.png", "--output", "out", "--weights", name])
    error = capsys.readouterr().err
    words = f"argument --weights: {shown}: no such file or folder of weights; " if name.strip() else "is not a path"
    assert caught.value.code == 2 and words in error and error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("output", ["a.png/out", "sealed"])
def test_a_folder_that_cannot_be_written_to_is_told_before_the_films_are_predicted(
    weights, tmp_path, capsys, monkeypatch, output
):
    Image.fromarray(film_pixels()).save(tmp_path / "a.png")
    monkeypatch.setattr("os.access", lambda path, _: path.name != "sealed")  # root may write anywhere
    assert predict(weights, tmp_path / output, tmp_path / "a.png") != 0
    printed, error = capsys.readouterr()
    assert printed == ""
    assert error.startswith("error: ") and error.count("\n") == 1 and output in error


@pytest.mark.parametrize("output", ["films/out", "films", "."])
def test_results_in_a_folder_of_films_are_not_taken_for_films(weights, tmp_path, output):
    (tmp_path / "films").mkdir()
    Image.fromarray(film_pixels()).save(tmp_path / "films/a.png")
    for _ in range(2):
        assert predict(weights, tmp_path / output, tmp_path / "films", "--overlays", "all") == 0
        assert set(results(tmp_path / output)[0]["film"]) == {"a"}


def test_a_film_that_is_gone_before_it_is_drawn_keeps_its_prediction(weights, tmp_path, capsys, monkeypatch):
    film = tmp_path / "FOLDERBIRD" / "FILEBIRD.png"
    film.parent.mkdir()
    Image.fromarray(film_pixels()).save(film)
    monkeypatch.setattr(predictImage, "_draw_all", lambda *args: film.unlink() or draw_all(*args))
    assert predict(weights, tmp_path / "out", film, "--anonymous") == 2
    told = [line for line in capsys.readouterr().err.splitlines() if "error:" in line]
    assert told == ["error: film-1: not a readable film (without --anonymous the reason is given)"]
    assert len(results(tmp_path / "out")[0]) == len(CHEXPERT.names)


draw_all = predictImage._draw_all


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (torch.nan, "tensor 'head.weight' holds NaN or infinite values; the weights are damaged\n"),
        (3e38, "error: the network's logits are not finite numbers; its weights are damaged\n"),
    ],
)
def test_weights_that_give_no_numbers_are_told(value, told, weights, tmp_path, capsys):
    model = load_model(weights)
    model.head.weight.data[3] = value
    save_model(model, tmp_path / "weights")
    Image.fromarray(film_pixels()).save(tmp_path / "a.png")
    assert predict(tmp_path / "weights", tmp_path / "out", tmp_path / "a.png") == 2
    assert told in capsys.readouterr().err


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


# ------------------------------------------------------------------------------------------------------ many films


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


def test_films_are_named_by_their_path_below_the_folder(weights, tmp_path):
    for patient in ("p1", "p2"):
        (tmp_path / "films" / patient).mkdir(parents=True)
        Image.fromarray(film_pixels(seed=ord(patient[1]))).save(tmp_path / "films" / patient / "a.png")
    assert predict(weights, tmp_path / "out", tmp_path / "films", "--overlays", "all") == 0
    assert list(results(tmp_path / "out")[0]["film"].unique()) == ["p1_a", "p2_a"]
    assert {path.name for path in (tmp_path / "out/overlays").iterdir()} == {
        f"{patient}_a_{label}.png" for patient in ("p1", "p2") for label in CHEXPERT.names
    }


@pytest.mark.parametrize(
    "name", [b"\xff\xfe.png", b"x" * 250 + b".png", "\u00fc".encode() * 120 + b".png", b"a\nb.png"]
)
def test_odd_file_names_lose_nothing(weights, tmp_path, name, capfdbinary):
    file = tmp_path / os.fsdecode(name)
    Image.fromarray(film_pixels()).save(tmp_path / "a.png")
    (tmp_path / "a.png").rename(file)
    assert predict(weights, tmp_path / "out", tmp_path, "--overlays", "all") == 0
    printed = capfdbinary.readouterr().out.decode()
    table, told = results(tmp_path / "out")
    film = told["films"][0]["film"]
    assert film.isprintable() and printed.splitlines()[0] == film and len(table) == len(CHEXPERT.names)
    drawn = {label["overlay"]["file"] for label in told["films"][0]["labels"]}
    assert drawn == {f"overlays/{path.name}" for path in (tmp_path / "out/overlays").iterdir()}
    assert len(drawn) == len(CHEXPERT.names)


def test_pictures_of_two_films_never_share_a_file(tmp_path):
    """Film `a` with label `b_c`, and film `a_b` with label `c`: each has its own picture."""
    torch.manual_seed(0)
    labels = ("c", "b_c")
    network = build_model("timm/test_efficientnet", patch_size=16, image_size=64, labels=labels)
    save_model(network, tmp_path / "weights")
    for seed, name in enumerate(("a", "a_b")):
        Image.fromarray(film_pixels(seed=seed)).save(tmp_path / f"{name}.png")
    files = (tmp_path / "a.png", tmp_path / "a_b.png")
    assert predict(tmp_path / "weights", tmp_path / "out", *files, "--overlays", "all") == 0
    films = results(tmp_path / "out")[1]["films"]
    drawn = [label["overlay"]["file"] for film in films for label in film["labels"]]
    assert len(set(drawn)) == 4 == len(list((tmp_path / "out/overlays").iterdir()))


def test_a_film_too_elongated_for_a_map_is_predicted_and_said_to_have_no_overlay(weights, tmp_path, capsys):
    Image.fromarray(film_pixels(16, 10_000)).save(tmp_path / "long.png")
    Image.fromarray(film_pixels()).save(tmp_path / "ordinary.png")
    assert predict(weights, tmp_path / "out", tmp_path, "--overlays", "all") == 2
    table, _ = results(tmp_path / "out")
    assert list(table["film"].unique()) == ["long", "ordinary"]
    assert "error: long: no heat map of a film of 10000 x 16 px" in capsys.readouterr().err
    assert {path.name.partition("_")[0] for path in (tmp_path / "out/overlays").iterdir()} == {"ordinary"}


# --------------------------------------------------------------------------------------------------- used folders


def test_an_earlier_run_is_replaced_as_a_whole(weights, tmp_path):
    for name, seed in (("a", 0), ("b", 1)):
        Image.fromarray(film_pixels(seed=seed)).save(tmp_path / f"{name}.png")
    out = tmp_path / "out"
    assert predict(weights, out, tmp_path / "a.png", tmp_path / "b.png", "--overlays", "all") == 0
    assert len(list((out / "overlays").iterdir())) == 2 * len(CHEXPERT.names)
    assert predict(weights, out, tmp_path / "b.png", "--anonymous", "--overlays", "positive") == 0
    table, told = results(out)
    expected = {f"film-1_{label}.png" for label in table["label"][table["positive"]]}
    assert {path.name for path in (out / "overlays").iterdir()} == expected
    assert predict(weights, out, tmp_path / "a.png", "--overlays", "none") == 0
    assert not (out / "overlays").exists()
    assert set(pd.read_csv(out / "predictions_wide.csv")["film"]) == {"a"}


def test_a_run_that_was_killed_between_two_pictures_is_replaced_too(weights, tmp_path, monkeypatch):
    Image.fromarray(film_pixels()).save(tmp_path / "a.png")
    Image.fromarray(film_pixels(seed=1)).save(tmp_path / "b.png")
    save = film_explanation.save_picture

    def save_or_die(path, picture):
        if path.name.startswith("b_"):
            raise KeyboardInterrupt
        save(path, picture)

    monkeypatch.setattr(film_explanation, "save_picture", save_or_die)
    out, films = tmp_path / "out", (tmp_path / "a.png", tmp_path / "b.png")
    assert predict(weights, out, *films, "--overlays", "all") == 130
    assert len(list((out / "overlays").iterdir())) == len(CHEXPERT.names)
    monkeypatch.undo()
    assert predict(weights, out, tmp_path / "b.png", "--overlays", "all") == 0
    assert {path.name for path in (out / "overlays").iterdir()} == {f"b_{label}.png" for label in CHEXPERT.names}


def test_results_of_the_older_version_are_replaced(weights, tmp_path):
    """It listed no `pictures`; the labels' overlays name them."""
    Image.fromarray(film_pixels()).save(tmp_path / "a.png")
    out = tmp_path / "out"
    predict(weights, out, tmp_path / "a.png", "--overlays", "all")
    content = json.loads((out / "predictions.json").read_text())
    del content["pictures"]
    (out / "predictions.json").write_text(json.dumps(content))
    (out / "predictions_wide.csv").unlink()
    assert predict(weights, out, tmp_path / "a.png", "--overlays", "none") == 0
    assert not (out / "overlays").exists()


@pytest.mark.parametrize(
    ("foreign", "content"),
    [
        ("overlays/holiday.png", "mine"),
        ("overlays/a_Edema.png/x", "a folder with a picture's name"),
        ("predictions.csv", "mine"),
        ("predictions.json", "{"),
        ("predictions.json", "[]"),
        ("predictions.json", '{"films": [{"labels": [{"overlay": 3}]}]}'),
    ],
)
def test_files_that_are_not_from_an_earlier_run_are_kept_and_the_run_refused(
    weights, tmp_path, capsys, foreign, content
):
    Image.fromarray(film_pixels()).save(tmp_path / "a.png")
    target = tmp_path / "out" / foreign
    target.parent.mkdir(parents=True)
    target.write_text(content)
    assert predict(weights, tmp_path / "out", tmp_path / "a.png", "--overlays", "all") == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith(f"error: {tmp_path / 'out'}")
    assert target.read_text() == content
    assert [path for path in (tmp_path / "out").rglob("*") if path.is_file() and path.name != ".lock"] == [target]


def test_a_refused_run_leaves_the_earlier_one_as_it_was(weights, tmp_path):
    Image.fromarray(film_pixels()).save(tmp_path / "a.png")
    out = tmp_path / "out"
    predict(weights, out, tmp_path / "a.png", "--overlays", "all")
    (out / "overlays/mine.png").write_text("mine")
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    assert predict(weights, out, tmp_path / "a.png", "--overlays", "none") == 2
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


# ------------------------------------------------------------------------------------------------------- the rest


@pytest.mark.parametrize(
    "options", [["--batch-size", "0"], ["--batch-size", "-1"], ["--weights", ""], ["--device", "x"]]
)
def test_options_out_of_range_are_one_line(weights, tmp_path, capsys, options):
    Image.fromarray(film_pixels()).save(tmp_path / "a.png")
    with pytest.raises(SystemExit) as ended:
        predict(weights, tmp_path / "out", tmp_path / "a.png", *options)
    assert ended.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_help_answers_without_what_is_heavy():
    program = "import sys, predictImage\ntry: predictImage.main(['--help'])\nexcept SystemExit: pass\n"
    program += "print(sorted({'torch', 'torchvision', 'timm', 'matplotlib', 'tqdm'} & set(sys.modules)))"
    printed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert printed.stdout.splitlines()[-1] == "[]" and "--steps-per-patch" in printed.stdout


def test_a_reading_process_that_hangs_is_one_line(weights, tmp_path, capsys, monkeypatch):
    for number in range(2):
        Image.fromarray(film_pixels(seed=number)).save(tmp_path / f"{number}.png")
    monkeypatch.setattr(predictImage, "WORKER_TIMEOUT", 1.0)
    monkeypatch.setattr(FilmFolder, "__getitem__", lambda films, index: time.sleep(60))
    assert predict(weights, tmp_path / "out", tmp_path, "--batch-size", "1", "--workers", "1") == 1
    assert "error: a worker process hangs while reading films" in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "out/predictions.csv").exists()


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


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.\nand much more"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: you tried"),
    ],
    ids=["python", "cuda", "cpu"],
)
@pytest.mark.parametrize("when", ["load", "predict", "draw"])
def test_a_lack_of_memory_is_one_line_that_names_the_option(weights, tmp_path, capsys, monkeypatch, error, when):
    Image.fromarray(film_pixels()).save(tmp_path / "a.png")

    def fail(*args, **options):
        raise error

    place = {
        "load": (medicalpatchnet, "load"),
        "predict": (Contributions, "of"),
        "draw": (medicalpatchnet, "explain_grey"),
    }
    monkeypatch.setattr(*place[when], fail)
    assert predict(weights, tmp_path / "out", tmp_path / "a.png") == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("error: out of memory; lower --batch-size")


def test_a_terminal_of_another_encoding_loses_nothing(weights, tmp_path):
    Image.fromarray(film_pixels()).save(tmp_path / "肺.png")
    arguments = [tmp_path / "肺.png", "--weights", weights, "--output", tmp_path / "out", "--overlays", "none"]
    command = [sys.executable, str(ROOT / "predictImage.py"), *map(str, arguments), "--device", "cpu"]
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    printed = subprocess.run(command, capture_output=True, check=True, env=environment).stdout
    assert printed.splitlines()[0] == b"\\u80ba"
    assert set(results(tmp_path / "out")[0]["film"]) == {"肺"}


def test_two_runs_in_one_folder_are_one_run_and_one_refusal(weights, tmp_path, capsys):
    """The lock is held by another process while this one tries."""
    Image.fromarray(film_pixels()).save(tmp_path / "a.png")
    program = "import sys, time\nfrom cxr.runs.folder_lock import locked\n"
    program += "with locked(sys.argv[1]): print('held', flush=True); time.sleep(60)"
    command = [sys.executable, "-c", program, str(tmp_path / "out")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as other:
        try:
            assert other.stdout.readline() == b"held\n"
            assert predict(weights, tmp_path / "out", tmp_path / "a.png") == 2
        finally:
            other.kill()
    error = capsys.readouterr().err
    assert error.startswith(f"error: {tmp_path / 'out'}") and str(other.pid) in error and error.count("\n") == 1
    assert not (tmp_path / "out/predictions.csv").exists()
