"""predictImage.py: warnings, unreadable films, damaged weights, wrong options, a lack of memory."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_image

import cli
import medicalpatchnet
import predictImage
from cxr.film_folder import FilmFolder
from cxr.labels import CHEXPERT
from models.checkpoint import load_model, save_model
from saliency.contributions import Contributions
from tests.films import film_pixels
from tests.predicting import predict, results, save_patch_network

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    return save_patch_network(tmp_path_factory.mktemp("weights") / "patches")


def test_a_reading_process_that_dies_is_one_line(weights, tmp_path, capsys, monkeypatch):
    for number in range(2):
        Image.fromarray(film_pixels(seed=number)).save(tmp_path / f"{number}.png")
    monkeypatch.setattr(FilmFolder, "__getitem__", lambda films, index: os._exit(1))
    assert predict(weights, tmp_path / "out", tmp_path, "--batch-size", "1", "--workers", "1") == 1
    assert "error: a worker process died while reading films" in capsys.readouterr().err.splitlines()[-1]


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


@pytest.mark.parametrize(
    "options", [["--batch-size", "0"], ["--batch-size", "-1"], ["--weights", ""], ["--device", "x"]]
)
def test_options_out_of_range_are_one_line(weights, tmp_path, capsys, options):
    Image.fromarray(film_pixels()).save(tmp_path / "a.png")
    with pytest.raises(SystemExit) as ended:
        predict(weights, tmp_path / "out", tmp_path / "a.png", *options)
    assert ended.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_reading_process_that_hangs_is_one_line(weights, tmp_path, capsys, monkeypatch):
    for number in range(2):
        Image.fromarray(film_pixels(seed=number)).save(tmp_path / f"{number}.png")
    monkeypatch.setattr(predictImage, "WORKER_TIMEOUT", 1.0)
    monkeypatch.setattr(FilmFolder, "__getitem__", lambda films, index: time.sleep(60))
    assert predict(weights, tmp_path / "out", tmp_path, "--batch-size", "1", "--workers", "1") == 1
    assert "error: a worker process hangs while reading films" in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "out/predictions.csv").exists()


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
