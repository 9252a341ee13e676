"""trainClassification.py --aggregation: what it learns, resumes, shares over processes, converts and refuses."""

from __future__ import annotations

import json
import re
import signal

import pytest
import torch

import convertWeights
import trainClassification
from models.aggregation import AGGREGATIONS
from models.checkpoint import load_model
from models.patch_net import MedicalPatchNet
from tests.training_runs import Death, arguments, assert_same_run, run
from training.checkpoints import refuse_other_settings


@pytest.fixture(scope="module")
def trained(tiny_chexpert, tmp_path_factory):
    """The output folder of a run of one aggregation in some processes; made once."""
    made = {}

    def folder(name, world):
        if (name, world) not in made:
            output = tmp_path_factory.mktemp("trained") / name
            command = arguments(tiny_chexpert, output, "--aggregation", name)
            job = run(command, output.with_suffix(".log"), world=world)
            assert job.wait() == [0] * world, job.said()
            made[name, world] = output
        return made[name, world]

    return folder


@pytest.mark.parametrize(("name", "world"), [("position", 2), ("gate", 1), ("noisy_or", 1)])
def test_the_name_and_what_was_learnt_travel_with_the_weights(name, world, trained):
    folder = trained(name, world)
    assert json.loads((folder / "config.json").read_text())["aggregation"] == name
    assert json.loads((folder / "training.json").read_text())["settings"]["aggregation"] == name
    for again in (load_model(folder), MedicalPatchNet.from_pretrained(folder)):
        assert again.aggregation.name == name
        assert all(parameter.abs().max() > 0 for parameter in again.aggregation.parameters()), "started from 0"
    assert len(list(load_model(folder).aggregation.parameters())) == (0 if name == "noisy_or" else 2)


@pytest.mark.parametrize(("name", "world"), [("position", 2), ("gate", 1)])
def test_a_killed_run_ends_with_the_same_bits(name, world, trained, tiny_chexpert, tmp_path):
    command = arguments(tiny_chexpert, tmp_path / "run", "--aggregation", name, "--checkpoint-minutes", "0")
    job = run(command, tmp_path / "killed", world=world, death=Death("step", 11))
    assert -signal.SIGKILL in job.wait(), job.said()
    assert set(run(command, tmp_path / "finish", world=world).wait()) == {0}
    assert_same_run(tmp_path / "run", trained(name, world))
    other = arguments(tiny_chexpert, tmp_path / "run", "--aggregation", "attention")
    assert run(other, tmp_path / "other").wait() == [2]
    assert f"aggregation was '{name}' and is 'attention'" in (tmp_path / "other.0").read_text()


def test_two_processes_learn_the_weights_that_one_does(trained, tiny_chexpert, tmp_path):
    command = arguments(tiny_chexpert, tmp_path / "one", "--aggregation", "position", "--accumulate", "2")
    assert run(command, tmp_path / "one.log").wait() == [0]
    one, two = (load_model(folder).aggregation for folder in (tmp_path / "one", trained("position", 2)))
    torch.testing.assert_close(one.deviation, two.deviation, rtol=1e-3, atol=1e-5)
    assert one.deviation.abs().max() > 1e-4


def test_a_folder_converts_into_another(trained, tmp_path):
    source = trained("position", 2)
    convertWeights.main(["convert", str(source), str(tmp_path / "copy")])
    assert (tmp_path / "copy/model.safetensors").read_bytes() == (source / "model.safetensors").read_bytes()
    assert load_model(tmp_path / "copy").aggregation.name == "position"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--aggregation", "median"], f"unknown aggregation 'median'; known are {', '.join(AGGREGATIONS)}"),
        (["--aggregation", ""], "unknown aggregation ''; known are mean, position"),
        (["--aggregation", "gate", "--patch-size", "32"], "--aggregation gate: a baseline of one patch"),
    ],
)
def test_wrong_names_and_baselines_are_refused_before_anything_is_read(words, said, tmp_path, capsys):
    with pytest.raises(SystemExit) as caught:
        trainClassification.main(arguments(tmp_path, tmp_path / "run", *words))
    line = capsys.readouterr().err
    assert caught.value.code == 2 and said in line and line.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_the_help_names_every_aggregation(capsys):
    with pytest.raises(SystemExit):
        trainClassification.main(["--help"])
    shown = re.sub(r"\s+", " ", capsys.readouterr().out)
    own = [name for name, made in AGGREGATIONS.items() if made.__module__ == "models.aggregation"]
    assert f"{', '.join(own)}, or another class of models/aggregation.py" in shown


def test_runs_from_before_aggregations_had_names_go_on_as_means(tmp_path):
    older = {"lr": 1.0}
    refuse_other_settings(tmp_path, older, {"lr": 1.0, "aggregation": "mean"})
    with pytest.raises(ValueError, match="aggregation was 'mean' and is 'gate'"):
        refuse_other_settings(tmp_path, older, {"lr": 1.0, "aggregation": "gate"})
