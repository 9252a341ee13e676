"""A run that is killed, or asked to stop, at any moment ends with the very bits of one that never was.

RESUME_KILLS=10 kills every combination ten times instead of once: python -m pytest tests/test_resume.py
"""

import os
import shutil
import signal

import numpy as np
import pytest
import torch

import cli
import trainClassification
from cxr.files import write_json
from cxr.labels import CHEXPERT
from preprocessing import preProcCheXpert
from tests.films import alternating_labels, write_film, write_labels
from tests.training_runs import Death, arguments, assert_same_run, run, state
from training.checkpoints import sealed, unsealed

KILLS = int(os.environ.get("RESUME_KILLS", "1"))
STEPS = 18
OFTEN = ("--checkpoint-minutes", "0")
NOW_AND_THEN = ("--checkpoint-minutes", "0.0008")  # every 50 ms: steps are lost, and done again


@pytest.fixture(scope="module")
def packed_chexpert(tiny_chexpert, tmp_path_factory):
    packed = tmp_path_factory.mktemp("packed")
    made = ["--chexpert", str(tiny_chexpert), "--output", str(packed), "--packed", "--size", "64", "--workers", "1"]
    assert cli.guarded(preProcCheXpert.main, made) == 0
    return packed


@pytest.fixture(scope="module")
def uninterrupted(tiny_chexpert, packed_chexpert, tmp_path_factory):
    """The output folder of a run that nobody disturbs, by form of the films and number of processes; made once."""
    made = {}

    def folder(form="jpeg", world=1):
        if (form, world) not in made:
            output = tmp_path_factory.mktemp("uninterrupted") / "run"
            data = {"jpeg": tiny_chexpert, "packed": packed_chexpert}[form]
            job = run(arguments(data, output), output.with_suffix(".log"), world=world)
            assert job.wait() == [0] * world, job.said()
            made[form, world] = output
        return made[form, world]

    return folder


def finish(command, tmp_path, **options):
    job = run(command, tmp_path / "finish", **options)
    assert set(job.wait()) == {0}, job.said()
    return job


@pytest.mark.parametrize("world", [1, 2])
@pytest.mark.parametrize("form", ["jpeg", "packed"])
@pytest.mark.parametrize("workers", [0, 2])
def test_killed_at_random_steps(workers, form, world, tiny_chexpert, packed_chexpert, uninterrupted, tmp_path):
    data = {"jpeg": tiny_chexpert, "packed": packed_chexpert}[form]
    command = arguments(data, tmp_path / "run", "--workers", str(workers), *NOW_AND_THEN)
    rng = np.random.default_rng((workers, len(form), world))
    for step in sorted(rng.choice(np.arange(2, STEPS + 1), KILLS, replace=False).tolist()):
        death = Death(str(rng.choice(["step", "updated"])), step)
        job = run(command, tmp_path / "killed", world=world, death=death, dying_rank=int(rng.integers(world)))
        assert -signal.SIGKILL in job.wait(), job.said()
    finish(command, tmp_path, world=world)
    assert_same_run(tmp_path / "run", uninterrupted(form, world))


def test_a_dense_backbone_goes_on_with_the_same_bits(tiny_chexpert, tmp_path):
    dense = ("--backbone", "dense32", "--image-size", "64", "--patch-size", "32", "--epochs", "2", *OFTEN)
    whole, killed = (arguments(tiny_chexpert, tmp_path / name, *dense) for name in ("whole", "killed"))
    finish(whole, tmp_path)
    assert run(killed, tmp_path / "log", death=Death("step", 8)).wait() == [-signal.SIGKILL]
    assert "going on after step 7" in finish(killed, tmp_path).said()
    assert_same_run(tmp_path / "killed", tmp_path / "whole")


@pytest.mark.parametrize("when", ["half written", "before rename", "after rename"])
def test_killed_inside_the_writing_of_a_checkpoint(when, tiny_chexpert, uninterrupted, tmp_path):
    command = arguments(tiny_chexpert, tmp_path / "run", *OFTEN)
    job = run(command, tmp_path / "killed", death=Death(when, 9))
    assert job.wait() == [-signal.SIGKILL], job.said()
    # the ninth writing is that of step 8, as step 6 is written once more at the end of its epoch
    assert state(tmp_path / "run")["step"] == (8 if when == "after rename" else 7)
    older = sorted((tmp_path / "run").glob("training_state.0*"))
    assert [unsealed(path.read_bytes())["step"] for path in older] == [6, 7]
    halves = list((tmp_path / "run").glob(".training_state.pt.*.tmp"))
    assert len(halves) == (0 if when == "after rename" else 1)
    finish(command, tmp_path)
    assert not any(half.exists() for half in halves)
    assert_same_run(tmp_path / "run", uninterrupted())


