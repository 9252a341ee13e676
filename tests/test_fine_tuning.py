"""trainClassification.py on manifests: initial weights, splits not apart or empty, labels that cannot be learnt."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import cli
import trainClassification
from cxr.files import sha256, write_json
from models.checkpoint import load_model
from preprocessing import preProcFilms
from tests.films import write_film
from tests.training_runs import Death, arguments, run

COUNT = 20
COLUMNS = ("Path", "Patient", "Split", "Mass", "ICU")


def rows(**changes: dict[str, str]) -> list[dict[str, str]]:
    """12 films of training, 4 of validation and 4 of test; two films per patient. changes: `film3={"Mass": ""}`."""
    split = ["train"] * 12 + ["val"] * 4 + ["test"] * 4
    films = [
        dict(zip(COLUMNS, (f"w/{i}.png", f"p{i // 2}", split[i], str(i % 2), str(i // 2 % 2)), strict=True))
        for i in range(COUNT)
    ]
    for name, change in changes.items():
        films[int(name.removeprefix("film"))] |= change
    return films


def write_table(folder: Path, films: list[dict[str, str]]) -> Path:
    with open(folder / "films.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(films)
    return folder


@pytest.fixture
def data(tmp_path) -> Path:
    for i in range(COUNT):
        write_film(tmp_path / f"data/w/{i}.png", 40, 40, seed=i)
    write_json(tmp_path / "data/dataset.json", {"labels": ["Mass", "ICU"], "groups": {"all": ["Mass", "ICU"]}})
    return write_table(tmp_path / "data", rows())


def train(data: Path, output: Path, *more: str) -> int:
    return cli.guarded(trainClassification.main, arguments(data, output, *more))


@pytest.fixture
def trained(data, tmp_path) -> Path:
    assert train(data, tmp_path / "trained", "--epochs", "1") == 0
    return tmp_path / "trained"


# ------------------------------------------------------------------------------------------------------ initial weights


def test_training_starts_from_the_weights_of_another_label_set(data, trained, tmp_path, capsys):
    """At a learning rate of 1e-30 the weights stay what they were at the start; statistics of BatchNorm move."""
    write_json(data / "dataset.json", {"labels": ["ICU", "Edema"]})
    films = [film | {"Mass": "1"} for film in rows()]
    table = (write_table(data, films) / "films.csv").read_text()
    (data / "films.csv").write_text(table.replace("Mass", "Edema", 1))
    assert train(data, tmp_path / "tuned", "--epochs", "1", "--init", str(trained), "--lr", "1e-30") == 0
    said = capsys.readouterr().out
    assert f"--init {trained}: labels that keep their row of the head: 'ICU'" in said
    assert f"--init {trained}: labels whose row of the head is new: 'Edema'" in said
    old, new = load_model(trained), load_model(tmp_path / "tuned")
    assert (old.labels, new.labels) == (("Mass", "ICU"), ("ICU", "Edema"))
    torch.testing.assert_close(new.head.weight[0], old.head.weight[1], rtol=0, atol=1e-9)
    pairs = zip(new.features.named_parameters(), old.features.parameters(), strict=True)
    assert all(torch.allclose(one, other, rtol=0, atol=1e-9) for (_, one), other in pairs)
    settings = json.loads((tmp_path / "tuned/training.json").read_text())["settings"]
    assert (settings["init"], settings["init_sha256"]) == ("trained", sha256(trained / "model.safetensors"))
    facts = new.details["training_data"]
    assert (facts["init"], facts["init_sha256"]) == ("trained", settings["init_sha256"])
    assert str(tmp_path) not in (tmp_path / "tuned/config.json").read_text()  # a card tells nobody's folders


def test_a_run_is_resumed_with_the_same_initial_weights_only(data, trained, tmp_path, capsys):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert run(arguments(data, whole, "--init", str(trained)), tmp_path / "whole.log").processes[0].exitcode == 0
    options = arguments(data, killed, "--init", str(trained), "--checkpoint-minutes", "0")
    assert run(options, tmp_path / "log", death=Death("step", 9)).processes[0].exitcode == -9
    copy = shutil.copytree(trained, tmp_path / "elsewhere" / "trained")
    state = load_file(copy / "model.safetensors")
    save_file(state | {"head.bias": state["head.bias"] + 1}, copy / "model.safetensors")
    assert train(data, killed, "--init", str(copy), "--checkpoint-minutes", "0") == 2
    assert "init_sha256 was" in capsys.readouterr().err
    save_file(state, copy / "model.safetensors", metadata={"format": "pt"})
    options[options.index(str(trained))] = str(copy)  # another place, the same weights
    again = run(options, tmp_path / "again.log")
    assert again.processes[0].exitcode == 0
    said = again.said()
    assert "going on after step 8" in said and "--init" not in said
    assert (killed / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()


@pytest.mark.parametrize("wrong", ["absent", "text", "other network", "hub"])
def test_wrong_initial_weights_are_one_line(wrong, data, trained, tmp_path, capsys):
    (tmp_path / "text").write_text("no weights")
    config = json.loads((trained / "config.json").read_text()) | {"backbone": "efficientnet_b0"}
    shutil.copytree(trained, tmp_path / "other network")
    write_json(tmp_path / "other network/config.json", config)
    init, said = {
        "absent": (str(tmp_path / "absent"), "no such file or folder of weights"),
        "text": (str(tmp_path / "text"), "damaged"),
        "other network": (str(tmp_path / "other network"), "weights of 'efficientnet_b0', not of 'timm/test_effi"),
        "hub": ("hf://one", "expected hf://owner/repo"),
    }[wrong]
    capsys.readouterr()
    if wrong == "absent":
        with pytest.raises(SystemExit) as caught:
            train(data, tmp_path / "run", "--init", init)
        assert caught.value.code == 2
    else:
        assert train(data, tmp_path / "run", "--init", init) == 2
    told = capsys.readouterr().err
    assert said in told and told.count("\n") == 1
    assert not list((tmp_path / "run").glob("*.safetensors"))


# --------------------------------------------------------------------------------------------------- splits and labels


@pytest.mark.parametrize(("split", "line"), [("val", 15), ("test", 20)])
@pytest.mark.parametrize("packed", [False, True])
def test_a_film_in_two_splits_is_refused_before_training(split, line, packed, data, tmp_path, capsys):
    shutil.copy(data / "w/3.png", data / f"w/{line - 2}.png")
    source = data
    if packed:
        words = ["--manifest", str(data), "--output", str(tmp_path / "packed"), "--size", "32", "--packed"]
        assert cli.guarded(preProcFilms.main, [*words, "--workers", "1"]) == 0
        source = tmp_path / "packed"
    capsys.readouterr()
    assert train(source, tmp_path / "run") == 2
    table = source / "films.csv"
    expected = f"error: {table}, line {line}: the same film as {table}, line 5; keep splits apart\n"
    assert capsys.readouterr().err == expected
    assert not list((tmp_path / "run").glob("*.pt"))


def test_a_patient_in_two_splits_is_refused_with_both_lines(data, tmp_path, capsys):
    write_table(data, rows(film13={"Patient": "p1"}))
    assert train(data, tmp_path / "run") == 2
    told = capsys.readouterr().err
    assert "line 15, Split: patient 'p1' is in val, and in train on line 4" in told and told.count("\n") == 1


def test_a_patient_in_two_of_chexperts_tables_is_refused(tiny_chexpert, tmp_path, capsys):
    data = shutil.copytree(tiny_chexpert, tmp_path / "data")
    moved = "test/patient00003/study1/view1_frontal.jpg"
    (data / moved).parent.mkdir(parents=True)
    (data / "test/patient64743/study1/view1_frontal.jpg").rename(data / moved)
    table = data / "test_labels.csv"
    table.write_text(table.read_text().replace("patient64743", "patient00003"))
    assert train(data, tmp_path / "run") == 2
    told = capsys.readouterr().err
    assert f"{table}, line 4: patient 'patient00003' is also in {data / 'train.csv'}, line 4" in told
    assert told.count("\n") == 1


def test_an_empty_split_is_one_line(data, tmp_path, capsys):
    write_table(data, [film | {"Split": film["Split"].replace("val", "train")} for film in rows()])
    assert train(data, tmp_path / "run") == 2
    told = capsys.readouterr().err
    assert "films.csv: no film of split 'val'; put films into it" in told and told.count("\n") == 1


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("1", "no negative film of 'Mass' in training"),
        ("0", "no positive film of 'Mass' in training"),
        ("", "no positive film of 'Mass'; no negative film of 'Mass' in training"),
    ],
)
def test_a_label_that_cannot_be_learnt_is_said_in_one_line(value, said, data, tmp_path, capsys):
    write_table(data, [film | {"Mass": value} if film["Split"] == "train" else film for film in rows()])
    assert train(data, tmp_path / "run", "--epochs", "1") == 0
    out = capsys.readouterr().out.splitlines()
    assert [line for line in out if "warning" in line] == [
        f"warning: {data / 'films.csv'}: {said}, which cannot be learnt"
    ]


def test_films_without_any_label_are_one_line(data, tmp_path, capsys):
    write_table(data, [film | {"Mass": "", "ICU": ""} for film in rows()])
    assert train(data, tmp_path / "run") == 2
    assert "no film of training has a label; every label is blank" in capsys.readouterr().err


def test_a_blank_label_has_no_loss(data, tmp_path):
    """The head's row of a label that nobody labelled stays as it was, whatever its films look like."""
    write_table(data, [film | {"Mass": ""} for film in rows()])
    assert train(data, tmp_path / "short", "--epochs", "1") == 0
    assert train(data, tmp_path / "long", "--epochs", "3", "--lr", "1e-2") == 0
    short, long = (load_model(tmp_path / name).head.bias.detach().numpy() for name in ("short", "long"))
    decay = np.abs(short[0] - long[0]) / np.abs(short[0])  # AdamW's weight decay alone: 0.01 * lr per step
    assert decay < 0.01 and np.abs(short[1] - long[1]) > 1e-4


def test_groups_and_tasks_of_the_data_set_reach_the_weights(trained):
    assert load_model(trained).label_set.groups == {"all": ("Mass", "ICU")}
