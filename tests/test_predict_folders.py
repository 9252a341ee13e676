"""predictImage.py: names of films and pictures, and folders that hold films or earlier results."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from PIL import Image

import film_explanation
from cxr.labels import CHEXPERT
from models.checkpoint import build_model, save_model
from tests.films import film_pixels
from tests.predicting import predict, results, save_patch_network

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    return save_patch_network(tmp_path_factory.mktemp("weights") / "patches")


@pytest.mark.parametrize("output", ["films/out", "films", "."])
def test_results_in_a_folder_of_films_are_not_taken_for_films(weights, tmp_path, output):
    (tmp_path / "films").mkdir()
    Image.fromarray(film_pixels()).save(tmp_path / "films/a.png")
    for _ in range(2):
        assert predict(weights, tmp_path / output, tmp_path / "films", "--overlays", "all") == 0
        assert set(results(tmp_path / output)[0]["film"]) == {"a"}


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