@pytest.mark.parametrize("epoch", [1, 3])
def test_killed_at_the_end_of_an_epoch(epoch, tiny_chexpert, uninterrupted, tmp_path):
    """When its line, its tables and its weights are written and its checkpoint is not."""
    command = arguments(tiny_chexpert, tmp_path / "run")
    job = run(command, tmp_path / "killed", death=Death("weights kept", epoch))
    assert job.wait() == [-signal.SIGKILL], job.said()
    finish(command, tmp_path)
    assert_same_run(tmp_path / "run", uninterrupted())


@pytest.mark.parametrize(("first", "second"), [(2, 0), (0, 1)])
def test_another_number_of_workers_changes_nothing(first, second, tiny_chexpert, uninterrupted, tmp_path):
    command = arguments(tiny_chexpert, tmp_path / "run", *OFTEN)
    run([*command, "--workers", str(first)], tmp_path / "killed", death=Death("updated", 8))
    finish([*command, "--workers", str(second)], tmp_path)
    assert_same_run(tmp_path / "run", uninterrupted())


def test_dropout_and_stochastic_depth_go_on_too(tiny_chexpert, tmp_path):
    for name in ("whole", "killed"):
        command = arguments(tiny_chexpert, tmp_path / name, *OFTEN, "--backbone", "efficientnet_b0", "--epochs", "1")
        if name == "killed":
            job = run(command, tmp_path / "killed.log", death=Death("updated", 3))
            assert job.wait() == [-signal.SIGKILL], job.said()
        finish(command, tmp_path)
    assert_same_run(tmp_path / "whole", tmp_path / "killed")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGUSR1, 0)])
def test_a_signal_finishes_the_step_saves_and_exits(number, code, tiny_chexpert, uninterrupted, tmp_path):
    command = arguments(tiny_chexpert, tmp_path / "run", "--workers", "1")
    job = run(command, tmp_path / "stopped", death=Death("step", 8, number))
    assert job.wait() == [code], job.said()
    assert f"stopped by {number.name}; the same command goes on from here" in job.said()
    assert state(tmp_path / "run")["step"] == 8
    assert not (tmp_path / "run/training.json").exists()
    said = finish(command, tmp_path).said()
    assert "going on after step 8, in epoch 2" in said
    assert_same_run(tmp_path / "run", uninterrupted("jpeg", 1))


@pytest.mark.parametrize("more", [OFTEN, ()], ids=["a look after every step", "about one a second"])
def test_a_signal_of_one_process_stops_all_at_the_same_step(more, tiny_chexpert, uninterrupted, tmp_path):
    """Without a look at every step these steps of milliseconds go on to the end of the epoch, step 12, at most."""
    command = arguments(tiny_chexpert, tmp_path / "run", "--workers", "1", *more)
    death = Death("step", 8, signal.SIGTERM)
    job = run(command, tmp_path / "stopped", world=2, death=death, dying_rank=1)
    assert job.wait() == [143, 143], job.said()
    assert "stopped by SIGTERM; the same command goes on from here" in job.said()
    step = state(tmp_path / "run")["step"]
    assert step == 8 if more else 8 <= step <= 12
    assert not (tmp_path / "run/training.json").exists()
    assert f"going on after step {step}, in epoch {1 + step // 6}" in finish(command, tmp_path, world=2).said()
    assert_same_run(tmp_path / "run", uninterrupted("jpeg", 2))


def test_a_signal_in_the_last_validation_leaves_what_follows_to_the_next_start(tiny_chexpert, uninterrupted, tmp_path):
    command = arguments(tiny_chexpert, tmp_path / "run")
    job = run(command, tmp_path / "stopped", death=Death("weights kept", 3, signal.SIGUSR1))
    assert job.wait() == [0], job.said()
    assert "stopped by SIGUSR1; the same command goes on from here" in job.said()
    assert state(tmp_path / "run")["step"] == STEPS
    assert not (tmp_path / "run/training.json").exists()
    finish(command, tmp_path)
    assert (tmp_path / "run/training.json").is_file()
    assert_same_run(tmp_path / "run", uninterrupted())


@pytest.fixture(scope="module")
def stopped(tiny_chexpert, tmp_path_factory):
    """The output folder of a run that was stopped after step 8, with the state of step 7 kept beside."""
    output = tmp_path_factory.mktemp("stopped") / "run"
    command = arguments(tiny_chexpert, output, *OFTEN)
    job = run(command, output.with_suffix(".log"), death=Death("step", 8, signal.SIGTERM))
    assert job.wait() == [143], job.said()
    return output


def test_a_damaged_checkpoint_falls_back_to_the_one_before(stopped, tiny_chexpert, uninterrupted, tmp_path):
    output = shutil.copytree(stopped, tmp_path / "run")
    with open(output / "training_state.pt", "r+b") as file:
        file.seek(1000)
        file.write(b"damage")
    said = finish(arguments(tiny_chexpert, output), tmp_path).said()
    assert "training_state.pt: damaged" in said
    assert "going on after step 7, in epoch 2" in said
    assert_same_run(output, uninterrupted())


def test_never_starts_over(stopped, tiny_chexpert, uninterrupted, tmp_path):
    output = shutil.copytree(stopped, tmp_path / "run")
    assert "going on" not in finish(arguments(tiny_chexpert, output, "--resume", "never"), tmp_path).said()
    assert_same_run(output, uninterrupted())


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--seed", "6"], "seed was 5 and is 6"),
        (["--lr", "1e-4"], "lr was 0.001 and is 0.0001"),
        (["--backbone", "timm/test_resnet"], "backbone was 'timm/test_efficientnet' and is 'timm/test_resnet'"),
        (["--patch-size", "32"], "patch_size was 16 and is 32"),
        (["--accumulate", "2"], "--accumulate x processes was 1 and is 2"),
        (["--precision", "bf16"], "precision was 'fp32' and is 'bf16'"),
    ],
)
def test_a_changed_setting_is_refused_by_name(options, named, stopped, tiny_chexpert, capsys):
    before = state(stopped)["step"]
    assert cli.guarded(trainClassification.main, arguments(tiny_chexpert, stopped, *options)) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert f"({named})" in message
    assert state(stopped)["step"] == before


@pytest.mark.parametrize(
    ("csv", "named"), [("train.csv", "labels_sha256 was "), ("valid.csv", "validation_sha256 was ")]
)
def test_a_changed_label_file_is_refused_by_name(csv, named, stopped, tiny_chexpert, tmp_path, capsys):
    data = shutil.copytree(tiny_chexpert, tmp_path / "data")
    (data / csv).write_text((data / csv).read_text().replace("0.0", "1.0", 1))
    assert cli.guarded(trainClassification.main, arguments(data, stopped)) == 2
    assert f"({named}" in capsys.readouterr().err


def test_other_labels_and_other_pixels_are_refused_by_name(stopped, tiny_chexpert, packed_chexpert, tmp_path, capsys):
    assert cli.guarded(trainClassification.main, arguments(packed_chexpert, stopped)) == 2
    assert "(packed_films was None and is " in capsys.readouterr().err
    data = shutil.copytree(tiny_chexpert, tmp_path / "data")
    write_json(data / "dataset.json", {"labels": list(CHEXPERT.names[:13]), "blank": "negative"})
    assert cli.guarded(trainClassification.main, arguments(data, stopped)) == 2
    said = capsys.readouterr().err
    assert "dataset_sha256 was None and is " in said and "label_set is another one)" in said


def test_a_finished_run_is_left_alone(uninterrupted, tiny_chexpert, capsys):
    output = uninterrupted()
    before = {path: path.stat().st_mtime_ns for path in output.rglob("*")}
    assert cli.guarded(trainClassification.main, arguments(tiny_chexpert, output)) == 0
    assert "training is complete" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in output.rglob("*")} == before
    assert cli.guarded(trainClassification.main, arguments(tiny_chexpert, output, "--epochs", "4")) == 2
    assert "epochs was 3 and is 4" in capsys.readouterr().err


def at(state, place, value):
    """A copy of a state with another value at a place, such as `history/steps`; without it where the value is None."""
    name, _, rest = place.partition("/")
    key = int(name) if name.isdecimal() else name
    changed = type(state)(state)
    if rest:
        changed[key] = at(state[key], rest, value)
    elif value is None:
        del changed[key]
    else:
        changed[key] = value
    return changed


MISFITS = [
    *((name, None) for name in ("epoch", "weights", "optimizer", "scheduler", "scaler", "history", "unreadable")),
    *((name, [1]) for name in ("settings", "weights", "optimizer", "scheduler", "scaler", "history", "unreadable")),
    *(("epoch", value) for value in (0, -1, 9, 2.0, "2", True, 10**4000)),
    *(("steps_in_epoch", value) for value in (7, -1, 1.5, "1")),
    *(("step", value) for value in (3, 10**30, -8)),
    ("weights/head.weight", None),
    ("weights/another", torch.zeros(3)),
    ("weights/head.weight", torch.zeros(3)),
    ("weights/head.weight", torch.zeros(14, 256, dtype=torch.float64)),
    ("weights/head.weight", "text"),
    ("optimizer/state", [1]),
    ("optimizer/state/0/exp_avg", torch.zeros(1)),
    ("optimizer/state/0/step", 3),
    ("optimizer/state/0/exp_avg", None),
    ("optimizer/state/99999", {}),
    ("optimizer/param_groups", []),
    ("optimizer/param_groups", [{"lr": "x"}]),
    ("scheduler/last_epoch", 3),
    ("scheduler/last_epoch", 8.0),
    ("scheduler/total_steps", "18"),
    ("scheduler/_last_lr", 1e-3),
    ("history/steps", torch.zeros(2, 5, dtype=torch.float64)),
    ("history/steps", torch.zeros(8, 4, dtype=torch.float64)),
    ("history/epochs", [[1.0]]),
    ("unreadable", {"0": "text"}),
    ("unreadable", {0: 1}),
    ("unknown", 1),
]


@pytest.mark.parametrize(("place", "value"), MISFITS, ids=lambda value: str(value)[:30].replace("/", "."))
def test_a_sealed_state_of_another_kind_is_one_line(place, value, stopped, tiny_chexpert, tmp_path, capsys):
    output = tmp_path / "run"
    output.mkdir()
    (output / "training_state.pt").write_bytes(sealed(at(state(stopped), place, value)))
    assert cli.guarded(trainClassification.main, arguments(tiny_chexpert, output)) == 2
    (said,) = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("warning")]
    assert said.startswith(f"error: {output}") and said.endswith("--resume never")
    assert len(said) < 400


def test_a_state_of_the_layout_before_the_label_sets_goes_on(stopped, tiny_chexpert, uninterrupted, tmp_path):
    """It had no fingerprint of dataset.json, which its data did not have."""
    output = shutil.copytree(stopped, tmp_path / "run")
    (output / "training_state.pt").write_bytes(sealed(at(state(stopped), "settings/dataset_sha256", None)))
    assert "going on after step 8, in epoch 2" in finish(arguments(tiny_chexpert, output), tmp_path).said()
    for name in ("model.safetensors", "history_steps.csv", "history_epochs.csv"):
        assert (output / name).read_bytes() == (uninterrupted() / name).read_bytes()


@pytest.mark.parametrize("films", [2, 40])
def test_any_number_of_steps_trains_to_its_end(films, tmp_path):
    """One step, and the 20 for which torch's schedule divides by zero."""
    write_film(tmp_path / "data/film.jpg", 48, 48)
    paths = [f"train/patient{i:05d}/study1/view1_frontal.jpg" for i in range(films)]
    for path in paths:
        (tmp_path / "data" / path).parent.mkdir(parents=True)
        os.link(tmp_path / "data/film.jpg", tmp_path / "data" / path)
    validation = [f"valid/patient6454{i}/study1/view1_frontal.jpg" for i in (1, 2)]
    for seed, path in enumerate(validation, start=1):
        write_film(tmp_path / "data" / path, 48, 48, seed)
    write_labels(tmp_path / "data/train.csv", paths, alternating_labels(films))
    write_labels(tmp_path / "data/valid.csv", validation, alternating_labels(2))
    command = arguments(tmp_path / "data", tmp_path / "run", "--epochs", "1")
    assert cli.guarded(trainClassification.main, command) == 0
    rates = np.loadtxt(tmp_path / "run/history_steps.csv", delimiter=",", skiprows=1, ndmin=2)[:, 3]
    assert len(rates) == films // 2
    assert films == 2 or rates[0] == max(rates) == 1e-3


def test_the_comparison_sees_a_single_bit(uninterrupted, tmp_path):
    """assert_same_run, on which this file rests, must be able to fail."""
    other = shutil.copytree(uninterrupted(), tmp_path / "other")
    content = state(other)
    weight = next(iter(content["optimizer"]["state"].values()))["exp_avg"]
    weight.view(torch.int32).view(-1)[0] ^= 1
    (other / "training_state.pt").write_bytes(sealed(content))
    with pytest.raises(AssertionError):
        assert_same_run(other, uninterrupted())
